package session

import "time"

// This file takes what clients send us about deliveries to them: PUBACK, PUBREC and PUBCOMP. What we owe them for their own
// messages is in incoming.go.

// stray counts an acknowledgement that does not fit. One that answers nothing may be late and is no fault; one of the wrong
// kind for what was sent ends the connection [MQTT 3.1.1, MQTT-4.8.0-1; MQTT 5, MQTT-4.13.1-1].
func (s *Session) stray(f *flight, out []Effect) []Effect {
	s.stats.rest().stray++
	if !s.connected || f == nil {
		return out
	}
	return append(out, Effect{Kind: Close, Reason: ProtocolError})
}

// Puback takes a PUBACK from the client. One that answers nothing is ignored.
func (s *Session) Puback(now time.Time, id uint16, reason Reason, out []Effect) []Effect {
	f := s.outgoing.flights.find(id)
	if !s.connected || f == nil || f.qos != 1 {
		return s.stray(f, out)
	}
	e := f.entry
	s.takeBack(f)
	s.outgoing.flights.remove(f)
	return s.advance(now, s.answered(&e, reason, out))
}

// Pubrec takes a PUBREC: from here on the client owns the message, so its
// token is settled and only the packet id is kept until PUBCOMP. A PUBREC that
// answers nothing gets its PUBREL all the same, so that the client can forget it.
func (s *Session) Pubrec(now time.Time, id uint16, reason Reason, out []Effect) []Effect {
	t := &s.outgoing.flights
	f := t.find(id)
	if !s.connected || f == nil || f.qos != 2 {
		if out = s.stray(f, out); !s.connected || f != nil || reason.Failed() {
			return out
		}
		return append(out, Effect{Kind: Pubrel, PacketID: id, Reason: PacketIDNotFound})
	}
	if f.holds() {
		out = s.answered(&f.entry, reason, out)
		s.takeBack(f)
		t.letGo(f)
	}
	if reason.Failed() { // the exchange is over, no PUBREL follows
		t.remove(f)
		return s.advance(now, out)
	}
	t.sent(f, released)
	return append(out, Effect{Kind: Pubrel, PacketID: id}) // [MQTT-4.3.3-4]
}

// Pubcomp takes a PUBCOMP, whatever its reason: the packet id is free.
func (s *Session) Pubcomp(now time.Time, id uint16, out []Effect) []Effect {
	t := &s.outgoing.flights
	f := t.find(id)
	if !s.connected || f == nil || f.qos != 2 || f.holds() {
		return s.stray(f, out)
	}
	t.remove(f)
	return s.advance(now, out)
}

// answered ends a delivery as the client's acknowledgement says.
func (s *Session) answered(e *entry, reason Reason, out []Effect) []Effect {
	if reason.Failed() {
		s.stats.drop(DropRefused, 1)
		return s.settle(e, Effect{Kind: Dropped, Drop: DropRefused, Reason: reason}, out)
	}
	s.stats.delivered++
	return s.settle(e, Effect{Kind: Delivered}, out)
}

// drop ends a delivery that is in no queue and has no packet id. In the end everything that is dropped comes here or to
// answered, and is counted there.
func (s *Session) drop(e *entry, why Drop, reason Reason, out []Effect) []Effect {
	s.stats.drop(why, 1)
	return s.settle(e, Effect{Kind: Dropped, Drop: why, Reason: reason}, out)
}

// settle appends the end of a delivery's story, if anybody waits for it.
func (s *Session) settle(e *entry, end Effect, out []Effect) []Effect {
	if s.lasted {
		end.Seq = e.seq
	}
	if e.token == nil && end.Seq == 0 {
		return out
	}
	end.Token = e.token
	return append(out, end)
}

// takeBack takes the message of a flight out of the account.
func (s *Session) takeBack(f *flight) {
	if f.message == nil {
		delete(s.outgoing.bare, f.seq)
		s.outgoing.bareBytes -= int(f.bareBytes)
		return
	}
	s.outgoing.bytes -= f.costBytes()
}

// dropFirst drops the first entry of a queue.
func (s *Session) dropFirst(queue *ring[entry], why Drop, out []Effect) []Effect {
	e := s.shift(queue)
	return s.drop(&e, why, 0, out)
}

// dropFlight drops a message that an older connection was sent and this one
// may not be. At QoS 2 the client may have it and know its id: a PUBREL clears
// that up, where reusing the id would make the next message look like a repetition.
func (s *Session) dropFlight(f *flight, why Drop, reason Reason, out []Effect) []Effect {
	s.takeBack(f)
	out = s.dropBegun(f, why, reason, out)
	if f.qos == 1 {
		s.outgoing.flights.remove(f)
		return out
	}
	t := &s.outgoing.flights
	t.letGo(f)
	t.sent(f, released)
	return append(out, Effect{Kind: Pubrel, PacketID: f.id})
}

// dropBegun drops a message whose sending has begun, and says so.
func (s *Session) dropBegun(f *flight, why Drop, reason Reason, out []Effect) []Effect {
	n := len(out)
	if out = s.drop(&f.entry, why, reason, out); len(out) > n {
		out[n].QoS, out[n].PacketID = f.qos, f.id
	}
	return out
}

// dropAll gives every token back: those on the way first, in their order. Those of the tail are with the router.
func (s *Session) dropAll(out []Effect) []Effect {
	b := &s.outgoing
	for _, id := range b.flights.resendOrder() {
		if f := b.flights.find(id); f.holds() {
			out = s.dropBegun(f, DropEnded, 0, out)
		}
	}
	for b.queue.n > 0 {
		out = s.dropFirst(&b.queue, DropEnded, out)
	}
	s.stats.drop(DropEnded, uint64(b.tail))
	*b = outgoing{underway: &nothing} // queue0 went with the connection
	return out
}
