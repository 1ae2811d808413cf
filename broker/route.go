package broker

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

// route is where the messages of one topic go. It is made once and used until a subscription changes.
type route struct {
	topic      string
	generation uint64
	ingest     bool   // ingest must store them
	tally      *tally // of their device, when ingest is set
	targets    []target
	shares     []share

	ofDevices bool   // the topic begins as those that ingest reads
	meant     string // the one that it may have meant, when nobody reads it
}

// target is a subscriber, with its overlapping subscriptions merged: for what others publish and for what it publishes
// itself, which differ where one of them says No Local.
type target struct {
	peer     *peer
	offer    session.Offer
	own      session.Offer
	wantsOwn bool
}

// share is a share group; one of its members gets the message.
type share struct {
	filter  string
	members map[string]target
}

// The bounds of what the routes cost: above maxRoutes all are made anew, and the route of a longer topic is made for each
// message or connection.
const (
	maxRoutes          = 16384
	maxRouteTopicBytes = 256
)

// routes keeps the routes of recent topics.
type routes struct {
	generation atomic.Uint64 // counts changes of subscriptions
	mu         sync.RWMutex
	byTopic    map[string]*route
}

// changed makes all routes stale. It is called when the index and the sessions have changed.
func (r *routes) changed() { r.generation.Add(1) }

func (r *routes) get(topic string) *route {
	r.mu.RLock()
	rt := r.byTopic[topic]
	r.mu.RUnlock()
	if rt == nil || rt.generation != r.generation.Load() {
		return nil
	}
	return rt
}

func (r *routes) put(rt *route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byTopic == nil || len(r.byTopic) >= maxRoutes {
		r.byTopic = make(map[string]*route)
	}
	r.byTopic[rt.topic] = rt
}

// route returns the route of a topic. A connection mostly publishes to one: the last one is kept with it.
func (r *router) route(l *link, topic string) *route {
	if rt := l.last; rt != nil && rt.topic == topic && rt.generation == r.routes.generation.Load() {
		return rt
	}
	l.last = r.routeTo(topic)
	return l.last
}

func (r *router) routeTo(topic string) *route {
	rt := r.routes.get(topic)
	if rt == nil {
		rt = r.makeRoute(strings.Clone(topic))
		if len(topic) <= maxRouteTopicBytes {
			r.routes.put(rt)
		}
	}
	return rt
}

// makeRoute asks mochi's index who may want the topic, and each session what exactly. The sessions know better where
// filters overlap.
func (r *router) makeRoute(name string) *route {
	rt := &route{topic: name, generation: r.routes.generation.Load()}
	for _, filter := range r.ingestTopics {
		if session.Matches(filter, name) {
			rt.ingest, rt.tally = true, r.tallies.of(deviceIn(filter, name))
			break
		}
	}
	found := r.index.Subscribers(name)
	m := session.Message{Topic: name}
	for id := range found.Subscriptions {
		if p := r.sessions.peer(id); p != nil {
			if t, ok := p.target(m); ok {
				rt.targets = append(rt.targets, t)
			}
		}
	}
	groups := map[string]map[string]target{}
	for filter, members := range found.Shared {
		for id := range members {
			if p := r.sessions.peer(id); p != nil {
				p.joinGroups(groups, filter, name)
			}
		}
	}
	for filter, members := range groups {
		rt.shares = append(rt.shares, share{filter: filter, members: members})
	}
	if rt.ofDevices = r.unread.concerns(name); rt.ofDevices && !rt.readBy(nil) && len(name) <= maxRouteTopicBytes {
		rt.meant = topic.Meant(name, r.ingestTopics)
	}
	return rt
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

// target says what of a message's topic the session wants and may read.
func (p *peer) target(m session.Message) (target, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rights.mayRead(m.Topic) {
		return target{}, false
	}
	t := target{peer: p}
	var wanted bool
	t.offer, wanted = p.state.Offer(&m)
	m.Publisher = p.id
	t.own, t.wantsOwn = p.state.Offer(&m)
	return t, wanted
}

// joinGroups adds the session to the share groups in which it gets the topic, of those that the index knows by filter:
// that of the filter itself and that of the filter whose # takes in that level, which are two groups.
func (p *peer) joinGroups(groups map[string]map[string]target, filter, topic string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rights.mayRead(topic) {
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
			groups[sub.Filter] = map[string]target{}
		}
		groups[sub.Filter][p.id] = target{peer: p, offer: o}
	}
	join(p.state.Subscription(filter))
	join(p.longer(filter))
}

// shares takes turns among the members of share groups.
type shares struct {
	mu     sync.Mutex
	groups session.ShareGroups
}
