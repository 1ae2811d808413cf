// Package bridge carries messages between the embedded broker and another one: what is published here goes there (out), what
// is published there comes here (in), as the routes say.
//
//	bridge.go     Bridge: runs that follow each other, and what is known across them
//	options.go    what it must be told
//	run.go        one run: a connection to either broker, and what is done with their packets
//	direction.go  the messages of one direction, from the broker that has them to the one that is to have them
//	route.go      which messages are carried, under which topic, and which have been here before
//	end.go        the connection to one broker
//	connect.go    its beginning: dial, CONNECT, SUBSCRIBE
//	frame.go      its packets
//	explain.go    what went wrong, and what to do
//	status.go     what it tells of itself
//
// It stores nothing. At either broker it has a session that lasts, and acknowledges a message to the one only after the
// other has acknowledged it: while a broker is away, its messages wait in the session at the one that has them. A message
// goes on under the packet id under which it has come. So whatever is sent again after an outage is known to the other
// broker, and QoS 2 needs no memory here: PUBREC, PUBREL and PUBCOMP are passed on as they come.
//
// It speaks MQTT 5 only: No Local, Retain As Published and user properties are what keeps messages from going in circles
// and whole.
package bridge

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// ClientIDPrefix begins the client ids of bridges at the embedded broker, which keeps them for its backend.
const ClientIDPrefix = "plantops-bridge-"

const (
	maxWait = time.Minute
	// calm is how long a connection must have lasted for its end to be the first failure.
	calm = 30 * time.Second
)

// Bridge is one bridge. Run is called once; Status at any time.
type Bridge struct {
	o      Options
	state  state
	out    memory // of messages to the remote broker
	in     memory
	primed bool // our subscriptions at the local broker were made in a run that did not reach the remote one
	known  bool // there is a session at the local broker
	// gone are filters of a bridge before this one, by direction, that its sessions may still be subscribed to.
	gone [Out + In][]string
}

// succeed takes over the sessions of a bridge that has ended, which had the same name.
func (b *Bridge) succeed(before *Bridge) {
	for _, way := range []Direction{Out, In} {
		if r, other := &b.o.Remote, &before.o.Remote; way == In && (r.Address != other.Address || r.ClientID != other.ClientID) {
			continue
		}
		gone := before.gone[way]
		for _, f := range before.o.filters(way) {
			gone = append(gone, f.text)
		}
		for _, text := range gone {
			kept := slices.ContainsFunc(b.o.filters(way), func(f filter) bool { return f.text == text })
			if !kept && !slices.Contains(b.gone[way], text) {
				b.gone[way] = append(b.gone[way], text)
			}
		}
	}
}

// New checks the options and returns a bridge that does nothing until Run.
func New(o Options) (*Bridge, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FirstWait == 0 {
		o.FirstWait = time.Second
	}
	o.Log = o.Log.With("bridge", o.Name)
	b := &Bridge{o: o}
	b.state.away(o.Now(), "not connected yet")
	return b, nil
}

// Run keeps the bridge up until ctx ends, and returns nil then.
func (b *Bridge) Run(ctx context.Context) error {
	for failures := 0; ; failures++ {
		began := time.Now()
		err := b.run(ctx)
		if ctx.Err() != nil {
			b.state.away(b.o.Now(), "stopped")
			return nil
		}
		if time.Since(began) >= calm {
			failures = 0
		}
		wait := retryWait(failures, b.o.FirstWait, rand.Float64())
		why := explain(err)
		b.state.away(b.o.Now(), why.Error())
		b.o.Log.Warn("bridge is not connected", "err", why, "remote", b.o.Remote.Address, "retry_in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			b.state.away(b.o.Now(), "stopped")
			return nil
		case <-time.After(wait):
		}
	}
}

// run connects to both brokers and carries messages until one of the connections ends.
func (b *Bridge) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	remote, err := b.connect(ctx, &b.o.Remote)
	if err != nil {
		if wrong := b.prime(ctx); wrong != nil && ctx.Err() == nil {
			b.o.Log.Error("messages do not wait for the bridge yet", "err", explain(wrong))
		}
		return err
	}
	local, err := b.connect(ctx, &b.o.Local)
	if err != nil {
		remote.close()
		return err
	}
	return newRun(b, local, remote).serve(ctx)
}

// prime makes the session at the local broker, if this process has not seen one yet: from now on messages wait there for
// the remote broker.
func (b *Bridge) prime(ctx context.Context) error {
	filters := b.o.filters(Out)
	if b.known || len(filters) == 0 || ctx.Err() != nil {
		return nil
	}
	local, err := b.connect(ctx, &b.o.Local)
	if err != nil {
		return err
	}
	defer local.close()
	if gone := b.gone[Out]; len(gone) > 0 {
		if err := local.sendNow(unsubscribePacket(gone)); err != nil {
			return &endError{&b.o.Local, err, false}
		}
	}
	if err := local.subscribeNow(subscribePacket(filters, retainedNever)); err != nil {
		return err
	}
	b.known, b.primed = true, true
	return nil
}

// retryWait is how long to wait after so many failures before the last one: first, doubling up to a minute. jitter, 0 to 1,
// takes away up to a fifth, so that a street full of boxes does not come back in step after a power cut.
func retryWait(failures int, first time.Duration, jitter float64) time.Duration {
	wait := maxWait
	if failures < 16 {
		wait = min(first<<failures, maxWait)
	}
	return wait - time.Duration(jitter*float64(wait)/5)
}
