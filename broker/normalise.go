package broker

import (
	"bytes"
	"strings"
	"time"

	"github.com/plantops/plantops/broker/session"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
)

// serverKeepalive is what an MQTT 5 client without a keepalive is given, in seconds. MQTT 3.1.1 cannot be told: there
// TCP's keepalive and the write deadline find the dead.
const serverKeepalive = 300

// normalise takes away what mochi cannot handle, before the session starts, and returns the keepalive (0 = none). It also
// takes away what lies in the CONNECT and is of no use: a session keeps its last connection, and need not keep that packet.
func normalise(cl *mqtt.Client) time.Duration {
	// A send quota hangs mochi for good: Inflight.NextImmediate takes its read lock twice, and what is held back for
	// the quota never gives it back. With a quota of 0 mochi sends without one.
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	// The session hands out the aliases, and mochi none: it does so for messages that it then drops.
	cl.Properties.Props.TopicAliasMaximum = 0
	cl.Properties.Props.User, cl.Properties.Username = nil, bytes.Clone(cl.Properties.Username)
	cl.Properties.Props.AuthenticationData = nil
	if cl.Properties.ProtocolVersion >= 5 && cl.State.Keepalive == 0 {
		cl.State.Keepalive, cl.State.ServerKeepalive = serverKeepalive, true
	}
	return time.Duration(cl.State.Keepalive) * time.Second
}

// announce completes a CONNACK, which mochi leaves without the limits that it enforces, and turns the codes that
// MQTT 3.1.1 does not have into the ones it has.
func announce(cl *mqtt.Client, pk packets.Packet, maxPacketBytes uint32) packets.Packet {
	switch version := cl.Properties.ProtocolVersion; {
	case version == 5 && pk.ReasonCode == packets.CodeSuccess.Code:
		pk.Properties.MaximumPacketSize = maxPacketBytes
		pk.Properties.TopicAliasMaximum = maxAliases
	case version == 4 && pk.ReasonCode >= packets.ErrUnspecifiedError.Code:
		pk.ReasonCode = refusal.V3IdentifierRejected // mochi's answer to a persistent session without a client id
	case version == 3:
		pk.SessionPresent = false // a reserved byte in MQTT 3.1
		fallthrough
	case version != 4 && version != 5:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			pk.ReasonCode = refusal.V3UnacceptableVersion
		}
	}
	return pk
}

// OnPacketEncode sees every packet that mochi is about to send, in the goroutine that sends it.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		if l := linkOf(cl); l != nil && l.attached && pk.ReasonCode == packets.CodeSuccess.Code {
			pk.SessionPresent = l.present
			if l.asksName {
				pk.Properties.User = []packets.UserProperty{{Key: h.name.Key, Val: h.name.Value}}
			}
		}
		return announce(cl, pk, h.server.Options.Capabilities.MaximumPacketSize)
	case packets.Disconnect:
		if cl.Properties.ProtocolVersion < 5 {
			pk.FixedHeader.Type = packets.Reserved // a server has no DISCONNECT there; mochi cannot encode this and moves on
		}
	}
	return pk
}

// This file lets a bridge of Mosquitto connect with its defaults. Such a bridge sets a bit in its protocol version
// (try_private), and publishes whether it is connected, as its will too, at $SYS/broker/connection/ID/state (notifications).

// isBridgeState tells the topic at which a bridge says how it is.
func isBridgeState(topic string) bool {
	return strings.HasPrefix(topic, "$SYS/broker/connection/") && strings.HasSuffix(topic, "/state")
}

// sayBridgeState says once for each connection that the state of a bridge is not taken: what stands below $SYS here is ours. Who is
// connected can be seen without it.
func (l *clientLink) sayBridgeState(topic string) {
	if !l.stateSaid {
		l.hook.log.Info("the state of a bridge is ignored", append(l.attrs(), "topic", refusal.Clip(topic))...)
	}
	l.stateSaid = true
}

// ignoreBridgeState acknowledges the message, counted as refused: without an acknowledgement the bridge would send it for ever.
func (h *hook) ignoreBridgeState(l *clientLink, pk *packets.Packet) error {
	l.sayBridgeState(pk.TopicName)
	w, p, qos := l.work, l.peer, pk.FixedHeader.Qos
	if qos == 0 {
		h.reportPublish(l.account, refusal.ReservedTopic)
		return nil
	}
	p.mu.Lock()
	ticket, verdict, out := p.state.Receive(pk.PacketID, qos, w.out[:0])
	w.out = out
	w.apply(p)
	p.mu.Unlock()
	switch verdict {
	case session.Duplicate:
		return nil
	case session.TooMany:
		h.reportPublish(l.account, refusal.ReceiveMaximumExceeded)
		return packets.ErrRejectPacket
	}
	h.reportPublish(l.account, refusal.ReservedTopic)
	h.router.complete(w, p, ticket, session.Success)
	w.settle()
	return nil
}

// asBridge gives the subscriptions of a bridge what Mosquitto gives them: they do not get back what the bridge itself published,
// or two brokers would send each other the same message for ever, and the retain flag stays as it was.
func asBridge(filters packets.Subscriptions) {
	for i := range filters {
		filters[i].NoLocal = !strings.HasPrefix(filters[i].Filter, "$share/")
		filters[i].RetainAsPublished = true
	}
}
