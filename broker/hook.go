package broker

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
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
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnACLCheck, mqtt.OnPublish:
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
	defer fatal()
	h.router.attach(linkOf(cl), &pk)
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	defer fatal()
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

// connectionEnded ends a connection's session when mochi has let go of the connection, in whatever way.
func (h *hook) connectionEnded(l *clientLink, panicked bool) {
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

// fatal ends the process when a function of ours has panicked, which may hold the lock of a session or of the router: for ever,
// if only the connection ended, as it does for a panic of mochi's decoder (see run in network/conn.go).
func fatal() {
	if r := recover(); r != nil {
		text := fmt.Sprintf("%v\n%s", r, debug.Stack())
		go func() { panic(text) }() // where nobody recovers
		select {}
	}
}

// OnPublish is a guard that must never fire: OnPacketRead has taken every message. What mochi would publish would be
// acknowledged before it is stored.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	h.log.Error("a message went past the router", "client", cl.ID, "topic", refusal.Clip(pk.TopicName))
	h.refusals.Count(refusal.PastRouter, 1, refusal.Source{})
	return pk, packets.ErrRejectPacket
}

// OnACLCheck is a guard like OnPublish: takeSubscribe has taken every SUBSCRIBE.
func (h *hook) OnACLCheck(*mqtt.Client, string, bool) bool { return false }

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
