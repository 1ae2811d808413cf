package broker

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// admission decides which accepted connection is served when. It is guarded by network.mu.
//
// Strangers are served in a limited number of places, some of them for each address. A connection that finds no
// place is not refused: it waits unread (a few hundred bytes and a file descriptor, no goroutine), and its
// CONNECT deadline does not run. So a thousand devices that come back together behind one address
// all get in, a hundred at a time. Places go round the addresses, so many silent sockets of one address
// do not keep another address waiting; and while anybody waits, a served stranger gets only a third of
// the CONNECT deadline, so the longest wait for a place that silent sockets hold is ConnectTimeout/3.
// Connections are refused only above MaxConnections (waiting ones count): then the address with
// the longest queue loses its newest waiting connection, which may be the newcomer.
type admission struct {
	conns     map[*conn]struct{} // every open connection
	strangers map[*conn]struct{} // the served ones that have not logged in
	addresses map[netip.Prefix]*address
	turn      []*address // those with a queue, next one first
	serving   int        // places taken
	waiting   int
	sweeping  bool
}

// address is one remote address with at least one open connection.
type address struct {
	prefix  netip.Prefix
	open    int     // connections, waiting ones included
	serving int     // places taken
	queue   []*conn // waiting connections in the order of arrival
	inTurn  bool
}

func newAdmission() admission {
	return admission{
		conns:     make(map[*conn]struct{}),
		strangers: make(map[*conn]struct{}),
		addresses: make(map[netip.Prefix]*address),
	}
}

// addressKey is the unit in which limits per address count: an IPv4 address or an IPv6 /64, which is what one
// household or one rented server has.
func addressKey(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	key, _ := ip.Prefix(bits) // bits always fits
	return key
}

// enter takes in an accepted connection: it is served now or later, or refused.
func (n *network) enter(c *conn) {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		c.Conn.Close()
		return
	}
	n.work.Add(1) // ended by forget
	key := addressKey(c.RemoteAddr())
	a := n.addresses[key]
	if a == nil {
		a = &address{prefix: key}
		n.addresses[key] = a
	}
	full := len(n.conns) >= n.limits.MaxConnections
	n.conns[c] = struct{}{}
	c.address = a
	a.open++
	a.queue = append(a.queue, c)
	n.waiting++
	if !a.inTurn {
		a.inTurn = true
		n.turn = append(n.turn, a)
	}
	var victim *conn
	reason := reasonConnections
	if limit := n.limits.MaxConnectionsPerAddress; limit > 0 && a.open > limit {
		victim, reason = n.newestOf(a), reasonAddress
	} else if full {
		victim = n.newestOfLongest()
	}
	n.dispatch()
	n.mu.Unlock()
	if victim != nil {
		victim.abort(reason, nil)
	}
}

// shed gives up a waiting connection when file descriptors have run out.
func (n *network) shed() {
	n.mu.Lock()
	victim := n.newestOfLongest()
	n.mu.Unlock()
	if victim != nil {
		victim.abort(reasonConnections, nil)
	}
}

func (n *network) newestOfLongest() *conn {
	var longest *address
	for _, a := range n.turn {
		if longest == nil || len(a.queue) >= len(longest.queue) {
			longest = a
		}
	}
	if longest == nil {
		return nil
	}
	return n.newestOf(longest)
}

func (n *network) newestOf(a *address) *conn {
	last := len(a.queue) - 1
	if last < 0 {
		return nil
	}
	c := a.queue[last]
	a.queue[last] = nil
	a.queue = a.queue[:last]
	n.waiting--
	if last == 0 {
		a.inTurn = false
		n.turn = slices.DeleteFunc(n.turn, func(b *address) bool { return a == b })
	}
	return c
}

// emptyQueues is for the end: nobody is served any more.
func (n *network) emptyQueues() {
	for _, a := range n.turn {
		a.queue, a.inTurn = nil, false
	}
	n.turn, n.waiting = nil, 0
}

// dispatch serves waiting connections while there are places, one address after the other.
func (n *network) dispatch() {
	if n.closed {
		return
	}
	for skipped := 0; n.serving < n.limits.MaxUnauthenticated && skipped < len(n.turn); {
		a := n.turn[0]
		n.turn[0] = nil
		n.turn = n.turn[1:]
		if a.serving >= n.limits.MaxUnauthenticatedPerAddress {
			n.turn = append(n.turn, a)
			skipped++
			continue
		}
		skipped = 0
		c := a.queue[0]
		a.queue[0] = nil
		a.queue = a.queue[1:]
		n.waiting--
		a.inTurn = len(a.queue) > 0
		if a.inTurn {
			n.turn = append(n.turn, a)
		}
		n.serve(c)
	}
}

func (n *network) serve(c *conn) {
	c.place = true
	c.address.serving++
	n.serving++
	c.since = time.Now()
	n.strangers[c] = struct{}{}
	n.work.Add(1)
	go c.run()
	if !n.sweeping {
		n.sweeping = true
		time.AfterFunc(n.sweepEvery(), n.sweep)
	}
}

// leavePlace gives c's place to the next one.
func (n *network) leavePlace(c *conn) {
	if !c.place {
		return
	}
	c.place = false
	c.address.serving--
	n.serving--
	n.dispatch()
}

// login ends c's time as a stranger.
func (n *network) login(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.strangers, c)
	n.leavePlace(c)
}

// forget is called once when c's socket is closed.
func (n *network) forget(c *conn) {
	n.mu.Lock()
	delete(n.conns, c)
	a := c.address
	a.open--
	if a.open == 0 {
		delete(n.addresses, a.prefix)
	}
	n.mu.Unlock()
	n.work.Done()
}

// pauseClock and resumeClock are hold and unhold.
func (n *network) pauseClock(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !c.since.IsZero() {
		c.waited += time.Since(c.since)
		c.since = time.Time{}
	}
	n.leavePlace(c)
}

func (n *network) resumeClock(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.since.IsZero() {
		c.since = time.Now()
	}
}

// sweepEvery makes the deadline exact to a thirtieth: a second by default. One sweep for all costs less than a
// timer for each, and there is none while nobody is logging in.
func (n *network) sweepEvery() time.Duration {
	return max(n.limits.ConnectTimeout/30, time.Millisecond)
}

// sweep closes the strangers whose time is up.
func (n *network) sweep() {
	n.mu.Lock()
	limit := n.limits.ConnectTimeout
	if n.waiting > 0 {
		limit /= 3
	}
	now := time.Now()
	var late []*conn
	for c := range n.strangers {
		if !c.since.IsZero() && c.waited+now.Sub(c.since) >= limit {
			late = append(late, c)
		}
	}
	n.sweeping = len(n.strangers) > 0 && !n.closed
	if n.sweeping {
		time.AfterFunc(n.sweepEvery(), n.sweep)
	}
	n.mu.Unlock()
	for _, c := range late {
		c.abort(reasonConnectTimeout, nil)
	}
}
