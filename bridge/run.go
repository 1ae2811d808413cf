package bridge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// run is one connection to either broker.
type run struct {
	*Bridge
	local, remote *end
	out, in       *direction

	mu      sync.Mutex
	pending int // SUBACKs
}

func newRun(b *Bridge, local, remote *end) *run {
	return &run{Bridge: b, local: local, remote: remote,
		out: newDirection(b, Out, local, remote), in: newDirection(b, In, remote, local)}
}

// serve carries messages until a connection ends or ctx does, and returns why, an endError.
func (r *run) serve(ctx context.Context) error {
	r.subscribe()
	over := make(chan error, 5)
	var working sync.WaitGroup
	part := func(e *end, do func() error) {
		working.Go(func() {
			if err := do(); err != nil {
				over <- &endError{e.o, err, true}
			}
		})
	}
	part(r.local, r.local.write)
	part(r.remote, r.remote.write)
	part(r.local, func() error { return r.read(r.local, r.out, r.in) })
	part(r.remote, func() error { return r.read(r.remote, r.in, r.out) })
	var err error
	select {
	case err = <-over:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.local.leave()
	r.remote.leave()
	late := time.NewTimer(farewell)
	defer late.Stop()
	for _, e := range []*end{r.local, r.remote} {
		select {
		case <-e.written:
		case <-late.C:
			late.Reset(0) // for the other one too
		}
	}
	r.local.cut()
	r.remote.cut()
	working.Wait()
	return err
}

// subscribe asks both brokers for what is to be carried. Retained messages are wanted when they are new to the other side.
func (r *run) subscribe() {
	ask := func(d *direction, anew bool) {
		if gone := r.gone[d.way]; len(gone) > 0 {
			d.from.send(encode(unsubscribePacket(gone)))
		}
		filters := r.o.filters(d.way)
		if len(filters) == 0 {
			return
		}
		retained := retainedNew
		if anew {
			retained = retainedAlways
		}
		r.pending++
		d.from.send(encode(subscribePacket(filters, retained)))
	}
	ask(r.out, !r.remote.present || r.primed)
	ask(r.in, !r.local.present)
}

// read takes the packets of one broker: messages for the one direction, acknowledgements of the other.
func (r *run) read(e *end, from, to *direction) error {
	for {
		p, err := e.receive(e.keepalive + e.patience)
		if err != nil {
			return err
		}
		switch c := p.Content.(type) {
		case *packets.Publish:
			err = from.published(c)
		case *packets.Pubrel:
			from.released(c.PacketID)
		case *packets.Puback:
			err = to.acknowledged(packets.PUBACK, c.PacketID, c.ReasonCode, c.Properties.ReasonString)
		case *packets.Pubrec:
			err = to.acknowledged(packets.PUBREC, c.PacketID, c.ReasonCode, c.Properties.ReasonString)
		case *packets.Pubcomp:
			err = to.completed(c.PacketID)
		case *packets.Suback:
			r.subscribed(e, from.way, c)
		case *packets.Unsuback:
			r.gone[from.way] = nil // a filter that it refuses to take away stays, and what comes of it is not carried
		case *packets.Pingresp:
		case *packets.Disconnect:
			to.blamed(c.ReasonCode)
			err = &endedError{code: c.ReasonCode, text: c.Properties.ReasonString}
		default:
			err = fmt.Errorf("it sent a %s, which has no place here", p.PacketType())
		}
		if err != nil {
			return err
		}
	}
}

// subscribed takes the answer to our SUBSCRIBE at one broker.
func (r *run) subscribed(e *end, way Direction, answer *packets.Suback) {
	var refused []string
	for i, f := range r.o.filters(way) {
		if i >= len(answer.Reasons) {
			break
		}
		name, code := shortened(f.text), answer.Reasons[i]
		if code >= 0x80 {
			why := fmt.Sprintf("the %s refuses to subscribe %s: %s", e.o.Name, name, reason(code, answer.Properties.ReasonString))
			refused = append(refused, why)
			r.o.Log.Error("the messages of a topic are not carried", "err", why)
		} else if code < f.qos {
			r.o.Log.Warn("a broker grants less than the bridge asks for", "from", e.o.Name, "topic", name, "qos", code)
		}
	}
	r.state.refuse(refused)
	r.mu.Lock()
	r.pending--
	ready := r.pending == 0
	r.mu.Unlock()
	if ready {
		r.up()
	}
}

// up is called when both brokers have taken the subscriptions.
func (r *run) up() {
	r.known, r.primed = true, false
	r.state.up(r.o.Now())
	r.o.Log.Info("bridge is connected", "remote", r.o.Remote.Address, "session_present", r.remote.present)
}
