package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

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
