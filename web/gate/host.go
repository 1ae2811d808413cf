package gate

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Hosts refuses requests for a host that this machine is not: a page of a stranger, whose name was made to lead here (DNS rebinding), is told
// apart from ours by that alone.
func (g *Gate) Hosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.answersTo(r) {
			Problem(w, http.StatusMisdirectedRequest, "this server is not known by that name; if it is one, add it to http.allowed_hosts")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Gate) answersTo(r *http.Request) bool {
	host := hostOf(r.Host)
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap().WithZone("")
		return ip.IsLoopback() || ip == localAddress(r) || g.listed(ip.String()) || slices.Contains(g.names.addresses(), ip)
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || g.listed(host) || slices.Contains(hostNames(), host)
}

// listed reports whether the configuration names a host.
func (g *Gate) listed(host string) bool {
	return slices.ContainsFunc(g.options.Hosts, func(name string) bool {
		if rest, wild := strings.CutPrefix(name, "*."); wild {
			_, above, _ := strings.Cut(host, ".")
			return strings.EqualFold(above, rest)
		}
		return strings.EqualFold(strings.TrimSuffix(name, "."), host)
	})
}

// hostOf is a Host header without port, brackets and the dot at the end, in small letters.
func hostOf(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// localAddress is where the connection of a request arrived.
func localAddress(r *http.Request) netip.Addr {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addrOf(a)
}

func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// hostNames are those of this machine, as they stand in its certificate.
func hostNames() []string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return nil
	}
	name = strings.ToLower(name)
	label, _, _ := strings.Cut(name, ".")
	return []string{name, label, label + ".local"}
}

// lookAgain is how long the addresses of the interfaces hold: strangers must not make the system list them for each request.
const lookAgain = 10 * time.Second

// ownNames are the addresses of this machine. The zero value is ready.
type ownNames struct {
	mu     sync.Mutex
	looked time.Time
	found  []netip.Addr
}

func (o *ownNames) addresses() []netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); o.looked.IsZero() || now.Sub(o.looked) > lookAgain {
		o.looked, o.found = now, nil   // who has the old list reads it
		all, _ := net.InterfaceAddrs() // what cannot be found out is left out
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				o.found = append(o.found, p.Addr().Unmap().WithZone(""))
			}
		}
	}
	return o.found
}

// caller is who stands behind a connection.
type caller struct {
	address netip.Addr
	secure  bool // HTTPS, as far as the client sees
}

type callerKey struct{}

// Client is the address of who asks, whatever proxy it comes through; the zero one when that is not known.
func Client(ctx context.Context) netip.Addr {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c.address
}

func secure(r *http.Request) bool {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c.secure
}

// forwarded are the headers by which proxies tell for whom they ask.
var forwarded = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", "Forwarded"}

// Callers finds out for whom a request is, for Client. It believes proxies of Options.Proxies, and nobody else.
func (g *Gate) Callers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer := peerOf(r)
		c := caller{address: peer, secure: r.TLS != nil}
		switch {
		case g.trusts(peer):
			c.address = g.behind(peer, r.Header.Values("X-Forwarded-For"))
			c.secure = c.secure || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
		case g.options.ProxiesOnly && !peer.IsLoopback():
			Problem(w, http.StatusForbidden, "this server answers its proxies only: go through them, or add this address to http.trusted_proxies")
			return
		default:
			for _, name := range forwarded {
				r.Header.Del(name)
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

func peerOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (g *Gate) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(g.options.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// behind is the last address that a proxy was told by somebody who is none. What stands before that, anybody may have written.
func (g *Gate) behind(peer netip.Addr, headers []string) netip.Addr {
	list := strings.Split(strings.Join(headers, ","), ",")
	for _, text := range slices.Backward(list) {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return peer
		}
		if peer = a.Unmap().WithZone(""); !g.trusts(peer) {
			return peer
		}
	}
	return peer
}

// Direct is Callers for a listener without proxies.
func (g *Gate) Direct(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range forwarded {
			r.Header.Del(name)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{address: peerOf(r)})))
	})
}
