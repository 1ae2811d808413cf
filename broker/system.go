package broker

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/session"
)

// traffic counts, for $SYS, what goes through the broker since its start; router.go counts PUBLISH packets.
type traffic struct {
	packetsIn, packetsOut    atomic.Int64 // of all types
	payloadIn, payloadOut    atomic.Int64 // bytes in those of PUBLISH
	sockets                  atomic.Int64 // connections that were served
	connected, mostConnected atomic.Int64 // clients
	expired                  atomic.Int64 // sessions
}

// joined counts a client that is connected from now on.
func (t *traffic) joined() {
	n := t.connected.Add(1)
	for most := t.mostConnected.Load(); n > most && !t.mostConnected.CompareAndSwap(most, n); most = t.mostConnected.Load() {
	}
}

// system keeps what $SYS tells of the past.
type system struct {
	mu        sync.Mutex
	updated   time.Time
	before    [loads]int64
	averages  [loads][len(loadMinutes)]float64
	heapMost  uint64
	published [systemTopics]string // what subscribers were told last; used by the clock alone
}

// What there are averages of, as Mosquitto has them.
const (
	loadPacketsIn = iota
	loadPacketsOut
	loadPublishIn
	loadPublishOut
	loadDropped
	loadBytesIn
	loadBytesOut
	loadSockets
	loadConnects
	loads
)

// loadMinutes are over how many minutes.
var loadMinutes = [...]int{1, 5, 15}

// figures are the values under $SYS at one time.
type figures struct {
	*router
	uptime                             time.Duration
	bytesIn, bytesOut                  int64
	clients                            int // connected or away
	subscriptions, sharedSubscriptions int
	inflight, stored                   int
	storedBytes                        int64
	kept                               int // retained messages
	heap, heapMost                     uint64
	averages                           [loads][len(loadMinutes)]float64
}

type systemValue struct {
	topic string
	text  func(f *figures) string
}

func whole(value func(f *figures) int64) func(f *figures) string {
	return func(f *figures) string { return strconv.FormatInt(value(f), 10) }
}

// systemValues are the topics under $SYS, with the names and forms that Mosquitto 2 gives them.
var systemValues = append([]systemValue{
	{"version", func(*figures) string { return "plantops version " + buildVersion() }},
	{"uptime", func(f *figures) string { return strconv.Itoa(int(f.uptime.Seconds())) + " seconds" }},
	{"clients/total", whole(func(f *figures) int64 { return int64(f.clients) })},
	{"clients/connected", whole(func(f *figures) int64 { return f.traffic.connected.Load() })},
	{"clients/disconnected", whole(func(f *figures) int64 { return f.away() })},
	{"clients/active", whole(func(f *figures) int64 { return f.traffic.connected.Load() })}, // an older name
	{"clients/inactive", whole(func(f *figures) int64 { return f.away() })},                 // an older name
	{"clients/maximum", whole(func(f *figures) int64 { return f.traffic.mostConnected.Load() })},
	{"clients/expired", whole(func(f *figures) int64 { return f.traffic.expired.Load() })},
	{"messages/received", whole(func(f *figures) int64 { return f.traffic.packetsIn.Load() })},
	{"messages/sent", whole(func(f *figures) int64 { return f.traffic.packetsOut.Load() })},
	{"messages/inflight", whole(func(f *figures) int64 { return int64(f.inflight) })},
	{"messages/stored", whole(func(f *figures) int64 { return int64(f.stored) })}, // an older name
	{"store/messages/count", whole(func(f *figures) int64 { return int64(f.stored) })},
	{"store/messages/bytes", whole(func(f *figures) int64 { return f.storedBytes })},
	{"publish/messages/received", whole(func(f *figures) int64 { return f.received.Load() })},
	{"publish/messages/sent", whole(func(f *figures) int64 { return f.sent.Load() })},
	{"publish/messages/dropped", whole(func(f *figures) int64 { return f.dropped.Load() })},
	{"publish/bytes/received", whole(func(f *figures) int64 { return f.traffic.payloadIn.Load() })},
	{"publish/bytes/sent", whole(func(f *figures) int64 { return f.traffic.payloadOut.Load() })},
	{"bytes/received", whole(func(f *figures) int64 { return f.bytesIn })},
	{"bytes/sent", whole(func(f *figures) int64 { return f.bytesOut })},
	{"subscriptions/count", whole(func(f *figures) int64 { return int64(f.subscriptions) })},
	{"shared_subscriptions/count", whole(func(f *figures) int64 { return int64(f.sharedSubscriptions) })},
	{"retained messages/count", whole(func(f *figures) int64 { return int64(f.kept) })},
	{"heap/current", whole(func(f *figures) int64 { return int64(f.heap) })},
	{"heap/maximum", whole(func(f *figures) int64 { return int64(f.heapMost) })},
}, loadValues()...)

// systemTopics is how many there are.
const systemTopics = 27 + loads*len(loadMinutes)

// loadValues are averages per minute, with two digits.
func loadValues() (values []systemValue) {
	for what, name := range [loads]string{"messages/received", "messages/sent", "publish/received", "publish/sent", "publish/dropped",
		"bytes/received", "bytes/sent", "sockets", "connections"} {
		for i, minutes := range loadMinutes {
			values = append(values, systemValue{"load/" + name + "/" + strconv.Itoa(minutes) + "min", func(f *figures) string {
				return strconv.FormatFloat(f.averages[what][i], 'f', 2, 64)
			}})
		}
	}
	return values
}

// away is how many sessions have no connection.
func (f *figures) away() int64 { return max(0, int64(f.clients)-f.traffic.connected.Load()) }

func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Main.Version
}

// heapBytes asks the runtime, which does not stop the program for that.
func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// update brings the averages up to date: an exponentially weighted mean over so many minutes. The clock calls it.
func (s *system) update(now time.Time, counts [loads]int64) {
	heap := heapBytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heapMost = max(s.heapMost, heap)
	if span := now.Sub(s.updated).Minutes(); !s.updated.IsZero() && span > 0 {
		for what, n := range counts {
			perMinute := float64(n-s.before[what]) / span
			for i, minutes := range loadMinutes {
				average := &s.averages[what][i]
				*average = perMinute + math.Exp(-span/float64(minutes))*(*average-perMinute)
			}
		}
	}
	s.updated, s.before = now, counts
}

func (r *router) updateSystem(now time.Time) {
	bytesIn, bytesOut := r.bytes()
	r.system.update(now, [loads]int64{
		loadPacketsIn: r.traffic.packetsIn.Load(), loadPacketsOut: r.traffic.packetsOut.Load(), loadPublishIn: r.received.Load(),
		loadPublishOut: r.sent.Load(), loadDropped: r.dropped.Load(), loadBytesIn: bytesIn, loadBytesOut: bytesOut,
		loadSockets: r.traffic.sockets.Load(), loadConnects: r.accepted.Load(),
	})
}

// figures counts everything as it is now. It looks at every session.
func (r *router) figures(now time.Time) *figures {
	f := &figures{router: r, clients: r.sessions.count(), uptime: now.Sub(r.started), kept: r.retained.len(), heap: heapBytes()}
	f.bytesIn, f.bytesOut = r.bytes()
	r.sessions.each(func(p *peer) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			return
		}
		stats := p.state.Stats()
		shared := p.state.SharedSubscriptions()
		f.subscriptions += p.state.Subscriptions()
		f.sharedSubscriptions += shared
		f.inflight += stats.InFlight
		f.stored += stats.Queued + stats.InFlight
		_, tail, _ := p.state.Tail()
		f.storedBytes += int64(stats.Bytes + tail)
	})
	f.stored += f.kept
	f.storedBytes += int64(r.retained.bytes())
	s := &r.system
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heapMost = max(s.heapMost, f.heap)
	f.heapMost, f.averages = s.heapMost, s.averages
	return f
}

// systemMessage is the message of one value.
func systemMessage(i int, text string, now time.Time) *session.Message {
	return &session.Message{Topic: systemTopic(i), Payload: []byte(text), Retain: true, Created: now}
}

func systemTopic(i int) string { return "$SYS/broker/" + systemValues[i].topic }

// renewSystem renews the retained values, for somebody who subscribes to them.
func (r *router) renewSystem() {
	now := r.now()
	f := r.figures(now)
	for i, v := range systemValues {
		r.retained.set(systemMessage(i, v.text(f), now), nil)
	}
}

// publishSystem publishes the values that have changed, if anybody subscribes to one: an idle box does not count for nobody.
func (r *router) publishSystem(now time.Time) {
	if !r.systemWanted() {
		return
	}
	f, w := r.figures(now), r.begin()
	for i, v := range systemValues {
		text := v.text(f)
		if text == r.system.published[i] {
			continue
		}
		r.system.published[i] = text
		m := systemMessage(i, text, now)
		r.publish(w, publication{to: r.subscribersOf(m.Topic), message: m, now: now})
	}
	w.finish()
}

func (r *router) systemWanted() bool {
	for i := range systemValues {
		if r.wanted(systemTopic(i)) {
			return true
		}
	}
	return false
}
