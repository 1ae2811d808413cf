package broker

import (
	"sync"
	"time"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/session"
)

const (
	// pauseBytes of deliveries in a connection's queue make its session wait until the queue has drained. Between
	// pauseBytes and the queue's limit there is room for acknowledgements.
	pauseBytes = 256 << 10
	// shareBytes: payloads from here on are shared between connections. Keeping a reference is cheaper than copying.
	shareBytes       = 4 << 10
	keptScratchBytes = 64 << 10
)

// work is what one goroutine does in the router: it calls one session after the other, writes the packets that come
// of it to their connections' queues while it holds the session's lock, and what concerns other sessions after that.
// Sockets are written to at the end, by flush; for a connection's reader that is the end of its round, see loop.go.
type work struct {
	r     *router
	out   []session.Effect // of the call that runs
	after []consequence    // still to be done
	dirty []*network.Conn  // given something and not flushed
	buf   []byte

	bundle  bundle      // what a client sent in a row
	pub     publication // that is routed, see route
	routing bool
	kept    []*receipt // one thing that each of them waited for has come

	toIngest *network.Conn // dirty
	patience patience      // of who has sent what is for ingest

	behind  int    // bytes that were read behind the packet that is dealt with
	granted amount // credits beside the one that was waited for, see turn

	passed    []*pass     // of sessions that the publisher has waited for, see keepPace
	slowGroup *shareGroup // that publishers should wait for, see waitForGroup; nil: none
	urgent    bool        // before the next message of the round
}

// consequence is an effect that leads away from the session that it came from.
type consequence struct {
	from *peer
	session.Effect
	ended journal.SessionID // of a WillDue: the session that has ended with it
}

var spareWork = sync.Pool{New: func() any { return new(work) }}

// begin returns a work for a goroutine that is not a connection's reader; finish ends it.
func (r *router) begin() *work {
	w := spareWork.Get().(*work)
	w.r = r
	return w
}

func (w *work) finish() {
	w.settle()
	w.flush()
	w.slowGroup, w.urgent = nil, false
	spareWork.Put(w)
}

// apply gives the packets among w.out to the connection of p, and keeps the rest for settle. The caller holds p.mu.
func (w *work) apply(p *peer) {
	l := p.link
	buf := w.buf[:0]
	var sent, payload, others int64
	gate, before := int64(0), len(w.after)
	for i := range w.out {
		e := &w.out[i]
		if own := p.awaitsCommit(e); l != nil && (own || w.exactly(e)) {
			if len(buf) > 0 {
				w.write(l, buf, nil)
				buf = buf[:0]
			}
			switch {
			case gate > 0:
			case own:
				gate = w.r.ledger.markState(p)
			default:
				gate = w.r.ledger.number()
			}
			w.closeGate(p, gate)
		}
		switch {
		case !e.IsPacket():
			w.note(p, e, before)
		case l == nil || l.over:
		case e.Kind == session.Publish:
			sent++
			payload += int64(len(e.Message.Payload))
			if len(e.Message.Payload) < shareBytes {
				buf = e.AppendPacket(buf, p.state.Version())
				break
			}
			buf = e.AppendHead(buf, p.state.Version())
			w.write(l, buf, e.Message.Payload)
			buf = buf[:0]
		case e.Kind == session.Close:
			others++
			if len(buf) > 0 {
				w.write(l, buf, nil)
			}
			w.put(l, e.AppendPacket(buf[:0], p.state.Version()), nil) // nothing need come before it
			buf = buf[:0]
			w.r.endedBySession(l, e.Reason)
		default:
			others++
			buf = e.AppendPacket(buf, p.state.Version())
		}
	}
	clear(w.out)
	if len(buf) > 0 {
		w.write(l, buf, nil)
	}
	if sent+others > 0 {
		w.r.traffic.packetsOut.Add(sent + others)
	}
	if sent > 0 {
		w.r.sent.Add(sent)
		w.r.traffic.payloadOut.Add(payload)
		if l.QueuedBytes()+p.shelf.outbox.size() > pauseBytes {
			p.state.Pause()
			w.awaitDrain(p)
		}
	}
	p.charge()
	w.checkQuota(p)
	if p.state.WantsLoad() {
		w.r.loader.want(p)
	}
	w.wakeGroups(p)
	w.checkBackpressure(p)
	w.checkPace(p)
	if lost := p.state.Overflowed(); lost > 0 {
		w.r.overflowed(p, lost)
	}
	if w.buf = buf[:0]; cap(w.buf) > keptScratchBytes {
		w.buf = nil
	}
}

// note keeps what follows from an effect that is no packet. What has followed from this call of the session begins at before.
func (w *work) note(p *peer, e *session.Effect, before int) {
	c := consequence{from: p, Effect: *e}
	switch e.Kind {
	case session.Enqueued:
		w.r.ledger.enqueue(w, p, e)
		return
	case session.Delivered, session.Dropped:
		if e.Seq > 0 {
			w.r.ledger.settle(w, p, e.Seq)
		}
		if e.Token == nil {
			return
		}
	case session.Ended:
		p.ended = !p.state.Connected()
		w.removeAll(p, e.Subscriptions)
		rest := w.restOf(p, e)
		ended := w.r.ledger.endSession(w, p)
		if rest != nil && ended != 0 {
			rest.id, ended = ended, 0
			w.r.walks.Go(func() { w.r.rescue(rest) })
		}
		for i := range w.after[before:] {
			if will := &w.after[before+i]; will.Kind == session.WillDue {
				will.ended, ended = ended, 0 // both in one batch
			}
		}
		w.r.ledger.sayEnded(ended)
	}
	w.after = append(w.after, c)
}

// awaitsCommit reports whether a packet tells the client what must then be remembered, whatever happens to the broker.
func (p *peer) awaitsCommit(e *session.Effect) bool {
	switch {
	case !p.state.Lasting():
		return false
	case e.Kind == session.Publish:
		return e.QoS == 2
	}
	return (e.Kind == session.Pubrel || e.Kind == session.Pubcomp) && e.Reason == session.Success
}

// exactly reports whether a PUBLISH is of a message that its sender sends again after a crash unless the batch that has it is
// on disk: nobody who gets it at QoS 0 or 2 is to get it twice.
func (w *work) exactly(e *session.Effect) bool {
	return w.routing && w.pub.exact && e.Kind == session.Publish && e.QoS != 1 && e.Message == w.pub.message
}

// maxOutboxBytes, and some messages, may wait in it: a session pauses long before that, but who asks more and more while the disk
// does not answer has no claim to memory.
const maxOutboxBytes = 1 << 20

// outbox holds packets back until a batch is on disk, and all that follow them.
type outbox struct {
	number int64 // of the batch that the newest of them waits for
	parts  []heldBack
	bytes  int
}

// size is in bytes; nil has none.
func (b *outbox) size() int {
	if b == nil {
		return 0
	}
	return b.bytes
}

type heldBack struct {
	number     int64
	head, tail []byte // tail is shared
}

// closeGate holds back what is written to p from here on. The caller holds p.mu.
func (w *work) closeGate(p *peer, number int64) {
	if g := &w.r.ledger; p.shelf.outbox == nil {
		p.shelf.outbox = &outbox{}
		g.mu.Lock()
		g.gated = append(g.gated, p)
		g.mu.Unlock()
	}
	p.shelf.outbox.number = number
}

// openGate sends what waited for batches up to done, and reports whether that was all.
func (w *work) openGate(p *peer, done int64) (all bool) {
	p.mu.Lock()
	box, l, n := p.shelf.outbox, p.link, 0
	if box == nil { // the connection has ended
		p.mu.Unlock()
		return true
	}
	for n < len(box.parts) && box.parts[n].number <= done {
		part := &box.parts[n]
		box.bytes -= len(part.head) + len(part.tail)
		if l != nil && !l.over {
			w.put(l, part.head, part.tail)
		}
		n++
	}
	clear(box.parts[:n])
	box.parts = box.parts[n:]
	if all = box.number <= done; all {
		p.shelf.outbox = nil
	}
	paused := p.state.Paused()
	p.mu.Unlock()
	if l != nil && paused {
		w.resume(p, l, w.r.now())
	}
	return all
}

// awaitDrain has the session of p resumed when its connection has room. Where packets are held back, openGate does that. The
// caller holds p.mu.
func (w *work) awaitDrain(p *peer) {
	if p.shelf.outbox.size() > 0 {
		return
	}
	p.link.AwaitDrain()
	w.markDirty(p.link.Conn)
}

// write queues packets; tail is the payload of the last one and is shared. The caller holds the lock of the peer.
func (w *work) write(l *clientLink, p, tail []byte) {
	box := l.peer.shelf.outbox
	if box == nil {
		w.put(l, p, tail)
		return
	}
	if box.bytes += len(p) + len(tail); box.bytes > maxOutboxBytes+4*w.r.quotas.limits.MaxPacketBytes {
		if !l.over {
			w.r.endedBySession(l, session.QuotaExceeded)
		}
		box.parts = nil // it is sent again on the next connection
		return
	}
	if n := len(box.parts); n > 0 && box.parts[n-1].number == box.number && box.parts[n-1].tail == nil {
		last := &box.parts[n-1]
		last.head, last.tail = append(last.head, p...), tail
		return
	}
	box.parts = append(box.parts, heldBack{box.number, append([]byte(nil), p...), tail})
}

// put gives packets to the connection.
func (w *work) put(l *clientLink, p, tail []byte) {
	if idle, _ := l.Put(p, tail); idle { // what cannot be queued, the connection's end tells its reader
		if w.markDirty(l.Conn); l.peer.ingest {
			w.toIngest = l.Conn
		}
	}
}

// markDirty notes that a connection must be flushed.
func (w *work) markDirty(c *network.Conn) {
	if c.MarkDirty() {
		w.dirty = append(w.dirty, c)
	}
}

// settle does what follows in other sessions, and what follows from that.
func (w *work) settle() {
	for i, k := 0, 0; i < len(w.after) || k < len(w.kept); {
		if k < len(w.kept) {
			w.r.fulfil(w, w.kept[k])
			k++
			continue
		}
		c := w.after[i]
		i++
		switch c.Kind {
		case session.Delivered, session.Dropped:
			w.r.resolve(w, &c)
		case session.WillDue:
			w.r.publishWill(w, c.from, c.Message, c.ended)
		case session.Ended:
			w.r.forget(c.from)
		case regrouped:
			w.r.shares.regroup(w, c.from, c.Token.(string))
		case mayTakeMore:
			c.Token.(*shareGroup).ready(w, c.from)
		case overQuota:
			w.after[i-1] = consequence{} // it may become too much again
			w.r.endLargest(w, c.from)
		}
	}
	clear(w.after)
	clear(w.kept)
	w.after, w.kept, w.pub = w.after[:0], w.kept[:0], publication{}
}

// flush lets the connections write. Who is about to wait calls it: it keeps no credits from others meanwhile.
func (w *work) flush() { w.flushFor(nil) }

// flushFor is flush for the reader of a connection.
func (w *work) flushFor(l *clientLink) {
	if w.granted.messages > 0 {
		w.r.intake.takeBack(w)
	}
	for i, c := range w.dirty {
		switch {
		case l != nil && c == l.Conn:
			c.FlushOwn()
		case c == w.toIngest && w.patience == patient:
			w.r.gathering.FlushLater(c)
		case c == w.toIngest:
			w.r.gathering.Flush(c)
		default:
			c.Flush()
		}
		w.dirty[i] = nil
	}
	w.dirty, w.toIngest, w.patience = w.dirty[:0], nil, nobodys
}

// resume sends what waits for a client, as far as its connection has room.
func (w *work) resume(p *peer, l *clientLink, now time.Time) {
	p.mu.Lock()
	if p.link == l && l.started && !l.over {
		room := pauseBytes
		if p.exhausted() {
			room = session.FreeBytes
		}
		w.out = p.state.Resume(now, room-l.QueuedBytes()-p.shelf.outbox.size(), w.out[:0])
		w.apply(p)
		if p.state.Paused() {
			w.awaitDrain(p)
		}
	}
	retained := p.due.waiting()
	p.mu.Unlock()
	if retained {
		w.deliverRetained(p, now)
	}
}

// committed is closed when the batch of that number is on disk.
func (g *ledger) committed(number int64) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	done := make(chan struct{})
	if number <= g.done {
		close(done)
	} else {
		g.waiting = append(g.waiting, commitWait{number, done})
	}
	return done
}

// await waits for a batch, as long as a sender may have to wait for it. It reports whether that is on disk.
func (g *ledger) await(l *clientLink, number int64) bool {
	if number == 0 {
		return true
	}
	late := time.NewTimer(g.r.stall)
	defer late.Stop()
	select {
	case <-g.committed(number):
		return true
	case <-l.Done():
	case <-late.C:
	}
	return false
}

// full reports whether so much waits for the disk that publishers wait.
func (g *ledger) full() bool { return g.storage != nil && g.pending.Load() > maxPendingBytes }

// awaitRoom waits until that is over, for no longer than bound.
func (g *ledger) awaitRoom(l *clientLink, bound time.Duration) bool {
	late := time.NewTimer(bound)
	defer late.Stop()
	for g.full() {
		g.mu.Lock()
		if g.room == nil {
			g.room = make(chan struct{})
		}
		room := g.room
		g.mu.Unlock()
		if !g.full() {
			break
		}
		select {
		case <-room:
		case <-l.Done():
			return false
		case <-late.C:
			return false
		}
	}
	return true
}

// releaseAtOnce is about how many messages are acknowledged before that is sent. Those of one sender stand together.
const releaseAtOnce = 512

// release acknowledges and sends what waited for the disk. It ends with stop.
func (g *ledger) release(stop <-chan struct{}) {
	for {
		select {
		case <-g.wake:
		case <-stop:
			return
		}
		g.mu.Lock()
		kept, done := g.kept, g.done
		g.kept = nil
		gated := g.gated
		g.gated = nil
		g.mu.Unlock()
		w := g.r.begin()
		for i, c := range kept {
			g.r.fulfil(w, c)
			if i%releaseAtOnce == releaseAtOnce-1 { // the first senders go on while the others are acknowledged
				w.settle()
				w.flush()
			}
		}
		var still []*peer
		for _, p := range gated {
			if !w.openGate(p, done) {
				still = append(still, p)
			}
		}
		w.finish()
		g.mu.Lock()
		g.gated = append(g.gated, still...)
		g.mu.Unlock()
	}
}
