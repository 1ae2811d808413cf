package session

// said is what stands in a QoS 1 PUBLISH whose PUBACK is still to come.
type said struct {
	print uint64
	place uint32 // among the PUBACKs
}

// fresh is what stands in the PUBLISH that Receive gets next.
type fresh struct {
	id    uint16
	print uint64
	known bool
}

// Repeated tells, before Receive, what stands in a PUBLISH: print is a fingerprint of its topic and payload. It returns true
// when the message needs no more than the PUBACK that is still to come: the same one came before on this connection, with
// that id. Clients send it again when an acknowledgement is slow, with DUP (esp-mqtt) and without (older ones, MQTT.js,
// rumqttc). With other content it is another message, also at QoS 2, where the client has then given up the one before.
func (s *Session) Repeated(id uint16, qos byte, print uint64) bool {
	if qos == 0 || !s.connected {
		return false
	}
	in := s.in()
	if before, there := in.said[id]; qos == 1 && there && before.print == print {
		return true
	}
	in.fresh = fresh{id, print, true}
	return false
}

// heldFor returns the QoS 2 message that a PUBLISH is, nil if it is a new one. One that says something else is forgotten: its
// client does not speak of it any more.
func (s *Session) heldFor(id uint16, out []Effect) (*held, []Effect) {
	in := s.in()
	h := in.held[id]
	if f := in.fresh; h == nil || !h.known || !f.known || f.id != id || f.print == h.print {
		return h, out
	}
	if h.epoch == s.epoch {
		in.open--
		if p := in.pubrecs.at(h.place); p != nil {
			p.void, p.due = true, true
		}
	}
	in.forget(id)
	return nil, s.releasePubrecs(out)
}

// saying takes what Repeated was told about the id.
func (in *incoming) saying(id uint16) (print uint64, known bool) {
	f := in.fresh
	in.fresh = fresh{}
	return f.print, f.known && f.id == id
}

// note remembers what stands in a QoS 1 PUBLISH until its PUBACK leaves.
func (in *incoming) note(id uint16, place uint32) {
	print, known := in.saying(id)
	if !known {
		return
	}
	if in.said == nil {
		in.said = make(map[uint16]said)
	}
	in.said[id] = said{print, place}
}

// OwesPubacks reports whether a message of QoS 1 waits for its PUBACK, of which Repeated must be asked.
func (s *Session) OwesPubacks() bool { return s.incoming != nil && len(s.incoming.said) > 0 }

// OwesPuback reports whether the client has yet to get the PUBACK of a ticket on this connection.
func (s *Session) OwesPuback(t Ticket) bool {
	return t.qos == 1 && t.epoch == s.epoch && s.in().pubacks.at(t.place) != nil
}

// Remember takes what stands in a message of QoS 1 for which Repeated was not called, when it OwesPuback.
func (s *Session) Remember(t Ticket, print uint64) {
	s.in().fresh = fresh{t.id, print, true}
	s.in().note(t.id, t.place)
}

// acknowledged forgets it, unless the id has been used for another message since.
func (in *incoming) acknowledged(id uint16, place uint32) {
	if of, there := in.said[id]; there && of.place == place {
		delete(in.said, id)
	}
}
