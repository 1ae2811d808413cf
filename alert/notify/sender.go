package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/store/outbox"
)

const (
	sendTimeout = 30 * time.Second
	noteTimeout = 2 * time.Second // at a stop
	firstRetry  = 5 * time.Second
	lastRetry   = 15 * time.Minute

	// refusedTimes is how often a message is offered that is refused for what is in it.
	refusedTimes = 5
	// While a channel does not take its first message, more than mergeFrom others become one.
	mergeFrom = 3
	// mostMerged bounds the notices of what was put together; of the rest the number stays.
	mostMerged = 200

	logEvery = time.Hour // the same trouble again
)

// Outbox is where messages wait.
type Outbox interface {
	Waiting(ctx context.Context, channel string) ([]outbox.Entry, error)
	Sent(ctx context.Context, id int64) error
	Failed(ctx context.Context, id int64, attempts int, due time.Time) error
	Merge(ctx context.Context, ids []int64, into outbox.Entry) error
}

// Named is a channel with the name that people gave it.
type Named struct {
	Name, Type string
	Channel    Channel
}

// Options say what is sent and how.
type Options struct {
	Channels []Named
	Outbox   Outbox
	Now      func() time.Time
	Log      *slog.Logger
	First    time.Duration // before the first retry; 0: five seconds
}

// State is how a channel is.
type State struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Waiting int    `json:"waiting"`           // messages
	Sent    int64  `json:"sent,omitempty"`    // UTC ms, the last one of this run
	Trouble string `json:"trouble,omitempty"` // why nothing goes; "": it does, as far as is known
}

// Sender takes messages to channels.
type Sender struct {
	options Options
	lanes   []*lane
}

// lane is the way to one channel.
type lane struct {
	Named
	*Options
	wake chan struct{}
	done map[int64]bool // sent, and not yet noted

	sending sync.Mutex // the channel is one goroutine's at a time

	mu     sync.Mutex
	state  State
	logged time.Time
}

// NewSender returns one; nothing is sent before Run.
func NewSender(o Options) *Sender {
	if o.First == 0 {
		o.First = firstRetry
	}
	s := &Sender{options: o}
	for _, c := range o.Channels {
		s.lanes = append(s.lanes, &lane{Named: c, Options: &s.options, wake: make(chan struct{}, 1), done: map[int64]bool{},
			state: State{Name: c.Name, Type: c.Type}})
	}
	return s
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, l := range s.lanes {
		all.Go(func() { l.run(ctx) })
	}
	all.Wait()
	<-ctx.Done() // without channels there is nothing to do
	return nil
}

// Wake tells that something waits.
func (s *Sender) Wake() {
	for _, l := range s.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// States returns how each channel is.
func (s *Sender) States() []State {
	list := make([]State, len(s.lanes))
	for i, l := range s.lanes {
		l.mu.Lock()
		list[i] = l.state
		l.mu.Unlock()
	}
	return list
}

// Test sends a test message now, past what waits. The error wraps ErrNoChannel.
func (s *Sender) Test(ctx context.Context, name string) error {
	i := slices.IndexFunc(s.lanes, func(l *lane) bool { return l.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: %.40q", ErrNoChannel, name)
	}
	if err := s.lanes[i].send(ctx, &Envelope{Test: true}); err != nil {
		return fmt.Errorf("send a test to channel %s: %w", name, err)
	}
	return nil
}

func (l *lane) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		timer.Reset(l.sendDue(ctx))
	}
}

// sendDue sends what is due, and returns after what time something may be.
func (l *lane) sendDue(ctx context.Context) time.Duration {
	for {
		list, err := l.Outbox.Waiting(ctx, l.Name)
		if err == nil {
			list, err = l.noteDone(ctx, list)
		}
		if err == nil && len(list) > 1+mergeFrom && list[0].Attempts > 0 {
			err = l.merge(ctx, list[1:])
			list = list[:2]
		}
		l.waiting(len(list))
		switch {
		case ctx.Err() != nil:
			return lastRetry
		case err != nil:
			l.trouble(err)
			return l.First
		case len(list) == 0:
			return lastRetry // it is woken
		}
		head := &list[0]
		wait := time.UnixMilli(head.Due).Sub(l.Now())
		if wait > 0 && wait <= longestLater+lastRetry { // else the clock was moved
			return wait
		}
		if wait := l.offer(ctx, head); wait > 0 {
			return wait
		}
	}
}

// offer sends one message, and returns how long the channel is left alone; 0: the next may go.
func (l *lane) offer(ctx context.Context, head *outbox.Entry) time.Duration {
	var e Envelope
	err := json.Unmarshal([]byte(head.Body), &e)
	if err != nil {
		err = fmt.Errorf("%w: it cannot be read: %w", ErrRefused, err)
		head.Attempts = refusedTimes
	} else {
		err = l.send(ctx, &e)
	}
	if err != nil && ctx.Err() != nil {
		return lastRetry // it is stopping; if it was taken, nobody knows
	}
	if errors.Is(err, ErrRefused) && head.Attempts+1 >= refusedTimes {
		l.Log.Error("a channel refuses a message, which is lost", "channel", l.Name, "message", head.Message, "err", err)
		err = nil
	}
	if err == nil {
		l.sent()
		l.done[head.ID] = true
		if ctx.Err() != nil { // it is stopping: another process must not send it again
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
			defer cancel()
			if err := l.Outbox.Sent(last, head.ID); err != nil {
				l.Log.Debug("cannot note that a message was sent", "err", err)
			}
			return lastRetry
		}
		return 0 // it is noted next
	}
	l.trouble(err)
	wait := l.again(head.Attempts, err)
	if err := l.Outbox.Failed(ctx, head.ID, head.Attempts+1, l.Now().Add(wait)); err != nil {
		l.Log.Debug("cannot note when a message is tried again", "err", err)
	}
	return wait
}

// send has a time limit, and the channel for itself.
func (l *lane) send(ctx context.Context, e *Envelope) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return l.Channel.Send(ctx, e)
}

// again is how long to wait after an attempt: twice as long each time, more or less, so that not all come back at once.
func (l *lane) again(attempts int, err error) time.Duration {
	if later, ok := errors.AsType[*LaterError](err); ok {
		return max(later.After, l.First)
	}
	wait := min(l.First<<min(attempts, 20), lastRetry)
	return wait - wait/4 + rand.N(wait/2+1)
}

// noteDone has what was sent taken out of the outbox. Until it is, nothing else goes: else it would be sent again.
func (l *lane) noteDone(ctx context.Context, list []outbox.Entry) ([]outbox.Entry, error) {
	var errs []error
	list = slices.DeleteFunc(list, func(e outbox.Entry) bool {
		if !l.done[e.ID] {
			return false
		}
		errs = append(errs, l.Outbox.Sent(ctx, e.ID))
		return true
	})
	if err := errors.Join(errs...); err != nil {
		return list, err
	}
	clear(l.done)
	return list, nil
}

// merge makes one message of several, that a channel gets when it is back. The newest notices stay.
func (l *lane) merge(ctx context.Context, list []outbox.Entry) error {
	var all alert.Message
	ids := make([]int64, len(list))
	for i := range list {
		ids[i] = list[i].ID
		var e Envelope
		if err := json.Unmarshal([]byte(list[i].Body), &e); err != nil {
			all.More++
			continue
		}
		all.Notices, all.More = append(all.Notices, e.Notices...), all.More+e.More
	}
	if over := len(all.Notices) - mostMerged; over > 0 {
		all.Notices, all.More = all.Notices[over:], all.More+over
	}
	last := list[len(list)-1]
	all.ID = last.Message
	text, err := json.Marshal(Envelope{Message: all})
	if err != nil {
		return fmt.Errorf("put messages together: %w", err)
	}
	return l.Outbox.Merge(ctx, ids, outbox.Entry{Channel: l.Name, Message: last.Message, Body: string(text)})
}

func (l *lane) waiting(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Waiting = n
}

func (l *lane) sent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.Trouble != "" {
		l.Log.Info("a channel of alerts works again", "channel", l.Name)
	}
	l.state.Trouble, l.state.Sent, l.logged = "", l.Now().UnixMilli(), time.Time{}
}

func (l *lane) trouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Trouble = err.Error()
	if now := l.Now(); l.logged.IsZero() || now.Sub(l.logged) >= logEvery {
		l.logged = now
		l.Log.Warn("a channel of alerts does not take messages; trying again", "channel", l.Name, "err", err)
	}
}
