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
	name      Name                        // Options.Name
	reported  func(device, reason string) // Options.Refused
	now       func() time.Time

	router   *router
	sessions *sessions
	gate     *gate
	gateWait time.Duration

	packetTimeout time.Duration // see defaultPacketTimeout
	refusals      *refusal.Counters
	passes        passes
	accepted      atomic.Int64 // CONNECTs answered with success
}

func (h *hook) ID() string { return "plantops" }

func (h *hook) Provides(event byte) bool {
	switch event {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect,
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketSent, mqtt.OnACLCheck, mqtt.OnPublish:
		return true
	}
	return false
}

// dieOfPanic is deferred where mochi calls us. A panic of ours ends the program with a stack: the lock that it may hold would
// stop everybody for ever, and nothing would say so. One of mochi's, which decodes what strangers send and holds nothing of
// ours, ends the connection only (run in network/conn.go). It must come before what is deferred further out, which may want
// that lock.
func dieOfPanic() {
	if what := recover(); what != nil {
		stack := debug.Stack()
		go func() { panic(fmt.Sprintf("%v\n\n%s", what, stack)) }()
		select {}
	}
}

// OnConnect does everything about a CONNECT: mochi has checked its form and nothing else. A refusal is answered here,
// because mochi would close the connection without a CONNACK.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	defer dieOfPanic()
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
	defer dieOfPanic()
	h.router.attach(linkOf(cl), &pk)
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	defer dieOfPanic()
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
	defer dieOfPanic()
	if l := linkOf(cl); l != nil {
		if r, broken := brokenPacket(err); broken && !l.lost && l.because(r.Reason) {
			h.refused(l, r, "")
		}
		h.log.Info("client disconnected", append(l.attrs(), "reason", endReason(l, err))...)
	}
}

// connectionEnded ends a connection's session when mochi has let go of the connection, in whatever way.
func (h *hook) connectionEnded(l *clientLink, panicked bool) {
	defer dieOfPanic()
	if panicked && l.peer != nil {
		if l.because(refusal.MalformedPacket.Reason) {
			h.refused(l, refusal.MalformedPacket, "")
		}
		if l.established.Load() {
			h.OnDisconnect(l.client, packets.ErrMalformedPacket, false)
		}
	}
	l.forgetAliases()
	h.router.detach(l)
}

// OnPacketSent counts the packets that mochi sends.
func (h *hook) OnPacketSent(*mqtt.Client, packets.Packet, []byte) { h.router.traffic.packetsOut.Add(1) }

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
