package broker

import (
	"bytes"
	"time"

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
	// An alias that mochi hands out and then drops with its message leaves the client with messages of no topic.
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
		if l := linkOf(cl); l != nil && l.work != nil && pk.ReasonCode == packets.CodeSuccess.Code {
			pk.SessionPresent = l.present
		}
		return announce(cl, pk, h.server.Options.Capabilities.MaximumPacketSize)
	case packets.Unsuback:
		if l := linkOf(cl); l != nil && len(l.unsuback) == len(pk.ReasonCodes) {
			pk.ReasonCodes = l.unsuback
		}
	case packets.Disconnect:
		if cl.Properties.ProtocolVersion < 5 {
			pk.FixedHeader.Type = packets.Reserved // a server has no DISCONNECT there; mochi cannot encode this and moves on
		}
	}
	return pk
}
