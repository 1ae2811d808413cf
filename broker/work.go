package broker

import (
	"sync"
	"time"

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

	fullReader *peer       // that publishers should wait for, see checkFull; nil: none
	slowGroup  *shareGroup // the same, see waitForGroup in shares.go
	urgent     bool        // before the next message of the round
}

// consequence is an effect that leads away from the session that it came from.
type consequence struct {
	from *peer
	session.Effect
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
	w.fullReader, w.slowGroup, w.urgent = nil, nil, false
	spareWork.Put(w)
}

// apply gives the packets among w.out to the connection of p, and keeps the rest for settle. The caller holds p.mu.
func (w *work) apply(p *peer) {
	l := p.link
	buf := w.buf[:0]
	sent := int64(0)
	for i := range w.out {
		e := &w.out[i]
		switch {
		case !e.IsPacket():
			if e.Kind == session.Ended {
				p.ended = !p.state.Connected()
				w.removeAll(p, e.Subscriptions)
			}
			w.after = append(w.after, consequence{p, *e})
		case l == nil || l.over:
		case e.Kind == session.Publish:
			sent++
			if len(e.Message.Payload) < shareBytes {
				buf = e.AppendPacket(buf, p.state.Version())
				break
			}
			buf = e.AppendHead(buf, p.state.Version())
			w.write(l, buf, e.Message.Payload)
			buf = buf[:0]
		case e.Kind == session.Close:
			buf = e.AppendPacket(buf, p.state.Version())
			w.write(l, buf, nil)
			buf = buf[:0]
			w.r.endedBySession(l, e.Reason)
		default:
			buf = e.AppendPacket(buf, p.state.Version())
		}
	}
	clear(w.out)
	if len(buf) > 0 {
		w.write(l, buf, nil)
	}
	if sent > 0 {
		w.r.sent.Add(sent)
		p.full.sent += uint64(sent)
		if l.QueuedBytes() > pauseBytes {
			p.state.Pause()
			l.AwaitDrain()
			w.markDirty(l.Conn)
		}
	}
	p.charge()
	w.wakeGroups(p)
	w.checkBackpressure(p)
	w.checkFull(p)
	if lost := p.state.Overflowed(); lost != p.lost {
		w.r.overflowed(p, int64(lost-p.lost))
		p.lost = lost
	}
	if w.buf = buf[:0]; cap(w.buf) > keptScratchBytes {
		w.buf = nil
	}
}

// write queues packets; tail is the payload of the last one and is shared.
func (w *work) write(l *clientLink, p, tail []byte) {
	if idle, _ := l.Put(p, tail); idle { // what cannot be queued, the connection's end tells its reader
		w.markDirty(l.Conn)
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
	for i := 0; i < len(w.after); i++ {
		c := w.after[i]
		switch c.Kind {
		case session.Delivered, session.Dropped:
			w.r.resolve(w, &c)
		case session.WillDue:
			w.r.publishWill(w, c.from, c.Message)
		case session.Ended:
			w.r.forget(c.from)
		case regrouped:
			w.r.shares.regroup(w, c.from, c.Token.(string))
		case mayTakeMore:
			c.Token.(*shareGroup).ready(w, c.from)
		}
	}
	clear(w.after)
	w.after = w.after[:0]
}

// flush lets the connections write.
func (w *work) flush() {
	if len(w.dirty) == 0 {
		return
	}
	for i, c := range w.dirty {
		c.Flush()
		w.dirty[i] = nil
	}
	w.dirty = w.dirty[:0]
}

// resume sends what waits for a client, as far as its connection has room.
func (w *work) resume(p *peer, l *clientLink, now time.Time) {
	p.mu.Lock()
	if p.link == l && !l.over {
		room := pauseBytes
		if p.exhausted() {
			room = session.FreeBytes
		}
		w.out = p.state.Resume(now, room-l.QueuedBytes(), w.out[:0])
		w.apply(p)
		if p.state.Paused() {
			l.AwaitDrain()
			w.markDirty(l.Conn)
		}
	}
	retained := p.due.waiting()
	p.mu.Unlock()
	if retained {
		w.deliverRetained(p, now)
	}
}
