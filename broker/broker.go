package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

// Broker is one running broker. Its methods may be called from any goroutine.
type Broker struct {
	log            *slog.Logger
	server         *mqtt.Server
	hook           *hook
	network        *network.Network
	listeners      map[string]*network.Listener
	maxPacketBytes int

	died      chan error
	serving   sync.WaitGroup
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// Addrs are the addresses that were bound; nil where a listener is off.
type Addrs struct{ TCP, TLS, WebSocket net.Addr }

const (
	// evictWait is how long Disconnect waits for connections to end. They end at once unless something is wrong.
	evictWait = time.Second
	// closeWait bounds Close: mochi waits for its connections without a limit.
	closeWait = 5 * time.Second
)

// Listen binds every socket and serves nobody yet. When an address cannot be had, the error names each that failed
// and nothing stays bound.
func Listen(o Options) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TLS != "" && o.TLSConfig == nil {
		return nil, errors.New("listen on " + o.TLS + ": no TLS configuration")
	}
	if err := o.Limits.check(); err != nil {
		return nil, err
	}
	if o.StallTimeout <= 0 {
		return nil, fmt.Errorf("broker: StallTimeout is %v, it must be more than 0", o.StallTimeout)
	}
	dropTestCases()
	refused := refusal.NewCounters(o.Log, o.Now)
	b := &Broker{
		log:            o.Log,
		listeners:      map[string]*network.Listener{},
		maxPacketBytes: o.Limits.MaxPacketBytes,
		died:           make(chan error, 3),
		closing:        make(chan struct{}),
	}
	b.network = network.New(network.Options{
		Limits: network.Limits{
			MaxConnections: o.Limits.MaxConnections, MaxUnauthenticated: o.Limits.MaxUnauthenticated,
			MaxUnauthenticatedPerAddress: o.Limits.MaxUnauthenticatedPerAddress, MaxConnectionsPerAddress: o.Limits.MaxConnectionsPerAddress,
			ConnectTimeout: o.Limits.ConnectTimeout, MaxPacketBytes: o.Limits.MaxPacketBytes,
		},
		TLSConfig: o.TLSConfig, AllowedOrigins: o.AllowedOrigins, Log: o.Log,
		Refused: func(why refusal.Refusal, from refusal.Source) { refused.Count(why, 1, from) },
	})
	if err := b.bindAll(o); err != nil {
		return nil, err
	}
	b.server = mqtt.New(serverOptions(o.Limits, o.Log))
	b.hook = &hook{
		server: b.server, log: o.Log, accounts: o.Accounts, backend: o.Backend, mustCert: o.RequireCertificate, isRevoked: o.Revoked,
		maxLevels: o.Limits.MaxTopicLevels, name: o.Name, reported: o.Refused,
		now:  time.Now, // it measures spans, which Go does by the monotonic clock: a jump of the wall clock ends none
		gate: newGate(), gateWait: gateWait, packetTimeout: defaultPacketTimeout, refusals: refused,
	}
	refused.Exists = func(name string) bool { _, exists := b.hook.account(name); return exists }
	b.hook.router = newRouter(b.hook, o)
	b.hook.router.bytes = b.network.Bytes
	b.hook.sessions = newSessions(b.hook.router)
	if err := b.server.AddHook(b.hook, nil); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// dropTestCases lets go of the cases of mochi's own tests, which it makes at every start: a third of a megabyte.
var dropTestCases = sync.OnceFunc(func() { packets.TPacketData = nil })

// serverOptions sets every one of mochi's capabilities on purpose.
func serverOptions(limits Limits, log *slog.Logger) *mqtt.Options {
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumClients = math.MaxInt64 // sessions.go counts them
	caps.MaximumPacketSize = uint32(limits.MaxPacketBytes)
	caps.MaximumSessionExpiryInterval = uint32(maxSessionExpiry / time.Second)
	caps.MaximumClientWritesPending = 1 // 8 bytes each per connection; the messages are in our sessions
	caps.ReceiveMaximum = receiveMaximum
	caps.TopicAliasMaximum = 0 // aliases are resolved in dispatch.go, before mochi could do it
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	return &mqtt.Options{
		Capabilities:             caps,
		ClientNetReadBufferSize:  1,                 // loop.go reads
		ClientNetWriteBufferSize: 1,                 // everything goes to our writer at once, which coalesces
		SysTopicResendInterval:   100 * 365 * 86400, // seconds; it cannot be turned off, and stops the program to count memory
		Logger:                   slog.New(mochiLog{log.Handler()}),
	}
}

// bindAll binds what is asked for and says so in the words people search their logs for.
func (b *Broker) bindAll(o Options) error {
	var errs []error
	for _, want := range []struct{ kind, address, words string }{
		{network.TCP, o.TCP, "Opening ipv4 listen socket on port %d."},
		{network.TLS, o.TLS, "Opening ipv4 listen socket on port %d."},
		{network.WebSocket, o.WebSocket, "Opening websockets listen socket on port %d."},
	} {
		if want.address == "" {
			continue
		}
		l, err := b.network.Bind(want.kind, want.address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.listeners[want.kind] = l
		b.log.Info(fmt.Sprintf(want.words, portOf(l.Addr())))
	}
	if len(errs) == 0 {
		return nil
	}
	for _, l := range b.listeners {
		_ = l.Close() // nothing was accepted
	}
	return errors.Join(errs...)
}

func portOf(a net.Addr) int {
	tcp, _ := a.(*net.TCPAddr)
	if tcp == nil {
		return 0
	}
	return tcp.Port
}

// Addrs returns what was bound.
func (b *Broker) Addrs() Addrs {
	addr := func(kind string) net.Addr {
		if l := b.listeners[kind]; l != nil {
			return l.Addr()
		}
		return nil
	}
	return Addrs{TCP: addr(network.TCP), TLS: addr(network.TLS), WebSocket: addr(network.WebSocket)}
}

// Start brings back what Options.Storage keeps, and lets connections in. Every client but the backend's subscriber waits after its login for AdmitDevices, for half a
// minute at most. Call it once.
func (b *Broker) Start() error {
	if err := b.hook.router.restore(context.Background()); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	for topic := range b.server.Topics.Retained.GetAll() { // mochi's start values, which would never change
		b.server.Topics.RetainMessage(packets.Packet{TopicName: topic})
	}
	b.serving.Go(func() { b.hook.router.run(b.closing) })
	b.serving.Go(func() { b.hook.router.load(b.closing) })
	b.serving.Go(func() { b.hook.router.ledger.release(b.closing) })
	for kind, l := range b.listeners {
		b.serving.Go(func() {
			err := l.Serve(b.establish)
			select {
			case <-b.closing:
			default:
				b.died <- fmt.Errorf("%s listener on %s ended: %w", kind, l.Addr(), err)
			}
		})
	}
	return nil
}

// Expect says that the connection from this address is made by this program: it comes in whoever else waits.
func (b *Broker) Expect(local net.Addr) { b.network.Expect(local) }

// establish serves one connection until it is quiet for the first time, or ends.
func (b *Broker) establish(c *network.Conn) error {
	l := newLink(b.hook, c)
	b.hook.router.traffic.sockets.Add(1)
	l.screen.Limit = b.maxPacketBytes
	c.OnInput(l)
	return l.Resume()
}

// Resume serves the connection until it is quiet or ends. mochi's decoder can panic on what a client sends: the connection recovers
// (serve in network/conn.go), see dieOfPanic.
func (l *clientLink) Resume() (err error) {
	panicked := true
	defer func() {
		if err == network.ErrQuiet {
			return
		}
		defer dieOfPanic()
		l.hook.connectionEnded(l, err, panicked)
		l.hook.sessions.release(l)
	}()
	err = l.serve()
	panicked = false
	return err
}

// AdmitDevices opens the gate for all clients, those that wait and those to come.
func (b *Broker) AdmitDevices() { b.hook.gate.open() }

// Disconnect ends the sessions of an account whose rights or secret have changed, or that is no more: connections,
// subscriptions and waiting messages. It returns how many were connected, when they have ended.
func (b *Broker) Disconnect(name, reason string) int {
	n := b.hook.sessions.evict(name, packets.Code{Code: packets.ErrAdministrativeAction.Code, Reason: reason}, evictWait)
	b.hook.refusals.Forget(name) // its figures, if it is no more
	b.log.Info("sessions ended", "user", name, "reason", reason, "count", n)
	return n
}

// EndRevoked ends every connection that was made with a certificate that Options.Revoked now names, and returns how many
// there were, when they have ended. Call it whenever the answer of Options.Revoked may have changed. The account and its
// session stay, for another certificate of the same name; the will of such a connection is not sent.
func (b *Broker) EndRevoked() int {
	n := b.hook.sessions.endRevoked(b.hook.certificateRevoked, evictWait)
	if n > 0 {
		b.log.Warn("connections with revoked certificates ended", "count", n)
	}
	return n
}

// Pass returns a user name and a password that let somebody in once, within a minute, to do what the backend may. It is for who
// may give orders to this process.
func (b *Broker) Pass() (user, password string) {
	return b.hook.backend.Username, b.hook.passes.give(b.hook.now())
}

// SessionInfo is a session, of a client that is connected or of one that may come back.
type SessionInfo struct {
	Client, Account  string
	Connected        bool
	Since            time.Time     // connected, or away; at the earliest since the start of this process
	Listener, Remote string        // "" while away
	Version          byte          // of the last connection: 3 = MQTT 3.1, 4 = 3.1.1, 5
	Expiry           time.Duration // how long it outlives its connection or, while away, how much of that is left
	Subscriptions    int
	Waiting          int // messages that are not sent yet
	InFlight         int // messages that are sent and not acknowledged
	Bytes            int // of what is in memory of both
	OnDisk           int // of those that wait, how many are left to the disk
	DiskBytes        int // of these
}

// Forever is the Expiry of a session that never expires.
const Forever = session.Forever

// Sessions returns all sessions but that of the backend's subscriber, by client id.
func (b *Broker) Sessions() []SessionInfo {
	s, now := b.hook.sessions, b.hook.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]SessionInfo, 0, len(s.byID))
	for _, p := range s.byID {
		if p.ingest {
			continue
		}
		p.mu.Lock()
		if !p.ended {
			all = append(all, p.info(now))
		}
		p.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b SessionInfo) int { return strings.Compare(a.Client, b.Client) })
	return all
}

// info is for Sessions; p.mu is held.
func (p *peer) info(now time.Time) SessionInfo {
	stats := p.state.Stats()
	i := SessionInfo{Client: p.id, Account: p.account, Since: time.Unix(0, p.away), Version: p.state.Version(), Expiry: p.state.Expiry(now),
		Subscriptions: p.state.Subscriptions(), Waiting: stats.Queued, InFlight: stats.InFlight, Bytes: stats.Bytes}
	if tail, bytes, _ := p.state.Tail(); p.usage.quotas.onDisk {
		i.OnDisk, i.DiskBytes = tail, bytes
	} else {
		i.Bytes += bytes
	}
	if l := p.link; l != nil {
		i.Connected, i.Since, i.Listener, i.Remote = true, time.Unix(0, l.since), l.Kind(), l.RemoteAddr().String()
	}
	return i
}

// EndSession ends the session of a client id, with its connection and everything that waits in it, and returns whether there
// was one. That of the backend's subscriber is not ended.
func (b *Broker) EndSession(client string) bool {
	there := b.hook.sessions.endOne(client, packets.Code{Code: packets.ErrAdministrativeAction.Code, Reason: "session ended by an administrator"},
		evictWait)
	if there {
		b.log.Info("session ended", "client", client)
	}
	return there
}

// RetainedInfo is a retained message without its payload.
type RetainedInfo struct {
	Topic   string
	Bytes   int       // of its payload
	Account string    // that published it; "": this process
	Created time.Time // published
}

// Retained returns the retained messages that a filter matches, at most limit, in the order of their topics.
func (b *Broker) Retained(filter string, limit int) []RetainedInfo {
	var all []RetainedInfo
	b.hook.router.eachRetained(filter, func(k session.Kept) bool {
		i := RetainedInfo{Topic: k.Topic, Bytes: len(k.Payload), Created: k.Created}
		if k.Owner != nil {
			i.Account = k.Owner.Account
		}
		all = append(all, i)
		return len(all) < limit
	})
	return all
}

// ClearRetained removes the retained messages that a filter matches, as if somebody had published nothing to their topics:
// subscribers are told. It returns how many there were. Nothing of it is to be stored.
func (b *Broker) ClearRetained(filter string) int {
	var topics []string
	b.hook.router.eachRetained(filter, func(k session.Kept) bool {
		topics = append(topics, k.Topic)
		return true
	})
	for _, name := range topics {
		b.hook.router.clear(name)
	}
	return len(topics)
}

// EndSessions ends the sessions of the backend's client ids with Backend.ClientIDPrefix, with all that waits in them, but those
// that keep names. It returns how many there were.
func (b *Broker) EndSessions(keep func(clientID string) bool) int {
	backend := b.hook.backend
	picks := func(p *peer) bool {
		ours := backend.ClientIDPrefix != "" && strings.HasPrefix(p.id, backend.ClientIDPrefix)
		return ours && p.account == backend.Username && !keep(p.id)
	}
	return b.hook.sessions.endPicked(picks, packets.ErrAdministrativeAction, evictWait)
}

// Waiting is how many messages wait for a client id, those that it was sent and has not acknowledged included.
func (b *Broker) Waiting(clientID string) int64 {
	p := b.hook.sessions.peer(clientID)
	if p == nil {
		return 0
	}
	stats := p.stats()
	return int64(stats.Queued + stats.InFlight)
}

// DisconnectDevices refuses new clients from now on and sends everybody away but the backend's subscriber, without
// publishing their wills. It returns when they are gone or ctx has ended.
func (b *Broker) DisconnectDevices(ctx context.Context) error {
	b.hook.gate.close()
	var sent []*clientLink
	for _, l := range b.hook.sessions.live() {
		if !b.hook.isIngest(l) {
			b.hook.sessions.end(l, packets.ErrServerShuttingDown)
			sent = append(sent, l)
		}
	}
	for i, l := range sent {
		select {
		case <-l.ended.Done():
		case <-ctx.Done():
			return fmt.Errorf("disconnect clients: %d of %d still there: %w", len(sent)-i, len(sent), ctx.Err())
		}
	}
	return nil
}

// Drain waits until everything that was taken in for the backend's subscriber is stored, or ctx ends. Nothing more comes in after
// DisconnectDevices.
func (b *Broker) Drain(ctx context.Context) error {
	if err := b.hook.router.intake.drain(ctx); err != nil {
		return fmt.Errorf("wait for %d messages to be stored: %w", b.hook.router.tallies.stats().Pending, err)
	}
	return nil
}

// Died tells of a listener that ended by itself: the program should end too.
func (b *Broker) Died() <-chan error { return b.died }

// Close ends everything within a few seconds. Calling it again returns the same error.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() { b.closeErr = b.close() })
	return b.closeErr
}

func (b *Broker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	close(b.closing)
	b.hook.gate.close()
	for _, l := range b.hook.sessions.live() {
		b.hook.sessions.end(l, packets.ErrServerShuttingDown)
	}
	errs := []error{b.network.Close(ctx)}

	stopped := make(chan error, 1)
	go func() {
		err := b.server.Close() // waits for its connections without a limit
		b.serving.Wait()
		b.hook.router.walks.Wait() // nobody begins one any more
		stopped <- err
	}()
	select {
	case err := <-stopped:
		errs = append(errs, err)
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("close broker: %w", ctx.Err()))
	}
	return errors.Join(append(errs, b.hook.router.ledger.close())...)
}
