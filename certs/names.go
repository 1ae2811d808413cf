package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
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
	if validName(hostname) {
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
