package session

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// dice decides what happens next: rapid's in the short form, a seeded
// generator in the long one.
type dice interface{ roll(n int) int }

// world drives one session through random events and keeps, in plain lists,
// what a client and a broker would know. Each effect is judged against the lists.
type world struct {
	fatalf func(format string, args ...any)
	dice   dice
	s      *Session
	o      Options
	out    []Effect
	log    [40]string // the last events
	steps  int

	now       time.Time
	conn      Connection
	names     map[uint16]string // topics by alias, as the client has them
	connected bool
	exists    bool
	epoch     int
	resuming  bool
	wasPaused bool

	// To the client.
	live     map[*Message]*parcel
	pending  []*parcel // QoS 1 and 2, never sent, in order
	pending0 []*parcel
	flying   []*parcel // sent, in order
	released []*parcel // past PUBREC, in the order of the PUBRECs
	due      []*parcel // must be settled within this step
	rels     []ack     // PUBRELs that must leave within this step, in order
	newest   *parcel   // being delivered in this step

	// What a router keeps, and what a restart makes of it.
	seq     uint64 // of the newest entry
	kept    []Entry
	gone    []Entry // with the session that has ended in this step
	ghost   bool
	loading bool

	// From the client.
	pubacks  []*letter
	pubrecs  []*letter
	held     map[uint16]*letter
	open     []*letter // routed, not completed
	comps    []ack
	closes   bool
	will     *Will
	willAt   time.Time
	willDue  bool
	endsAt   time.Time
	endsNow  bool
	willSeen int
}

type ack struct {
	id     uint16
	reason Reason
}

// parcel is one delivery; it is its own token.
type parcel struct {
	m      *Message
	qos    byte
	retain bool
	id     uint16
	epoch  int // of the last sending
	sent0  bool
	reason Reason // of the client's acknowledgement
	seq    uint64
	doubt  bool // it may have been sent before a restart
}

// letter is one inbound message.
type letter struct {
	id     uint16
	ticket Ticket
	epoch  int
	done   bool
	void   bool // given up by PUBREL or by another message on its id: its place is skipped
	gone   bool // its ticket names nothing any more
	reason Reason
	print  uint64
	routed bool
	again  bool // only who must store it has not got it
}

func newWorld(d dice, fatalf func(string, ...any)) *world {
	w := &world{fatalf: fatalf, dice: d, now: noon, live: map[*Message]*parcel{}, held: map[uint16]*letter{}}
	w.o = Options{
		Window: 1 + d.roll(8), MaxQueued: 1 + d.roll(12), MaxQueuedBytes: 1000 + d.roll(8000),
		ReceiveMaximum: 1 + d.roll(6), RaiseQoS0: d.roll(2) == 0, Kept: d.roll(3) > 0,
	}
	w.s = New(w.o)
	return w
}

func (w *world) must(ok bool, what string) {
	if ok {
		return
	}
	w.fatalf("step %d: %s\nlast events:\n%v", w.steps, what, w.events())
}

func (w *world) events() (s string) {
	for i := range w.log {
		if line := w.log[(w.steps+i+1)%len(w.log)]; line != "" {
			s += line + "\n"
		}
	}
	return s
}

func (w *world) note(event string, args ...any) {
	w.log[w.steps%len(w.log)] = fmt.Sprint(event, args)
}

// step lets one event happen and judges what follows from it.
func (w *world) step() {
	w.steps++
	w.newest, w.resuming, w.loading, w.wasPaused = nil, false, false, w.s.Paused()
	w.out = w.out[:0]
	if !w.connected && w.dice.roll(6) == 0 {
		w.connect()
	} else {
		w.event()
	}
	w.judge()
	if w.closes {
		w.closes = false
		w.out = w.out[:0]
		w.disconnect(Lost)
		w.judge()
	}
}

func (w *world) event() {
	switch k := w.dice.roll(100); {
	case k < 28:
		w.deliver()
	case k < 55:
		w.acknowledge()
	case k < 67:
		w.receive()
	case k < 80:
		w.complete()
	case k < 81:
		w.abandon()
	case k < 87:
		w.pubrel()
	case k < 89:
		w.note("pause")
		w.s.Pause()
	case k < 93:
		w.resume()
	case k < 96:
		w.load()
	case k < 98:
		w.now = w.now.Add(time.Duration(w.dice.roll(4000)) * time.Millisecond)
		w.tick()
		w.note("tick")
		w.out = w.s.Tick(w.now, w.out)
	case k < 99 && w.dice.roll(2) == 0:
		w.restart()
	case k < 99:
		w.note("connect over the old one or again")
		w.connect()
	default:
		w.disconnect(Cause(w.dice.roll(3)))
	}
}

// tick notes what the time brings.
func (w *world) tick() {
	if w.connected {
		return
	}
	ends := !w.endsAt.IsZero() && !w.now.Before(w.endsAt)
	if w.will != nil && !w.willAt.IsZero() && !w.now.Before(w.willAt) {
		w.willDue = true
	}
	if ends {
		w.ended()
	}
}

// ended notes that the session is over: all is to be settled.
func (w *world) ended() {
	w.endsNow, w.exists = true, false
	w.willDue = w.willDue || w.will != nil
	w.due = append(w.due, w.flying...)
	w.gone = slices.Clone(w.kept)
	for _, p := range w.pending {
		if w.inTail(p) || w.s.Lasting() && !w.connected {
			w.settled(p) // the router knows it
			continue
		}
		w.due = append(w.due, p)
	}
	w.due = append(w.due, w.pending0...)
	w.kept, w.seq, w.ghost = nil, 0, false
	w.flying, w.released, w.pending, w.pending0 = nil, nil, nil, nil
	clear(w.held)
	w.open = nil
	w.endsAt = time.Time{}
}

func (w *world) connect() {
	c := Connection{Version: 4 + byte(w.dice.roll(2)), Clean: w.dice.roll(6) == 0, Expiry: Forever}
	switch w.dice.roll(5) {
	case 0:
		c.Expiry = 0
	case 1:
		c.Expiry = time.Duration(1+w.dice.roll(6)) * time.Second
	}
	if c.Version == 5 {
		c.ReceiveMaximum = uint16(w.dice.roll(6))
		if w.dice.roll(3) == 0 {
			c.MaximumPacketSize = uint32(40 + w.dice.roll(800))
		}
		if w.dice.roll(3) > 0 {
			c.TopicAliasMaximum = []uint16{1, 3, 15, 16, 17, 65535}[w.dice.roll(6)]
		}
	}
	if w.dice.roll(2) == 0 {
		c.Will = &Will{Message: Message{Topic: "will"}, Delay: time.Duration(w.dice.roll(4)) * time.Second, Expiry: time.Duration(w.dice.roll(2)) * time.Second}
	}
	w.note("connect ", c)
	if w.connected {
		w.disconnected(Lost)
	}
	w.tick()
	if w.ghost {
		w.will, w.willDue = nil, false
		w.ended()
	}
	if c.Clean && w.exists {
		w.ended()
	}
	present := w.exists
	w.exists, w.connected, w.conn, w.wasPaused, w.names = true, true, c, true, map[uint16]string{}
	if !w.willDue {
		w.will = nil
	}
	var got bool
	got, w.out = w.s.Connect(w.now, c, w.out)
	if !present {
		w.s.outgoing.begin()
		w.s.outgoing.flights.lastID = uint16(65535 - w.dice.roll(100)) // the ids wrap around soon
	}
	w.must(got == present, "session present")
	w.must(w.s.Paused(), "paused until CONNACK")
	w.judge()
	w.out = w.out[:0]
	w.epoch++
	w.will, w.willAt, w.endsAt = c.Will, time.Time{}, time.Time{}
}

// disconnected notes what a lost connection means.
func (w *world) disconnected(cause Cause) {
	w.connected = false
	w.pubacks, w.pubrecs = nil, nil
	w.due = append(w.due, w.pending0...)
	w.pending0 = nil
	switch {
	case w.will == nil:
	case cause != Lost:
		w.will = nil
	case w.will.Delay == 0:
		w.willDue = true
	default:
		w.willAt = w.now.Add(w.will.Delay)
	}
	switch w.conn.Expiry {
	case 0:
		w.ended()
	case Forever:
		w.endsAt = time.Time{}
	default:
		w.endsAt = w.now.Add(w.conn.Expiry)
	}
}

func (w *world) disconnect(cause Cause) {
	w.note("disconnect ", cause)
	if w.connected {
		w.disconnected(cause)
	}
	w.out = w.s.Disconnect(w.now, cause, w.out)
}

func (w *world) resume() {
	room := []int{1, 600, 1 << 30, 1 << 30}[w.dice.roll(4)]
	w.note("resume ", room)
	w.resuming = true
	w.out = w.s.Resume(w.now, room, w.out)
	w.must(room < 1<<30 || !w.s.Paused(), "room enough ends the pause")
}

// topic is one of more than have aliases, from too short for one to longer than the client takes.
func (w *world) topic() string {
	n := min(w.dice.roll(24), w.dice.roll(24)) // some are more common
	return strings.Repeat(string(rune('a'+n)), []int{3, 4, 5, 20, 45, 300}[n%6])
}

func (w *world) deliver() {
	m := &Message{Topic: w.topic(), Payload: make([]byte, w.dice.roll(4)*150), QoS: byte(w.dice.roll(3)), Retain: w.dice.roll(2) == 0}
	if w.dice.roll(4) == 0 {
		m.Expires = w.now.Add(time.Duration(w.dice.roll(5)) * time.Second)
	}
	o := Offer{QoS: byte(w.dice.roll(3)), RetainAsPublished: w.dice.roll(2) == 0, Retained: w.dice.roll(5) == 0}
	p := &parcel{m: m, qos: min(m.QoS, o.QoS), retain: o.Retained || m.Retain && o.RetainAsPublished}
	if w.o.RaiseQoS0 && m.QoS == 0 {
		p.qos = min(o.QoS, 1)
	}
	o.Token = p
	w.note("deliver ", p.qos, len(m.Payload), m.Expires)
	w.newest = p
	w.live[m] = p
	if p.qos == 0 {
		w.pending0 = append(w.pending0, p)
	} else {
		if w.exists {
			w.seq++
			p.seq = w.seq
		}
		w.pending = append(w.pending, p)
	}
	w.out = w.s.Deliver(w.now, m, o, w.out)
}

// anyID prefers ids that mean something.
func (w *world) anyID(from []*parcel) uint16 {
	switch k := w.dice.roll(12); {
	case k == 0 || len(from) == 0:
		return uint16(w.dice.roll(65536))
	case k < 4:
		return from[w.dice.roll(len(from))].id
	default:
		return from[0].id
	}
}

// acknowledge lets the client send PUBACK, PUBREC or PUBCOMP, mostly a sensible one.
func (w *world) acknowledge() {
	var reason Reason
	if w.dice.roll(6) == 0 {
		reason = 0x80
	}
	kind := w.dice.roll(10)
	id := w.anyID(w.flying)
	if len(w.released) > 0 && kind%2 == 0 {
		id = w.anyID(w.released)
	}
	byID := func(p *parcel) bool { return p.id == id }
	flying, released := slices.IndexFunc(w.flying, byID), slices.IndexFunc(w.released, byID)
	if kind > 2 { // the fitting one
		kind = 0
		if flying >= 0 && w.flying[flying].qos == 2 {
			kind = 1
		} else if released >= 0 {
			kind = 2
		}
	}
	w.note("ack ", kind, id, reason)
	fits := released >= 0 && kind > 0 || flying >= 0 && kind == int(w.flying[flying].qos)-1
	w.closes = w.connected && !fits && (flying >= 0 || released >= 0)
	switch kind {
	case 0:
		if w.connected && flying >= 0 && w.flying[flying].qos == 1 {
			w.settle(flying, reason)
		}
		w.out = w.s.Puback(w.now, id, reason, w.out)
	case 1:
		w.recorded(flying, released, id, reason)
		w.out = w.s.Pubrec(w.now, id, reason, w.out)
	case 2:
		if w.connected && released >= 0 {
			w.released = slices.Delete(w.released, released, released+1)
		}
		w.out = w.s.Pubcomp(w.now, id, w.out)
	}
}

// recorded notes what a PUBREC means.
func (w *world) recorded(flying, released int, id uint16, reason Reason) {
	if !w.connected {
		return
	}
	switch {
	case flying >= 0 && w.flying[flying].qos == 2:
		p := w.settle(flying, reason)
		if !reason.Failed() {
			p.epoch = w.epoch
			w.released = append(w.released, p)
			w.rels = append(w.rels, ack{id, Success})
		}
	case released >= 0 && reason.Failed():
		w.released = slices.Delete(w.released, released, released+1)
	case released >= 0:
		w.released[released].epoch = w.epoch
		w.rels = append(w.rels, ack{id, Success})
	case flying < 0 && !reason.Failed():
		w.rels = append(w.rels, ack{id, PacketIDNotFound})
	}
}
