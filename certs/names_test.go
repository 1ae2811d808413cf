package certs

import (
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHostNames(t *testing.T) {
	addrs := []net.Addr{
		&net.IPNet{IP: net.ParseIP("127.0.0.1"), Mask: net.CIDRMask(8, 32)},
		&net.IPNet{IP: net.ParseIP("192.168.1.7"), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)},
	}
	for name, c := range map[string]struct {
		hostname string
		extra    []string
		want     []string
	}{
		"plain host name":          {"Pi", nil, []string{"localhost", "pi", "pi.local", "127.0.0.1", "::1", "192.168.1.7", "fe80::1"}},
		"full host name":           {"pi.farm.example", nil, []string{"localhost", "pi.farm.example", "pi.local", "127.0.0.1", "::1", "192.168.1.7", "fe80::1"}},
		"no usable host name":      {"größe", nil, []string{"localhost", "127.0.0.1", "::1", "192.168.1.7", "fe80::1"}},
		"extra names, each once":   {"pi", []string{"PI", "*.farm", "::ffff:192.168.1.7"}, []string{"localhost", "pi", "pi.local", "*.farm", "192.168.1.7", "127.0.0.1", "::1", "fe80::1"}},
		"host named by an address": {"192.168.1.7", nil, []string{"localhost", "192.168.1.7", "127.0.0.1", "::1", "fe80::1"}},
	} {
		assert.Equal(t, c.want, hostNames(c.hostname, addrs, c.extra), name)
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"pi", "pi_4.farm.example", "*.farm", "192.168.1.7", "::1", "xn--gre-8na"} {
		assert.True(t, validName(name), name)
	}
	for _, name := range []string{"", "*", "a b", "a..b", "a.", "-a", "a/b", "größe", "fe80::1%eth0", "a:1883", "x\n"} {
		assert.False(t, validName(name), name)
	}
}

func TestNeedsRenewal(t *testing.T) {
	cert := &x509.Certificate{NotBefore: noon, NotAfter: noon.Add(300 * day),
		DNSNames: []string{"pi", "192.168.1.7", "192.168.1.8"}, IPAddresses: []net.IP{net.ParseIP("192.168.1.7")}}
	for name, c := range map[string]struct {
		wanted []string
		now    time.Time
		want   string
	}{
		"young":                         {[]string{"pi", "192.168.1.7"}, noon, ""},
		"just before two thirds":        {nil, noon.Add(200*day - time.Second), ""},
		"two thirds":                    {nil, noon.Add(200 * day), "two thirds"},
		"expired while the box was off": {nil, noon.Add(301 * day), "expired"},
		"made by a clock in the future": {nil, noon.Add(-time.Second), "not valid yet"},
		"new host name":                 {[]string{"pi", "pi2"}, noon, "does not cover pi2"},
		"new address":                   {[]string{"192.168.1.9"}, noon, "does not cover 192.168.1.9"},
		"address only as a DNS name":    {[]string{"192.168.1.8"}, noon, "does not cover 192.168.1.8"},
		"name that went away":           {[]string{"pi"}, noon, ""},
		"link-local of a new container": {[]string{"fe80::42"}, noon, ""},
		"new global IPv6 address":       {[]string{"2001:db8::1"}, noon, "does not cover 2001:db8::1"},
	} {
		got := needsRenewal(cert, c.wanted, c.now)
		if c.want == "" {
			assert.Empty(t, got, name)
		} else {
			assert.Contains(t, got, c.want, name)
		}
	}
	assert.NotEmpty(t, needsRenewal(nil, nil, noon))
}
