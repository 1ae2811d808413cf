package ingest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

const (
	keepAliveSeconds = 30
	// sessionExpirySeconds is how long a broker keeps what it could not deliver: a box that is off for a week loses nothing.
	sessionExpirySeconds = 7 * 24 * 3600
	disconnectTimeout    = 2 * time.Second
)

// link is the connection to the broker, kept up by autopaho, and what its callbacks share.
type link struct {
	*Subscriber
	inbound inbound
	manager *autopaho.ConnectionManager
	end     context.CancelFunc   // of all that is under way
	current atomic.Pointer[conn] // of the latest attempt
	came    []item               // in what was read last; the reader's, and between two connections down's
	lost    chan error           // why the connection that was up has ended
	working sync.WaitGroup       // subscribe
}

// stayConnected begins to connect, and goes on until disconnect is called.
func (s *Subscriber) stayConnected(ctx context.Context) (*link, error) {
	l := &link{Subscriber: s, lost: make(chan error, 1)}
	l.inbound.take = l.hold
	ctx, l.end = context.WithCancel(ctx)
	var err error
	l.manager, err = autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls:            []*url.URL{{Scheme: "mqtt", Host: s.address}}, // autopaho wants one; dial knows better
		KeepAlive:             keepAliveSeconds,
		SessionExpiryInterval: sessionExpirySeconds,
		ConnectUsername:       s.o.Username,
		ConnectPassword:       []byte(s.o.Password),
		ConnectPacketBuilder:  l.connectPacket,
		ConnectTimeout:        dialTimeout + s.o.StallTimeout,
		ReconnectBackoff:      func(int) time.Duration { return s.retry.next() },
		AttemptConnection:     l.attempt,
		OnConnectionUp:        func(m *autopaho.ConnectionManager, _ *paho.Connack) { l.up(ctx, m) },
		OnConnectionDown:      l.down,
		OnConnectError:        func(err error) { l.failed("MQTT connection failed", connectError(err)) },
		ClientConfig: paho.ClientConfig{
			ClientID:           s.o.ClientID,
			Session:            &l.inbound,
			PacketTimeout:      s.o.StallTimeout,
			AuthHandler:        noAuth{},
			OnPublishReceived:  []func(paho.PublishReceived) (bool, error){l.unacknowledged},
			OnClientError:      l.ended,
			OnServerDisconnect: func(d *paho.Disconnect) { l.ended(disconnectError(d)) },
		},
	})
	if err != nil {
		l.end()
		return nil, fmt.Errorf("connect to MQTT broker at %s: %w", s.address, err)
	}
	return l, nil
}

// disconnect returns when all has ended.
func (l *link) disconnect() {
	timeout, stop := context.WithTimeout(context.Background(), disconnectTimeout)
	defer stop()
	if l.manager.Disconnect(timeout) != nil {
		l.cut() // the broker does not take our DISCONNECT
		<-l.manager.Done()
	}
	l.end()
	l.working.Wait()
	l.handOver()
	l.count.connected.Store(false)
}

// cut ends the connection whatever state it is in: nobody waits for the broker any more.
func (l *link) cut() {
	if c := l.current.Load(); c != nil {
		c.fail(context.DeadlineExceeded)
	}
}

// attempt makes one network connection.
func (l *link) attempt(ctx context.Context, _ autopaho.ClientConfig, _ *url.URL) (net.Conn, error) {
	if l.o.TLS != nil {
		l.o.Log.Info("Connecting to MQTT broker with TLS at " + l.address)
	} else {
		l.o.Log.Info("Connecting to MQTT broker at " + l.address)
	}
	c, err := dial(ctx, dialOptions{address: l.address, config: l.o.tls(), patience: l.o.StallTimeout,
		limit: l.o.MaxPacketBytes, dialed: l.o.Dialed, before: l.handOver, onEnd: l.queue.release})
	if err != nil {
		return nil, err
	}
	l.current.Store(c)
	return c, nil
}

func (l *link) connectPacket(cp *paho.Connect, _ *url.URL) (*paho.Connect, error) {
	cp.Properties.ReceiveMaximum = &l.o.ReceiveMaximum
	largest := uint32(l.o.MaxPacketBytes)
	cp.Properties.MaximumPacketSize = &largest
	cp.Properties.RequestProblemInfo = true // why a subscription is refused; paho says no otherwise
	return cp, nil
}

// up is called when a connection is made. It must not wait.
func (l *link) up(ctx context.Context, manager *autopaho.ConnectionManager) {
	c := l.current.Load()
	l.working.Go(func() { l.subscribe(ctx, manager, c) })
}

// subscribe asks for the topics; without them the connection is of no use and is cut. Retained messages are not asked
// for: they are old, and would come as new on every reconnection. Retain As Published stays off: so the flag is set on
// copies alone, should a broker send some [MQTT 5, 3.3.1.3].
func (l *link) subscribe(ctx context.Context, manager *autopaho.ConnectionManager, c *conn) {
	request := &paho.Subscribe{}
	for _, topic := range l.o.filters() {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: topic, QoS: 1, RetainHandling: 2})
	}
	answer, err := manager.Subscribe(ctx, request)
	if err != nil {
		c.fail(subscribeError(answer, l.o.Topics, err))
		return
	}
	if slices.Contains(answer.Reasons, 0) {
		l.o.Log.Warn("MQTT broker grants QoS 0 only: it does not keep what cannot be delivered")
	}
	l.retry.subscribed()
	l.count.connected.Store(true)
	l.readyOnce.Do(func() { close(l.ready) })
	l.o.Log.Info("subscribed to MQTT broker", "remote", l.address, "topic", l.o.Topics)
}

// hold keeps a message until all is known that was read with it: to have each committed by itself costs more than the message does.
func (l *link) hold(it item) {
	l.count.received.Add(1)
	l.came = append(l.came, l.checked(it))
}

// handOver puts in the queue what was read.
func (l *link) handOver() {
	if len(l.came) == 0 {
		return
	}
	left := len(l.came) - l.queue.put(l.came...)
	l.count.received.Add(-int64(left)) // not taken: the broker keeps them
	clear(l.came)
	l.came = l.came[:0]
}

// checked is an item whose account is to be believed: another broker than the embedded one passes on what anybody claims.
func (l *link) checked(it item) item {
	if !l.o.Embedded {
		it.account = ""
	}
	return it
}

// unacknowledged takes a message of QoS 0, which paho does not show to the session.
func (l *link) unacknowledged(p paho.PublishReceived) (bool, error) {
	l.count.received.Add(1)
	if l.queue.put(item{topic: p.Packet.Topic, payload: p.Packet.Payload, retained: p.Packet.Retain, from: l.inbound.conn.Load()}) == 0 {
		l.count.received.Add(-1)
	}
	return true, nil
}

// ended hands over why the connection has ended. paho calls it once for each, from a goroutine of its own.
func (l *link) ended(err error) {
	select {
	case l.lost <- err:
	default:
	}
}

// down is called when a connection that was up is over, before the next attempt.
func (l *link) down() bool {
	l.working.Wait() // a subscribe under way fails with the connection
	l.handOver()
	l.count.connected.Store(false)
	err := <-l.lost
	if cause := l.current.Load().cause.Load(); cause != nil {
		err = *cause // we cut it ourselves
	}
	l.failed("MQTT connection lost", err)
	return true
}

// failed logs a failure and decides the wait.
func (l *link) failed(message string, err error) {
	wait := l.retry.failed(l.o.Now())
	l.o.Log.Warn(message, "err", explain(err, l.o.Host), "remote", l.address, "retry_in", wait.Round(time.Millisecond))
}

// tls is the configuration of the connection that is made now.
func (o *Options) tls() *tls.Config {
	if o.TLS == nil || o.Roots == nil {
		return o.TLS
	}
	config := o.TLS.Clone()
	config.RootCAs = o.Roots()
	return config
}
