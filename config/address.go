package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// validAddress accepts host:port as a listener takes it.
func validAddress(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !validPort(port) {
		return false
	}
	return host == "" || validHost(host)
}

func validPort(text string) bool {
	n, err := parseInt(text)
	return err == nil && n >= 0 && n <= 65535
}

// fixedPort returns the port that a listener will have; 0 when it is off or free.
func fixedPort(enabled bool, address string) int {
	_, text, err := net.SplitHostPort(address)
	if !enabled || err != nil {
		return 0
	}
	port, _ := strconv.Atoi(text)
	return port
}

// collide reports whether two addresses cannot both be bound.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && portA != "0" && (hostA == hostB || isEvery(hostA) || isEvery(hostB))
}

// isEvery reports whether a listener with that host listens on every address.
func isEvery(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// isLoopback reports whether a listener with that address can be reached from this machine only.
func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// reaches reports whether a connection to host can arrive at a listener with
// that address. Only what is certain counts: the loopback does not lead to a
// listener that is bound to another address.
func reaches(host, address string) bool {
	bound, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(bound)
	if err != nil || ip.IsUnspecified() || ip.IsLoopback() {
		return true
	}
	to, err := netip.ParseAddr(host)
	loopback := strings.EqualFold(host, "localhost") || err == nil && to.IsLoopback()
	return !loopback
}

// validHost accepts IP addresses and host names; underscores too, which
// container networks use.
func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	digitsOnly := true
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_' {
				return false
			}
			digitsOnly = digitsOnly && unicode.IsDigit(r)
		}
	}
	return !digitsOnly // 192.168.1 and 300.1.1.1 are mistyped addresses
}

// validCertName accepts what a certificate can hold: addresses without a zone,
// and host names without a dot at the end, the first label of which may be *.
func validCertName(name string) bool {
	host, wildcard := strings.CutPrefix(name, "*.")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == "" && !wildcard
	}
	return validHost(host) && !strings.HasSuffix(host, ".")
}

func validOrigin(origin string) bool {
	if origin == "*" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Scheme+"://"+u.Host == origin &&
		validHost(u.Hostname()) && (u.Port() == "" || validPort(u.Port()))
}

// isThisMachine reports whether host is a name or an address of the machine,
// or one of the names that its certificate was given. It asks no name server.
func isThisMachine(host string, names []string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback() || slices.Contains(localAddresses(), ip.WithZone("").Unmap())
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) }) {
		return true
	}
	own, err := os.Hostname()
	if err != nil {
		return false
	}
	own = strings.ToLower(own)
	short, _, _ := strings.Cut(own, ".")
	return host == own || host == short || host == short+".local"
}

func localAddresses() []netip.Addr {
	var ips []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return ips
}
