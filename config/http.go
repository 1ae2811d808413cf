package config

import (
	"net/netip"
	"strings"
)

// HTTP is the listener of the web page and its API.
type HTTP struct {
	Address             string   `mapstructure:"address"`   // host:port; "" or off: none
	BasePath            string   `mapstructure:"base_path"` // "" or /path, without a slash at the end
	AllowedHosts        []string `mapstructure:"allowed_hosts"`
	TrustedProxies      []string `mapstructure:"trusted_proxies"`      // addresses and networks
	RegistrationAddress string   `mapstructure:"registration_address"` // as Address
}

// off is how a variable says that a listener is off: an empty one counts as not set.
const off = "off"

// ListenAddress is where the page is served; "": nowhere.
func (h HTTP) ListenAddress() string { return unlessOff(h.Address) }

// RegistersAt is where old firmware registers over plain HTTP; "": nowhere.
func (h HTTP) RegistersAt() string { return unlessOff(h.RegistrationAddress) }

func unlessOff(address string) string {
	if address == off {
		return ""
	}
	return address
}

// Encrypted reports whether the page is served over TLS: always where other machines can reach it, unless a proxy does that.
func (h HTTP) Encrypted() bool {
	address := h.ListenAddress()
	return address != "" && !isLoopback(address) && len(h.TrustedProxies) == 0
}

// ProxiesOnly reports whether the page is served without encryption where other machines can reach it: to proxies then, and nobody else.
func (h HTTP) ProxiesOnly() bool {
	address := h.ListenAddress()
	return address != "" && !isLoopback(address) && len(h.TrustedProxies) > 0
}

// Proxies are TrustedProxies, each as a network.
func (h HTTP) Proxies() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range h.TrustedProxies {
		if p, ok := parseNetwork(text); ok { // config has checked it
			list = append(list, p)
		}
	}
	return list
}

func parseNetwork(text string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil && !p.Addr().Is4In6()
}

// http checks the listener of the page: its addresses against those of the others too.
func (v *validator) http() {
	h, l := v.config.HTTP, v.config.Listeners
	type socket struct{ key, address string }
	var taken []socket
	for _, at := range []struct {
		enabled bool
		socket
	}{{l.TCP.Enabled, socket{"listeners.tcp", l.TCP.Address}}, {l.TLS.Enabled, socket{"listeners.tls", l.TLS.Address}},
		{l.WebSocket.Enabled, socket{"listeners.websocket", l.WebSocket.Address}}} {
		if at.enabled {
			taken = append(taken, at.socket)
		}
	}
	for _, one := range []socket{{"http.address", h.ListenAddress()}, {"http.registration_address", h.RegistersAt()}} {
		if one.address == "" {
			continue
		}
		if !validAddress(one.address) {
			v.refuse(one.key, "must be host:port with a port from 0 to 65535, for example 127.0.0.1:8080 or :8080, or off")
			continue
		}
		for _, other := range taken {
			if collide(one.address, other.address) {
				v.refuse(one.key, "is taken by %s; give each listener its own port", other.key)
			}
		}
		taken = append(taken, one)
	}
	if h.RegistersAt() != "" && h.ListenAddress() == "" {
		v.refuse("http.registration_address", "but http.address is off; set that, or remove this")
	}
	if !validBasePath(h.BasePath) {
		v.refuse("http.base_path", "must be empty, or a path such as /plantops, without a slash at the end")
	}
	for _, name := range h.AllowedHosts {
		if !validCertName(name) {
			v.refuseItem("http.allowed_hosts", name, "must be a host name or an IP address, without a scheme or a port; *.farm.example stands for all names below it")
		}
	}
	for _, text := range h.TrustedProxies {
		if _, ok := parseNetwork(text); !ok {
			v.refuseItem("http.trusted_proxies", text, "must be an IP address or a network, for example 192.168.1.5 or 172.18.0.0/16")
		}
	}
}

func validBasePath(path string) bool {
	if path == "" {
		return true
	}
	parts := strings.Split(path, "/")
	for _, part := range parts[1:] {
		plain := strings.IndexFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
		}) < 0
		if part == "" || part == "." || part == ".." || !plain {
			return false
		}
	}
	return parts[0] == "" && len(parts) > 1
}
