package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/journal/journaltest"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/route"
	"github.com/plantops/plantops/broker/session"
)

// idle returns the router of a broker that serves nobody.
func idle(t testing.TB) *router {
	t.Helper()
	b, err := Listen(complete(Options{Backend: Backend{Username: "backend", Password: "secret", ClientID: "ingest"}}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b.hook.router
}

func newUsage(account string) *usage {
	return &usage{quotas: &quotas{limits: complete(Options{}).Limits}, owner: session.Owner{Account: account}}
}

func TestASessionEndsAlsoWhenItsConnectionWasNeverAttachedOrIsJustDetached(t *testing.T) {
	r := idle(t)
	l := newLink(nil, new(network.Conn))
	l.id, l.account = "esp", "bed-1"
	require.NoError(t, r.sessions.claim(l, r.sessions.evictionCount(), false))
	l.peer.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
	l.peer.state.Disconnect(r.now(), session.Lost, nil) // what it has is of a connection before
	l.peer.ended = false

	l.evicted.Store(true) // as evict does, which then waits for its end
	r.detach(l)
	r.sessions.release(l)
	assert.Zero(t, r.sessions.count())
}

func TestIngestWaitsForNoGroup(t *testing.T) {
	g := &shareGroup{released: make(chan struct{})}
	w := &work{slowGroup: g, urgent: true}
	w.waitForGroup(&clientLink{peer: newPeer("ingest", newUsage("backend"), true)})
	assert.Nil(t, w.slowGroup)
	assert.False(t, w.urgent)
}

func TestTheEndOfAnOldSessionDoesNotMakeIngestUnready(t *testing.T) {
	r := idle(t)
	p := newPeer("ingest", newUsage("backend"), true)
	p.owner = newLink(nil, nil)
	p.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
	p.state.Subscribe(session.Subscription{Filter: "devices/+/telemetry", QoS: 1})
	r.intake.setReady(true)
	r.forget(p) // of the session before, late
	assert.True(t, r.intake.ready)
	p.state.End(r.now(), nil)
	r.forget(p)
	assert.False(t, r.intake.ready)
}

// kept counts the routes in the cache, and adds up what they cost.
func (t *routes) kept() (n, bytes int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.routes)
		sum := 0
		for _, to := range s.routes {
			sum += routeBytes + len(to.topic) + to.route.Bytes()
		}
		if sum != s.bytes {
			panic("a shard is charged with something else")
		}
		bytes += sum
		s.mu.Unlock()
	}
	return n, bytes
}

func TestRoutesOfLongTopicsAreNotKept(t *testing.T) {
	r := idle(t)
	for i := range 100 {
		r.wanted(fmt.Sprint("devices/", i, "/", strings.Repeat("x", 60_000)))
	}
	r.wanted("devices/bed-1/telemetry")
	n, _ := r.routes.kept()
	assert.Equal(t, 1, n)
}

// Many topics times many subscribers cost no more than a bound, and what is kept is charged to those who subscribe.
func TestRoutesAreBoundedAndCharged(t *testing.T) {
	r := idle(t)
	const sessions, topics = 200, 3000
	var all []*peer
	u := newUsage("evil")
	w := &work{r: r}
	for i := range sessions {
		p := newPeer(fmt.Sprint("s", i), u, false)
		p.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
		p.mu.Lock()
		p.ended = false
		w.enter(p, session.Subscription{Filter: "devices/evil/#", ID: 7})
		p.mu.Unlock()
		all = append(all, p)
	}
	charged := func() (sum int) {
		for _, p := range all {
			sum += int(p.routeBytes.Load())
		}
		return sum
	}
	r.routes.limit = 1 << 20
	for i := range topics {
		require.True(t, r.wanted(fmt.Sprint("devices/evil/", i)))
	}
	n, bytes := r.routes.kept()
	assert.EqualValues(t, r.routes.bytes.Load(), bytes)
	assert.LessOrEqual(t, bytes, 1<<20)
	assert.Greater(t, n, 40, "it is used")
	assert.Greater(t, charged(), bytes*8/10)

	before := u.queued.Load()
	for _, p := range all {
		p.mu.Lock()
		p.charge()
		p.mu.Unlock()
	}
	assert.Greater(t, u.queued.Load(), before, "the account pays for them")
	for _, p := range all {
		p.mu.Lock()
		w.out = p.state.End(r.now(), w.out[:0])
		w.apply(p)
		p.mu.Unlock()
	}
	for i := range topics {
		require.False(t, r.wanted(fmt.Sprint("devices/evil/", i)))
	}
	r.kept(t)
	assert.Zero(t, charged())
	assert.Zero(t, u.queued.Load())
}

// kept makes sure that the books of the cache are right.
func (r *router) kept(t *testing.T) {
	t.Helper()
	_, bytes := r.routes.kept()
	assert.EqualValues(t, r.routes.bytes.Load(), bytes)
}

// A route that everybody uses stays while others come and go.
func TestARouteInUseIsNotEvictedByAFlood(t *testing.T) {
	r := idle(t)
	r.routes.limit = 64 << 10
	used := func() *subscribers {
		to := r.subscribersOf("devices/bed-1/telemetry")
		to.shard.mu.Lock()
		defer to.shard.mu.Unlock()
		to = r.routes.current(to)
		require.True(t, to.cached)
		return to
	}
	first, misses := used(), 0
	for i := range 20_000 {
		r.wanted(fmt.Sprint("flood/", i))
		if used() != first {
			first = used()
			misses++
		}
	}
	r.kept(t)
	assert.Less(t, misses, 2000)
}

// Who has many subscriptions and takes them back may not keep others waiting: one costs what it costs alone.
func TestTakingBackASubscriptionLooksAtNoOther(t *testing.T) {
	r := idle(t)
	filter := func(i int) string { return fmt.Sprintf("devices/bed-1/%d/+", i) }
	each := func(many int) time.Duration {
		p := newPeer("sub", newUsage("bed-1"), false)
		w := &work{r: r}
		p.state.Connect(r.now(), session.Connection{}, nil)
		p.mu.Lock()
		defer p.mu.Unlock()
		for i := range many {
			w.enter(p, session.Subscription{Filter: filter(i)})
			p.ask(session.Subscription{Filter: filter(i)})
		}
		const taken = 500
		began := time.Now()
		for i := range taken {
			require.True(t, w.remove(p, filter(i)))
		}
		took := time.Since(began)
		assert.Equal(t, many-taken, p.due.order.Len())
		for i := taken; i < many; i++ {
			require.True(t, w.remove(p, filter(i)))
		}
		return took / taken
	}
	var ratio float64
	for range 5 { // a busy machine holds up anything now and then
		few, many := each(1000), each(20_000)
		ratio = float64(many) / float64(few)
		t.Logf("%s of 1000, %s of 20,000", few, many)
		if ratio < 5 {
			break
		}
	}
	assert.Less(t, ratio, 5.0, "20 when all others are looked at")
}

// What may be on its way grows with each commit that the store can do, up to the bound, and is small again when it does none.
func TestCreditsFollowTheStore(t *testing.T) {
	r := idle(t)
	in := &r.intake
	in.setReady(true)
	told := 0
	in.told = func() { told++ }
	var open []*receipt
	fill := func() int {
		told = 0
		for {
			c := &receipt{tally: new(tally), bytes: 1000}
			if !in.take(new(work), c) {
				assert.LessOrEqual(t, told, 1, "once, not for each that waits")
				return len(open)
			}
			open = append(open, c)
		}
	}
	commit := func() {
		for _, c := range open {
			in.close(c, true)
		}
		open = nil
	}
	assert.Equal(t, leastMessages, fill())
	assert.Equal(t, 1, told)
	commits := 0
	for before := 0; len(open) > before; commits++ {
		before = len(open)
		commit()
		fill()
	}
	assert.Equal(t, creditMessages, len(open))
	assert.Less(t, commits, 8, "it is fast")
	for range creditTicks {
		in.overdue(time.Time{}, nil)
	}
	assert.Equal(t, creditMessages, fill(), "what is on its way is not taken back")
	for range len(open) - leastMessages/2 { // given back: nothing was stored
		in.close(open[0], false)
		open = open[1:]
	}
	assert.Equal(t, leastMessages, fill())
}

// Who has waited gets credits for what it has read, and gives back what it does not need.
func TestATurnIsForAllThatWasReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &intake{}
		in.setReady(true)
		receipts := func() *receipt { return &receipt{tally: new(tally), bytes: 100} }
		var open []*receipt
		for c := receipts(); in.take(new(work), c); c = receipts() {
			open = append(open, c)
		}
		require.Len(t, open, leastMessages)
		links := []*clientLink{newLink(nil, new(network.Conn)), newLink(nil, new(network.Conn))}
		came := 0
		for _, l := range links {
			l.work = new(work)
			go func() {
				assert.True(t, in.wait(l, receipts(), 99))
				came++
			}()
			synctest.Wait()
		}
		for _, c := range open[:leastMessages/creditShare] {
			in.close(c, false)
		}
		synctest.Wait()
		require.Equal(t, 1, came, "what was granted is on its way")
		for range 99 {
			require.True(t, in.take(links[0].work, receipts()))
		}
		assert.False(t, in.take(links[0].work, receipts()))
		assert.Equal(t, amount{}, in.granted)
		for _, c := range open[leastMessages/creditShare:] {
			in.close(c, false)
		}
		synctest.Wait()
		require.Equal(t, 2, came)
		assert.Equal(t, amount{99, 9900}, in.granted)
		in.takeBack(links[1].work)
		assert.Equal(t, amount{}, in.granted)
		assert.Equal(t, 101, in.count)
	})
}

// What a connection was granted is a guess, and others go without it.
func TestNothingOfATurnIsKept(t *testing.T) {
	r := &router{}
	r.intake.setReady(true)
	grant := func() *work {
		w := &work{r: r, granted: amount{3, 3000}}
		r.intake.granted = w.granted
		return w
	}
	w := grant()
	for range 3 {
		require.True(t, r.intake.take(w, &receipt{tally: new(tally), bytes: 10}), "smaller than the one that waited")
	}
	assert.Equal(t, amount{}, r.intake.granted)
	w = grant()
	require.True(t, r.intake.take(w, &receipt{tally: new(tally), bytes: 10}))
	w.flush() // before it waits for a subscriber
	assert.Equal(t, amount{}, r.intake.granted)
	assert.Equal(t, amount{}, w.granted)
}

// The sender has the first one still, and sends it again before the others.
func TestNothingIsStoredOfASenderWhoseEarlierMessageWasNot(t *testing.T) {
	r := idle(t)
	r.intake.setReady(true)
	storing := newPeer("ingest", newUsage("backend"), true)
	storing.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
	r.routes.table.Subscribe(recipient{peer: storing}, "devices/+/telemetry", route.Options{QoS: 1})
	for _, untaken := range []bool{true, false} {
		l := newLink(r.hook, new(network.Conn))
		l.peer, l.work, l.untaken = newPeer("esp", newUsage("bed-1"), false), &work{r: r}, untaken
		to := r.subscribersOf("devices/bed-1/telemetry")
		to.ingest, to.tally = true, new(tally)
		pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 2, TopicName: to.topic}
		l.work.pub = publication{to: to, from: l.peer, link: l, account: l.peer.usage, now: r.now()}
		require.NoError(t, r.receiveForIngest(l, pk))
		assert.Equal(t, untaken, to.tally.received.Load() == 0)
	}
}

// A client that comes back subscribes to all that it has already: neither routes nor the disk notice.
func TestWhatIsSubscribedToAgainChangesNothing(t *testing.T) {
	r, u := idle(t), newUsage("bed-1")
	u.quotas.onDisk = true
	r.ledger.storage, r.ledger.attached = journaltest.New(), true
	w, p := &work{r: r}, newPeer("hass", u, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
	require.True(t, p.state.Lasting())
	sub := session.Subscription{Filter: "devices/#", QoS: 1}
	changed := func() bool {
		p.shelf.changed = nil
		of := route.Route[recipient]{Topic: "devices/a"}
		r.routes.table.Refresh(&of)
		w.enter(p, sub)
		return r.routes.table.Refresh(&of) || p.shelf.changed != nil
	}
	assert.True(t, changed())
	assert.False(t, changed())
	sub.QoS = 2
	assert.True(t, changed())
	r.ledger.storage = nil
}

// Another one may be about it, and not have its turn on a busy machine.
func TestWhoHasMadeItTooMuchSeesToItHimself(t *testing.T) {
	r, u := idle(t), newUsage("bed-1")
	limit := u.quotas.limits.MaxQueuedBytesPerAccount
	w, other := &work{r: r}, &work{r: r}
	for i := range 4 {
		p := newPeer(fmt.Sprint("s", i), u, false)
		r.sessions.byID[p.id] = p
		p.state.Connect(r.now(), session.Connection{Version: 4, Expiry: time.Hour}, nil)
		p.state.Disconnect(r.now(), session.Lost, nil)
		w.enter(p, session.Subscription{Filter: "devices/#", QoS: 1})
	}
	m := &session.Message{Topic: "devices/bed-1/light", Payload: make([]byte, limit/64), QoS: 1}
	to := r.subscribersOf(m.Topic)
	route := func(w *work) {
		w.pub = publication{to: to, message: m, now: r.now()}
		r.route(w)
	}
	for !slices.ContainsFunc(other.after, func(c consequence) bool { return c.Kind == overQuota }) {
		route(other)
	}
	route(w)
	w.settle()
	assert.Less(t, u.queued.Load(), int64(limit))
}

func BenchmarkPublishStep(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint("subscribers=", n), func(b *testing.B) {
			r, w, u := idle(b), &work{}, newUsage("bed-1")
			w.r = r
			for i := range n {
				p := newPeer(fmt.Sprint("s", i), u, false)
				p.state.Connect(r.now(), session.Connection{Expiry: time.Hour}, nil)
				p.state.Disconnect(r.now(), session.Lost, nil) // what is QoS 0 goes no further
				w.enter(p, session.Subscription{Filter: "devices/#"})
			}
			m := &session.Message{Topic: "devices/bed-1/light", Payload: []byte("on")}
			to := r.subscribersOf(m.Topic)
			b.ReportAllocs()
			for b.Loop() {
				w.pub = publication{to: to, message: m, now: r.now()}
				r.route(w)
				w.settle()
			}
		})
	}
}

func TestNobodyWaitsForAGroupThatHasADisk(t *testing.T) {
	r := idle(t)
	for _, disk := range []journal.Storage{nil, journaltest.New()} {
		r.ledger.storage = disk
		for qos := range byte(3) {
			g, w := &shareGroup{router: r}, &work{r: r}
			for range waitMessages + 1 {
				g.queue.Put(g.queue.Number(&session.Message{Topic: "t", QoS: qos}))
			}
			g.crowded(w, &session.Message{Topic: "t", QoS: qos})
			assert.Equal(t, disk == nil || qos == 0, w.slowGroup == g, "disk %t, QoS %d", disk != nil, qos)
		}
	}
}

// The messages of those who send now and then are gathered for ingest. Who sends again soon may do so because it was acknowledged: it
// does not wait, nor does what was gathered before.
func TestMessagesForIngestAreGatheredWhileNobodyIsImpatient(t *testing.T) {
	r := idle(t)
	l := newLink(r.hook, new(network.Conn))
	l.now = r.started.Add(time.Minute)
	w := &work{r: r}
	after := func(pause time.Duration, qos byte) patience {
		l.now, w.patience = l.now.Add(pause), nobodys
		w.notePatience(l, qos)
		return w.patience
	}
	assert.Equal(t, patient, after(time.Second, 1), "the first one")
	assert.Equal(t, patient, after(0, 1), "read with it")
	assert.Equal(t, impatient, after(impatientAfter/2, 1))
	assert.Equal(t, impatient, after(0, 1), "read with it")
	assert.Equal(t, patient, after(impatientAfter, 1))
	assert.Equal(t, patient, after(time.Microsecond, 0), "without acknowledgements")

	w.patience = impatient
	l.now = l.now.Add(time.Minute)
	w.notePatience(l, 1)
	assert.Equal(t, impatient, w.patience, "another one of the same round was")
}
