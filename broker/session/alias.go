package session

import (
	"slices"
	"strings"
)

const (
	// maxAliases bounds the topics of a connection that have a number in place of their name, whatever the client would allow.
	maxAliases = 16
	// aliasBytes is the length of the property.
	aliasBytes = 3
	// minAliasedBytes of topic are longer than the alias, even where the length of the properties takes one byte more for it.
	minAliasedBytes = aliasBytes + 2
)

// aliases are the topics that the client has been told the numbers of, on this connection only [MQTT-3.3.2-7]. The first that come
// have them until it ends: with more topics in turn than numbers, taking a number away would make packets longer, not shorter. What
// is held for them is no more than FreeBytes.
type aliases struct {
	maximum int      // that the client wants [MQTT-3.1.2-27]
	topics  []string // by number, less one
	bytes   int
}

func newAliases(c Connection) *aliases {
	if c.Version < 5 || c.TopicAliasMaximum == 0 {
		return nil
	}
	return &aliases{maximum: min(int(c.TopicAliasMaximum), maxAliases)} // [MQTT-3.1.2-26]
}

// shorten gives a PUBLISH the alias of its topic, and takes its topic away where the client has that. A topic without an alias gets
// one with this packet, if that is worth it, there is one left, and the packet stays small enough for the client.
func (s *Session) shorten(p *Effect) {
	a, topic := s.aliases, p.Message.Topic
	if a == nil || len(topic) < minAliasedBytes {
		return
	}
	if i := slices.Index(a.topics, topic); i >= 0 {
		p.Alias, p.TopicKnown = uint16(i+1), true
		return
	}
	if len(a.topics) == a.maximum || a.bytes+len(topic) > FreeBytes {
		return
	}
	p.Alias = uint16(len(a.topics) + 1)
	if !s.fitsPacket(p) {
		p.Alias = 0
	}
}

// sent notes that the packet goes to the client, before every other one: it knows the alias from here on.
func (a *aliases) sent(p *Effect) {
	if p.Alias == 0 || p.TopicKnown {
		return
	}
	a.topics = append(a.topics, strings.Clone(p.Message.Topic)) // not to keep what the message hangs on
	a.bytes += len(p.Message.Topic)
}
