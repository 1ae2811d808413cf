package web

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// How many connections there may be. Seven tabs of a browser have seven, or one by HTTP/2.
const (
	maxConnections           = 1000
	maxConnectionsPerAddress = 100
)

// limited is a listener that closes what is too much at once.
type limited struct {
	net.Listener
	proxies []netip.Prefix

	mu    sync.Mutex
	total int
	from  map[netip.Prefix]int
}

func limit(l net.Listener, proxies []netip.Prefix) *limited {
	return &limited{Listener: l, proxies: proxies, from: map[netip.Prefix]int{}}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		place, many := l.place(conn.RemoteAddr())
		if l.enter(place, many) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { l.leave(place) })}, nil
		}
		_ = conn.Close() // it is too much
	}
}

// place is whom a connection counts for; many: it may have as many as there may be.
func (l *limited) place(a net.Addr) (place netip.Prefix, many bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return place, false
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64 // what one household has
	}
	place, _ = ip.Prefix(bits)
	return place, ip.IsLoopback() || slices.ContainsFunc(l.proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (l *limited) enter(place netip.Prefix, many bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConnections || !many && l.from[place] >= maxConnectionsPerAddress {
		return false
	}
	l.total++
	l.from[place]++
	return true
}

func (l *limited) leave(place netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.from[place]--; l.from[place] == 0 {
		delete(l.from, place)
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	leave func()
}

// CloseWrite is what net/http ends a connection with whose request it did not read to the end, so that the answer gets through.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
