package validate

import (
	"bytes"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
)

// maxUserProperties bounds what one packet costs to decode, and to encode for each subscriber. The standard has no bound.
const maxUserProperties = 1000

// nature is how the value of a property is written.
type nature byte

const (
	noProperty nature = iota
	bitValue          // a byte that is 0 or 1
	twoValue
	fourValue
	numberValue // a variable byte integer
	textValue
	pairValue
	binaryValue
)

// property is what the standard says about one that clients send [MQTT 5, table 2-4].
type property struct {
	nature nature
	in     uint32 // the kinds of packet that may have it
	many   bool   // more than once
	not0   bool
}

// in is the set of some kinds of packet. That of the will, whose own number is large, is 0.
func in(kinds ...byte) (set uint32) {
	for _, k := range kinds {
		set |= 1 << (k % packets.WillProperties)
	}
	return set
}

// properties are those that a client may send, by identifier. A topic alias and a subscription identifier in a PUBLISH
// are of the right form; brokenPublish refuses them.
var properties = [...]property{
	packets.PropPayloadFormat:          {nature: bitValue, in: in(packets.Publish, packets.WillProperties)},
	packets.PropMessageExpiryInterval:  {nature: fourValue, in: in(packets.Publish, packets.WillProperties)},
	packets.PropContentType:            {nature: textValue, in: in(packets.Publish, packets.WillProperties)},
	packets.PropResponseTopic:          {nature: textValue, in: in(packets.Publish, packets.WillProperties)},
	packets.PropCorrelationData:        {nature: binaryValue, in: in(packets.Publish, packets.WillProperties)},
	packets.PropSubscriptionIdentifier: {nature: numberValue, in: in(packets.Publish, packets.Subscribe), not0: true},
	packets.PropSessionExpiryInterval:  {nature: fourValue, in: in(packets.Connect, packets.Disconnect)},
	packets.PropAuthenticationMethod:   {nature: textValue, in: in(packets.Connect)},
	packets.PropAuthenticationData:     {nature: binaryValue, in: in(packets.Connect)},
	packets.PropRequestProblemInfo:     {nature: bitValue, in: in(packets.Connect)},
	packets.PropWillDelayInterval:      {nature: fourValue, in: in(packets.WillProperties)},
	packets.PropRequestResponseInfo:    {nature: bitValue, in: in(packets.Connect)},
	packets.PropReasonString: {nature: textValue, in: in(packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp,
		packets.Disconnect)},
	packets.PropReceiveMaximum:    {nature: twoValue, in: in(packets.Connect), not0: true},
	packets.PropTopicAliasMaximum: {nature: twoValue, in: in(packets.Connect)},
	packets.PropTopicAlias:        {nature: twoValue, in: in(packets.Publish)},
	packets.PropUser: {nature: pairValue, many: true, in: in(packets.Connect, packets.WillProperties, packets.Publish,
		packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp, packets.Subscribe, packets.Unsubscribe,
		packets.Disconnect)},
	packets.PropMaximumPacketSize: {nature: fourValue, in: in(packets.Connect), not0: true},
}

// properties reads a section of them: of a kind of packet, or of the will.
func (f *form) properties(of byte) {
	section := form{kind: f.kind}
	section.rest = f.bytes(f.variable())
	section.wrong = f.wrong
	seen, users := uint64(0), 0
	for len(section.rest) > 0 {
		id := section.byte()
		section.property(id, in(of), &seen)
		if id == packets.PropUser {
			users++
		}
	}
	if users > maxUserProperties {
		section.fail(Violation(f.kind, refusal.TooManyUserProperties))
	}
	if seen&(1<<packets.PropAuthenticationData) != 0 && seen&(1<<packets.PropAuthenticationMethod) == 0 {
		section.fail(Violation(f.kind, refusal.AuthDataWithoutMethod))
	}
	if section.wrong != nil {
		f.fail(section.wrong)
	}
}

func (f *form) property(id byte, here uint32, seen *uint64) {
	if int(id) >= len(properties) || properties[id].in&here == 0 {
		f.fail(malformed(f.kind, "property that is not allowed in it")) // MQTT 5, 2.2.2.2
		return
	}
	p := &properties[id]
	if !p.many && *seen&(1<<id) != 0 {
		f.fail(Violation(f.kind, refusal.PropertyTwice))
		return
	}
	*seen |= 1 << id
	zero := false
	switch p.nature {
	case bitValue:
		if v := f.byte(); v > 1 && id == packets.PropPayloadFormat {
			f.fail(Violation(f.kind, refusal.InvalidPayloadFormat))
		} else if v > 1 {
			f.fail(Violation(f.kind, refusal.ForbiddenValue))
		}
	case twoValue:
		zero = f.two() == 0
	case fourValue:
		zero = f.two()+f.two() == 0
	case numberValue:
		zero = f.variable() == 0
	case textValue:
		text := f.text()
		if id == packets.PropResponseTopic && f.wrong == nil && // [MQTT-4.7.3-1, MQTT-3.3.2-14]; brokenPublish looks at a message's
			(len(text) == 0 || here == in(packets.WillProperties) && bytes.ContainsAny(text, "+#")) {
			f.fail(Violation(f.kind, refusal.InvalidResponseTopic))
		}
	case pairValue:
		f.text()
		f.text()
	case binaryValue:
		f.binary()
	}
	if zero && p.not0 {
		f.fail(Violation(f.kind, refusal.ForbiddenValue))
	}
}
