// Package network is the broker's side of sockets: listeners, connections with their deadlines and outgoing queues, and who
// is served when. What is in the bytes is for others; it looks at the length of the first packet only.
//
//	network.go    limits, and what all listeners share; dropped connections are counted and logged here
//	listener.go   binds an address and accepts connections
//	instant.go    times, as a connection keeps them
//	conn.go       one connection: brought up, read, closed
//	socket.go     the TCP connection with our deadlines
//	hello.go      the first record of a TLS client, in pieces
//	parking.go    connections that are quiet wait without a goroutine; poller_linux.go watches them, poller_other.go does not
//	writer.go     the outgoing queue; whoever writes never waits for the socket
//	gathering.go  writes the queue of one connection every so often
//	segment.go    a piece of that queue
//	websocket.go  MQTT in the binary messages of a websocket
//	words.go      why a connection failed before MQTT began, without a byte of what the client sent
//	admission.go  which accepted connection is served when
//	throttle.go   which password is looked at, and when a wrong one is answered
//	standing.go   what is remembered of addresses and names for these two
//	recent.go     the bounded memory for that
//	episodes.go   tells the log of addresses and names that are throttled
package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/refusal"
)

const (
	// firstPacketBytes bounds what a stranger can make the broker keep. A CONNECT of a device is under 1 kB; this
	// leaves room for a will with a large payload, although the protocol's own limit would be 320 kB.
	firstPacketBytes = 64 << 10

	// queueBytes is the default limit of one connection's outgoing queue.
	queueBytes = 1 << 20

	// defaultWriteTimeout is how long one piece of at most chunkBytes may take to get into the kernel.
	defaultWriteTimeout = 15 * time.Second

	// flushTimeout bounds what is still written after Close, lingerTimeout and lingerBytes the wait for the
	// client's end after that.
	flushTimeout  = time.Second
	lingerTimeout = time.Second
	lingerBytes   = 1 << 20
)

// Limits bound what connections may cost. There are no defaults.
type Limits struct {
	MaxConnections               int           // open ones, those that wait for their turn included
	MaxUnauthenticated           int           // served at one time that have not logged in yet
	MaxUnauthenticatedPerAddress int           // the same for one address (IPv6: one /64)
	MaxConnectionsPerAddress     int           // 0 = no limit
	ConnectTimeout               time.Duration // for TLS handshake, websocket upgrade and CONNECT together
	MaxPacketBytes               int
}

// Network is what the listeners of one broker share: limits, counts, and the record of every open connection. It is safe
// for concurrent use.
type Network struct {
	options      Options
	writeTimeout time.Duration
	queueLimit   int // of one connection, bytes

	received, sent atomic.Int64 // bytes, without TLS and websocket

	admission
	parking  parking
	episodes episodes
	lines    refusal.Limiter

	addressLines   refusal.Limiter // so that many strange addresses do not keep other lines out of the log
	addressesNamed perMinute
	mu             sync.Mutex // guards admission and what follows
	closed         bool
	listeners      []*Listener
	work           sync.WaitGroup // one for each connection until its socket is closed, one for each served one
}

// Options are what the listeners of one network share.
type Options struct {
	Limits Limits
	// TLSConfig serves the listeners of kind TLS.
	TLSConfig *tls.Config
	// AllowedOrigins are the websites that may open a websocket from a browser, besides the one of the same host.
	AllowedOrigins []string
	// Refused is told of each connection that is dropped. It must be quick and safe for concurrent use. May be nil.
	Refused func(refusal.Refusal, refusal.Source)
	Log     *slog.Logger
}

// New returns a network without listeners.
func New(o Options) *Network {
	if o.Refused == nil {
		o.Refused = func(refusal.Refusal, refusal.Source) {}
	}
	return &Network{options: o, writeTimeout: defaultWriteTimeout,
		queueLimit: max(queueBytes, 4*o.Limits.MaxPacketBytes), admission: newAdmission(), episodes: episodes{log: o.Log},
		parking: parking{quietAfter: quietAfter}}
}

// SetQuietAfter says after how long without input a connection waits without a goroutine. It is called before anybody listens.
func (n *Network) SetQuietAfter(d time.Duration) { n.parking.quietAfter = d }

// Bytes are what was received and sent so far, without TLS and websocket.
func (n *Network) Bytes() (received, sent int64) { return n.received.Load(), n.sent.Load() }

// Close closes all listeners and connections and waits until every goroutine has ended or ctx has. What was
// queued before is still written, for as long as Conn.Close allows. Safe to call twice.
func (n *Network) Close(ctx context.Context) error {
	defer n.parking.close()
	n.mu.Lock()
	n.closed = true
	n.emptyQueues()
	listeners := n.listeners
	open := make([]*Conn, 0, len(n.conns))
	for c := range n.conns {
		open = append(open, c)
	}
	n.mu.Unlock()

	n.episodes.end()
	for _, l := range listeners {
		l.Close() // the only error is that it is closed already
	}
	for _, c := range open {
		c.shut(false)
	}
	ended := make(chan struct{})
	go func() {
		n.work.Wait()
		close(ended)
	}()
	gentle, cancel := context.WithTimeout(ctx, flushTimeout+lingerTimeout)
	defer cancel()
	if finished(ended, gentle) {
		return nil
	}
	for _, c := range open {
		c.shut(true)
	}
	if finished(ended, ctx) {
		return nil
	}
	return fmt.Errorf("close network: a connection is still in use: %w", ctx.Err())
}

func finished(ended <-chan struct{}, ctx context.Context) bool {
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// drop logs and counts why a connection was or will be closed. err may be nil. It has lines of its own, "dropped connection"
// by listener and reason: of most connections that end here nobody is known, and refusal.Counters has its lines by account.
func (n *Network) drop(c *Conn, why refusal.Refusal, err error) {
	from := refusal.Source{Remote: c.RemoteAddr()}
	if user := c.user.Load(); user != nil && why != refusal.Panic { // which is put down to the packet, see connectionEnded in broker's hook.go
		from.Account, from.Proved = *user, true
	}
	if revoked, ok := errors.AsType[revokedCertificate](err); ok { // its owner should hear of it
		from.Account = revoked.RevokedName()
	}
	if repeated, ok := n.mayLog(c, why, from); ok {
		attrs := []any{"listener", c.Kind(), "remote", from.Remote.String(), "reason", why.Reason}
		if from.Proved {
			attrs = append(attrs, "user", from.Account)
		}
		if repeated > 0 {
			attrs = append(attrs, "repeated", repeated)
		}
		if err != nil && why == refusal.Panic {
			attrs = append(attrs, "err", err) // the stack, which holds no bytes of the client
		} else if err != nil {
			attrs = append(attrs, "err", words(err))
		}
		n.options.Log.Warn("dropped connection", attrs...)
	}
	n.options.Refused(why, from)
}

// addressesEvery is how many addresses are named a minute for one reason: many devices with one mistake, such as an old
// ca.crt, are each to be found, and a flood from everywhere does not fill the log.
const addressesEvery = 20

// mayLog says whether a line about this may be written now, and how many there were without one: once a minute for each
// account, and for strangers for each address.
func (n *Network) mayLog(c *Conn, why refusal.Refusal, from refusal.Source) (repeated int, ok bool) {
	kind, now := c.Kind()+" "+why.Reason, time.Now()
	if from.Account != "" {
		return n.lines.Allow(kind+" "+from.Account, now)
	}
	if repeated, ok = n.addressLines.Allow(kind+" "+refusal.AddressKey(c.RemoteAddr()).String(), now); !ok {
		return 0, false
	}
	if n.addressesNamed.take(kind, now) {
		return repeated, true
	}
	return n.lines.Allow(kind, now)
}

// perMinute counts what happens in a minute, for each of a few kinds.
type perMinute struct {
	mu    sync.Mutex
	began time.Time
	count map[string]int
}

func (p *perMinute) take(kind string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.began) >= refusal.LineEvery || p.count == nil {
		p.began, p.count = now, map[string]int{}
	}
	p.count[kind]++
	return p.count[kind] <= addressesEvery
}
