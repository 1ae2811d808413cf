package bridge_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/logtest"
)

// guest is the account that bridges have at a remote broker.
var guest = brokertest.Account{Account: broker.Account{Name: "guest", Publish: []string{"#"}, Subscribe: []string{"#"}}, Password: "guest's secret"}

// proxy stands between a bridge and a broker: it can be away.
type proxy struct {
	t        *testing.T
	target   string
	listener net.Listener

	mu   sync.Mutex
	away bool
	open []net.Conn
}

func newProxy(t *testing.T, target net.Addr) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{t: t, target: target.String(), listener: l}
	t.Cleanup(func() { l.Close(); p.leave() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(c net.Conn) {
	s, err := net.Dial("tcp", p.target)
	p.mu.Lock()
	if err != nil || p.away {
		p.mu.Unlock()
		c.Close()
		if s != nil {
			s.Close()
		}
		return
	}
	p.open = append(p.open, c, s)
	p.mu.Unlock()
	go func() { _, _ = io.Copy(s, c); s.Close() }()
	_, _ = io.Copy(c, s)
	c.Close()
}

// leave cuts everything and lets nothing through until back.
func (p *proxy) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = true
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
}

func (p *proxy) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

// options connect two brokers; at address is the remote one.
func options(local *brokertest.Broker, address string, routes ...bridge.Route) bridge.Options {
	return bridge.Options{
		Name: "office",
		Local: bridge.Broker{Name: "local broker", Address: local.Addrs().TCP.String(), Username: local.Backend.Username,
			Password: local.Backend.Password, ClientID: bridge.ClientIDPrefix + "office", MaxPacketBytes: 256 << 10, MaxLevels: 32},
		Remote: bridge.Broker{Name: "remote broker", Address: address, Username: "guest", Password: guest.Password, ClientID: "box-1",
			MaxPacketBytes: 256 << 10},
		Routes: routes, Box: boxOf(local), SessionExpiry: time.Hour, KeepAlive: time.Minute, Patience: brokertest.Patience,
		FirstWait: 20 * time.Millisecond,
	}
}

// start runs a bridge until the end of the test, or until stop.
func start(t *testing.T, o bridge.Options) (b *bridge.Bridge, log *logtest.Log, stop func()) {
	t.Helper()
	log = &logtest.Log{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	b, err := bridge.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return b, log, stop
}

func awaitUp(t *testing.T, b *bridge.Bridge) {
	t.Helper()
	await(t, b, func(s bridge.Status) bool { return s.Connected })
}

func await(t *testing.T, b *bridge.Bridge, fits func(bridge.Status) bool) bridge.Status {
	t.Helper()
	require.Eventually(t, func() bool { return fits(b.Status()) }, brokertest.Patience, 5*time.Millisecond, "%+v", b.Status())
	return b.Status()
}

func publisher(t *testing.T, b *brokertest.Broker) *brokertest.Client {
	login := b.AsBackend()
	login.Version = 5
	return brokertest.Dial(t, b, brokertest.TCP, login)
}

// listener subscribes to everything with a session that lasts.
func listener(t *testing.T, b *brokertest.Broker, filter string, qos byte) *brokertest.Client {
	login := b.AsBackend()
	login.Version = 5
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Less(t, c.SubscribeWith(packets.Subscription{Filter: filter, Qos: qos, RetainAsPublished: true}), byte(0x80))
	return c
}

func TestMessagesGoBothWays(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	b, _, _ := start(t, options(here, there.Addrs().TCP.String(),
		bridge.Route{Filter: "up/#", Direction: bridge.Out, QoS: 2, LocalPrefix: "home/", RemotePrefix: "box/1/"},
		bridge.Route{Filter: "down/#", Direction: bridge.In, QoS: 2, LocalPrefix: "cloud/", RemotePrefix: "box/1/"},
		bridge.Route{Filter: "all/#", Direction: bridge.In | bridge.Out, QoS: 1}))
	awaitUp(t, b)
	atThere, atHere := listener(t, there, "#", 2), listener(t, here, "#", 2)
	send, back := publisher(t, here), publisher(t, there)

	for qos := range byte(3) {
		send.Publish("home/up/a", fmt.Sprint("up ", qos), qos)
		got := atThere.Receive()
		assert.Equal(t, "box/1/up/a", got.TopicName)
		assert.Equal(t, fmt.Sprint("up ", qos), string(got.Payload))
		assert.Equal(t, qos, got.FixedHeader.Qos)
		assert.Equal(t, "home/up/a", atHere.Receive().TopicName)

		back.Publish("box/1/down/b", fmt.Sprint("down ", qos), qos)
		got = atHere.Receive()
		assert.Equal(t, "cloud/down/b", got.TopicName)
		assert.Equal(t, qos, got.FixedHeader.Qos)
		assert.Equal(t, "box/1/down/b", atThere.Receive().TopicName)
	}
	send.Publish("all/x", "1", 2)
	assert.Equal(t, byte(1), atThere.Receive().FixedHeader.Qos, "the most that the route allows")
	assert.Equal(t, "all/x", atHere.Receive().TopicName)
	back.Publish("all/y", "2", 1)
	assert.Equal(t, "all/y", atHere.Receive().TopicName)
	assert.Equal(t, "all/y", atThere.Receive().TopicName)

	send.Publish("home/private", "3", 1)
	assert.Equal(t, "home/private", atHere.Receive().TopicName)
	send.Publish("all/last", "4", 1)
	assert.Equal(t, "all/last", atThere.Receive().TopicName, "what no route has stays here")
	s := await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 5 && s.In.Carried == 4 })
	assert.Zero(t, s.Out.Looped+s.In.Looped+s.Out.Refused+s.In.Refused)
}

func TestPropertiesAndRetainFlagStay(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	send := publisher(t, here)
	format := byte(1)
	send.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 7, TopicName: "a/state",
		Payload: []byte("on"), Properties: packets.Properties{PayloadFormat: format, PayloadFormatFlag: true, ContentType: "text/plain",
			ResponseTopic: "a/answer", CorrelationData: []byte{1, 2}, MessageExpiryInterval: 3000,
			User: []packets.UserProperty{{Key: "k", Val: "1"}, {Key: "k", Val: "2"}, {Key: broker.AccountProperty, Val: "somebody"}}}})
	send.Await(packets.Puback)

	b, _, _ := start(t, options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "a/#", Direction: bridge.Out, QoS: 1}))
	awaitUp(t, b)
	await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 1 })
	got := listener(t, there, "a/#", 1).Receive()
	assert.True(t, got.FixedHeader.Retain)
	p := got.Properties
	assert.Equal(t, "text/plain", p.ContentType)
	assert.Equal(t, "a/answer", p.ResponseTopic)
	assert.Equal(t, []byte{1, 2}, p.CorrelationData)
	assert.Equal(t, format, p.PayloadFormat)
	assert.InDelta(t, 3000, p.MessageExpiryInterval, 60)
	assert.Equal(t, []packets.UserProperty{{Key: "k", Val: "1"}, {Key: "k", Val: "2"},
		{Key: bridge.HopProperty, Val: boxOf(here)}}, p.User)
}

func TestNothingIsLostWhileTheOtherBrokerIsAway(t *testing.T) {
	for _, way := range []bridge.Direction{bridge.Out, bridge.In} {
		for qos := byte(1); qos <= 2; qos++ {
			t.Run(fmt.Sprint(way, qos), func(t *testing.T) {
				here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
				link := newProxy(t, there.Addrs().TCP)
				b, _, _ := start(t, options(here, link.listener.Addr().String(), bridge.Route{Filter: "#", Direction: way, QoS: qos}))
				awaitUp(t, b)
				from, to := here, there
				if way == bridge.In {
					from, to = there, here
				}
				got := listener(t, to, "#", qos)
				send := publisher(t, from)
				const n = 600
				go func() {
					for i := range n {
						if i%100 == 50 {
							link.leave()
						}
						if i%100 == 90 {
							link.back()
						}
						send.Publish("n", strconv.Itoa(i), qos)
					}
					link.back()
				}()
				seen, highest := map[int]int{}, -1
				for highest < n-1 || len(seen) < n {
					m := got.Receive()
					i, err := strconv.Atoi(string(m.Payload))
					require.NoError(t, err)
					if seen[i]++; seen[i] == 1 {
						require.Equal(t, highest+1, i, "new messages come in order")
						highest = i
					}
					if qos == 2 {
						require.Equal(t, 1, seen[i], "exactly once")
					}
				}
			})
		}
	}
}

func TestMessagesWaitForABrokerThatWasNeverThere(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	link := newProxy(t, there.Addrs().TCP)
	link.leave()
	send := publisher(t, here)
	send.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 1, TopicName: "before", Payload: []byte("0")})
	send.Await(packets.Puback)
	b, log, _ := start(t, options(here, link.listener.Addr().String(), bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1}))
	require.Eventually(t, func() bool { return len(log.Lines("bridge is not connected")) >= 2 }, brokertest.Patience, 5*time.Millisecond)
	send.Publish("n", "1", 1)
	got := listener(t, there, "#", 1)
	link.back()
	first, second := got.Receive(), got.Receive()
	assert.ElementsMatch(t, []string{"0", "1"}, []string{string(first.Payload), string(second.Payload)}, "retained messages too")
	s := await(t, b, func(s bridge.Status) bool { return s.Connected })
	assert.Empty(t, s.Why)
}

func TestRetainedMessagesStayRetained(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	o := options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "#", Direction: bridge.In | bridge.Out, QoS: 1})
	b, _, stop := start(t, o)
	awaitUp(t, b)
	keep := func(at *brokertest.Broker, name string) {
		c := publisher(t, at)
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 1, TopicName: name, Payload: []byte("x")})
		c.Await(packets.Puback)
	}
	keep(here, "up")
	keep(there, "down")
	await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 1 && s.In.Carried == 1 })
	assert.True(t, listener(t, there, "up", 1).Receive().FixedHeader.Retain)
	assert.True(t, listener(t, here, "down", 1).Receive().FixedHeader.Retain)
	stop()

	// Another broker stands there now, or the same without its memory. It gets them all.
	other := brokertest.Start(t, guest)
	o.Remote.Address = other.Addrs().TCP.String()
	b, _, _ = start(t, o)
	awaitUp(t, b)
	await(t, b, func(s bridge.Status) bool { return s.Out.Carried == 2 })
	assert.Equal(t, "up", listener(t, other, "up", 1).Receive().TopicName)
}

func TestMessagesWaitForABridgeThatIsStopped(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	o := options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "#", Direction: bridge.In | bridge.Out, QoS: 2})
	b, _, stop := start(t, o)
	awaitUp(t, b)
	stop()
	publisher(t, here).Publish("up", "1", 2)
	publisher(t, there).Publish("down", "2", 2)
	atThere, atHere := listener(t, there, "up", 2), listener(t, here, "down", 2)
	start(t, o)
	assert.Equal(t, "1", string(atThere.Receive().Payload))
	assert.Equal(t, "2", string(atHere.Receive().Payload))
}

// boxOf is how a broker of startBox calls itself.
func boxOf(b *brokertest.Broker) string { return "box of " + b.Backend.ClientID }

// startBox starts a broker that tells its name.
func startBox(t *testing.T, name string) *brokertest.Broker {
	id := "ingest of " + name
	b := brokertest.Listen(t, func(o *broker.Options) {
		o.Backend.ClientID = id
		o.Name = broker.Name{Key: bridge.HopProperty, Value: "box of " + id}
	}, guest)
	b.Backend.ClientID = id
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

var everything = bridge.Route{Filter: "#", Direction: bridge.In | bridge.Out, QoS: 1}

// quiet waits until the bridges carry nothing any more, and returns how many messages they have carried.
func quiet(t *testing.T, bridges ...*bridge.Bridge) (carried int64) {
	t.Helper()
	before, looks := int64(-1), 0
	require.Eventually(t, func() bool { // a busy machine may do nothing for a moment
		now := int64(0)
		for _, b := range bridges {
			s := b.Status()
			now += s.Out.Carried + s.In.Carried
		}
		if now != before {
			before, looks = now, 0
		}
		looks++
		return looks > 3
	}, brokertest.Patience, 200*time.Millisecond)
	return before
}

// Two boxes each have a bridge to the other one, for everything both ways. Each brings a message there, and nothing comes back.
func TestMessagesDoNotGoInCircles(t *testing.T) {
	one, two := startBox(t, "one"), startBox(t, "two")
	a, _, _ := start(t, options(one, two.Addrs().TCP.String(), everything))
	b, _, _ := start(t, options(two, one.Addrs().TCP.String(), everything))
	awaitUp(t, a)
	awaitUp(t, b)
	atOne, atTwo := listener(t, one, "#", 1), listener(t, two, "#", 1)
	publisher(t, one).Publish("n", "1", 1)
	for _, x := range []*bridge.Bridge{a, b} {
		await(t, x, func(s bridge.Status) bool { return s.Out.Looped+s.In.Looped > 0 })
	}
	assert.Equal(t, int64(2), quiet(t, a, b))
	atOne.Receive()
	atOne.AwaitNoMessage()
	atTwo.Receive()
	atTwo.Receive()
	atTwo.AwaitNoMessage()
}

// The same with brokers that do not say who they are, as those of others: the circle ends after one round.
func TestCirclesEndWhereBrokersDoNotSayWhoTheyAre(t *testing.T) {
	one, two := brokertest.Start(t, guest), brokertest.Start(t, guest)
	o, p := options(one, two.Addrs().TCP.String(), everything), options(two, one.Addrs().TCP.String(), everything)
	o.Box, p.Box = "one", "two"
	a, _, _ := start(t, o)
	b, _, _ := start(t, p)
	awaitUp(t, a)
	awaitUp(t, b)
	publisher(t, one).Publish("n", "1", 1)
	for _, x := range []*bridge.Bridge{a, b} {
		await(t, x, func(s bridge.Status) bool { return s.Out.Looped+s.In.Looped > 0 })
	}
	assert.LessOrEqual(t, quiet(t, a, b), int64(4))
}

// A box in the middle hands on what comes from the one side to the other, and a ring of boxes gives each box a message once.
func TestMessagesGoOverSeveralBridges(t *testing.T) {
	one, two, three := startBox(t, "one"), startBox(t, "two"), startBox(t, "three")
	other := func(o bridge.Options, name string) bridge.Options {
		o.Name, o.Local.ClientID, o.Remote.ClientID = name, bridge.ClientIDPrefix+name, "box-"+name
		return o
	}
	a, _, _ := start(t, other(options(two, one.Addrs().TCP.String(), everything), "to-one"))
	b, _, _ := start(t, other(options(two, three.Addrs().TCP.String(), everything), "to-three"))
	awaitUp(t, a)
	awaitUp(t, b)
	at := []*brokertest.Client{listener(t, one, "#", 1), listener(t, two, "#", 1), listener(t, three, "#", 1)}
	publisher(t, one).Publish("n", "1", 1)
	for _, c := range at {
		assert.Equal(t, "1", string(c.Receive().Payload))
	}
	assert.Equal(t, int64(2), quiet(t, a, b))

	back := bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1}
	c, _, _ := start(t, other(options(three, one.Addrs().TCP.String(), back), "ring"))
	awaitUp(t, c)
	publisher(t, one).Publish("n", "2", 1)
	for _, c := range at {
		assert.Equal(t, "2", string(c.Receive().Payload))
	}
	await(t, c, func(s bridge.Status) bool { return s.Out.Looped == 1 })
	quiet(t, a, b, c)
	for _, c := range at {
		c.AwaitNoMessage()
	}
}
