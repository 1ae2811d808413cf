package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"errors"
	"fmt"

	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

const (
	// The credits: what may be on its way into the store at one time. Whoever publishes more waits, and TCP slows the
	// sender down. They bound what a stalled store costs in memory: the messages, and once more as much while they
	// wait in ingest.
	creditMessages = 8192
	creditBytes    = 8 << 20
	// So many there are always, and beside them as many as the store has taken in the last creditTicks of the clock, which are
	// three tenths of StallTimeout or less: what is let in is stored well before its sender is sent away for it. A store
	// that is fast has them all after a few commits.
	leastMessages = 128
	leastBytes    = 1 << 20
	creditTicks   = 3
	// Once they are used up, so many must have come back before the next is given: waking a reader for each message
	// would cost more than the message.
	creditShare = 8
)

// intake accounts for what ingest must store: credits, and receipts for what has been taken in and is not stored yet.
type intake struct {
	mu      sync.Mutex
	ready   bool                // ingest is subscribed
	shut    bool                // the credits are used up
	told    func()              // when that becomes so; may be nil
	stored  [creditTicks]amount // what came back during the last ticks of the clock, this one first
	count   int                 // open receipts
	bytes   int                 // of them
	granted amount              // to who has waited, for what it read with its message; not taken yet
	oldest  *receipt            // open and in time, in the order of their beginning
	newest  *receipt            //
	waiting []*turn             // for credits, in the order of their coming
	idle    chan struct{}       // closed when count is 0; nil when nobody waits for that
}

// receipt is one message on its way into the store, or one that waits for the disk for other reasons: then it has neither
// message nor credit.
type receipt struct {
	message  session.Message
	link     *clientLink // the connection that it came on; nil when nobody waits for an acknowledgement
	account  string      // that sent it
	foreign  bool        // ingest is told the account
	ticket   session.Ticket
	tally    *tally
	bytes    int
	since    time.Time
	listed   bool
	next     *receipt
	previous *receipt

	left   atomic.Int32   // what its sender's acknowledgement waits for still
	failed atomic.Bool    // it gets none
	reason session.Reason // in the acknowledgement
}

// amount is of messages, and of their bytes.
type amount struct{ messages, bytes int }

// turn is a connection's place in the queue for credits. It waits for one message, and gets credits for those that it has read
// with it: else each would wait for a turn of its own, and be acknowledged and followed by the next alone.
type turn struct {
	link    *clientLink
	receipt *receipt
	more    int           // about so many messages are behind it, of about its size
	granted chan struct{} // has room for one
}

// take takes a credit for r if w has been granted it with an earlier one, or there is one and nobody waits.
func (t *intake) take(w *work, r *receipt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.granted.messages > 0 {
		t.giveUp(w, amount{1, min(r.bytes, w.granted.bytes)})
		t.open(r)
		return true
	}
	return t.give(r)
}

// giveUp takes a part of what w was granted from it: with the last message all bytes, which were a guess.
func (t *intake) giveUp(w *work, part amount) {
	if part.messages == w.granted.messages {
		part.bytes = w.granted.bytes
	}
	w.granted = amount{w.granted.messages - part.messages, w.granted.bytes - part.bytes}
	t.granted = amount{t.granted.messages - part.messages, t.granted.bytes - part.bytes}
}

// takeBack takes back what w was granted and has not taken: its round is over, or it waits for something else.
func (t *intake) takeBack(w *work) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp(w, w.granted)
	t.serve()
}

// force takes a credit whether there is one or not, for a message that nobody can make wait. There are as many again for
// that: whoever connects and is lost over and over sends a will each time.
func (t *intake) force(r *receipt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count >= 2*creditMessages || t.bytes+r.bytes > 2*creditBytes {
		return false
	}
	t.open(r)
	return true
}

// give gives r a credit if there is one. One message is let in whatever its size.
func (t *intake) give(r *receipt) bool {
	if !t.ready || t.shut {
		return false
	}
	count, bytes := t.count+t.granted.messages, t.bytes+t.granted.bytes
	if c := t.credits(); count >= c.messages || count > 0 && bytes+r.bytes > c.bytes {
		t.shut = true
		if t.told != nil {
			t.told()
		}
		return false
	}
	t.open(r)
	return true
}

// credits returns how much may be on its way at this moment.
func (t *intake) credits() amount {
	c := amount{leastMessages, leastBytes}
	for _, s := range t.stored {
		c.messages += s.messages
		c.bytes += s.bytes
	}
	return amount{min(c.messages, creditMessages), min(c.bytes, creditBytes)}
}

func (t *intake) open(r *receipt) {
	t.count++
	t.bytes += r.bytes
	r.tally.pending.Add(1)
	t.enlist(r)
}

// list has the sender's connection end when r is not fulfilled in time.
func (t *intake) list(r *receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enlist(r)
}

func (t *intake) enlist(r *receipt) {
	if r.link == nil {
		return
	}
	r.listed, r.previous = true, t.newest
	if t.newest == nil {
		t.oldest = r
	} else {
		t.newest.next = r
	}
	t.newest = r
}

// unlistLocked is unlist for who does not hold mu.
func (t *intake) unlistLocked(r *receipt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unlist(r)
}

func (t *intake) unlist(r *receipt) {
	if !r.listed {
		return
	}
	if r.previous == nil {
		t.oldest = r.next
	} else {
		r.previous.next = r.next
	}
	if r.next == nil {
		t.newest = r.previous
	} else {
		r.next.previous = r.previous
	}
	r.listed, r.next, r.previous = false, nil, nil
}

// wait waits for a credit and reports whether r has got it; not when the connection ends first. It is ended after
// StallTimeout, see overdue. more is how many messages were read behind it.
func (t *intake) wait(l *clientLink, r *receipt, more int) bool {
	if l.turn == nil {
		l.turn = &turn{link: l, granted: make(chan struct{}, 1)}
	}
	q := l.turn
	t.mu.Lock()
	if l.work.granted.messages > 0 {
		t.giveUp(l.work, l.work.granted) // it guessed wrong
	}
	q.receipt, q.more = r, more
	r.since = time.Now() // the reader may have waited for others of the same round
	t.waiting = append(t.waiting, q)
	t.serve()
	t.mu.Unlock()
	select {
	case <-q.granted:
		l.work.granted = amount{more, more * r.bytes}
		return true
	case <-l.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.waiting {
		if other == q {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			t.serve()
			return false
		}
	}
	<-q.granted // just now
	l.work.granted = amount{more, more * r.bytes}
	return true
}

// serve gives credits to those who have waited longest.
func (t *intake) serve() {
	count, bytes := t.count+t.granted.messages, t.bytes+t.granted.bytes
	if c := t.credits(); t.shut && count <= c.messages-c.messages/creditShare && bytes <= c.bytes-c.bytes/creditShare {
		t.shut = false
	}
	if t.shut || len(t.waiting) == 0 {
		return
	}
	now := time.Now()
	n := 0
	for n < len(t.waiting) {
		q := t.waiting[n]
		since := q.receipt.since
		if q.receipt.since = now; !t.give(q.receipt) { // from here on it waits for the store
			q.receipt.since = since
			break
		}
		t.granted.messages += q.more
		t.granted.bytes += q.more * q.receipt.bytes
		q.granted <- struct{}{}
		n++
	}
	if n > 0 {
		rest := copy(t.waiting, t.waiting[n:])
		clear(t.waiting[rest:])
		t.waiting = t.waiting[:rest]
	}
}

// close gives the credit of a receipt back: the message is stored, or was given back to its sender. It reports whether
// nothing is waited for any more.
func (t *intake) close(r *receipt, stored bool) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last = r.left.Add(-1) == 0; last || r.failed.Load() {
		t.unlist(r)
	}
	if stored {
		t.stored[0].messages++
		t.stored[0].bytes += r.bytes
	}
	t.count--
	t.bytes -= r.bytes
	r.tally.pending.Add(-1)
	if t.shut {
		t.serve()
	}
	if t.count == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
	return last
}

// setReady says whether ingest is there to take messages.
func (t *intake) setReady(ready bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = ready
	t.serve()
}

// overdue appends the connections that have waited since before the deadline, for a credit or for an acknowledgement.
// Each receipt is reported once. It is called at each tick of the clock.
func (t *intake) overdue(deadline time.Time, links []*clientLink) []*clientLink {
	t.mu.Lock()
	defer t.mu.Unlock()
	copy(t.stored[1:], t.stored[:])
	t.stored[0] = amount{}
	for _, q := range t.waiting {
		if q.receipt.since.After(deadline) {
			break
		}
		links = append(links, q.link)
	}
	for t.oldest != nil && !t.oldest.since.After(deadline) {
		links = append(links, t.oldest.link)
		t.unlist(t.oldest)
	}
	return links
}

// drain waits until nothing is on its way into the store.
func (t *intake) drain(ctx context.Context) error {
	t.mu.Lock()
	if t.count == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience is that of the senders of a round with messages for ingest.
type patience int8

const (
	nobodys   patience = iota
	patient            // none waits for an acknowledgement before it sends more
	impatient          // one may
)

const (
	// Messages for ingest follow each other at least so far apart, see network.Gathering, when nobody is impatient: to hand each over
	// by itself, and to have it committed alone, costs several times what the message does.
	gatherPause = 10 * time.Millisecond
	gatherBytes = 8 << 10
	// impatientAfter: who sends again within so long may do so because it got an acknowledgement.
	impatientAfter = 2 * gatherPause
)

// notePatience takes notice of a message of l for ingest.
func (w *work) notePatience(l *clientLink, qos byte) {
	if at := l.now.Sub(w.r.started); at != l.sentAt {
		l.impatient, l.sentAt = at-l.sentAt < impatientAfter, at
	}
	if l.impatient && qos > 0 {
		w.patience = impatient
	} else {
		w.patience = max(w.patience, patient)
	}
}

// ProbeTopic is where Probe publishes. The backend's subscriber subscribes to it; nobody else may, and nobody publishes.
const ProbeTopic = topic.InternalPrefix + "/probe"

// probe is the token of one probe.
type probe struct {
	once sync.Once
	done chan struct{}
	err  error
}

func (p *probe) resolve(delivered bool) {
	p.once.Do(func() {
		if !delivered {
			p.err = errors.New("the subscriber's session ended")
		}
		close(p.done)
	})
}

// Probe sends a message the way that readings go and returns nil when the backend's subscriber has acknowledged it,
// which it does after a commit. It fails when ctx ends before that, or when nobody is subscribed.
func (b *Broker) Probe(ctx context.Context) error {
	if err := b.hook.router.probe(ctx); err != nil {
		return fmt.Errorf("probe the path into the store: %w", err)
	}
	return nil
}

func (r *router) probe(ctx context.Context) error {
	now := r.now()
	token := &probe{done: make(chan struct{})}
	m := &session.Message{Topic: ProbeTopic, Created: now, QoS: 1}
	sent := false
	w := r.begin()
	r.look(ProbeTopic, func(to *subscribers) {
		for i := range to.route.To {
			if t := &to.route.To[i]; t.Who.peer != nil && t.Who.peer.ingest {
				sent = true
				w.deliver(t.Who.peer, m, session.Offer{QoS: t.Offer().QoS, Token: token}, now)
			}
		}
	})
	w.finish()
	if !sent {
		return errors.New("nobody is subscribed")
	}
	select {
	case <-token.done:
		return token.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
