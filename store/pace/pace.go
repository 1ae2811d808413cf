// Package pace says when the next commit is to begin: at once where little comes, later where much does, so that one commit takes
// more along. It knows nothing of what is committed.
package pace

import (
	"context"
	"sync"
	"time"
)

const (
	// longest is what is gathered for at most without a setting: one commit that took long is no reason to make the next one late.
	longest = 100 * time.Millisecond
	// Who gathers begins first, and takes along what others have: so long they let it, a share of the interval.
	precedence        = 4
	longestPrecedence = 250 * time.Millisecond
)

// Pace is that of the commits of one store. All methods are safe for concurrent use.
type Pace struct {
	least time.Duration

	mu        sync.Mutex
	began     time.Time     // of the last commit
	took      time.Duration // of the last one that has ended
	gathering bool          // somebody will begin the next one
	early     bool          // who gathered has enough, and may begin before the time
	hasty     bool          // so may everybody
	hurried   bool          // for good
	sooner    chan struct{} // closed when hasty becomes true
}

// New returns a pace with a least time between the beginnings of two commits; 0: who gathers does so as long as the last commit took.
func New(least time.Duration) *Pace {
	return &Pace{least: least, sooner: make(chan struct{})}
}

// Begin says that a commit begins, with all that waits.
func (p *Pace) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began, p.gathering, p.early = time.Now(), false, false
	if p.hasty && !p.hurried {
		p.hasty, p.sooner = false, make(chan struct{})
	}
}

// End says that it has ended.
func (p *Pace) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = time.Since(p.began)
}

// Hasten makes the next commit begin at once: nothing more will come before it.
func (p *Pace) Hasten() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasty {
		p.hasty = true
		close(p.sooner)
	}
}

// Hurry makes all commits from now on begin at once.
func (p *Pace) Hurry() {
	p.Hasten()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hurried = true; !p.hasty { // another commit has begun in between
		p.hasty = true
		close(p.sooner)
	}
}

// May reports whether who has a batch may begin. full: it is as large as batches become.
func (p *Pace) May(full bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return full || p.early || p.left() <= 0
}

// Wait waits until a commit may begin, until done is closed, or for the end of ctx.
func (p *Pace) Wait(ctx context.Context, done <-chan struct{}) {
	for {
		p.mu.Lock()
		left, sooner := p.left(), p.sooner
		p.mu.Unlock()
		if left <= 0 {
			return
		}
		due := time.NewTimer(left)
		select {
		case <-due.C:
			continue
		case <-sooner:
		case <-done:
		case <-ctx.Done():
		}
		due.Stop()
		return
	}
}

// Left is how long nobody begins but who gathers, who is first, and a channel that is closed when that changes.
func (p *Pace) Left() (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.left()
	if p.gathering && !p.hasty {
		left += min(p.least/precedence, longestPrecedence)
	}
	return left, p.sooner
}

func (p *Pace) left() time.Duration {
	if p.least == 0 || p.hasty || p.began.IsZero() {
		return 0
	}
	return p.least - time.Since(p.began)
}

// Gather waits until the next commit is to begin, which the caller does then. busy tells that something has come while the last one
// ran: without a least time only that is a reason to wait. A value from full ends it, and so does the end of ctx; without a least time
// one from usual does too: senders that wait for their acknowledgements send no more.
func (p *Pace) Gather(ctx context.Context, busy bool, usual, full <-chan struct{}) {
	p.mu.Lock()
	p.gathering = true
	left, sooner := p.left(), p.sooner
	if p.least > 0 {
		usual = nil
	} else if busy && !p.hasty {
		left = min(p.took, longest)
	}
	p.mu.Unlock()
	if left <= 0 {
		return
	}
	due := time.NewTimer(left)
	defer due.Stop()
	select {
	case <-due.C:
		return
	case <-sooner:
	case <-usual:
	case <-full:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.early = true
}
