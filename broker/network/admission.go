package network

import (
	"net/netip"
	"slices"
	"time"

	"github.com/plantops/plantops/broker/refusal"
)

// admission decides which accepted connection is served when. It is guarded by network.mu.
//
// Strangers are served in a limited number of places, some of them for each address. A connection that finds no
// place is not refused: it waits unread (a few hundred bytes and a file descriptor, no goroutine), and its
// CONNECT deadline does not run. So a thousand devices that come back together behind one address
// all get in, a hundred at a time. Places go first to addresses that somebody has logged in from (a tenth is kept for
// them), then to those of strangers (a quarter is kept for these two), then to those from which logins have failed, the
// fewer the sooner (standing.go); those with several failures get half of the places in all, and those with many a tenth
// of what another address gets. Among equals they go round the addresses, so many
// silent sockets of one address do not keep another address waiting; and while anybody waits, a served stranger gets
// only a third of the CONNECT deadline, and a tenth from where logins have failed, so the longest wait for a place that
// silent sockets hold is ConnectTimeout/3. The program's own subscriber needs no place (expect).
// Connections are refused only above MaxConnections (waiting ones count, that of this program does not) and what is kept in
// reserve for those who log in, of whom the broker may prefer some to others that have logged in: then the address with the
// longest queue loses its newest waiting connection, which may be the newcomer.
type admission struct {
	conns     map[*Conn]struct{} // every open connection
	strangers map[*Conn]struct{} // the served ones that have not logged in
	ending    map[*Conn]struct{} // those that are closed, with last words to write and the client's end to wait for
	addresses map[netip.Prefix]*address
	turn      [ranks][]*address // those with a queue, next one first
	serving   int               // places taken
	waiting   int
	sweeping  bool
	ours      int    // open connections of this program
	expected  string // the address of a connection of this program that has not been accepted yet

	standing
}

// address is one remote address with at least one open connection.
type address struct {
	prefix  netip.Prefix
	open    int     // connections, waiting ones included
	known   int     // of these, by others than this program: have logged in
	serving int     // places taken
	delayed int     // of these, by answers that are held back
	queue   []*Conn // waiting connections in the order of arrival
	inTurn  bool
	rank    rank // these two are kept up to date by assess
	places  int  // that it may take
}

func newAdmission() admission {
	return admission{
		conns:     make(map[*Conn]struct{}),
		strangers: make(map[*Conn]struct{}),
		ending:    make(map[*Conn]struct{}),
		addresses: make(map[netip.Prefix]*address),
		standing:  newStanding(),
	}
}

// enter takes in an accepted connection: it is served now or later, or refused.
func (n *Network) enter(c *Conn) {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		c.Conn.Close()
		return
	}
	n.work.Add(1) // ended by forget
	key := refusal.AddressKey(c.RemoteAddr())
	a := n.addresses[key]
	if a == nil {
		a = &address{prefix: key}
		n.addresses[key] = a
	}
	n.assess(a, time.Now())
	most := n.options.Limits.MaxConnections
	full := len(n.conns)-n.ours >= most+reserve(most)
	n.conns[c] = struct{}{}
	c.address = a
	a.open++
	if n.expected != "" && n.expected == c.RemoteAddr().String() {
		n.serveOwn(c)
		n.mu.Unlock()
		return
	}
	a.queue = append(a.queue, c)
	n.waiting++
	if !a.inTurn {
		a.inTurn = true
		n.turn[a.rank] = append(n.turn[a.rank], a)
	}
	var victim *Conn
	why := refusal.TooManyConnections
	if limit := n.options.Limits.MaxConnectionsPerAddress; limit > 0 && a.open > limit {
		victim, why = n.newestOf(a), refusal.TooManyFromAddress
	} else if full {
		for victim = range n.ending { // it has no more to lose than a word
			delete(n.ending, victim)
			break
		}
		if victim == nil {
			victim = n.newestOfLongest()
		}
	}
	n.dispatch()
	n.mu.Unlock()
	if victim != nil {
		victim.abort(why, nil)
	}
}

// reserve is how many connections there may be above MaxConnections as long as they have not logged in.
func reserve(most int) int { return 10 + most/20 }

// shed gives up a waiting connection when file descriptors have run out.
func (n *Network) shed() {
	n.mu.Lock()
	victim := n.newestOfLongest()
	n.mu.Unlock()
	if victim != nil {
		victim.abort(refusal.TooManyConnections, nil)
	}
}

func (n *Network) newestOfLongest() *Conn {
	var longest *address
	for _, turn := range n.turn {
		for _, a := range turn {
			if longest == nil || len(a.queue) >= len(longest.queue) {
				longest = a
			}
		}
	}
	if longest == nil {
		return nil
	}
	return n.newestOf(longest)
}

func (n *Network) newestOf(a *address) *Conn {
	last := len(a.queue) - 1
	if last < 0 {
		return nil
	}
	c := a.queue[last]
	n.unqueue(a, last)
	return c
}

// unqueue takes out a waiting connection.
func (n *Network) unqueue(a *address, i int) {
	a.queue = slices.Delete(a.queue, i, i+1)
	n.waiting--
	if len(a.queue) == 0 {
		a.inTurn = false
		n.removeFromTurn(a)
	}
}

func (n *Network) removeFromTurn(a *address) {
	n.turn[a.rank] = slices.DeleteFunc(n.turn[a.rank], func(b *address) bool { return a == b })
}

// emptyQueues is for the end: nobody is served any more.
func (n *Network) emptyQueues() {
	for i, turn := range n.turn {
		for _, a := range turn {
			a.queue, a.inTurn = nil, false
		}
		n.turn[i] = nil
	}
	n.waiting = 0
}

// share is how many places may be taken for an address of this rank to be served.
func (n *Network) share(r rank) int {
	all := n.options.Limits.MaxUnauthenticated
	switch r {
	case rankKnown:
		return all
	case rankStranger:
		return all - all/10
	case rankFailing:
		return all - all/2
	default:
		return all - all/4
	}
}

// assess brings an address up to date with its standing.
func (n *Network) assess(a *address, now time.Time) {
	before := a.rank
	if a.known > 0 { // for days, perhaps
		n.succeeded(a.prefix, "", now)
	}
	a.places = n.options.Limits.MaxUnauthenticatedPerAddress
	if n.restricted(a.prefix, now) {
		a.places = max(a.places/10, 1)
	}
	r := n.rank(a.prefix, now)
	if a.inTurn && r != before {
		n.removeFromTurn(a)
		n.turn[r] = append(n.turn[r], a)
	}
	a.rank = r
}

// dispatch serves waiting connections while there are places, one address after the other.
func (n *Network) dispatch() {
	if n.closed {
		return
	}
	for r := range ranks {
		turn, share := &n.turn[r], n.share(r)
		for skipped := 0; n.serving < share && skipped < len(*turn); {
			a := (*turn)[0]
			(*turn)[0] = nil
			*turn = (*turn)[1:]
			if a.serving >= a.places {
				*turn = append(*turn, a)
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
				*turn = append(*turn, a)
			}
			n.serve(c)
		}
	}
}

// serve gives c a place.
func (n *Network) serve(c *Conn) {
	c.place = true
	c.address.serving++
	n.serving++
	n.begin(c)
}

// begin lets c run as a stranger.
func (n *Network) begin(c *Conn) {
	c.since = now()
	n.strangers[c] = struct{}{}
	n.work.Add(1)
	go c.run()
	if !n.sweeping {
		n.sweeping = true
		time.AfterFunc(n.sweepEvery(), n.sweep)
	}
}

// leavePlace gives c's place to the next one.
func (n *Network) leavePlace(c *Conn) {
	if !c.place {
		return
	}
	c.place = false
	c.address.serving--
	n.serving--
	n.dispatch()
}

// loggedIn ends c's time as a stranger.
func (n *Network) loggedIn(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.strangers, c)
	if !c.own {
		c.address.known++
	}
	n.leavePlace(c)
}

// giveUp is loggedIn for a connection that ends. Whoever was served and has shown no password has cost a place.
// One that ends while its password waits to be looked at may count here and in wrong.
func (n *Network) giveUp(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, stranger := n.strangers[c]; stranger && !c.judged && !c.own {
		n.failed(c.address.prefix, "", time.Now())
		n.assess(c.address, time.Now())
	}
	delete(n.strangers, c)
	if _, open := n.conns[c]; open {
		n.ending[c] = struct{}{}
	}
	n.leavePlace(c)
}

// forget is called once when c's socket is closed.
func (n *Network) forget(c *Conn) {
	n.mu.Lock()
	delete(n.conns, c)
	delete(n.ending, c)
	if c.own {
		n.ours--
	}
	a := c.address
	if c.known.Load() && !c.own {
		n.succeeded(a.prefix, c.guessable(), time.Now())
		a.known--
	}
	a.open--
	if a.open == 0 {
		delete(n.addresses, a.prefix)
	}
	n.mu.Unlock()
	n.work.Done()
}

// pauseClock and resumeClock are PauseDeadline and ResumeDeadline.
func (n *Network) pauseClock(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.since != 0 {
		c.waited += now().sub(c.since)
		c.since = 0
	}
	n.leavePlace(c)
}

func (n *Network) resumeClock(c *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.since == 0 {
		c.since = now()
	}
}

// sweepEvery makes the deadline exact to a thirtieth: a second by default. One sweep for all costs less than a
// timer for each, and there is none while nobody is logging in.
func (n *Network) sweepEvery() time.Duration {
	return max(n.options.Limits.ConnectTimeout/30, time.Millisecond)
}

// sweep closes the strangers whose time is up.
func (n *Network) sweep() {
	n.mu.Lock()
	at, now := now(), time.Now()
	var late []*Conn
	for c := range n.strangers {
		if c.since != 0 && c.waited+at.sub(c.since) >= n.patience(c) {
			late = append(late, c)
		}
	}
	for _, turn := range n.turn {
		for _, a := range slices.Clone(turn) {
			n.assess(a, now)
		}
	}
	n.sweeping = len(n.strangers) > 0 && !n.closed
	if n.sweeping {
		time.AfterFunc(n.sweepEvery(), n.sweep)
	}
	n.mu.Unlock()
	for _, c := range late {
		c.abort(refusal.NoConnectInTime, nil)
	}
}

// patience is how long a stranger may take.
func (n *Network) patience(c *Conn) time.Duration {
	limit := n.options.Limits.ConnectTimeout
	switch {
	case n.waiting == 0 || c.own:
		return limit
	case c.address.rank > rankStranger:
		return limit / 10
	default:
		return limit / 3
	}
}
