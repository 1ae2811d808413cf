package session

import "slices"

func (w *world) settle(i int, reason Reason) *parcel {
	p := w.flying[i]
	p.reason = reason
	w.flying = slices.Delete(w.flying, i, i+1)
	w.due = append(w.due, p)
	return p
}

func (w *world) receive() {
	qos, id, print := byte(1+w.dice.roll(2)), uint16(1+w.dice.roll(8)), uint64(w.dice.roll(2))
	w.note("receive ", qos, id, print)
	if !w.connected {
		ticket, _, out := w.s.Receive(id, qos, w.out)
		w.must(ticket == Ticket{} && len(out) == len(w.out), "nothing is received without a connection")
		return
	}
	if w.repeated(id, qos, print) {
		return
	}
	h := w.held[id]
	open := len(w.pubacks)
	for _, l := range w.held {
		if l.epoch == w.epoch {
			open++
		}
	}
	var ticket Ticket
	var verdict Verdict
	ticket, verdict, w.out = w.s.Receive(id, qos, w.out)
	again := qos == 2 && h != nil && h.epoch == w.epoch
	switch {
	case again:
		w.must(verdict == Duplicate, "repeated on one connection")
		if !slices.Contains(w.pubrecs, h) {
			w.pubrecs = append(w.pubrecs, h)
		}
	case w.conn.Version == 5 && open >= w.o.ReceiveMaximum:
		w.must(verdict == TooMany, "above Receive Maximum")
		w.closes = true
	case qos == 2 && h != nil && h.again:
		w.must(verdict == StoreOnly, "lost to storage")
		h.epoch, h.again, h.gone, h.ticket = w.epoch, false, false, ticket
		w.pubrecs = append(w.pubrecs, h)
		w.open = append(w.open, h)
	case qos == 2 && h != nil:
		w.must(verdict == Duplicate, "repeated from an older connection")
		h.epoch = w.epoch
		w.pubrecs = append(w.pubrecs, h)
	default:
		w.must(verdict == Route, "a new message is routed")
		l := &letter{id: id, ticket: ticket, epoch: w.epoch, print: print}
		w.open = append(w.open, l)
		if qos == 1 {
			w.pubacks = append(w.pubacks, l)
		} else {
			w.pubrecs = append(w.pubrecs, l)
			w.held[id] = l
			if w.dice.roll(2) == 0 {
				l.routed = true
				w.must(w.s.Routed(ticket) == w.s.Lasting(), "to be kept")
			}
		}
	}
}

// repeated tells the session what stands in the PUBLISH that comes next.
func (w *world) repeated(id uint16, qos byte, print uint64) bool {
	same := false
	if qos == 1 {
		for _, l := range w.pubacks {
			if l.id == id {
				same = l.print == print // the latest counts
			}
		}
	} else if h := w.held[id]; h != nil && h.print != print {
		h.void, h.done = true, true // the client does not speak of it any more
		delete(w.held, id)
	}
	got := w.s.Repeated(id, qos, print)
	w.must(got == same, "the same message on an id that waits for its PUBACK, and no other")
	return got
}

// take removes an open letter: mostly an early one, sometimes twice.
func (w *world) take() *letter {
	if len(w.open) == 0 {
		return &letter{gone: true}
	}
	i := w.dice.roll(min(4, len(w.open)))
	l := w.open[i]
	if w.dice.roll(20) > 0 {
		w.open = slices.Delete(w.open, i, i+1)
	}
	return l
}

func (w *world) complete() {
	l := w.take()
	var reason Reason
	if w.dice.roll(5) == 0 {
		reason = 0x87
	}
	w.note("complete ", l.id, l.ticket, reason)
	owed := w.connected && l.epoch == w.epoch
	switch {
	case l.done || l.gone:
	case l.ticket.qos == 2 && reason.Failed() && !owed:
		l.gone = true
		delete(w.held, l.id)
	default:
		l.done, l.reason = true, reason
	}
	w.out = w.s.Complete(l.ticket, reason, w.out)
}

func (w *world) abandon() {
	l := w.take()
	w.note("abandon ", l.id, l.ticket)
	if !l.done && !l.gone {
		w.closes = w.connected && l.epoch == w.epoch
		if l.ticket.qos == 2 {
			if l.gone, l.again = true, l.routed; !l.routed {
				delete(w.held, l.id)
			}
		}
	}
	w.out = w.s.Abandon(l.ticket, w.out)
}

func (w *world) pubrel() {
	id := uint16(1 + w.dice.roll(8))
	w.note("pubrel ", id)
	if w.connected {
		if h := w.held[id]; h != nil {
			h.void = true
			h.done = true
			delete(w.held, id)
		}
		w.comps = append(w.comps, ack{id, Success})
	}
	w.out = w.s.Pubrel(id, w.out)
}
