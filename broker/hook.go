package broker

import (
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
)

// hook is everything mochi asks us: the only hook attached, because of several a single yes would be enough.
// Its methods run in the goroutine of the connection that they are about, unless said otherwise.
type hook struct {
	mqtt.HookBase
	server    *mqtt.Server
	log       *slog.Logger
	accounts  access.Accounts
	backend   Backend
	mustCert  bool                             // RequireCertificate
	isRevoked func([][]*x509.Certificate) bool // Options.Revoked
	maxLevels int
	reported  func(device, reason string) // Options.Refused
	now       func() time.Time

	router   *router
	sessions *sessions
	gate     *gate
	gateWait time.Duration

	packetTimeout time.Duration // see defaultPacketTimeout
	refusals      *refusal.Counters
	accepted      atomic.Int64 // CONNECTs answered with success
}

func (h *hook) ID() string { return "plantops" }

func (h *hook) Provides(event byte) bool {
	switch event {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect,
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketSent, mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnUnsubscribe,
		mqtt.OnUnsubscribed, mqtt.OnACLCheck, mqtt.OnPublish:
		return true
	}
	return false
}

// OnConnect does everything about a CONNECT: mochi has checked its form and nothing else. A refusal is answered here,
// because mochi would close the connection without a CONNACK.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	l := linkOf(cl)
	if l == nil {
		return packets.ErrNotAuthorized
	}
	err := h.admit(l, pk)
	if r, ok := err.(refusal.Refusal); ok {
		h.refuseConnect(l, pk, r)
	}
	return err
}

// OnConnectAuthenticate is mochi's question after OnConnect, which has found out who the client is or returned an error.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	l := linkOf(cl)
	return l != nil && l.account.Name != ""
}

// OnSessionEstablish is the moment before CONNACK.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	h.router.attach(linkOf(cl), &pk)
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	l := linkOf(cl)
	l.established.Store(true)
	h.accepted.Add(1)
	h.router.start(l)
	h.log.Info("client connected", append(l.attrs(), "version", cl.Properties.ProtocolVersion,
		"clean", cl.Properties.Clean, "keepalive", cl.State.Keepalive, "will", pk.Connect.WillFlag)...)
	cl.State.Keepalive = 0 // mochi asks for the time at each packet otherwise; the deadline is ours
	if h.gate.isClosed() && !h.isIngest(l) {
		h.sessions.end(l, packets.ErrServerShuttingDown) // it passed the gate while DisconnectDevices was looking around
	}
}

func (h *hook) OnDisconnect(cl *mqtt.Client, err error, _ bool) {
	if l := linkOf(cl); l != nil {
		if r, broken := brokenPacket(err); broken && !l.lost && l.because(r.Reason) {
			h.refused(l, r, "")
		}
		h.log.Info("client disconnected", append(l.attrs(), "reason", endReason(l, err))...)
	}
}

// settle ends a connection's session when mochi has let go of the connection, in whatever way.
func (h *hook) settle(l *link, panicked bool) {
	if panicked && l.peer != nil {
		if l.because(refusal.MalformedPacket.Reason) {
			h.refused(l, refusal.MalformedPacket, "")
		}
		if l.established.Load() {
			h.OnDisconnect(l.client, packets.ErrMalformedPacket, false)
		}
	}
	h.router.detach(l)
}

// OnPublish is a guard that must never fire: OnPacketRead has taken every message. What mochi would publish would be
// acknowledged before it is stored.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	h.log.Error("a message went past the router", "client", cl.ID, "topic", refusal.Clip(pk.TopicName))
	h.refusals.Count(refusal.PastRouter, 1, refusal.Source{})
	return pk, packets.ErrRejectPacket
}

// OnACLCheck is asked about the filters of a SUBSCRIBE.
func (h *hook) OnACLCheck(cl *mqtt.Client, filter string, write bool) bool {
	l := linkOf(cl)
	return l != nil && !write && l.rights.MayRead(filter)
}

// refused counts and logs what a client that has logged in may not do.
func (h *hook) refused(l *link, why refusal.Refusal, topic string) {
	attrs := []slog.Attr{slog.String("user", l.account.Name), slog.String("client", l.client.ID),
		slog.String("listener", l.Kind()), slog.String("remote", l.RemoteAddr().String())}
	if topic != "" {
		attrs = append(attrs, slog.String("topic", refusal.Clip(topic)))
	}
	if why.Rule != "" {
		attrs = append(attrs, slog.String("rule", why.Rule))
	}
	h.refusals.Add(why, refusal.Source{Account: l.account.Name, Proved: true, Remote: l.RemoteAddr()}, attrs...)
}

// reportPublish adds a refused message to its account's figures.
func (h *hook) reportPublish(account string, why refusal.Refusal) {
	t := h.router.tallies.of(account)
	t.received.Add(1)
	t.refused.Add(1)
	if h.reported != nil {
		h.reported(account, why.Reason)
	}
}

// refusedAway counts and logs what is refused to a client that need not be connected any more.
func (h *hook) refusedAway(account, client string, why refusal.Refusal, topic string) {
	attrs := []slog.Attr{slog.String("user", account), slog.String("client", client), slog.String("topic", refusal.Clip(topic))}
	if why.Rule != "" {
		attrs = append(attrs, slog.String("rule", why.Rule))
	}
	h.refusals.Add(why, refusal.Source{Account: account, Proved: true}, attrs...)
}

// attrs says which connection a log line is about.
func (l *link) attrs() []any {
	return []any{"user", l.account.Name, "client", l.client.ID, "listener", l.Kind(), "remote", l.RemoteAddr().String()}
}

// endReason puts why a connection ended into words: our reason, else the client's goodbye, else what the socket said.
func endReason(l *link, err error) string {
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	if err == nil {
		return "disconnected by client"
	}
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "keepalive timeout"
	}
	if errors.Is(err, io.EOF) {
		return "connection closed by client"
	}
	return err.Error()
}

// brokenPacket is the refusal of a packet that mochi could not read or would not take, when that is why it ended a connection.
func brokenPacket(err error) (refusal.Refusal, bool) {
	switch code, _ := errors.AsType[packets.Code](err); {
	case err == nil, errors.Is(err, network.ErrQueueFull), errors.Is(err, net.ErrClosed), code == packets.ErrRejectPacket: // our own
		return refusal.Refusal{}, false
	case code == packets.ErrPacketTooLarge:
		return refusal.PacketTooLarge, true
	case code.Code == packets.ErrProtocolViolation.Code:
		return refusal.ProtocolViolation, true
	}
	return refusal.MalformedPacket, true
}
