package network

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plantops/plantops/broker/refusal"
)

const (
	chunkBytes  = 64 << 10 // the most that one write takes; a connection that cannot take it within writeTimeout is dead
	resumeBytes = 64 << 10 // when so little is left in the queue, it counts as drained
)

// ChargeBytes is the unit in which the queue of a connection is charged, see ChargeTo.
const ChargeBytes = 4 << 10

// ErrQueueFull is the error of a write for which the queue has no room: the connection has been closed for it.
var ErrQueueFull = fmt.Errorf("send: %w", refusal.SlowConsumer)

// writer is the outgoing queue. Small packets are joined while the socket is busy, so under load one system call,
// one TLS record or one websocket message carries many of them.
type writer struct {
	mu      sync.Mutex
	queue   []segment
	pong    *string       // answer to the last websocket ping; nil = none
	done    chan struct{} // closed when the connection is; nil: nobody has asked for it
	busy    bool          // writeAll runs
	up      bool          // stream is set and may be used for the last words
	dead    bool          // nothing more is written
	broken  bool          // the client takes nothing any more; what is put into the queue is thrown away
	drains  atomic.Bool   // drained is to be called
	queued  atomic.Int64
	drained func()    // called by writeAll when little is left in the queue
	written []segment // the emptied half of the double buffer; only writeAll uses it
}

// QueuedBytes is what was given to Write and put and has not reached the kernel.
func (c *Conn) QueuedBytes() int { return int(c.queued.Load()) }

// Put queues p, followed by tail, which is shared: the caller must not change it any more. Unlike Write it leaves it to
// the caller to flush, and says whether that is necessary. A full queue closes the connection.
func (c *Conn) Put(p, tail []byte) (idle bool, err error) {
	w := &c.writer
	w.mu.Lock()
	if c.closing.Load() {
		w.mu.Unlock()
		return false, net.ErrClosed
	}
	if w.broken {
		w.mu.Unlock()
		return false, nil
	}
	if int(w.queued.Load())+len(p)+len(tail) > c.n.queueLimit {
		w.mu.Unlock()
		c.abort(refusal.SlowConsumer, nil)
		return false, ErrQueueFull
	}
	c.account(len(p) + len(tail))
	if len(p) > 0 {
		w.join(p)
	}
	if len(tail) > 0 {
		w.queue = append(w.queue, segment{shared: tail})
	}
	idle = !c.busy
	w.mu.Unlock()
	return idle, nil
}

// MarkDirty notes that there is something to flush, and reports whether that is new: then the caller flushes later.
func (c *Conn) MarkDirty() bool { return c.dirty.CompareAndSwap(false, true) }

// Flush makes the writer look at the queue. It does not wait for it.
func (c *Conn) Flush() {
	c.dirty.Store(false)
	w := &c.writer
	w.mu.Lock()
	if len(w.queue) > 0 || w.drains.Load() {
		c.wake()
	}
	w.mu.Unlock()
}

// ownBytes is the most that FlushOwn writes by itself: acknowledgements, and a few messages.
const ownBytes = 4 << 10

// FlushOwn is Flush for who reads from the connection. What is short, and plain TCP takes at once, it writes itself: that is most
// acknowledgements, for which another goroutine would have to be woken, perhaps on another processor. It does not wait either.
func (c *Conn) FlushOwn() {
	w := &c.writer
	c.dirty.Store(false)
	w.mu.Lock()
	if c.Kind() != TCP || w.busy || len(w.queue) != 1 || c.QueuedBytes() > ownBytes || w.drains.Load() || c.closing.Load() {
		if len(w.queue) > 0 || w.drains.Load() {
			c.wake()
		}
		w.mu.Unlock()
		return
	}
	w.busy = true
	batch := w.queue
	w.queue, w.written = w.written, nil
	w.mu.Unlock()
	s := batch[0]
	n := c.writeNow(s.bytes())
	c.account(-n)
	c.n.sent.Add(int64(n))
	w.mu.Lock()
	if rest := s.bytes()[n:]; len(rest) > 0 && !w.dead {
		w.queue = slices.Insert(w.queue, 0, segment{shared: slices.Clone(rest)})
	}
	if s.free(); w.written == nil && cap(batch) <= 8 {
		batch[0] = segment{}
		w.written = batch[:0]
	}
	if w.busy = false; len(w.queue) > 0 || w.pong != nil || w.drains.Load() || c.closing.Load() {
		c.wake()
	}
	w.mu.Unlock()
}

// OnDrained sets what AwaitDrain has called, in the writer's goroutine. It is set once, before anything is awaited.
func (c *Conn) OnDrained(f func()) { c.drained = f }

// AwaitDrain has the function of OnDrained called when the queue has become short. The caller flushes afterwards: it may be
// so already.
func (c *Conn) AwaitDrain() { c.drains.Store(true) }

// wake starts writeAll unless it runs. The caller holds writer.mu.
func (c *Conn) wake() {
	if !c.busy {
		c.busy = true
		go c.writeAll()
	}
}

// answerPing queues the answer to a websocket ping; only the last of several pings needs one (RFC 6455, 5.5.3).
func (c *Conn) answerPing(data string) {
	c.writer.mu.Lock()
	defer c.writer.mu.Unlock()
	if !c.closing.Load() && !c.broken {
		c.pong = &data
		c.wake()
	}
}

// writeAll writes until the queue is empty. After Close it ends the connection.
func (c *Conn) writeAll() {
	w, broken := &c.writer, false
	for {
		if w.drains.Load() && c.QueuedBytes() <= resumeBytes && !c.closing.Load() && !broken && w.drains.CompareAndSwap(true, false) {
			w.drained()
		}
		w.mu.Lock()
		if w.drains.Load() && len(w.queue) == 0 && !c.closing.Load() && !broken {
			w.mu.Unlock()
			continue
		}
		if w.dead || len(w.queue) == 0 && w.pong == nil {
			if c.closing.Load() {
				dead := w.dead
				w.mu.Unlock()
				c.finish(dead)
				return // busy stays: nobody starts another one
			}
			w.busy = false
			w.mu.Unlock()
			return
		}
		batch, pong := w.queue, w.pong
		w.queue, w.pong, w.written = w.written, nil, nil
		w.mu.Unlock()

		err := c.writeBatch(batch, pong)
		for i, s := range batch {
			s.free()
			batch[i] = segment{}
		}
		if cap(batch) <= 8 {
			w.written = batch[:0]
		}
		if err != nil {
			c.writeFailed(err)
			broken = true
		}
	}
}

func (c *Conn) writeBatch(batch []segment, pong *string) error {
	if ws, ok := c.stream.(*webSocket); ok && pong != nil {
		if err := ws.writePong(*pong); err != nil {
			return err
		}
	}
	for _, s := range batch {
		rest := s.bytes()
		for len(rest) > 0 {
			chunk := rest[:min(len(rest), chunkBytes)]
			if _, err := c.stream.Write(chunk); err != nil {
				return err
			}
			c.account(-len(chunk))
			c.n.sent.Add(int64(len(chunk)))
			rest = rest[len(chunk):]
		}
	}
	return nil
}

// writeFailed: the client is gone, or takes nothing any more. What it sent before it went is still read, and its goodbye is
// the last of that.
func (c *Conn) writeFailed(err error) {
	switch {
	case c.writeLate.Load():
		c.abort(refusal.WriteTimeout, nil) // counted unless Close came before
		return
	case errors.Is(err, websocket.ErrCloseSent): // gorilla has had enough of what was read
		c.shut(true)
		return
	}
	w := &c.writer
	w.mu.Lock()
	w.broken = true
	for _, s := range w.queue {
		s.free()
	}
	w.queue, w.pong = nil, nil
	w.mu.Unlock()
	c.account(-c.QueuedBytes())
	c.Drain()
}

func (c *Conn) isBroken() bool {
	c.writer.mu.Lock()
	defer c.writer.mu.Unlock()
	return c.broken
}

// Done is closed when the connection is closed, by whichever side.
func (c *Conn) Done() <-chan struct{} {
	w := &c.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
		if c.closing.Load() {
			close(w.done)
		}
	}
	return w.done
}

func (c *Conn) forgetDone() {
	c.writer.mu.Lock()
	defer c.writer.mu.Unlock()
	c.done = nil
}

// ready says that the connection is up, or that bringing it up has failed and the client should hear of it.
func (c *Conn) ready() {
	c.writer.mu.Lock()
	defer c.writer.mu.Unlock()
	c.up = true
}

// shut begins to close the connection, at once or after flushing, and says whether this call was the first.
func (c *Conn) shut(now bool) bool {
	w := &c.writer
	w.mu.Lock()
	first := !c.closing.Load()
	if first {
		c.closing.Store(true)
		if w.done != nil {
			close(w.done)
		}
	}
	if (now || !w.up) && !w.dead {
		w.dead = true
		for _, s := range w.queue {
			s.free()
		}
		w.queue, w.pong = nil, nil
		c.reset() // wakes reader, writer and linger
	} else if first {
		c.interruptRead()
		c.limitWrite()
	}
	if first {
		c.wake()
	}
	w.mu.Unlock()
	c.n.parking.wake(c)
	if first {
		c.n.giveUp(c)
	}
	return first
}

// finish closes the socket. Closing it while bytes of the client are unread, or while more arrive, would reset the
// connection and take the last packet (a CONNACK or DISCONNECT with its reason) away from the client; so it
// ends our side first and reads on until the client ends its own, for a bounded time.
func (c *Conn) finish(dead bool) {
	c.account(-c.QueuedBytes()) // nobody puts anything in any more
	if !dead {
		switch s := c.stream.(type) {
		case *tls.Conn:
			s.CloseWrite() // fails only where the client will not miss it
		case *webSocket:
			s.writeClose()
		}
		c.closeWrite()
		c.linger()
		c.Conn.Close()
	}
	c.n.forget(c)
}

func (c *Conn) linger() {
	c.readMu.Lock() // the interrupted reader has left, or is about to
	defer c.readMu.Unlock()
	if c.peerGone() {
		return
	}
	c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	scrap := buffers.Get().(*[]byte)
	defer buffers.Put(scrap)
	for left := lingerBytes; left > 0; {
		n, err := c.Conn.Read((*scrap)[:cap(*scrap)])
		if err != nil {
			return
		}
		left -= n
	}
}

// account accounts for bytes that come into the queue, or leave it.
func (c *Conn) account(n int) {
	after := int(c.queued.Add(int64(n)))
	units := after/ChargeBytes - (after-n)/ChargeBytes
	if units == 0 {
		return
	}
	if charge := c.charge.Load(); charge != nil {
		(*charge)(units)
	}
}

// ChargeTo has charge told of the queue from now on: how many units of ChargeBytes more, or less, are in it. It may be
// called from any goroutine, under the lock of a writer, and must not wait.
func (c *Conn) ChargeTo(charge func(units int)) { c.charge.Store(&charge) }

// join copies p to the end of the queue.
func (w *writer) join(p []byte) {
	if last := len(w.queue) - 1; last >= 0 {
		if own := w.queue[last].own; own != nil && len(*own)+len(p) <= chunkBytes {
			*own = append(*own, p...)
			return
		}
	}
	own := buffers.Get().(*[]byte)
	*own = append(*own, p...)
	w.queue = append(w.queue, segment{own: own})
}
