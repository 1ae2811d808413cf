package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// localNames are the names and addresses of this host as they are now. What cannot be found out is left
// out: a certificate with fewer names is better than none.
func localNames(extra []string) []string {
	hostname, _ := os.Hostname()
	addrs, _ := net.InterfaceAddrs()
	return hostNames(hostname, addrs, extra)
}

// containerID is the host name that Docker and Podman give a container: another one after each update, and nobody connects to it.
var containerID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// maxNames bounds what renewals gather. The certificate has to fit into small buffers.
const maxNames = 40

// namesForRenewal are the names that are wanted now and those that the certificate before had: a server in a container, or on a
// network that is down, does not see the names by which its devices know it. An address is given up when this host has another
// one in the same network (/24, or /64 of IPv6): then it has moved.
func namesForRenewal(wanted []string, before *x509.Certificate) []string {
	names := slices.Clone(wanted)
	if before == nil {
		return names
	}
	for _, name := range namesOf(before) {
		if len(names) >= maxNames || slices.Contains(names, name) {
			continue
		}
		if ip, err := netip.ParseAddr(name); err == nil && slices.ContainsFunc(wanted, func(w string) bool { return sameNetwork(ip, w) }) {
			continue
		}
		names = append(names, name)
	}
	return names
}

func sameNetwork(ip netip.Addr, name string) bool {
	other, err := netip.ParseAddr(name)
	if err != nil || other.Is4() != ip.Is4() {
		return false
	}
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	network, err := ip.Prefix(bits)
	return err == nil && network.Contains(other)
}

// hostNames lists what the server certificate covers, each once: localhost, the host name, its .local form
// (mDNS), the extra names, the loopback addresses and every address of an interface.
func hostNames(hostname string, addrs []net.Addr, extra []string) []string {
	var names []string
	add := func(name string) {
		if ip, err := netip.ParseAddr(name); err == nil {
			name = ip.Unmap().String()
		} else {
			name = strings.ToLower(name)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add("localhost")
	if validName(hostname) && !containerID.MatchString(hostname) {
		add(hostname)
		if label, _, _ := strings.Cut(hostname, "."); net.ParseIP(hostname) == nil {
			add(label + ".local")
		}
	}
	for _, name := range extra {
		add(name)
	}
	add("127.0.0.1")
	add("::1")
	for _, addr := range addrs {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil {
			add(prefix.Addr().WithZone("").String())
		}
	}
	return names
}

// validName accepts host names, with a leading wildcard label, and addresses.
func validName(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Zone() == ""
	}
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	for i, label := range strings.Split(name, ".") {
		if i == 0 && label == "*" && name != "*" {
			continue
		}
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// needsRenewal says why a server certificate must be replaced, or "" when it need not be. Names that it
// covers and that are no longer wanted are no reason: an interface that is down for a minute would cost
// two renewals.
func needsRenewal(cert *x509.Certificate, wanted []string, now time.Time) string {
	switch {
	case cert == nil:
		return "there is none"
	case now.Before(cert.NotBefore):
		return "it is not valid yet"
	case now.After(cert.NotAfter):
		return "it is expired"
	case !now.Before(cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)):
		return "two thirds of its life are over"
	}
	covered := namesOf(cert)
	for _, name := range wanted {
		// Each container that Docker starts brings a new link-local address that nobody connects to.
		if ip, err := netip.ParseAddr(name); err == nil && ip.Is6() && ip.IsLinkLocalUnicast() {
			continue
		}
		if !slices.Contains(covered, name) {
			return "it does not cover " + name
		}
	}
	return ""
}

// namesOf lists the names and addresses that a certificate covers, each once. An address counts when it is
// an iPAddress; the dNSName of the same text is its shadow.
func namesOf(c *x509.Certificate) []string {
	var names []string
	for _, name := range c.DNSNames {
		if net.ParseIP(name) == nil {
			names = append(names, name)
		}
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}
