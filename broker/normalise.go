package broker

import (
	"bytes"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// serverKeepalive is what an MQTT 5 client without a keepalive is given, in seconds. MQTT 3.1.1 cannot be told: there
// TCP's keepalive and the write deadline find the dead.
const serverKeepalive = 300

// normalise takes away what mochi cannot handle, before the session starts, and returns the keepalive (0 = none).
func normalise(cl *mqtt.Client) time.Duration {
	// A send quota hangs mochi for good: Inflight.NextImmediate takes its read lock twice, and what is held back for
	// the quota never gives it back. With a quota of 0 mochi sends without one.
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	// An alias that mochi hands out and then drops with its message leaves the client with messages of no topic.
	cl.Properties.Props.TopicAliasMaximum = 0
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
		pk.ReasonCode = v3IdentifierRejected // mochi's answer to a persistent session without a client id
	case version == 3:
		pk.SessionPresent = false // a reserved byte in MQTT 3.1
		fallthrough
	case version != 4 && version != 5:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			pk.ReasonCode = v3UnacceptableVersion
		}
	}
	return pk
}

// OnPacketEncode sees every packet that mochi is about to send, in the goroutine that sends it.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		return announce(cl, pk, h.server.Options.Capabilities.MaximumPacketSize)
	case packets.Disconnect:
		if cl.Properties.ProtocolVersion < 5 {
			pk.FixedHeader.Type = packets.Reserved // a server has no DISCONNECT there; mochi cannot encode this and moves on
		}
	}
	return pk
}

// OnQosPublish runs in the publisher's goroutine when a message is put in flight for a subscriber. What is too large
// for that subscriber is never sent; left in flight it would end each of its connections.
func (h *hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	if pk.FixedHeader.Type == packets.Publish {
		h.dropIfOversize(cl, pk, cl.Properties.Props.MaximumPacketSize)
	}
}

// dropOversize removes what waits for a client and is larger than it now accepts, before mochi resends it.
func (h *hook) dropOversize(cl *mqtt.Client) {
	stored, ok := h.server.Clients.Get(cl.ID)
	if limit := cl.Properties.Props.MaximumPacketSize; ok && limit > 0 {
		for _, pk := range stored.State.Inflight.GetAll(false) {
			h.dropIfOversize(stored, pk, limit)
		}
	}
}

func (h *hook) dropIfOversize(cl *mqtt.Client, pk packets.Packet, limit uint32) {
	if limit == 0 {
		return
	}
	var encoded bytes.Buffer
	pk.ProtocolVersion = cl.Properties.ProtocolVersion
	if err := pk.PublishEncode(&encoded); err == nil && uint32(encoded.Len()) <= limit {
		return
	}
	if cl.State.Inflight.Delete(pk.PacketID) {
		atomic.AddInt64(&h.server.Info.Inflight, -1)
		atomic.AddInt64(&h.server.Info.InflightDropped, 1)
	}
}
