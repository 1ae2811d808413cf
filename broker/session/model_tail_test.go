package session

import (
	"slices"
	"time"
)

// maxLoad is how many entries the world loads at a time.
const maxLoad = 5

// inTail reports whether a parcel that was never sent is only with the router.
func (w *world) inTail(p *parcel) bool {
	_, _, after := w.s.Tail()
	return p.qos > 0 && p.seq > after
}

// parcel is what a Delivered or Dropped is about.
func (w *world) parcel(e *Effect) *parcel {
	if e.Token != nil {
		p := e.Token.(*parcel)
		w.must(e.Seq == 0 || e.Seq == p.seq, "the number of the entry")
		return p
	}
	for _, list := range [][]Entry{w.kept, w.gone} {
		if i := slices.IndexFunc(list, func(k Entry) bool { return k.Seq == e.Seq }); i >= 0 {
			return list[i].Token.(*parcel)
		}
	}
	w.must(false, "an entry that is with the router")
	return nil
}

// load gives the session more of its tail, and resumes it.
func (w *world) load() {
	if !w.s.WantsLoad() {
		return
	}
	_, _, after := w.s.Tail()
	n, upTo := 1+w.dice.roll(maxLoad), w.s.Newest()
	var entries []Entry
	for _, e := range w.kept {
		if e.Seq <= after {
			continue
		}
		if entries = append(entries, e); len(entries) == n {
			upTo = e.Seq
			break
		}
	}
	w.note("load ", after, len(entries), upTo)
	w.out = w.s.Load(w.now, entries, upTo, w.out)
	if !w.s.Lasting() {
		w.kept = slices.DeleteFunc(w.kept, func(e Entry) bool { return e.Seq <= upTo && !w.flies(e) })
	}
	w.resuming = true
	w.out = w.s.Resume(w.now, 1<<30, w.out)
}

func (w *world) flies(e Entry) bool {
	return slices.ContainsFunc(w.flying, func(p *parcel) bool { return p.m == e.Message })
}

// restart lets the broker be lost and come back with what the router has kept.
func (w *world) restart() {
	if !w.o.Kept {
		return
	}
	lasting, will, was := w.s.Lasting(), w.will, w.connected
	w.note("restart ", was, lasting, len(w.flying), w.conn.Expiry, w.s.expiry)
	moment := Moment{Now: w.now, Wall: w.now}
	var blob []byte
	if w.s.Worth() {
		blob = w.s.AppendState(nil, moment)
	}
	if was {
		w.disconnected(Goodbye) // for what is ours to forget; the will is below
		w.endsNow, w.willDue = false, false
	}
	for _, p := range w.due {
		delete(w.live, p.m)
	}
	w.due, w.open = nil, nil
	for id, l := range w.held {
		if !l.routed || !lasting {
			delete(w.held, id)
			continue
		}
		l.epoch, l.again, l.gone = 0, !l.done, !l.done
	}
	w.will = will
	if was && will != nil {
		w.willAt = w.now.Add(max(will.Delay, WillPatience))
	}
	w.s = New(w.o)
	if !lasting {
		w.endsAt, w.ghost, w.exists, w.kept, w.seq = time.Time{}, will != nil, false, nil, 0
		for m := range w.live {
			delete(w.live, m)
		}
		w.pending, w.flying, w.released = nil, nil, nil
	}
	if blob == nil {
		w.willAt = time.Time{}
		return
	}
	newest, bytes := uint64(0), 0
	for _, e := range w.kept {
		newest = e.Seq
		bytes += e.Cost()
	}
	_, err := w.s.Restore(blob, newest, moment)
	w.must(err == nil, "restored")
	if w.ghost {
		w.endsAt = w.willAt
		w.seq = w.s.Newest()
		return
	}
	w.s.Waiting(len(w.pending)+len(w.flying), bytes)
	for _, p := range w.pending {
		p.doubt = p.doubt || was
	}
	// What is in the air keeps its id, and is of no connection.
	for _, list := range [][]*parcel{w.flying, w.released} {
		for _, p := range list {
			p.epoch = 0
		}
	}
}
