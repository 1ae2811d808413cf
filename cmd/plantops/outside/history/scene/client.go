package scene

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

const (
	patience   = 20 * time.Second      // for an answer
	tick       = 2 * time.Millisecond  // how often a client looks what is due
	redialWait = 20 * time.Millisecond // as a client that was turned away
	signOfLife = time.Minute           // who has nothing to say pings: an MQTT 5 broker may ask for that (Server Keep Alive)
)

// outgoing is what a client wants to publish.
type outgoing struct {
	message history.Message
	topic   string
	qos     byte
	retain  bool
	empty   bool
}

// client is one of a scene. Everything that it remembers follows from what it has noted, so that it can be made again from
// the first part of a history, as it was then.
type client struct {
	Account
	id      string
	version byte
	resume  bool
	filters map[string]byte // what it subscribes to, and the QoS
	will    *history.Will
	habits  habits
	caller  bool                        // it publishes one message, in the end
	plan    func(r *rand.Rand) outgoing // what it publishes next; nil: nothing

	address, prefix string // of another broker that a bridge leads to, and of the topics there; "": the scene's

	scene  *Scene
	random *rand.Rand
	source net.IP // nil leaves it to the system

	confirmed map[string]bool // filters that stand in the session
	flights   []flight
	held      map[uint16]history.Message // of QoS 2, not released yet
	number    int                        // of the last message
	connects  int
	due       time.Time // of the next message
}

// habits are how a client lives.
type habits struct {
	rate   float64 // messages a second
	window int     // unacknowledged messages
	lives  time.Duration
	// How a connection ends after that time, in parts: by DISCONNECT, without a word, by another one, by DISCONNECT behind
	// what is not acknowledged yet and the next connection at once.
	parts, drops, replaces, lastWords int
	away                              time.Duration // afterwards, at most
	fickle                            bool          // gives up its filters and takes them back
}

// note adds an event to the history, and remembers what follows from it.
func (c *client) note(e history.Event) {
	e.Client = c.id
	c.scene.Log.Add(e)
	c.remember(e)
}

// remember is the state of the client as a function of its events.
func (c *client) remember(e history.Event) {
	i := slices.IndexFunc(c.flights, func(f flight) bool { return f.message == e.Message })
	switch e.Kind {
	case history.Connecting:
		c.connects++
		if !e.Resume {
			c.forget()
		}
	case history.Connected:
		if !e.Present {
			c.forget()
		}
	case history.Subscribed:
		c.confirmed[e.Filter] = e.QoS <= 2
	case history.Unsubscribing:
		delete(c.confirmed, e.Filter)
	case history.Sending:
		c.number = max(c.number, e.Message.Number)
		if e.QoS > 0 && !e.Again {
			c.flights = append(c.flights, flight{outgoing: outgoing{e.Message, e.Topic, e.QoS, e.Retain, e.Empty}, id: e.ID})
		}
	case history.Taken:
		if i >= 0 && c.flights[i].qos == 2 {
			c.flights[i].recorded = true
		} else if i >= 0 {
			c.flights = slices.Delete(c.flights, i, i+1)
		}
	case history.Completed, history.Refused:
		if i >= 0 {
			c.flights = slices.Delete(c.flights, i, i+1)
		}
	case history.Got:
		if e.QoS == 2 {
			c.held[e.ID] = e.Message
		}
	case history.Answered:
		if e.QoS == 2 {
			delete(c.held, e.ID)
		}
	}
}

// forget is what a client does whose session is new.
func (c *client) forget() {
	c.flights, c.held, c.confirmed = nil, map[uint16]history.Message{}, map[string]bool{}
}

// link is one connection of a client.
type link struct {
	net.Conn
	arrived chan rawmqtt.Packet
}

var errOver = errors.New("the connection is over")

// run lives until the scene ends.
func (c *client) run(ctx context.Context) {
	var next *link // of a client that replaces its own connection
	for ctx.Err() == nil {
		l := next
		next = nil
		if l == nil {
			l = c.dial(ctx)
		}
		if l == nil {
			c.wait(ctx, redialWait)
			continue
		}
		end, err := c.live(ctx, l)
		switch {
		case err != nil || end == dropping:
			c.note(history.Event{Kind: history.Dropped})
		case end == parting || end == lastWording:
			c.note(history.Event{Kind: history.Parted})
			c.scene.linger(c, l)
			if end == parting {
				c.wait(ctx, c.pause())
			}
			continue
		case end == replacing:
			if next = c.dial(ctx); next != nil {
				c.note(history.Event{Kind: history.Replaced})
				c.scene.linger(c, l)
				continue
			}
			c.note(history.Event{Kind: history.Dropped})
		}
		l.Close()
		for range l.arrived { // what has come and was not read is as good as lost on the way
		}
		if err != nil {
			c.wait(ctx, redialWait)
		} else {
			c.wait(ctx, c.pause())
		}
	}
}

// pause is how long a client is away.
func (c *client) pause() time.Duration {
	if c.scene.draining.Load() {
		return 0
	}
	return time.Duration(c.random.Int64N(int64(c.habits.away) + 1))
}

// linger leaves a connection to the broker, which is to end it: it has had a DISCONNECT, or the client is there once more.
func (s *Scene) linger(c *client, l *link) {
	s.lingering.Go(func() {
		defer l.Close()
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		began := time.Now()
		for range l.arrived { // not read any more: as good as lost on the way
		}
		if time.Since(began) >= patience {
			s.complain("%s: a connection was left over", c.id)
		}
	})
}

func (c *client) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *client) dial(ctx context.Context) *link {
	dialer := &net.Dialer{Timeout: patience}
	if c.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: c.source}
	}
	conn, err := dialer.DialContext(ctx, "tcp", cmp.Or(c.address, c.scene.Address))
	if err != nil {
		return nil
	}
	return &link{Conn: conn}
}

// live makes a session of a connection and uses it until it ends, or is to be ended. An error says that it was lost.
func (c *client) live(ctx context.Context, l *link) (end ending, err error) {
	login := rawmqtt.Login{User: c.User, Secret: c.Secret, ClientID: c.id, Version: c.version, Resume: c.resume, NoKeepalive: true}
	e := history.Event{Kind: history.Connecting, Resume: c.resume}
	if c.will != nil {
		login.WillTopic, login.WillDelay = c.will.Topic, uint32(c.will.Delay/time.Second)
		login.WillText = string(history.Message{From: history.WillOf(c.id), Number: c.connects + 1}.Payload(0))
		e.Will = c.will
	}
	l.arrived = make(chan rawmqtt.Packet, 64)
	c.note(e)
	if err := l.send(login.Encode()); err != nil {
		close(l.arrived)
		return 0, err
	}
	go l.read()
	if err := c.awaitConnack(ctx, l); err != nil {
		return 0, err
	}
	if err := l.send(c.resend()); err != nil {
		return 0, err
	}
	return c.talk(ctx, l)
}

// read hands on what comes until nothing comes any more.
func (l *link) read() {
	defer close(l.arrived)
	for in := bufio.NewReaderSize(l, 16<<10); ; {
		p, err := rawmqtt.Read(in)
		if err != nil {
			return
		}
		l.arrived <- p
	}
}

func (l *link) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := l.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := l.Write(p)
	return err
}

func (c *client) awaitConnack(ctx context.Context, l *link) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		c.scene.complain("%s: no CONNACK", c.id)
		return errOver
	case p, open := <-l.arrived:
		if !open {
			return errOver
		}
		if p.Kind != rawmqtt.Connack || p.Reason != 0 {
			c.scene.complain("%s: instead of a good CONNACK packet type %d, reason %#x", c.id, p.Kind, p.Reason)
			return errOver
		}
		c.note(history.Event{Kind: history.Connected, Present: p.Body[0]&1 != 0})
		return nil
	}
}

// resend returns what was not acknowledged on the connection before.
func (c *client) resend() (p []byte) {
	for _, f := range c.flights {
		if f.recorded {
			p = append(p, rawmqtt.EncodePubrel(f.id)...)
			continue
		}
		c.note(history.Event{Kind: history.Sending, Message: f.message, Topic: f.topic, QoS: f.qos, ID: f.id, Retain: f.retain, Empty: f.empty, Again: true})
		p = append(p, f.encode(c.version, true)...)
	}
	return p
}

// ending is how a connection is to end.
type ending byte

const (
	dropping ending = iota
	parting
	replacing
	lastWording
)

// choose draws an ending.
func (h habits) choose(r *rand.Rand) ending {
	n := r.IntN(h.parts + h.drops + h.replaces + h.lastWords)
	for i, part := range []int{h.drops, h.parts, h.replaces, h.lastWords} {
		if n < part {
			return ending(i)
		}
		n -= part
	}
	return dropping
}

// talk publishes, receives and subscribes until the connection ends.
func (c *client) talk(ctx context.Context, l *link) (ending, error) {
	var over <-chan time.Time
	if c.habits.lives > 0 {
		over = time.After(c.habits.lives/4 + time.Duration(c.random.Int64N(int64(c.habits.lives))))
	}
	clock := time.NewTicker(tick)
	defer clock.Stop()
	c.due = time.Now()
	said := c.due
	storms := c.scene.storms.Load()
	for asked := map[string]bool{}; ; {
		out := c.subscribe(asked)
		select {
		case <-ctx.Done():
			return dropping, nil
		case <-over:
			if c.scene.draining.Load() {
				over = nil
				continue
			}
			return c.end(l)
		case p, open := <-l.arrived:
			if !open {
				return 0, errOver
			}
			out = append(out, c.receive(p)...)
			for n := len(l.arrived); n > 0; n-- { // answered with one write
				if p, open = <-l.arrived; open {
					out = append(out, c.receive(p)...)
				}
			}
		case <-clock.C:
			if c.scene.storms.Load() != storms {
				return dropping, nil
			}
			out = append(out, c.publish()...)
			if len(out) == 0 && time.Since(said) > signOfLife {
				out = rawmqtt.Encode(rawmqtt.Pingreq<<4, nil)
			}
		}
		if len(out) > 0 {
			said = time.Now()
		}
		if err := l.send(out); err != nil {
			return 0, err
		}
	}
}

// end ends a connection as it is the client's habit.
func (c *client) end(l *link) (ending, error) {
	how := c.habits.choose(c.random)
	if c.habits.fickle && len(c.confirmed) == len(c.filters) {
		for filter := range c.filters {
			c.note(history.Event{Kind: history.Unsubscribing, Filter: filter})
			if err := l.send(rawmqtt.EncodeUnsubscribe(c.version, 1, c.prefix+filter)); err != nil {
				return 0, err
			}
		}
	}
	switch how {
	case parting, lastWording:
		var out []byte
		if how == lastWording && c.plan != nil {
			c.due = time.Now().Add(-time.Second)
			out = c.publish()
		}
		if err := l.send(append(out, rawmqtt.Encode(rawmqtt.Disconnect<<4, nil)...)); err != nil {
			return 0, err
		}
	}
	return how, nil
}
