package broker

import (
	"hash/maphash"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/plantops/plantops/broker/route"
	"github.com/plantops/plantops/broker/session"
	"github.com/plantops/plantops/broker/topic"
)

// recipient is who gets messages: a session, or a share group, which gives each to one of its members.
type recipient struct {
	peer  *peer
	group *shareGroup
}

// subscribers are who gets the messages of one topic, and what else there is to know about it. What the topic alone says
// never changes; who subscribes is brought up to date in each publish step, under the lock of the shard.
type subscribers struct {
	topic   string
	shard   *shard
	ingest  bool   // ingest must store them
	foreign bool   // and they are of another program
	tally   *tally // of their device, when ingest is set

	ofDevices bool // the topic begins as those that ingest reads

	// guarded by shard.mu
	meant  string // the topic that it may have meant, when nobody reads it and judged is set
	judged bool
	route  route.Route[recipient]
	cached bool // others find it in the shard
	used   bool // since eviction has passed by last
	bytes  int  // that it is charged with in the cache
}

const (
	// shardCount is how many topics may have a publish step at the same time.
	shardCount = 256
	// maxRouteBytes bounds the routes that are kept, all together. Who publishes to a topic whose route is not kept has it
	// found anew, which costs about as much as to deliver to those in it.
	maxRouteBytes = 8 << 20
	// maxCachedTopicBytes: the route of a longer topic is not kept.
	maxCachedTopicBytes = 256
)

// routeBytes is what a route costs besides its topic and its subscribers.
var routeBytes = int(reflect.TypeFor[subscribers]().Size()) + 64

// shard is a part of all topics. Of those one message at a time is published: see publish in router.go.
type shard struct {
	mu     sync.Mutex
	routes map[string]*subscribers // recent ones, by topic
	bytes  int                     // of them
}

// routes are the routes of all topics that were published to lately.
type routes struct {
	table  route.Table[recipient]
	seed   maphash.Seed
	shards [shardCount]shard
	bytes  atomic.Int64
	limit  int64
}

func (t *routes) init() {
	t.seed, t.limit = maphash.MakeSeed(), maxRouteBytes
	t.table.Grew = func(to recipient, bytes int) {
		if to.peer != nil {
			to.peer.routeBytes.Add(int32(bytes))
		}
	}
}

func (t *routes) shardOf(topic string) *shard {
	return &t.shards[maphash.String(t.seed, topic)%shardCount]
}

// subscribersFor returns the subscribers of a topic. A connection mostly publishes to one: the last one is kept with it.
func (r *router) subscribersFor(l *clientLink, topic string) *subscribers {
	if to := l.lastSubscribers; to != nil && to.topic == topic {
		return to
	}
	l.lastSubscribers = r.subscribersOf(topic)
	return l.lastSubscribers
}

// subscribersOf is subscribersFor for a message that comes from no connection.
func (r *router) subscribersOf(topic string) *subscribers {
	s := r.routes.shardOf(topic)
	s.mu.Lock()
	to := s.routes[topic]
	s.mu.Unlock()
	if to == nil {
		to = r.newSubscribers(strings.Clone(topic), s)
	}
	return to
}

func (r *router) newSubscribers(name string, s *shard) *subscribers {
	to := &subscribers{topic: name, shard: s, route: route.Route[recipient]{Topic: name}}
	r.concernIngest(to)
	to.ofDevices = r.unread.concerns(name)
	return to
}

// lookNearby finds out which topic it may have meant. Once that is known it stays.
func (to *subscribers) lookNearby(ingestTopics []string) {
	if !to.judged && len(to.topic) <= maxCachedTopicBytes {
		to.meant = topic.Meant(to.topic, ingestTopics)
	}
	to.judged = true
}

// current returns the subscribers of a topic as they are now, in place of what was found before. The caller holds the lock of
// their shard, and calls release before it lets go of it.
func (t *routes) current(to *subscribers) *subscribers {
	s := to.shard
	if !to.cached {
		if other := s.routes[to.topic]; other != nil {
			to = other
		}
	}
	to.used = true
	if !t.table.Refresh(&to.route) && to.cached {
		return to
	}
	t.keep(to)
	return to
}

// release lets go of what is not kept.
func (t *routes) release(to *subscribers) {
	if !to.cached {
		t.table.Clear(&to.route)
	}
}

// keep puts a route that is new, or has changed, into the cache, if there is room for it or can be made.
func (t *routes) keep(to *subscribers) {
	s, bytes := to.shard, routeBytes+len(to.topic)+to.route.Bytes()
	if len(to.topic) > maxCachedTopicBytes {
		return
	}
	more := bytes
	if to.cached {
		more -= to.bytes
	}
	if left := t.limit - t.bytes.Load(); int64(more) > left {
		t.evict(s, to, more)
		if int64(more) > t.limit-t.bytes.Load() {
			if to.cached {
				t.remove(to)
			}
			return
		}
	}
	if !to.cached {
		if s.routes == nil {
			s.routes = map[string]*subscribers{}
		}
		s.routes[to.topic], to.cached = to, true
	}
	to.bytes = bytes
	s.bytes += more
	t.bytes.Add(int64(more))
}

// evict makes room for some bytes in a shard, and a little more, by forgetting other routes: those first that nobody has used
// since it was here last.
func (t *routes) evict(s *shard, but *subscribers, bytes int) {
	aim := s.bytes - max(bytes, s.bytes/8)
	for range 2 {
		for _, to := range s.routes {
			switch {
			case s.bytes <= aim:
				return
			case to == but:
			case to.used:
				to.used = false
			default:
				t.remove(to)
				t.table.Clear(&to.route)
			}
		}
	}
}

// remove takes a route out of the cache.
func (t *routes) remove(to *subscribers) {
	delete(to.shard.routes, to.topic)
	to.cached = false
	to.shard.bytes -= to.bytes
	t.bytes.Add(-int64(to.bytes))
}

// look calls f with the subscribers of a topic as they are now.
func (r *router) look(topic string, f func(to *subscribers)) {
	to := r.subscribersOf(topic)
	s := to.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	to = r.routes.current(to)
	f(to)
	r.routes.release(to)
}

// wanted reports whether anybody subscribes to a topic.
func (r *router) wanted(topic string) (is bool) {
	r.look(topic, func(to *subscribers) { is = len(to.route.To) > 0 })
	return is
}

// offerOf is what a route says, as a session wants it.
func offerOf(o route.Offer) session.Offer {
	return session.Offer{QoS: o.QoS, RetainAsPublished: o.RetainAsPublished, SubscriptionIDs: o.IDs}
}

// optionsOf are the terms of a subscription for the table.
func optionsOf(sub session.Subscription) route.Options {
	return route.Options{ID: sub.ID, QoS: sub.QoS, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished}
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
