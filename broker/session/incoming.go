package session

// Ticket names one inbound QoS 1 or 2 message until Complete or Abandon. The
// zero Ticket names nothing.
type Ticket struct {
	epoch uint32
	place uint32
	id    uint16
	qos   byte
}

// Verdict says what to do with an inbound PUBLISH.
type Verdict uint8

// The verdicts.
const (
	Route     Verdict = iota // route it, then Complete its ticket
	StoreOnly                // give it to who must store it and to nobody else, who have it, then Complete its ticket
	Duplicate                // known: do not route it
	TooMany                  // above Receive Maximum: the Close among the effects ends the connection
)

// incoming is what the client has sent and has not been told the end of.
type incoming struct {
	pubacks row
	pubrecs row
	held    map[uint16]*held // QoS 2 ids from PUBLISH to PUBREL
	open    int              // what counts against Receive Maximum
	spare   []*held          // let go, to be used again
	said    map[uint16]said  // by QoS 1 ids that wait for their PUBACK
	fresh   fresh
	most    int // that were held, since held was made
}

// keepSpare is how many held are kept to be used again: what is beyond that, a burst has left.
const keepSpare = 64

// held is one QoS 2 packet id. It outlives the connection.
type held struct {
	ticket Ticket // as given out
	epoch  uint32 // of the connection that sent the id last
	place  uint32 // there, among the PUBRECs
	print  uint64 // of what stands in it
	known  bool   // print is
	done   bool   // completed, with this reason
	routed bool   // its subscribers have it
	again  bool   // routed, and lost to who must store it
	reason Reason
}

// row holds the acknowledgements of one kind that a connection is owed, in the
// order of the messages [MQTT-4.6.0-2, -3].
type row struct {
	places ring[place]
	first  uint32 // number of the first place
}

type place struct {
	id     uint16
	due    bool // may leave as soon as it is the first
	void   bool // to be skipped
	reason Reason
}

func (r *row) add(p place) uint32 {
	r.places.push(p)
	return r.first + uint32(r.places.n) - 1
}

// at returns nil for a place that has left.
func (r *row) at(n uint32) *place {
	if n-r.first >= uint32(r.places.n) {
		return nil
	}
	return r.places.at(int(n - r.first))
}

// next takes the first place if it may leave.
func (r *row) next() (place, bool) {
	if r.places.n == 0 || !r.places.at(0).due {
		return place{}, false
	}
	r.first++
	return r.places.pop(), true
}

// Receive takes a PUBLISH that the router has found valid. A message that may
// not be published is received and completed with the reason at once, so that
// its refusal takes its place in the row.
func (s *Session) Receive(id uint16, qos byte, out []Effect) (Ticket, Verdict, []Effect) {
	if qos == 0 || !s.connected {
		return Ticket{}, Route, out
	}
	in := s.in()
	var h *held
	if qos == 2 {
		h, out = s.heldFor(id, out)
	}
	if h != nil && h.epoch == s.epoch {
		return Ticket{}, Duplicate, s.repeat(h, out)
	}
	if s.version == 5 && in.open >= s.options.ReceiveMaximum { // [MQTT-3.3.4-7]
		return Ticket{}, TooMany, append(out, Effect{Kind: Close, Reason: ReceiveMaximumExceeded})
	}
	if qos == 2 && h == nil && len(in.held) >= s.options.MaxHeld {
		return Ticket{}, TooMany, append(out, Effect{Kind: Close, Reason: ReceiveMaximumExceeded})
	}
	in.open++
	if qos == 1 {
		n := in.pubacks.add(place{id: id})
		in.note(id, n)
		return Ticket{epoch: s.epoch, place: n, id: id, qos: 1}, Route, out
	}
	n := in.pubrecs.add(place{id: id})
	if h != nil { // from an older connection [MQTT-4.3.3-10]
		h.epoch, h.place = s.epoch, n
		if h.again {
			h.again = false
			h.ticket = Ticket{epoch: s.epoch, place: n, id: id, qos: 2}
			return h.ticket, StoreOnly, out
		}
		return Ticket{}, Duplicate, s.leave(h, out)
	}
	h = in.hold()
	h.ticket = Ticket{epoch: s.epoch, place: n, id: id, qos: 2}
	h.epoch, h.place = s.epoch, n
	h.print, h.known = in.saying(id)
	in.held[id] = h
	return h.ticket, Route, out
}

// Straight reports whether n messages of QoS 1 may be routed before they are received: none waits for its PUBACK, so they repeat
// none, and Receive Maximum allows for them. Then Answer takes them, in their order.
func (s *Session) Straight(n int) bool {
	open, waiting := 0, 0
	if in := s.incoming; in != nil {
		open, waiting = in.open, in.pubacks.places.n
	}
	return s.connected && waiting == 0 && (s.version < 5 || open+n <= s.options.ReceiveMaximum)
}

// Answer is Receive and Complete for a message that is routed, where no PUBACK has to leave before its own; else it does nothing.
func (s *Session) Answer(id uint16, reason Reason, out []Effect) (_ []Effect, done bool) {
	if in := s.incoming; in != nil && in.pubacks.places.n > 0 {
		return out, false
	}
	return append(out, Effect{Kind: Puback, PacketID: id, Reason: reason}), true
}

// Routed says that the message of a QoS 2 ticket is with its subscribers: from here on its id is kept on disk with their
// entries. It reports whether it is to be kept at all.
func (s *Session) Routed(t Ticket) bool {
	h := s.in().held[t.id]
	if t.qos != 2 || h == nil || h.ticket != t {
		return false
	}
	h.routed = true
	return s.lasting
}

// repeat answers a PUBLISH that came twice on one connection: the PUBREC that
// is still to come serves both.
func (s *Session) repeat(h *held, out []Effect) []Effect {
	if s.in().pubrecs.at(h.place) != nil {
		return out
	}
	h.place = s.in().pubrecs.add(place{id: h.ticket.id})
	return s.leave(h, out)
}

// Complete says that the message of the ticket has been taken over, or refused
// with a reason of 0x80 and above, and lets the acknowledgements go that are
// now due. It may come in any order and from any connection's time: what was
// owed on a connection that is gone is not sent on the next.
func (s *Session) Complete(t Ticket, reason Reason, out []Effect) []Effect {
	in := s.in()
	switch t.qos {
	case 1:
		p := in.pubacks.at(t.place)
		if t.epoch != s.epoch || p == nil || p.due {
			return out
		}
		p.due, p.reason = true, reason
		return s.releasePubacks(out)
	case 2:
		h := in.held[t.id]
		if h == nil || h.ticket != t || h.done {
			return out
		}
		if !s.owed(h) && reason.Failed() {
			in.forget(t.id) // nobody was told: the repetition is judged anew
			return out
		}
		h.done, h.reason = true, reason
		return s.leave(h, out)
	}
	return out
}

// Abandon says that the message of the ticket was lost on our side. It is
// never acknowledged; the connection that waits for it is closed, and the
// message is routed again when the client repeats it: to all, or, once it was
// Routed, to who must store it.
func (s *Session) Abandon(t Ticket, out []Effect) []Effect {
	in := s.in()
	waits := s.connected && t.epoch == s.epoch
	switch t.qos {
	case 1:
		p := in.pubacks.at(t.place)
		waits = waits && p != nil && !p.due
	case 2:
		h := in.held[t.id]
		if h == nil || h.ticket != t || h.done {
			return out
		}
		waits = s.owed(h)
		if h.again = h.routed; h.again {
			h.ticket = Ticket{id: t.id} // it names nothing any more
		} else {
			in.forget(t.id)
		}
	default:
		return out
	}
	if waits {
		out = append(out, Effect{Kind: Close, Reason: QuotaExceeded})
	}
	return out
}

// Pubrel takes a PUBREL: the id is free, and a late Complete finds nothing.
//
// It is answered whatever stands in it [MQTT-4.3.3-11], and with 0x00 where the id is free already. The standard leaves the code open
// [MQTT-3.7.2-1]: 0x92 would say that the two sides' states differ, and "is not an error during recovery" (MQTT 5, 3.7.2.1). The
// client is then sending again what it got no PUBCOMP for, and we, who keep nothing of an id that is released, cannot tell that
// from anything else. What 0x00 says is true each time: the id is released, and the message, which has had its PUBREC or never
// was, needs nothing more. To 0x92 clients say that the message has failed (MQTT.js does), and somebody sends it once more.
func (s *Session) Pubrel(id uint16, out []Effect) []Effect {
	if !s.connected {
		return out
	}
	in := s.in()
	h := in.held[id]
	if h == nil {
		s.stats.rest().stray++
		return append(out, Effect{Kind: Pubcomp, PacketID: id})
	}
	if h.epoch == s.epoch {
		in.open--
		if p := in.pubrecs.at(h.place); p != nil { // before its PUBREC: the client gave it up
			p.void, p.due = true, true
		}
	}
	in.forget(id)
	return s.releasePubrecs(append(out, Effect{Kind: Pubcomp, PacketID: id}))
}

// owed reports whether the current connection waits for h's PUBREC.
func (s *Session) owed(h *held) bool {
	return s.connected && h.epoch == s.epoch && s.in().pubrecs.at(h.place) != nil
}

// leave lets h's PUBREC go when it is due and its turn.
func (s *Session) leave(h *held, out []Effect) []Effect {
	if !h.done || !s.owed(h) {
		return out
	}
	p := s.in().pubrecs.at(h.place)
	p.due, p.reason = true, h.reason
	return s.releasePubrecs(out)
}

func (s *Session) releasePubacks(out []Effect) []Effect {
	for {
		p, ok := s.in().pubacks.next()
		if !ok {
			return out
		}
		s.in().open--
		s.in().acknowledged(p.id, s.in().pubacks.first-1)
		out = append(out, Effect{Kind: Puback, PacketID: p.id, Reason: p.reason})
	}
}

func (s *Session) releasePubrecs(out []Effect) []Effect {
	in := s.in()
	for {
		p, ok := in.pubrecs.next()
		if !ok {
			return out
		}
		if p.void {
			continue
		}
		if p.reason.Failed() && s.version == 5 { // ends the exchange [MQTT-4.3.3-9]
			in.open--
			in.forget(p.id)
		}
		out = append(out, Effect{Kind: Pubrec, PacketID: p.id, Reason: p.reason})
	}
}

// in is s.incoming, which most sessions do without: of clients that only subscribe, and those that are away.
func (s *Session) in() *incoming {
	if s.incoming == nil {
		s.incoming = new(incoming)
	}
	return s.incoming
}

// heldIDs are the QoS 2 ids from PUBLISH to PUBREL.
func (s *Session) heldIDs() map[uint16]*held {
	if s.incoming == nil {
		return nil
	}
	return s.incoming.held
}

// incomingLost forgets what was owed; QoS 2 ids stay.
func (s *Session) incomingLost() {
	in := s.incoming
	if in == nil || len(in.held) == 0 {
		s.incoming = nil
		return
	}
	in.pubacks, in.pubrecs, in.open, in.spare, in.said, in.fresh = row{}, row{}, 0, nil, nil, fresh{}
}

// hold returns an empty held.
func (in *incoming) hold() *held {
	if in.held == nil {
		in.held = make(map[uint16]*held)
	}
	n := len(in.spare)
	if n == 0 {
		return &held{}
	}
	h := in.spare[n-1]
	in.spare = in.spare[:n-1]
	return h
}

// forget lets an id go.
func (in *incoming) forget(id uint16) {
	h := in.held[id]
	if len(in.spare) < keepSpare {
		*h = held{}
		in.spare = append(in.spare, h)
	}
	delete(in.held, id)
	in.most = max(in.most, len(in.held))
	if len(in.held) == 0 && in.most > keepSpare { // a map does not shrink
		in.held, in.most = nil, 0
	}
}
