package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

// subscribers are who gets the messages of one topic. They are found once and used until a subscription changes.
type subscribers struct {
	topic      string
	generation uint64
	ingest     bool   // ingest must store them
	foreign    bool   // and they are of another program
	tally      *tally // of their device, when ingest is set
	direct     []subscriber
	groups     []shareGroup

	ofDevices bool   // the topic begins as those that ingest reads
	meant     string // the one that it may have meant, when nobody reads it
}

// subscriber is one of them, with its overlapping subscriptions merged: for what others publish and for what it publishes
// itself, which differ where one of them says No Local.
type subscriber struct {
	peer     *peer
	offer    session.Offer
	own      session.Offer
	wantsOwn bool
}

// The bounds of what the cache costs: above maxCachedTopics all are found anew, and the subscribers of a longer topic are found
// for each message or connection.
const (
	maxCachedTopics     = 16384
	maxCachedTopicBytes = 256
)

// subscriberCache keeps the subscribers of recent topics.
type subscriberCache struct {
	generation atomic.Uint64 // counts changes of subscriptions
	mu         sync.RWMutex
	byTopic    map[string]*subscribers
}

// changed makes everything in it stale. It is called when the index and the sessions have changed.
func (c *subscriberCache) changed() { c.generation.Add(1) }

func (c *subscriberCache) get(topic string) *subscribers {
	c.mu.RLock()
	found := c.byTopic[topic]
	c.mu.RUnlock()
	if found == nil || found.generation != c.generation.Load() {
		return nil
	}
	return found
}

func (c *subscriberCache) put(found *subscribers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byTopic == nil || len(c.byTopic) >= maxCachedTopics {
		c.byTopic = make(map[string]*subscribers)
	}
	c.byTopic[found.topic] = found
}

// subscribersFor returns the subscribers of a topic. A connection mostly publishes to one: the last one is kept with it.
func (r *router) subscribersFor(l *clientLink, topic string) *subscribers {
	if to := l.lastSubscribers; to != nil && to.topic == topic && to.generation == r.cache.generation.Load() {
		return to
	}
	l.lastSubscribers = r.subscribersOf(topic)
	return l.lastSubscribers
}

// subscribersOf is subscribersFor for a message that comes from no connection.
func (r *router) subscribersOf(topic string) *subscribers {
	to := r.cache.get(topic)
	if to == nil {
		to = r.findSubscribers(strings.Clone(topic))
		if len(topic) <= maxCachedTopicBytes {
			r.cache.put(to)
		}
	}
	return to
}

// findSubscribers asks mochi's index who may want the topic, and each session what exactly. The sessions know better where
// filters overlap.
func (r *router) findSubscribers(name string) *subscribers {
	to := &subscribers{topic: name, generation: r.cache.generation.Load()}
	r.concernIngest(to)
	found := r.index.Subscribers(name)
	m := session.Message{Topic: name}
	for id := range found.Subscriptions {
		if p := r.sessions.peer(id); p != nil {
			if t, ok := p.asSubscriber(m); ok {
				to.direct = append(to.direct, t)
			}
		}
	}
	groups := map[string]map[string]subscriber{}
	for filter, members := range found.Shared {
		for id := range members {
			if p := r.sessions.peer(id); p != nil {
				p.joinGroups(groups, filter, name)
			}
		}
	}
	for filter, members := range groups {
		to.groups = append(to.groups, shareGroup{filter: filter, members: members})
	}
	if to.ofDevices = r.unread.concerns(name); to.ofDevices && !to.readBy(nil) && len(name) <= maxCachedTopicBytes {
		to.meant = topic.Meant(name, r.ingestTopics)
	}
	return to
}

// ofDevices is what the topics of devices begin with, whatever else a filter may say about them.
const ofDevices = "devices/"

// concernIngest finds out whether ingest must store the messages, and of which device they are. In those of other programs
// only ingest can tell.
func (r *router) concernIngest(to *subscribers) {
	own, device := strings.HasPrefix(to.topic, ofDevices), ""
	for _, filter := range r.ingestTopics {
		if topic.Matches(filter, to.topic) {
			to.ingest, device = true, deviceIn(filter, to.topic)
			break
		}
	}
	for _, filter := range r.sourceTopics {
		if (own && to.ingest) || !topic.Matches(filter, to.topic) {
			continue
		}
		if to.ingest, to.foreign, device = true, !own, ""; own {
			device = deviceIn(ofDevices+"+/#", to.topic)
		}
		break
	}
	if to.ingest {
		to.tally = r.tallies.of(device)
	}
}

// deviceIn returns the level of the topic where the filter has its first +, which names the device.
func deviceIn(filter, topic string) string {
	for {
		f, filterRest, more := strings.Cut(filter, "/")
		t, topicRest, _ := strings.Cut(topic, "/")
		if f == "+" {
			return strings.Clone(t)
		}
		if !more || f == "#" {
			return ""
		}
		filter, topic = filterRest, topicRest
	}
}

// asSubscriber says what of a message's topic the session wants and may read.
func (p *peer) asSubscriber(m session.Message) (subscriber, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rights.MayRead(m.Topic) {
		return subscriber{}, false
	}
	t := subscriber{peer: p}
	var wanted bool
	t.offer, wanted = p.state.Offer(&m)
	m.Publisher = p.id
	t.own, t.wantsOwn = p.state.Offer(&m)
	return t, wanted
}

// joinGroups adds the session to the share groups in which it gets the topic, of those that the index knows by filter:
// that of the filter itself and that of the filter whose # takes in that level, which are two groups.
func (p *peer) joinGroups(groups map[string]map[string]subscriber, filter, topic string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rights.MayRead(topic) {
		return
	}
	join := func(sub session.Subscription, ok bool) {
		if !ok {
			return
		}
		o := session.Offer{QoS: sub.QoS, RetainAsPublished: sub.RetainAsPublished}
		if sub.ID > 0 {
			o.SubscriptionIDs = []uint32{sub.ID}
		}
		if groups[sub.Filter] == nil {
			groups[sub.Filter] = map[string]subscriber{}
		}
		groups[sub.Filter][p.id] = subscriber{peer: p, offer: o}
	}
	join(p.state.Subscription(filter))
	join(p.longer(filter))
}
