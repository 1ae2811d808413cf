package broker

import (
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/broker/validate"
)

// dispatch takes every packet that a client sends. An error ends the connection.
func (l *clientLink) dispatch(pk *packets.Packet) error {
	defer dieOfPanic()
	h := l.hook
	h.router.traffic.packetsIn.Add(1)
	switch pk.FixedHeader.Type {
	case packets.Connect: // validate's Screen has made sure that it is the first, and that nothing else is
		return h.connect(l, pk)
	case packets.Publish:
		return h.takePublish(l, pk)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		return h.router.acknowledged(l, pk)
	case packets.Subscribe:
		return h.takeSubscribe(l, pk)
	case packets.Unsubscribe:
		return h.takeUnsubscribe(l, pk)
	case packets.Pingreq:
		h.router.traffic.packetsOut.Add(1)
		_, err := l.Write([]byte{packets.Pingresp << 4, 0})
		return err
	}
	if err := h.leave(l, pk); err != nil {
		return err
	}
	return errLeft
}

// takePublish decides what becomes of a message: it goes on to the router, or it is refused and answered, or the
// connection ends.
func (h *hook) takePublish(l *clientLink, pk *packets.Packet) error {
	h.router.received.Add(1)
	h.router.traffic.payloadIn.Add(int64(len(pk.Payload)))
	if pk.Properties.TopicAliasFlag {
		if r, broken := l.resolveAlias(pk); broken {
			h.reportPublish(l.account, r)
			return h.refuseConnection(l, validate.Violation(packets.Publish, r), pk.TopicName)
		}
	}
	if pk.TopicName == l.lastTopic && pk.TopicName != "" && !special(pk) {
		return h.router.receive(l, pk)
	}
	if r, broken := h.brokenPublish(pk); broken {
		h.reportPublish(l.account, r)
		return h.refuseConnection(l, validate.Violation(packets.Publish, r), pk.TopicName)
	}
	why := refusal.PublishNotAllowed
	switch err := topic.Check(pk.TopicName, h.maxLevels); {
	case err == topic.ErrReserved && isBridgeState(pk.TopicName):
		return h.ignoreBridgeState(l, pk)
	case err == topic.ErrReserved:
		why = refusal.ReservedTopic
	case l.rights.MayPublish(pk.TopicName):
		l.lastTopic = strings.Clone(pk.TopicName)
		return h.router.receive(l, pk)
	}
	return h.refusePublish(l, pk, why.With(l.rights.MayPublishText()), nil)
}

// maxAliases is announced to MQTT 5 clients: so many topics of theirs have a number in place of their name.
const maxAliases = 16

// aliases are the topics of a connection that have numbers. What they cost above session.FreeBytes is charged to the account.
type aliases struct {
	topics [maxAliases]string
	bytes  int
}

// resolveAlias gives a PUBLISH its topic, or the topic that it has a number. It comes before everything that is judged by topic,
// and nothing after it knows of aliases.
func (l *clientLink) resolveAlias(pk *packets.Packet) (refusal.Refusal, bool) {
	n := int(pk.Properties.TopicAlias)
	pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 0, false
	switch {
	case n == 0 || n > maxAliases: // [MQTT-3.3.2-8, -9]
		return refusal.TopicAlias, true
	case l.aliases == nil && pk.TopicName == "": // MQTT 5, 3.3.4
		return refusal.NoTopic, true
	case l.aliases == nil:
		l.aliases = new(aliases)
	}
	a, known := l.aliases, &l.aliases.topics[n-1]
	if pk.TopicName == "" {
		pk.TopicName = *known // where there is none, brokenPublish says so
		return refusal.Refusal{}, false
	}
	before := a.bytes / session.FreeBytes
	a.bytes += len(pk.TopicName) - len(*known)
	*known = strings.Clone(pk.TopicName)
	if units := a.bytes/session.FreeBytes - before; units != 0 && !l.peer.ingest {
		l.peer.usage.charge(units)
		if rule, scarce := l.peer.usage.exhausted(); scarce && units > 0 {
			return refusal.TooMuchWaits.With(rule), true
		}
	}
	return refusal.Refusal{}, false
}

// forgetAliases is for the end of the connection.
func (l *clientLink) forgetAliases() {
	if l.aliases != nil && !l.peer.ingest {
		l.peer.usage.charge(-l.aliases.bytes / session.FreeBytes)
	}
	l.aliases = nil
}

// special says that there is more to judge about a PUBLISH than its topic.
func special(pk *packets.Packet) bool {
	p := &pk.Properties
	return pk.FixedHeader.Qos > 0 && pk.PacketID == 0 || p.ResponseTopic != "" ||
		len(p.SubscriptionIdentifier) > 0
}

// brokenPublish finds what no client may send, whatever its rights.
func (h *hook) brokenPublish(pk *packets.Packet) (refusal.Refusal, bool) {
	switch pk.PublishValidate(0) { // what had an alias has a topic by now
	case packets.CodeSuccess:
	case packets.ErrProtocolViolationNoTopic:
		return refusal.NoTopic, true
	case packets.ErrProtocolViolationSurplusWildcard:
		return refusal.WildcardInTopic, true
	case packets.ErrProtocolViolationSurplusSubID:
		return refusal.SubscriptionIDSent, true
	case packets.ErrProtocolViolationNoPacketID:
		return refusal.MessageWithoutID, true
	default: // a packet id with QoS 0: the decoder reads none
		return refusal.ProtocolViolation, true
	}
	if strings.ContainsAny(pk.Properties.ResponseTopic, "+#") { // [MQTT-3.3.2-14]
		return refusal.InvalidResponseTopic, true
	}
	switch topic.Check(pk.TopicName, h.maxLevels) {
	case topic.ErrInvalid:
		return refusal.InvalidTopic, true
	case topic.ErrTooDeep:
		return refusal.TooManyTopicLevels, true
	}
	return refusal.Refusal{}, false
}

// leave takes a DISCONNECT: only one without a reason means that the will is not to be sent.
func (h *hook) leave(l *clientLink, pk *packets.Packet) error {
	if pk.Properties.SessionExpiryIntervalFlag && !h.router.setExpiry(l.peer, expiry(pk.Properties.SessionExpiryInterval)) {
		return h.refuseConnection(l, validate.Violation(pk.FixedHeader.Type, refusal.ExpiryRaisedFromZero), "")
	}
	l.goodbye = l.screen.Farewell == packets.CodeDisconnect.Code // mochi leaves the code out when it stands alone
	return nil
}

// maxFilters is how many one SUBSCRIBE or UNSUBSCRIBE may have, a deep one counting for several as in the account's
// quota: each takes some µs. Home Assistant sends 500 at a time.
const maxFilters = 1000

// checkFilters ends the connection of a client whose SUBSCRIBE or UNSUBSCRIBE would cost others: the table of subscriptions
// has a node for each level of a filter.
func (h *hook) checkFilters(l *clientLink, pk *packets.Packet) error {
	if len(pk.Filters) > maxFilters {
		return h.refuseConnection(l, validate.Violation(pk.FixedHeader.Type, refusal.TooManyFilters), "")
	}
	total := int64(0)
	for _, sub := range pk.Filters {
		if err := topic.CheckFilter(sub.Filter, h.maxLevels); err == topic.ErrFilterTooDeep {
			return h.refuseConnection(l, validate.Violation(pk.FixedHeader.Type, refusal.TooManyFilterLevels), sub.Filter)
		}
		total += weight(sub.Filter)
	}
	if total > maxFilters {
		return h.refuseConnection(l, validate.Violation(pk.FixedHeader.Type, refusal.TooManyFilters), "")
	}
	return nil
}
