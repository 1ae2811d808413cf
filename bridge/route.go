package bridge

import (
	"strings"

	"github.com/eclipse/paho.golang/packets"

	"github.com/plantops/plantops/broker/topic"
)

const (
	// hopProperty is the user property that names a box whose broker a message has passed, one for each in the order of its way.
	hopProperty = "plantops-hop"
	// maxHops is how many there may be. More are no chain of bridges but a circle that somebody made who takes marks away.
	maxHops = 16
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
// broker. What p points to is shared.
func (o *Options) translate(d Direction, p *packets.Publish, to *Broker) (*packets.Publish, fate) {
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
		case hopProperty:
			if hops++; u.Value == o.Box || hops >= maxHops {
				return nil, looped
			}
		}
		properties.User = append(properties.User, u)
	}
	if o.Box != "" {
		properties.User = append(properties.User, packets.User{Key: hopProperty, Value: o.Box})
	}
	return &packets.Publish{Topic: name, Payload: p.Payload, Properties: &properties, PacketID: p.PacketID,
		QoS: min(p.QoS, qos), Duplicate: p.Duplicate, Retain: p.Retain}, carried
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
