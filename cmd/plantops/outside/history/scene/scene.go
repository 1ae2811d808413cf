package scene

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// Account is who logs in; the zero value is nobody.
type Account struct {
	User, Secret string
}

// Options say what a scene is like.
type Options struct {
	Address string     // of the broker, host:port
	Account Account    // of every client
	Random  *rand.Rand // all choices come from it
	Rate    float64    // messages a second of all publishers
	Rules   history.Rules
	Cast    func(*Scene)       // Mixture or House; nil: Mixture
	Before  []history.Event    // what has happened already; the clients go on from there
	Far     *Far               // nil: no bridge
	From    func(i int) net.IP // address of client i; nil leaves it to the system
}

// Far is a broker to which a bridge brings what passes in the house, below a prefix. A client there has to get it all.
type Far struct {
	Address string
	Account Account
	Prefix  string
}

// Scene is clients that do everything at once. The names and kinds of its clients do not depend on chance.
type Scene struct {
	Options
	Log *history.Log

	clients   []*client
	running   sync.WaitGroup
	lingering sync.WaitGroup
	cancel    context.CancelFunc
	draining  atomic.Bool
	storms    atomic.Int64
	calling   atomic.Bool

	mu         sync.Mutex
	complaints map[string]int // by text, how often
}

// New makes a scene, which does nothing yet.
func New(o Options) *Scene {
	s := &Scene{Options: o, Log: history.NewLog(o.Before), complaints: map[string]int{}}
	if o.Cast == nil {
		o.Cast = Mixture
	}
	o.Cast(s)
	s.add(&client{id: "caller", version: 4, resume: true, caller: true, habits: habits{window: 1},
		plan: func(*rand.Rand) outgoing { return outgoing{topic: homeTopics + "/caller/1", qos: 1} }})
	if o.Far != nil {
		s.Rules.Bridged = "far"
		s.add(&client{id: "far", version: 5, resume: true, address: o.Far.Address, prefix: o.Far.Prefix, Account: o.Far.Account,
			filters: map[string]byte{homeTopics + "/#": 2}})
	}
	for i, c := range s.clients {
		c.scene, c.Account, c.random = s, cmp.Or(c.Account, o.Account), rand.New(rand.NewPCG(o.Random.Uint64(), 0))
		if o.From != nil {
			c.source = o.From(i)
		}
		c.forget()
		for _, e := range o.Before {
			if e.Client == c.id {
				c.remember(e)
			}
		}
	}
	return s
}

// Start lets the clients live.
func (s *Scene) Start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	for _, c := range s.clients {
		s.running.Go(func() { c.run(ctx) })
	}
}

// Storm ends all connections at once, without a word. Everybody is back as soon as possible.
func (s *Scene) Storm() { s.storms.Add(1) }

// Kill notes that the broker is killed, while kill does it and waits until it is gone.
func (s *Scene) Kill(kill func()) {
	s.Log.Add(history.Event{Kind: history.Killed})
	kill()
	s.Log.Add(history.Event{Kind: history.Killed})
}

// End lets nothing new be published, waits until everything has come or nothing comes for so long, has one message more
// published that nearly all must get, reads what is retained, ends the clients, and returns the history.
func (s *Scene) End(ctx context.Context, silence time.Duration) ([]history.Event, error) {
	defer s.Stop()
	s.draining.Store(true)
	if err := s.settle(ctx, silence); err != nil {
		return s.Log.Events(), err
	}
	s.calling.Store(true) // who is there and deaf has nothing that is missing yet
	if err := s.settle(ctx, silence); err != nil {
		return s.Log.Events(), err
	}
	if err := s.readRetained(ctx, min(silence, 500*time.Millisecond)); err != nil {
		return s.Log.Events(), fmt.Errorf("read what is retained: %w", err)
	}
	s.Log.Add(history.Event{Kind: history.Ended})
	return s.Log.Events(), nil
}

// Stop ends the clients, wherever they are.
func (s *Scene) Stop() {
	s.cancel()
	s.running.Wait()
	s.lingering.Wait()
}

// settle waits until all are connected, nothing is on its way, and nothing is missing, or nothing happens for so long. On a busy
// machine clients may wait for their CONNACK for more than a second. They send again what was not acknowledged: who does not wait
// for them sees what is retained as it was before.
func (s *Scene) settle(ctx context.Context, silence time.Duration) error {
	const look = 50 * time.Millisecond
	before, since := s.Log.Len(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
		if now := s.Log.Len(); now != before {
			before, since = now, time.Now()
			continue
		}
		quiet := time.Since(since)
		if quiet >= silence {
			return nil
		}
		if events := s.Log.Events(); quiet >= 4*look && s.allThere(events) && history.Expected(events, s.Rules) == 0 {
			return nil
		}
	}
}

// allThere says that every client has connected itself, or tries to: for those history.Expected waits.
func (s *Scene) allThere(events []history.Event) bool {
	there := map[string]bool{}
	for _, e := range events {
		switch e.Kind {
		case history.Connecting:
			there[e.Client] = true
		case history.Parted, history.Dropped, history.Replaced:
			there[e.Client] = false
		}
	}
	return !slices.ContainsFunc(s.clients, func(c *client) bool { return !there[c.id] })
}

// readRetained asks as a stranger for everything that is retained.
func (s *Scene) readRetained(ctx context.Context, silence time.Duration) error {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	login := rawmqtt.Login{User: s.Account.User, Secret: s.Account.Secret, ClientID: "stranger", Version: 4}
	if _, err := conn.Write(append(login.Encode(), rawmqtt.EncodeSubscribe(4, 0, 1, stateTopics+"/#")...)); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for wait := patience; ; { // for the SUBACK; what is retained comes after it, or just before
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		p, err := rawmqtt.Read(in)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() && wait == silence {
			return nil
		}
		if err != nil {
			return err
		}
		if p.Kind == rawmqtt.Suback {
			wait = silence
		}
		if p.Kind != rawmqtt.Publish || p.Flags&1 == 0 {
			continue
		}
		topic, payload, err := takeApart(4, p)
		if err != nil {
			return err
		}
		m, ours := history.ParseMessage(payload)
		if !ours {
			return fmt.Errorf("%s: %.64q is retained", topic, payload)
		}
		s.Log.Add(history.Event{Kind: history.Kept, Client: "stranger", Topic: topic, Message: m})
	}
}

// Complaints are what clients met that no broker should do, each with how often.
func (s *Scene) Complaints() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(s.complaints)) {
		all = append(all, fmt.Sprintf("%s (%d times)", text, s.complaints[text]))
	}
	return all
}
