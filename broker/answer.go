package broker

import (
	"fmt"
	"log/slog"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/validate"
)

// This file answers what is refused to a client that is connected: what it is told, what is counted and what is logged.
// What is refused is judged where it is looked at, and the words are in package refusal. Two others count and log by
// themselves and tell the client nothing: the network, of connections that it ends (drop in network/network.go), and
// overflowed in quota.go, of messages to a client that there is no room for. Nothing else refuses with other means.

// isTold says that a client has a protocol with words for a refusal. MQTT 5 has a code for each and a DISCONNECT of the
// server's. In MQTT 3.1.1 an acknowledgement means success and a server has no DISCONNECT, so the connection is closed;
// only CONNACK and SUBACK have codes.
func (l *clientLink) isTold() bool { return l.screen.Version >= 5 }

// refuseConnect counts, logs and answers a refused CONNECT.
func (h *hook) refuseConnect(l *clientLink, cl *mqtt.Client, pk packets.Packet, r refusal.Refusal) {
	l.cause.CompareAndSwap(nil, &r.Reason)
	attrs := []slog.Attr{slog.String("user", refusal.Clip(string(pk.Connect.Username))), slog.String("client", refusal.Clip(l.id)),
		slog.String("listener", l.Kind()), slog.String("remote", l.RemoteAddr().String())}
	if pk.Connect.WillFlag && (r == refusal.WillNotAllowed || r == refusal.InvalidWillTopic) {
		attrs = append(attrs, slog.String("topic", refusal.Clip(pk.Connect.WillTopic)))
	}
	if r.Rule != "" {
		attrs = append(attrs, slog.String("rule", r.Rule))
	}
	if r == refusal.WillNotAllowed {
		attrs = append(attrs, slog.String("rule", l.rights.MayPublishText()))
	}
	from := refusal.Source{Account: l.account, Proved: l.account != "", Remote: l.RemoteAddr()}
	if !from.Proved { // its owner should hear of it all the same
		from.Account = string(pk.Connect.Username)
	}
	if l.throttled { // episodes tell of it
		h.refusals.Count(r, 1, from)
	} else {
		h.refusals.Add(r, from, attrs...)
	}

	code := r.V5
	if !l.isTold() {
		code = packets.Code{Code: r.V3, Reason: r.Reason}
	}
	_ = h.server.SendConnack(cl, code, false, nil) // the connection is closed either way
}

// refusePublish answers a message that its sender may not publish, or that cannot be published. The answer takes its place
// in the row of acknowledgements: received is the ticket of a message that the session has received already, or nil. A
// QoS 0 message is refused in silence. An error ends the connection.
func (h *hook) refusePublish(l *clientLink, pk *packets.Packet, r refusal.Refusal, received *session.Ticket) error {
	h.refused(l, r, pk.TopicName)
	w, p, qos := l.work, l.peer, pk.FixedHeader.Qos
	var ticket session.Ticket
	if received != nil {
		ticket = *received
	} else if l.isTold() {
		var verdict session.Verdict
		var err error
		if ticket, verdict, err = h.router.takeTicket(l, pk); verdict == session.Duplicate || err != nil {
			return err
		}
	}
	h.reportPublish(l.account, r)
	switch {
	case qos == 0:
		return nil
	case l.isTold():
		h.router.complete(w, p, ticket, session.Reason(r.V5.Code))
		return nil
	}
	l.because(r.Reason)
	if received != nil {
		h.router.abandon(w, p, ticket)
	}
	return packets.ErrRejectPacket
}

// refuseSubscribe counts and logs one filter of a SUBSCRIBE, and returns the code for the SUBACK.
func (h *hook) refuseSubscribe(l *clientLink, r refusal.Refusal, filter string) (code byte) {
	h.refused(l, r, filter)
	if !l.isTold() {
		return packets.ErrUnspecifiedError.Code
	}
	return r.V5.Code
}

// refuseConnection ends a connection for what came on it. topic may be empty. The error that it returns makes mochi let go
// of the connection. It is called by the connection's reader.
func (h *hook) refuseConnection(l *clientLink, f *validate.PacketFault, topic string) error {
	l.because(f.Error())
	attrs := []slog.Attr{slog.String("packet", packets.PacketNames[f.Kind])}
	if f.Detail != "" {
		attrs = append(attrs, slog.String("detail", f.Detail))
	}
	h.refused(l, f.Refusal, topic, attrs...)
	switch { // the connection is closed either way
	case !l.attached && l.isTold(): // before the login mochi cannot answer
		_, _ = l.Write([]byte{packets.Connack << 4, 3, 0, f.V5.Code, 0})
	case !l.attached && f.V3 > 0:
		_, _ = l.Write([]byte{packets.Connack << 4, 2, 0, f.V3})
	case l.attached && l.isTold():
		_ = l.mochi().WritePacket(packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode:  f.V5.Code,
			Properties:  packets.Properties{ReasonString: f.Error()},
		})
	}
	return packets.ErrRejectPacket
}

// refuseElsewhere ends a connection from another goroutine than its reader's. The reader deals with what it has read: a QoS 0
// message that is lost then is counted. mochi's own way would throw the rest of it away.
func (h *hook) refuseElsewhere(l *clientLink, r refusal.Refusal) {
	if l.because(r.Reason) {
		h.refused(l, r, "")
	}
	if l.isTold() && l.established.Load() { // the connection is closed either way; nothing may precede the CONNACK
		_ = l.mochi().WritePacket(packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode:  r.V5.Code,
			Properties:  packets.Properties{ReasonString: r.Reason},
		})
	}
	_ = l.Close()
}

// endedBySession closes a connection that its session has ended and, in MQTT 5, told so: the packet is queued.
func (h *hook) endedBySession(l *clientLink, reason session.Reason) {
	l.over = true
	why := refusal.NotStoredInTime
	switch reason {
	case session.ReceiveMaximumExceeded:
		why = refusal.ReceiveMaximumExceeded.With(fmt.Sprintf("receive maximum %d", receiveMaximum))
	case session.ProtocolError:
		why = refusal.WrongAcknowledgement
	}
	if !l.IsClosing() && l.because(why.Reason) {
		h.refused(l, why, "")
	}
	_ = l.Close()
}

// refused counts and logs what a connection may not do. topic may be empty, or a filter.
func (h *hook) refused(l *clientLink, r refusal.Refusal, topic string, more ...slog.Attr) {
	from := refusal.Source{Remote: l.RemoteAddr()}
	var attrs []slog.Attr
	if l.account != "" {
		from.Account, from.Proved = l.account, true
		attrs = append(attrs, slog.String("user", l.account), slog.String("client", l.id))
	}
	attrs = append(attrs, slog.String("listener", l.Kind()), slog.String("remote", l.RemoteAddr().String()))
	h.refusals.Add(r, from, append(aboutRefusal(attrs, r, topic), more...)...)
}

// refusedAway counts and logs what is refused to a client that need not be connected any more.
func (h *hook) refusedAway(account, client string, r refusal.Refusal, topic string) {
	attrs := []slog.Attr{slog.String("user", account), slog.String("client", client)}
	h.refusals.Add(r, refusal.Source{Account: account, Proved: true}, aboutRefusal(attrs, r, topic)...)
}

func aboutRefusal(attrs []slog.Attr, r refusal.Refusal, topic string) []slog.Attr {
	if topic != "" {
		attrs = append(attrs, slog.String("topic", refusal.Clip(topic)))
	}
	if r.Rule != "" {
		attrs = append(attrs, slog.String("rule", r.Rule))
	}
	return attrs
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
