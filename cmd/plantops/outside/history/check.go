package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Fault is one thing that must not happen.
type Fault struct {
	What string // one of the kinds below
	Text string
}

// What can be found.
const (
	Lost        = "lost"         // taken over by the broker, and never delivered to a subscriber that must get it
	Doubled     = "doubled"      // delivered once more without a cause
	Reordered   = "reordered"    // of one publisher, topic and QoS, an older one after a newer one
	Stale       = "stale"        // an older retained message than the one that must be there; a subscriber's last value is another
	FalseWill   = "false will"   // of a client that had not died
	MissingWill = "missing will" // of one that had
	SharedTwice = "shared twice" // to two members of a group without a cause
	SharedLost  = "shared lost"  // to no member
	SessionLost = "session lost" // the broker does not know a session that it had confirmed
	Strange     = "strange"      // what nobody sent, or to who did not ask
)

// Rules are what not every broker promises. The zero value asks for what MQTT asks.
type Rules struct {
	// NoGiveBack excuses what was lost with a member of a share group whose session ended: MQTT 5 says of QoS 1 only that
	// another member SHOULD get it (4.8.2).
	NoGiveBack bool
	// Hasty excuses a broker that ends the old connection of a client which is back within this time without reading it to its
	// end: the last words in it are gone, and the client's will too.
	Hasty time.Duration
	// Bridged is a client of another broker to which a bridge of this one brings everything. At QoS 1 it may get again what was on
	// its way when this one was killed.
	Bridged string
	// Slack is how far a broker's clock and its noticing of a lost connection may be off, of delayed wills.
	Slack time.Duration
}

// Check finds the faults of a history, in the order of their kinds.
func Check(events []Event, rules Rules) []Fault {
	c := &check{rules: rules, events: events, messages: map[Message]*message{}, clients: map[string]*client{}}
	for i := range events {
		c.take(i, &events[i])
	}
	c.judgeWills()
	for _, s := range c.sessions {
		c.judgeSession(s)
	}
	c.judgeShares()
	c.judgeRetained()
	return c.faults
}

// Summary counts faults and shows the first few of each kind.
func Summary(faults []Fault, examples int) string {
	var kinds []string
	of := map[string][]string{}
	for _, f := range faults {
		if of[f.What] == nil {
			kinds = append(kinds, f.What)
		}
		of[f.What] = append(of[f.What], f.Text)
	}
	slices.Sort(kinds)
	var b strings.Builder
	for _, kind := range kinds {
		fmt.Fprintf(&b, "%s: %d\n", kind, len(of[kind]))
		for _, text := range of[kind][:min(examples, len(of[kind]))] {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	return b.String()
}

// Expected counts what is still to come, were this the end, and what a drain waits for: deliveries, CONNACKs, and the
// acknowledgements of messages that the connections of now have brought.
func Expected(events []Event, rules Rules) (missing int) {
	missing = underWay(events)
	for _, f := range Check(events, rules) {
		switch f.What {
		case Lost, SharedLost, MissingWill:
			missing++
		}
	}
	return missing
}

// underWay counts what clients wait for.
func underWay(events []Event) (n int) {
	waits := map[string]map[Message]bool{} // by client; the zero message is its CONNACK
	for _, e := range events {
		switch e.Kind {
		case Connecting:
			waits[e.Client] = map[Message]bool{{}: true}
		case Connected:
			delete(waits[e.Client], Message{})
		case Sending:
			if e.QoS > 0 && waits[e.Client] != nil {
				waits[e.Client][e.Message] = true
			}
		case Taken, Refused:
			delete(waits[e.Client], e.Message)
		case Parted, Dropped:
			delete(waits, e.Client)
		}
	}
	for _, of := range waits {
		n += len(of)
	}
	return n
}

// never is later than every event.
const never = 1 << 60

// message is what is known of a message, as numbers of events.
type message struct {
	Message
	topic     string
	qos       byte
	retain    bool
	empty     bool
	will      bool
	conn      *connection // that it was sent on last
	sent      int         // first
	again     int         // how often it was sent once more
	taken     int         // the broker has it; never: maybe not
	completed int         // it can have no effect any more
}

// session is one of a client: from the CONNACK that began it.
type session struct {
	client  string
	resume  bool
	began   int
	ended   int  // the first event at which it is no more; never
	lost    bool // by the broker
	subs    []*subscription
	got     map[*message][]*delivery
	arrived []*delivery
	conns   []*connection
}

// subscription is one filter of a session.
type subscription struct {
	session       *session
	filter, group string
	qos           byte
	asked, sure   int
	over          int // the event at which its end was asked for
}

type connection struct {
	number         int // of the client
	connecting     int
	connected      int // never: no CONNACK came
	over           int
	parted         bool
	resume         bool
	will           *Will
	present        bool
	nextConnecting int
	nextConnected  int
}

type delivery struct {
	*Event
	of       *message
	seq      int
	conn     *connection
	answered int
}

type client struct {
	conns   []*connection
	session *session
}

type check struct {
	rules    Rules
	events   []Event
	messages map[Message]*message
	order    []*message // as they were first sent
	clients  map[string]*client
	sessions []*session
	kills    []int
	kept     map[string]Message
	faults   []Fault
}

func (c *check) fault(what, format string, args ...any) {
	c.faults = append(c.faults, Fault{what, fmt.Sprintf(format, args...)})
}

// killedBetween says whether the broker was killed between two events. Of what came or went on a connection, its beginning
// counts: no connection outlives a broker, but what has come on it may be read later.
func (c *check) killedBetween(from, to int) bool {
	i, _ := slices.BinarySearch(c.kills, from)
	return i < len(c.kills) && c.kills[i] <= to
}

// take builds the tables.
func (c *check) take(seq int, e *Event) {
	switch e.Kind {
	case Killed:
		c.kills = append(c.kills, seq)
		return
	case Kept, Ended:
		if c.kept == nil {
			c.kept = map[string]Message{}
		}
		if e.Kind == Kept {
			c.kept[e.Topic] = e.Message
		}
		return
	}
	if c.clients[e.Client] == nil {
		c.clients[e.Client] = &client{}
	}
	cl := c.clients[e.Client]
	switch e.Kind {
	case Connecting:
		c.connecting(seq, e, cl)
	case Connected:
		c.connected(seq, e, cl)
	case Parted, Dropped, Replaced:
		c.over(seq, e, cl)
	case Subscribing, Subscribed, Unsubscribing:
		if cl.session != nil {
			cl.session.subscribe(seq, e)
		}
	case Sending:
		c.sending(seq, e, cl)
	case Taken, Completed:
		if m := c.messages[e.Message]; m != nil {
			if e.Kind == Taken {
				m.taken = min(m.taken, seq)
			}
			if e.Kind == Completed || m.qos < 2 {
				m.completed = min(m.completed, seq)
			}
		}
	case Got:
		c.got(seq, e, cl)
	case Answered:
		if s, m := cl.session, c.messages[e.Message]; s != nil && m != nil && len(s.got[m]) > 0 {
			all := s.got[m]
			all[len(all)-1].answered = seq
		}
	}
}

func (c *check) connecting(seq int, e *Event, cl *client) {
	n := &connection{number: len(cl.conns) + 1, connecting: seq, connected: never, over: never, resume: e.Resume, will: e.Will,
		nextConnecting: never, nextConnected: never}
	if last := cl.last(); last != nil {
		last.nextConnecting = seq
	}
	cl.conns = append(cl.conns, n)
	if !e.Resume && cl.session != nil {
		cl.session.end(seq)
		cl.session = nil
	}
	if e.Will != nil {
		c.note(&message{Message: Message{WillOf(e.Client), n.number}, topic: e.Will.Topic, qos: 1, will: true,
			conn: n, sent: seq, taken: never, completed: never})
	}
}

func (c *check) connected(seq int, e *Event, cl *client) {
	n := cl.last()
	n.connected, n.present = seq, e.Present
	if len(cl.conns) > 1 {
		cl.conns[len(cl.conns)-2].nextConnected = seq
	}
	s := cl.session
	switch {
	case s != nil && !e.Present:
		c.fault(SessionLost, "%s: its session of event %d is unknown at event %d", e.Client, s.began, seq)
		s.lost = true
		s.end(seq)
		s = nil
	case s == nil && e.Present && n.resume && !c.maybeKept(cl):
		c.fault(Strange, "%s: a session is there at event %d that was ended", e.Client, seq)
	}
	if s == nil {
		s = &session{client: e.Client, resume: n.resume, began: seq, ended: never, got: map[*message][]*delivery{}}
		c.sessions = append(c.sessions, s)
	}
	s.conns = append(s.conns, n)
	cl.session = s
}

// maybeKept says that a CONNECT without a CONNACK may have begun the session that is there now.
func (c *check) maybeKept(cl *client) bool {
	return len(cl.conns) > 1 && cl.conns[len(cl.conns)-2].connected == never && cl.conns[len(cl.conns)-2].resume
}

func (c *check) over(seq int, e *Event, cl *client) {
	n := cl.last()
	if n == nil || n.over != never {
		return
	}
	n.over, n.parted = seq, e.Kind == Parted
	if !n.resume && cl.session != nil {
		cl.session.end(seq)
		cl.session = nil
	}
}

func (cl *client) last() *connection {
	if len(cl.conns) == 0 {
		return nil
	}
	return cl.conns[len(cl.conns)-1]
}

func (s *session) end(seq int) { s.ended = min(s.ended, seq) }

func (s *session) subscribe(seq int, e *Event) {
	i := slices.IndexFunc(s.subs, func(sub *subscription) bool { return sub.filter == e.Filter && sub.over == never })
	switch {
	case e.Kind == Unsubscribing && i >= 0:
		s.subs[i].over = seq
	case e.Kind == Subscribing && i < 0:
		sub := &subscription{session: s, filter: e.Filter, qos: e.QoS, asked: seq, sure: never, over: never}
		if rest, shared := strings.CutPrefix(e.Filter, "$share/"); shared {
			sub.group, _, _ = strings.Cut(rest, "/")
		}
		s.subs = append(s.subs, sub)
	case e.Kind == Subscribed && i >= 0 && e.QoS <= 2:
		s.subs[i].qos, s.subs[i].sure = e.QoS, min(s.subs[i].sure, seq)
	}
}

// stays says that a session is there at the end, and connected.
func (s *session) stays() bool { return s.ended == never && s.conns[len(s.conns)-1].over == never }

func (c *check) note(m *message) *message {
	c.messages[m.Message] = m
	c.order = append(c.order, m)
	return m
}

func (c *check) sending(seq int, e *Event, cl *client) {
	m := c.messages[e.Message]
	if m != nil {
		m.again++
	} else {
		m = c.note(&message{Message: e.Message, topic: e.Topic, qos: e.QoS, retain: e.Retain, empty: e.Empty, sent: seq, taken: never, completed: never})
	}
	m.conn = cl.last()
}

// owed says whether the broker has to deliver a message: it has acknowledged it, or it has read it, because it stands before
// a DISCONNECT and the same client was let in again later. Of that only the other clients hear, so a broker that is killed soon
// may have forgotten it.
func (c *check) owed(m *message) bool {
	n := m.conn
	switch {
	case m.empty || m.qos == 0:
		return false
	case m.taken != never:
		return true
	case m.qos == 1 && !m.will && n != nil && n.parted && n.nextConnected != never:
		return !c.hasty(n) && !c.killedBetween(n.connected, n.nextConnected) && !c.killedSoon(n.nextConnected)
	}
	return false
}

// sentWithin is the messages that were first sent between two events.
func sentWithin(all []*message, from, to int) []*message {
	bySent := func(m *message, seq int) int { return cmp.Compare(m.sent, seq) }
	first, _ := slices.BinarySearchFunc(all, from, bySent)
	last, _ := slices.BinarySearchFunc(all, to+1, bySent)
	return all[first:max(first, last)]
}

// hasty says whether the client was back so soon after a connection that the broker is excused.
func (c *check) hasty(n *connection) bool {
	return n.nextConnecting != never && c.events[n.nextConnecting].At-c.events[n.over].At < c.rules.Hasty
}

func (c *check) got(seq int, e *Event, cl *client) {
	s := cl.session
	if s == nil {
		c.fault(Strange, "%s: event %d: a message without a session", e.Client, seq)
		return
	}
	m := c.messages[e.Message]
	if m == nil || m.topic != e.Topic {
		c.fault(Strange, "event %d: %s: nobody sent that", seq, e)
		return
	}
	if !slices.ContainsFunc(s.subs, func(sub *subscription) bool { return matches(sub.plain(), e.Topic) }) {
		c.fault(Strange, "event %d: %s: the session has no such subscription", seq, e)
	}
	d := &delivery{Event: e, of: m, seq: seq, conn: cl.last(), answered: never}
	s.got[m] = append(s.got[m], d)
	s.arrived = append(s.arrived, d)
}

// plain is the filter without what shares it.
func (sub *subscription) plain() string {
	if sub.group == "" {
		return sub.filter
	}
	return strings.TrimPrefix(sub.filter, "$share/"+sub.group+"/")
}

// matches is the rule of MQTT 4.7, on its own: what is judged is not judged by its own code.
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	for {
		f, restOfFilter, filterGoesOn := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, restOfTopic, topicGoesOn := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !topicGoesOn { // what ends in "/#" takes the level above too
			return !filterGoesOn || restOfFilter == "#"
		}
		if !filterGoesOn {
			return false
		}
		filter, topic = restOfFilter, restOfTopic
	}
}
