package session

import (
	"math"
	"time"
)

// Forever is the session expiry of a session that never expires: MQTT 5's
// 0xFFFFFFFF, and MQTT 3.1.1's Clean Session 0.
const Forever time.Duration = math.MaxInt64

// Options are the limits and habits of one session. Zero means the default.
type Options struct {
	// Window is how many QoS 1 and 2 messages may be unacknowledged at once,
	// whatever the client would allow; at most 65535. Default 256: MQTT 3.1.1
	// has no flow control of its own, and Mosquitto's 20 makes the network's
	// delay the limit of a burst. The ingest session sets its credits.
	Window int
	// MaxQueued bounds the messages that wait in memory to be sent. Default 10,000.
	MaxQueued int
	// MaxQueuedBytes bounds the bytes that wait in memory or are unacknowledged; a
	// single message is always let in. Default 16 MiB.
	MaxQueuedBytes int
	// ReceiveMaximum is what CONNACK announced to an MQTT 5 client: so many
	// QoS 1 and 2 messages may be unacknowledged by us. Default 65535.
	ReceiveMaximum int
	// MaxHeld bounds the QoS 2 messages of the client that it has not released. Default 4096.
	MaxHeld int
	// Kept says that a session which outlives its connection is kept on disk: each of its entries is told in an Enqueued and
	// is with the router until it is settled.
	Kept bool
	// RaiseQoS0 delivers at QoS 1 what was published at QoS 0, where the
	// subscription grants it, so that it is acknowledged and redelivered.
	RaiseQoS0 bool
}

// WithDefaults are o, complete, for Make. Many sessions can have the same: nobody changes them.
func (o Options) WithDefaults() *Options {
	if o.Window <= 0 {
		o.Window = 256
	}
	if o.MaxQueued <= 0 {
		o.MaxQueued = 10_000
	}
	if o.MaxQueuedBytes <= 0 {
		o.MaxQueuedBytes = 16 << 20
	}
	if o.ReceiveMaximum <= 0 {
		o.ReceiveMaximum = maxIDs
	}
	if o.MaxHeld <= 0 {
		o.MaxHeld = 4096
	}
	o.Window = min(o.Window, maxIDs)
	return &o
}

// Session is everything that the broker keeps for one client id. The zero
// value is not usable, see New.
type Session struct {
	options *Options

	// The connection, if any.
	connected     bool
	paused        bool
	version       byte
	window        uint16
	maxPacketSize int32    // 0: no limit
	aliases       *aliases // nil: there can be none

	// The life of the session.
	epoch    uint32 // counts connections, so that late completions are recognised
	exists   bool   // there is state to be present at the next CONNECT
	lasting  bool   // it is kept on disk
	lasted   bool   // it is, or was on an earlier connection
	ghost    bool   // nothing but a will is left, after a restart
	expiry   time.Duration
	expires  instant // while disconnected; 0: never
	will     *Will
	willDue  instant // while disconnected; 0: not waiting
	leaving  *Will   // published, see WillRouted
	filters  filters
	stats    counts
	outgoing outgoing
	incoming *incoming // see in
}

// Stats are counted since New; the first three are current.
type Stats struct {
	Queued    int // messages that wait to be sent, the tail included
	InFlight  int // messages that wait for their last acknowledgement
	Bytes     int // of both, in memory
	Delivered uint64
	Dropped   [numDrops]uint64 // by Drop
	Stray     uint64           // acknowledgements of nothing
}

// counts are those of Stats that are counted.
type counts struct {
	delivered uint64
	seldom    *seldom // nil: nothing yet
}

type seldom struct {
	dropped [numDrops]uint64
	stray   uint64
}

func (c *counts) rest() *seldom {
	if c.seldom == nil {
		c.seldom = new(seldom)
	}
	return c.seldom
}

func (c *counts) drop(why Drop, n uint64) {
	if n > 0 {
		c.rest().dropped[why] += n
	}
}

// New returns the session of a client id, without state and without a
// connection.
func New(o Options) *Session {
	s := Make(o.WithDefaults())
	return &s
}

// Make is New for who keeps the session in something of its own. It must not be copied once it is used.
func Make(o *Options) Session {
	return Session{options: o, outgoing: outgoing{underway: &nothing}}
}

// Connected reports whether a connection is attached.
func (s *Session) Connected() bool { return s.connected }

// Version returns the protocol version of the current or last connection.
func (s *Session) Version() byte { return s.version }

// Stats returns the session's counters.
func (s *Session) Stats() Stats {
	st := Stats{Delivered: s.stats.delivered}
	if rest := s.stats.seldom; rest != nil {
		st.Dropped, st.Stray = rest.dropped, rest.stray
	}
	st.Queued = s.outgoing.queue.n + s.outgoing.queue0.n + int(s.outgoing.tail)
	st.InFlight = s.outgoing.flights.n
	st.Bytes = s.outgoing.bytes
	return st
}

// Backlog returns how many messages wait in memory to be sent, and the bytes of those and of the unacknowledged ones.
func (s *Session) Backlog() (messages, bytes int) {
	return s.outgoing.queue.n + s.outgoing.queue0.n, s.outgoing.bytes
}

// What is kept of an exchange of QoS 2 costs so much.
const (
	pastBytes = 128 // an id past PUBREC
	heldBytes = 128 // an id of the client's
)

// StateBytes is what the exchanges are charged with of which only the ids are left.
func (s *Session) StateBytes() int {
	return pastBytes*(s.outgoing.flights.past+len(s.outgoing.bare)) + heldBytes*len(s.heldIDs())
}

// HeldBytes is what of that is for messages of the client that it has not released.
func (s *Session) HeldBytes() int { return heldBytes * len(s.heldIDs()) }

// Backlog0 returns how many QoS 0 messages wait to be sent, and their bytes.
func (s *Session) Backlog0() (messages, bytes int) { return s.outgoing.queue0.n, s.outgoing.bytes0 }

// Head returns how many QoS 1 and 2 messages wait in memory to be sent, and the bytes of those and of the unacknowledged ones.
func (s *Session) Head() (messages, bytes int) {
	return s.outgoing.queue.n, s.outgoing.bytes - s.outgoing.bytes0
}

// Taken counts the deliveries that have ended well.
func (s *Session) Taken() uint64 { return s.stats.delivered }

// Overflowed returns how many messages of QoS 0 the session had no room for.
func (s *Session) Overflowed() uint64 {
	if s.stats.seldom == nil {
		return 0
	}
	return s.stats.seldom.dropped[DropQueueFull]
}

// Connection is what a CONNECT says about the connection and the session.
type Connection struct {
	Version           byte          // 3 (MQTT 3.1), 4 (3.1.1) or 5
	Clean             bool          // Clean Start, Clean Session
	Expiry            time.Duration // Session Expiry Interval; for 3.1.1 0 with Clean, else Forever
	ReceiveMaximum    uint16        // 0: not given
	MaximumPacketSize uint32        // 0: not given
	TopicAliasMaximum uint16        // 0: not given; for version 5
	Will              *Will         // nil: none
}

// Connect attaches a connection and reports whether a session was present. It
// returns no packets: the session starts paused, and Resume after CONNACK
// sends what is due. A connection that is still attached counts as lost.
func (s *Session) Connect(now time.Time, c Connection, out []Effect) (present bool, _ []Effect) {
	if s.connected {
		out = s.Disconnect(now, Lost, out)
	}
	out = s.Tick(now, out)
	if s.ghost {
		s.will = nil // its client is back in time
	}
	if (c.Clean || s.ghost) && s.exists {
		out = s.end(now, out) // [MQTT-3.1.2-4]; the session's end publishes its will [MQTT-3.1.2-8]
	}
	present = s.exists // [MQTT-3.2.2-2, -3]
	s.exists, s.connected, s.paused = true, true, true
	s.epoch++
	s.version = c.Version
	s.window = uint16(s.options.Window) // at most maxIDs
	if c.ReceiveMaximum > 0 {
		s.window = min(s.window, c.ReceiveMaximum)
	}
	s.maxPacketSize = int32(min(c.MaximumPacketSize, math.MaxInt32))
	s.aliases = newAliases(c)
	s.expiry, s.expires = c.Expiry, 0
	s.lasting = s.options.Kept && c.Expiry > 0
	s.lasted = s.lasted || s.lasting
	s.will, s.willDue = c.Will, 0 // a delayed will of the last connection is not sent [MQTT-3.1.3-9]
	if s.outgoing.isUnderWay() {
		s.outgoing.resend = s.outgoing.flights.resendOrder()
	}
	return present, out
}

// SetExpiry takes the Session Expiry Interval of a DISCONNECT. It refuses to
// turn 0 into anything else: a protocol error (MQTT 5, section 3.14.2.2.2).
func (s *Session) SetExpiry(d time.Duration) bool {
	if s.expiry == 0 && d != 0 {
		return false
	}
	s.expiry = d
	return true
}

// Cause says how a connection ended.
type Cause uint8

// The ends of a connection.
const (
	Lost     Cause = iota // without DISCONNECT, closed by us, taken over, or DISCONNECT 0x04 and above
	Goodbye               // DISCONNECT 0x00 from the client: no will
	Stopping              // the broker stops in order: no will
)

// Disconnect detaches the connection. Acknowledgements that were still owed on
// it are forgotten: the client sends again what it got none for. Disconnecting
// twice does nothing.
func (s *Session) Disconnect(now time.Time, cause Cause, out []Effect) []Effect {
	if !s.connected {
		return out
	}
	s.connected, s.aliases = false, nil
	s.incomingLost()
	if s.outgoing.isUnderWay() {
		s.outgoing.flights.connectionLost()
	}
	for s.outgoing.queue0.n > 0 {
		out = s.dropFirst(&s.outgoing.queue0, DropOffline, out)
	}
	out = s.leaveWill(now, cause, out)
	switch {
	case s.expiry <= 0:
		return s.end(now, out) // [MQTT-3.1.2-23]
	case s.expiry != Forever:
		s.expires = instantOf(now.Add(s.expiry))
	}
	if s.lasting {
		s.unload()
	}
	s.outgoing.trim()
	return out
}

// Expiry returns for how long the session outlives its connection, Forever included; for one without a connection, how much of
// that is left.
func (s *Session) Expiry(now time.Time) time.Duration {
	if s.connected || s.expires == 0 {
		return s.expiry
	}
	return max(0, s.expires.time().Sub(now))
}

// Deadline returns when Tick must be called, zero for never. It changes only
// with Connect, Disconnect and Tick.
func (s *Session) Deadline() time.Time {
	if s.willDue == 0 || (s.expires != 0 && s.expires < s.willDue) {
		return s.expires.time()
	}
	return s.willDue.time()
}

// Tick publishes a will and ends a session whose time has come.
func (s *Session) Tick(now time.Time, out []Effect) []Effect {
	if s.willDue.reached(now) {
		out = s.publishWill(now, out)
	}
	if s.expires.reached(now) {
		out = s.end(now, out)
	}
	return out
}

// End removes a session that is not connected, whatever its expiry: its
// account is gone. A connected one is disconnected first.
func (s *Session) End(now time.Time, out []Effect) []Effect {
	out = s.Disconnect(now, Lost, out)
	if s.exists {
		out = s.end(now, out)
	}
	return out
}

// end throws the state away. A will that waits is due now: the session's end
// comes before its delay [MQTT-3.1.3-9].
func (s *Session) end(now time.Time, out []Effect) []Effect {
	out = s.publishWill(now, out)
	tail := max(s.outgoing.sent, s.outgoing.loaded)
	out = s.dropAll(out)
	out = append(out, Effect{Kind: Ended, Subscriptions: s.filters.byName(), Seq: tail})
	s.incoming = nil
	s.filters = filters{}
	s.expires = 0
	s.exists, s.lasting, s.lasted, s.ghost = false, false, false, false
	return out
}
