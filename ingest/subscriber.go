// Package ingest brings readings from an MQTT broker into the store: it connects, receives, decodes, batches,
// stores, and only then acknowledges. An acknowledgement that leaves this package is a promise: the message is
// committed, or its payload is in quarantine with the reason.
//
// It leaves to others what a commit is (Sink), how the broker is found and verified (Options), and what a reading
// means. It survives everything a broker or a device can send; it returns only when told to stop.
package ingest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
)

// Sink is where batches go.
type Sink interface {
	// Append stores the batch in one durable transaction and appends one outcome per message to outcomes. On error
	// nothing counts as stored and the same batch is offered again: Append must be idempotent. With an error that wraps
	// store.ErrPartly the first messages are stored, outcomes has theirs, and only the rest is offered again. It must not
	// keep the batch or what it points to after it returned.
	Append(ctx context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error)
}

// Options says which broker to subscribe to and how. Host, Port, ClientID, Topics, MaxBatch and StallTimeout are required:
// what is set in a configuration has its default there.
type Options struct {
	Host string
	Port int
	// TLS nil means plain TCP. Otherwise its RootCAs (nil: the system's) must have signed the broker's certificate,
	// which must be valid for ServerName (empty: Host). InsecureSkipVerify is refused.
	TLS *tls.Config
	// Roots, when set, is asked at each connection and stands in for the RootCAs of TLS: an authority may be followed by another.
	Roots              func() *x509.CertPool
	Username, Password string
	ClientID           string
	Topics             []string // filters
	// Sources read the topics of other people's programs. Their filters are to be in Topics too. Nil: none.
	Sources    *source.Set
	ProbeTopic string // subscribed too; what comes there is committed and not counted; empty: none
	MaxBatch   int    // messages in one commit
	// Gather is called before each batch is taken, when there is something for it, and may wait for more. busy tells that some of it
	// came while the last batch was stored. A value comes from usual when there is as much as the last batches had, and from full when
	// no more can be taken. nil: nothing is waited for.
	Gather func(ctx context.Context, busy bool, usual, full <-chan struct{})
	// ReceiveMaximum is announced to the broker: how many QoS 1 messages may be on their way into the store;
	// default 4096.
	ReceiveMaximum uint16
	// MaxPacketBytes is announced too: the largest packet that the broker may send; at least 4 MiB.
	MaxPacketBytes int
	// StallTimeout bounds each wait for the broker (a packet written, the rest of one that has begun, an answer to CONNECT
	// or SUBSCRIBE) and the last commits of a stop, which get 4 s at most.
	StallTimeout time.Duration
	// Embedded says that the broker lives in this process: until the first SUBACK it is retried sooner.
	Embedded bool
	// Dialed is told our end of each TCP connection before anything is sent, so that a broker in this process knows it.
	// May be nil.
	Dialed func(local net.Addr)
	// Look says what time it is, whether that is to be believed, and the number of the stretch of time that is, so that
	// what came while it was not can be dated later. nil: Now and ClockUnsure, without such a number.
	Look        func() (at time.Time, unsure bool, line int64)
	ClockUnsure func() bool      // nil: the clock is right
	Now         func() time.Time // nil: time.Now
	Log         *slog.Logger     // nil: no log
}

// filters are all that is subscribed.
func (o *Options) filters() []string {
	if o.ProbeTopic == "" {
		return o.Topics
	}
	return append(slices.Clone(o.Topics), o.ProbeTopic)
}

const (
	// drainTimeout bounds how long a stop waits for the last commits, and for the broker to take their acknowledgements.
	drainTimeout     = 4 * time.Second
	leastPacketBytes = 4 << 20
)

// Subscriber is one subscription to one broker. Its methods are safe for concurrent use; Run is called once.
type Subscriber struct {
	o       Options
	address string
	sink    Sink
	queue   *queue
	retry   retry
	count   counters

	ready     chan struct{}
	readyOnce sync.Once
}

// New checks the options and returns a subscriber that does nothing until Run. The error names the missing or
// refused option.
func New(o Options, sink Sink) (*Subscriber, error) {
	switch {
	case sink == nil:
		return nil, errors.New("ingest: no sink")
	case o.Host == "":
		return nil, errors.New("ingest: Options.Host is empty")
	case o.Port < 1 || o.Port > 65535:
		return nil, fmt.Errorf("ingest: Options.Port is %d", o.Port)
	case o.ClientID == "":
		return nil, errors.New("ingest: Options.ClientID is empty")
	case len(o.Topics) == 0:
		return nil, errors.New("ingest: Options.Topics is empty")
	case o.MaxBatch < 1:
		return nil, fmt.Errorf("ingest: Options.MaxBatch is %d", o.MaxBatch)
	case o.StallTimeout <= 0:
		return nil, fmt.Errorf("ingest: Options.StallTimeout is %v", o.StallTimeout)
	case o.TLS != nil && o.TLS.InsecureSkipVerify:
		return nil, errors.New("ingest: Options.TLS does not verify the broker")
	}
	if o.TLS != nil && o.TLS.ServerName == "" {
		o.TLS = o.TLS.Clone()
		o.TLS.ServerName = o.Host
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 4096
	}
	o.MaxPacketBytes = max(o.MaxPacketBytes, leastPacketBytes)
	if o.Gather == nil {
		o.Gather = func(context.Context, bool, <-chan struct{}, <-chan struct{}) {}
	}
	if o.ClockUnsure == nil {
		o.ClockUnsure = func() bool { return false }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Look == nil {
		o.Look = func() (time.Time, bool, int64) { return o.Now(), o.ClockUnsure(), 0 }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Subscriber{
		o:       o,
		address: net.JoinHostPort(o.Host, strconv.Itoa(o.Port)),
		sink:    sink,
		queue:   newQueue(int(o.ReceiveMaximum), o.MaxBatch),
		retry:   newRetry(o.Embedded),
		ready:   make(chan struct{}),
	}
	s.queue.look = o.Look
	return s, nil
}

// Run keeps the subscription and stores what arrives, until ctx ends. Then it takes nothing more, commits and
// acknowledges what it has, disconnects, and returns nil; it returns an error when the last messages could not be
// stored within a few seconds (they are not acknowledged: the broker still has them).
func (s *Subscriber) Run(ctx context.Context) error {
	commitCtx, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	committed := make(chan error, 1)
	go func() { committed <- s.commitUntilDrained(commitCtx) }()

	l, err := s.stayConnected(context.WithoutCancel(ctx))
	if err != nil {
		s.queue.close()
		return errors.Join(err, <-committed)
	}

	<-ctx.Done()
	s.queue.close()
	patience := time.AfterFunc(min(drainTimeout, s.o.StallTimeout), func() {
		giveUp()
		l.cut() // it may be the broker that we wait for, because it does not take acknowledgements
	})
	err = <-committed
	patience.Stop()
	l.disconnect()
	return err
}

// Ready is closed when the broker has confirmed the subscription for the first time.
func (s *Subscriber) Ready() <-chan struct{} { return s.ready }
