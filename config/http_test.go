package config

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHTTPIsEncryptedWhereOthersReachIt(t *testing.T) {
	proxies := []string{"10.0.0.0/8", "192.168.1.5", "::ffff:10.1.1.1"}
	for name, c := range map[string]struct {
		h                    HTTP
		address              string
		encrypted, proxyOnly bool
	}{
		"the default":             {Default().HTTP, "127.0.0.1:8080", false, false},
		"off":                     {HTTP{Address: "off"}, "", false, false},
		"empty":                   {HTTP{}, "", false, false},
		"every address":           {HTTP{Address: ":8080"}, ":8080", true, false},
		"one of the network":      {HTTP{Address: "192.168.1.2:443"}, "192.168.1.2:443", true, false},
		"loopback of IPv6":        {HTTP{Address: "[::1]:80"}, "[::1]:80", false, false},
		"behind a proxy":          {HTTP{Address: ":8080", TrustedProxies: proxies}, ":8080", false, true},
		"a proxy on this machine": {HTTP{Address: "localhost:8080", TrustedProxies: proxies}, "localhost:8080", false, false},
	} {
		assert.Equal(t, c.address, c.h.ListenAddress(), name)
		assert.Equal(t, c.encrypted, c.h.Encrypted(), name)
		assert.Equal(t, c.proxyOnly, c.h.ProxiesOnly(), name)
	}
	list := HTTP{TrustedProxies: proxies}.Proxies()
	require.Len(t, list, 3)
	assert.Equal(t, "10.0.0.0/8", list[0].String())
	assert.Equal(t, "192.168.1.5/32", list[1].String())
	assert.Equal(t, "10.1.1.1/32", list[2].String())
}

func TestWrongHTTPSettingsAreNamed(t *testing.T) {
	valid := func() Config {
		c := Default()
		c.HTTP = HTTP{Address: ":8080", BasePath: "/a/b-c", AllowedHosts: []string{"pi.lan", "*.farm.example", "10.0.0.1"},
			TrustedProxies: []string{"10.0.0.1", "fd00::/8"}, RegistrationAddress: ":8000"}
		return c
	}
	require.NoError(t, valid().Validate())
	for name, c := range map[string]struct {
		spoil func(*HTTP)
		want  string
	}{
		"no port":                      {func(h *HTTP) { h.Address = "localhost" }, "http.address"},
		"the port of another listener": {func(h *HTTP) { h.Address = ":8883" }, "is taken by listeners.tls"},
		"one port for both":            {func(h *HTTP) { h.RegistrationAddress = "127.0.0.1:8080" }, "is taken by http.address"},
		"registration without a page":  {func(h *HTTP) { h.Address = "off" }, "http.address is off"},
		"a path without a slash":       {func(h *HTTP) { h.BasePath = "plants" }, "http.base_path"},
		"a path with one at the end":   {func(h *HTTP) { h.BasePath = "/plants/" }, "http.base_path"},
		"a path that climbs":           {func(h *HTTP) { h.BasePath = "/a/../b" }, "http.base_path"},
		"a path with markup":           {func(h *HTTP) { h.BasePath = `/"><b` }, "http.base_path"},
		"a host with a scheme":         {func(h *HTTP) { h.AllowedHosts = []string{"https://pi.lan"} }, "http.allowed_hosts"},
		"a proxy by name":              {func(h *HTTP) { h.TrustedProxies = []string{"nginx"} }, "http.trusted_proxies"},
	} {
		broken := valid()
		c.spoil(&broken.HTTP)
		assert.ErrorContains(t, broken.Validate(), c.want, name)
	}
}
