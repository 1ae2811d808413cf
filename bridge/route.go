package bridge

import (
	"strings"

	"github.com/eclipse/paho.golang/packets"

	"github.com/plantops/plantops/broker/topic"
)

const (
	// HopProperty is the user property that names a box whose broker a message has passed, one for each in the order of its way: it
	// went out from there through a bridge or, with cameIn behind it, came in through one. In CONNECT it is the name of who
	// connects, and asks for the name of the broker, which is in the CONNACK if that is ours.
	HopProperty = "plantops-hop"
	cameIn      = " in"
	// maxHops is how many there may be. More are no chain of bridges but a circle that somebody made who takes marks away.
	maxHops = 32
	// accountProperty is what the embedded broker tells its backend about a publisher. It is true in this house only.
	accountProperty = "plantops-account"
)

// fate is what becomes of a message.
type fate uint8

const (
	carried fate = iota
	unasked      // no route has it
	looped       // it has been here before
	unfit        // its topic cannot be used on the other side
)

// translate returns the message as it is sent to the other broker, with the packet id and the flags that it has. to is that
// broker, and remote the name of the remote one as a box; "": not known. What p points to is shared.
func (o *Options) translate(d Direction, p *packets.Publish, to *Broker, remote string) (*packets.Publish, fate) {
	name, qos, ok := o.rename(d, p.Topic)
	if !ok {
		return nil, unasked
	}
	levels := to.MaxLevels
	if levels == 0 {
		levels = topic.MaxBytes
	}
	err := topic.Check(name, levels)
	if err == topic.ErrReserved && d == Out { // for that broker to judge: some take messages there, such as $aws/rules/NAME
		err = nil
	}
	if err != nil || len(name) > topic.MaxBytes {
		return nil, unfit
	}
	properties := *p.Properties
	properties.TopicAlias, properties.SubscriptionIdentifier = nil, nil // they are of this connection [MQTT-3.3.4-6]
	properties.User = nil
	hops := 0
	for _, u := range p.Properties.User {
		switch u.Key {
		case accountProperty:
			continue
		case HopProperty:
			if hops++; o.beenThere(d, u.Value, remote) || hops >= maxHops {
				return nil, looped
			}
		}
		properties.User = append(properties.User, u)
	}
	marks := []string{o.Box}
	if d == In {
		marks = []string{remote, o.Box + cameIn}
	}
	for _, mark := range marks {
		if mark != "" {
			properties.User = append(properties.User, packets.User{Key: HopProperty, Value: mark})
		}
	}
	return &packets.Publish{Topic: name, Payload: p.Payload, Properties: &properties, PacketID: p.PacketID,
		QoS: min(p.QoS, qos), Duplicate: p.Duplicate, Retain: p.Retain}, carried
}

// beenThere tells whether a message with the mark is not to go on: it has been at the broker to which it would go. One that has
// only come in here may go out by another bridge, once.
func (o *Options) beenThere(d Direction, mark, remote string) bool {
	switch mark {
	case o.Box:
		return true
	case o.Box + cameIn:
		return d == In
	case remote:
		return d == Out
	}
	return false
}

// rename finds the route of a topic and what it is called on the other side.
func (o *Options) rename(d Direction, name string) (there string, qos byte, ok bool) {
	for _, r := range o.Routes {
		from, to := r.LocalPrefix, r.RemotePrefix
		if d == In {
			from, to = to, from
		}
		if r.Direction&d == 0 || !strings.HasPrefix(name, from) || !topic.Matches(from+r.Filter, name) {
			continue
		}
		return to + name[len(from):], r.QoS, true
	}
	return "", 0, false
}
