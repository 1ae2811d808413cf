package broker

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is everything mochi asks us: the only hook attached, because of several a single yes would be enough.
// Its methods run in the goroutine of the connection that they are about, unless said otherwise.
type hook struct {
	mqtt.HookBase
	server    *mqtt.Server
	log       *slog.Logger
	accounts  Accounts
	backend   Backend
	mustCert  bool // RequireCertificate
	maxLevels int
	reported  func(device, reason string) // Options.Refused
	now       func() time.Time

	sessions *sessions
	gate     *gate
	gateWait time.Duration
	refusals *refusals
	dropLog  limiter
	accepted atomic.Int64 // CONNECTs answered with success
}

func (h *hook) ID() string { return "plantops" }

func (h *hook) Provides(event byte) bool {
	switch event {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect,
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnSubscribe, mqtt.OnACLCheck, mqtt.OnQosPublish, mqtt.OnPublishDropped,
		mqtt.OnWill, mqtt.OnClientExpired:
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
	if r, ok := err.(refusal); ok {
		h.refuseConnect(l, pk, r)
	}
	return err
}

// OnConnectAuthenticate is mochi's question after OnConnect, which has found out who the client is or returned an error.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	l := linkOf(cl)
	return l != nil && l.account.Name != ""
}

func (h *hook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) { h.dropOversize(cl) }

func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	l := linkOf(cl)
	l.established.Store(true)
	h.accepted.Add(1)
	h.log.Info("client connected", append(l.attrs(), "version", cl.Properties.ProtocolVersion,
		"clean", cl.Properties.Clean, "keepalive", cl.State.Keepalive, "will", pk.Connect.WillFlag)...)
	if h.gate.isClosed() && !h.isIngest(l) {
		h.sessions.end(l, packets.ErrServerShuttingDown) // it passed the gate while DisconnectDevices was looking around
	}
}

func (h *hook) OnDisconnect(cl *mqtt.Client, err error, _ bool) {
	if l := linkOf(cl); l != nil {
		l.settled.Store(true)
		h.log.Info("client disconnected", append(l.attrs(), "reason", endReason(l, err))...)
	}
}

// settle does for a session what mochi leaves undone when a connection ends before it reads from it, or by a panic over
// one of its packets.
func (h *hook) settle(l *link, panicked bool) {
	cl := l.client
	if cl == nil || l.settled.Load() {
		return
	}
	if current, ok := h.server.Clients.Get(cl.ID); !ok || current != cl {
		return
	}
	if panicked {
		reason := "malformed packet"
		l.cause.CompareAndSwap(nil, &reason)
		h.refused(l, reason, "", "")
	}
	if l.established.Load() {
		h.OnDisconnect(cl, packets.ErrMalformedPacket, false)
	}
	keeps := cl.Properties.ProtocolVersion < 5 && !cl.Properties.Clean ||
		cl.Properties.ProtocolVersion >= 5 && cl.Properties.Props.SessionExpiryInterval > 0
	if !keeps {
		l.evicted.Store(true)
	}
}

// OnClientExpired runs in mochi's housekeeping. mochi would leave the subscriptions in its index, where the next
// client with this id would find them.
func (h *hook) OnClientExpired(cl *mqtt.Client) {
	h.server.UnsubscribeClient(cl)
	h.sessions.expired(cl)
}

// OnACLCheck is asked about a filter at SUBSCRIBE and about a topic at each delivery, where it runs in the
// publisher's goroutine, and about the topic of a PUBLISH, which OnPacketRead has judged before.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	l := linkOf(cl)
	switch {
	case l == nil:
		return false
	case write:
		return l.rights.mayPublish(topic)
	}
	return l.rights.mayRead(topic)
}

// OnSubscribe reports what OnACLCheck will refuse, and empties the filters that are none, so that mochi refuses them.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	l := linkOf(cl)
	if l == nil {
		return pk
	}
	for i := range pk.Filters {
		filter := pk.Filters[i].Filter
		if err := checkFilter(filter, h.maxLevels); err != nil {
			h.refused(l, err.Error(), filter, "")
			pk.Filters[i].Filter = ""
		} else if !l.rights.mayRead(filter) {
			h.refused(l, refuseSubscribe.reason, filter, l.rights.mayReadText())
		}
	}
	return pk
}

// OnPublishDropped runs in the publisher's goroutine when mochi's queue for a subscriber is full.
func (h *hook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	more, due := h.dropLog.allow(cl.ID, h.now())
	if l := linkOf(cl); l != nil && due {
		h.log.Warn("message dropped, subscriber too slow", append(l.attrs(), "topic", pk.TopicName, "more", more)...)
	}
}

// OnWill has the last word on a will, by the rules of the moment: rules can have changed since CONNECT, and an orderly
// stop publishes none. It cannot refuse; the name that it returns instead reaches nobody.
func (h *hook) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	l := linkOf(cl)
	suppressed := mqtt.Will{TopicName: "$suppressed"}
	if l == nil || h.gate.isClosed() {
		return suppressed, nil
	}
	account, exists := h.account(l.account.Name)
	if !exists || !rightsOf(account, cl.ID).mayPublish(will.TopicName) {
		h.refused(l, refuseWill.reason, will.TopicName, l.rights.mayPublishText())
		return suppressed, nil
	}
	return will, nil
}

// refused counts and logs what a client that has logged in may not do. rule is what it may do.
func (h *hook) refused(l *link, reason, topic, rule string) {
	attrs := []slog.Attr{slog.String("user", l.account.Name), slog.String("client", l.client.ID),
		slog.String("listener", l.listener()), slog.String("remote", l.RemoteAddr().String())}
	if topic != "" {
		attrs = append(attrs, slog.String("topic", clip(topic)))
	}
	if rule != "" {
		attrs = append(attrs, slog.String("rule", rule))
	}
	h.refusals.add(reason, l.account.Name, attrs...)
}

// reportPublish adds a refused message to its account's figures.
func (h *hook) reportPublish(l *link, reason string) {
	if h.reported != nil {
		h.reported(l.account.Name, reason)
	}
}

// attrs says which connection a log line is about.
func (l *link) attrs() []any {
	return []any{"user", l.account.Name, "client", l.client.ID, "listener", l.listener(), "remote", l.RemoteAddr().String()}
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
