package certs

import (
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// A server in a container, or one whose network is down, must not take away the names that devices use.
func TestRenewalKeepsTheNamesThatItCannotSee(t *testing.T) {
	host := []string{"localhost", "raspberrypi", "raspberrypi.local", "plantops.farm", "127.0.0.1", "::1", "192.168.1.5", "2001:db8:1::5", "fe80::1"}
	before := &x509.Certificate{DNSNames: host}
	for _, name := range host {
		if ip := net.ParseIP(name); ip != nil {
			before.IPAddresses = append(before.IPAddresses, ip)
		}
	}
	for name, c := range map[string]struct{ wanted, more, gone []string }{
		"in a container":                  {[]string{"localhost", "plantops", "127.0.0.1", "172.18.0.2"}, []string{"plantops", "172.18.0.2"}, nil},
		"the network is down":             {[]string{"localhost", "raspberrypi", "raspberrypi.local", "127.0.0.1", "::1"}, nil, nil},
		"the host is called otherwise":    {[]string{"localhost", "farm", "farm.local", "127.0.0.1", "192.168.1.5"}, []string{"farm", "farm.local"}, nil},
		"the address changed":             {[]string{"localhost", "127.0.0.1", "192.168.1.77"}, []string{"192.168.1.77"}, []string{"192.168.1.5"}},
		"the IPv6 address changed":        {[]string{"localhost", "2001:db8:1::99"}, []string{"2001:db8:1::99"}, []string{"2001:db8:1::5"}},
		"the host moved to another house": {[]string{"localhost", "10.0.0.5", "2001:db8:2::5"}, []string{"10.0.0.5", "2001:db8:2::5"}, nil},
	} {
		got := namesForRenewal(c.wanted, before)
		want := append(slices.Clone(host), c.more...)
		want = slices.DeleteFunc(want, func(n string) bool { return slices.Contains(c.gone, n) })
		assert.ElementsMatch(t, want, got, name)
	}
	assert.Equal(t, host, namesForRenewal(host, nil))
}

func TestNamesDoNotGrowWithoutEnd(t *testing.T) {
	cert := &x509.Certificate{}
	for i := range 200 {
		cert.DNSNames = namesForRenewal([]string{"localhost", fmt.Sprintf("pod-%d", i)}, cert)
		require.LessOrEqual(t, len(cert.DNSNames), maxNames)
	}
}

func TestContainerIDsAreNoNames(t *testing.T) {
	assert.NotContains(t, hostNames("3f1c2d9a0b7e", nil, nil), "3f1c2d9a0b7e")
	assert.Contains(t, hostNames("raspberrypi", nil, nil), "raspberrypi")
	assert.Contains(t, hostNames("deadbeef", nil, nil), "deadbeef")
}

func TestRenewalInAContainerKeepsTheNamesOfTheHost(t *testing.T) {
	o := options(t)
	o.ExtraNames = []string{"plantops.farm", "192.0.2.44"}
	create(t, o)
	o.ExtraNames = nil
	a, err := Open(o)
	require.NoError(t, err)
	a.names = func() []string { return hostNames("elsewhere", nil, nil) }
	a.check()
	covered := a.Certificates()[1].Names
	for _, name := range []string{"plantops.farm", "192.0.2.44", "elsewhere"} {
		assert.Contains(t, covered, name)
	}
}
