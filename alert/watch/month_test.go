package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/alert/notify"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/outbox"
)

// stretch is a time in which something is so.
type stretch struct{ from, to time.Time }

func (s stretch) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

func among(list []stretch, t time.Time) bool {
	return slices.ContainsFunc(list, func(s stretch) bool { return s.has(t) })
}

// world is what a box sees in a month. The bubble's clock is the true time.
type world struct {
	devices  int
	every    time.Duration
	dry      map[int][]stretch // breaches, by device
	network  []stretch         // no device gets through
	dead     map[int]stretch   // a device is away
	unsure   []stretch
	shift    []stretch // the clock is believed, and wrong by two hours
	random   *rand.Rand
	readings map[string]history.Reading
	seen     map[string]int64
	next     map[int]time.Time
	spiked   [100]bool
}

func name(i int) string { return fmt.Sprintf("bed-%02d", i) }

// now is what the clock on the wall shows.
func (w *world) now() time.Time {
	t := time.Now()
	switch {
	case among(w.unsure, t):
		return t.Add(-9 * 365 * 24 * time.Hour)
	case among(w.shift, t):
		return t.Add(2 * time.Hour)
	}
	return t
}

func (w *world) doubt() string {
	if among(w.unsure, time.Now()) {
		return "it is before the program was built"
	}
	return ""
}

// Devices implements Source; devices send meanwhile.
func (w *world) Devices(context.Context) (list []alert.Device, err error) {
	t := time.Now()
	for i := range w.devices {
		if w.next[i].After(t) {
			continue
		}
		w.next[i] = t.Add(w.every)
		if among(w.network, t) || w.dead[i].has(t) {
			continue
		}
		value := 40 + w.random.Float64() // noise
		if among(w.dry[i], t) {
			value = 19.5 - w.random.Float64()
		}
		at := w.now().UnixMilli()
		w.seen[name(i)] = at
		w.readings[name(i)] = history.Reading{Device: name(i), Metric: "soil_moisture", Time: at, Received: at, Value: value, ClockUnsure: w.doubt() != ""}
		if w.spiked[i] = !w.spiked[i] && w.random.IntN(50) == 0; w.spiked[i] { // one alone
			r := w.readings[name(i)]
			r.Value = 0
			w.readings[name(i)] = r
		}
	}
	for i := range w.devices {
		list = append(list, alert.Device{ID: name(i), Seen: w.seen[name(i)]})
	}
	return list, nil
}

// Latest implements Source.
func (w *world) Latest(context.Context) (list []history.Reading, err error) {
	for i := range w.devices {
		if r, there := w.readings[name(i)]; there {
			list = append(list, r)
		}
	}
	return list, nil
}

// Plan implements Source.
func (w *world) Plan(context.Context) (*garden.Plan, error) {
	var plants []garden.Plant
	var assignments []garden.Assignment
	least := 20.0
	for i := range w.devices {
		plants = append(plants, garden.Plant{ID: "plant-" + name(i), Name: name(i), Thresholds: []garden.Threshold{{Metric: "soil_moisture", Min: &least}}})
		assignments = append(assignments, garden.Assignment{ID: name(i), Device: name(i), Plant: "plant-" + name(i), Since: 1})
	}
	return garden.NewPlan(nil, plants, assignments), nil
}

// Faults implements Source.
func (w *world) Faults(context.Context) ([]alert.Fault, error) { return nil, nil }

// inbox is a channel of a test. It has everything that it was given, and fails at times.
type inbox struct {
	down []stretch
	mu   sync.Mutex
	got  []delivery
}

type delivery struct {
	at time.Time
	e  notify.Envelope
}

// Send implements notify.Channel.
func (b *inbox) Send(ctx context.Context, e *notify.Envelope) error {
	time.Sleep(50 * time.Millisecond)
	if among(b.down, time.Now()) {
		return errors.New("no network")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, delivery{time.Now(), *e})
	return ctx.Err()
}

var errKilled = errors.New("killed")

// mortal is a store for a process that is killed: from some step on nothing happens any more.
type mortal struct {
	*outbox.Keeper
	steps *int // that are left; nil: any number
	after bool // the last step happens, and nobody is told
	mu    sync.Mutex
	dead  bool
	ended chan struct{} // closed when it is dead
}

func newMortal(k *outbox.Keeper) *mortal { return &mortal{Keeper: k, ended: make(chan struct{})} }

func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead {
		m.dead = true
		close(m.ended)
	}
}

func (m *mortal) step(do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errKilled
	}
	last := false
	if m.steps != nil {
		*m.steps--
		last = *m.steps == 0
	}
	m.mu.Unlock()
	if !last {
		return do()
	}
	if m.after {
		_ = do() // nobody is told
	}
	m.kill()
	return errKilled
}

// Commit implements Keeper.
func (m *mortal) Commit(ctx context.Context, c outbox.Change) error {
	return m.step(func() error { return m.Keeper.Commit(ctx, c) })
}

// Learn implements Keeper.
func (m *mortal) Learn(ctx context.Context, text string) error {
	return m.step(func() error { return m.Keeper.Learn(ctx, text) })
}

// Sent implements notify.Outbox.
func (m *mortal) Sent(ctx context.Context, id int64) error {
	return m.step(func() error { return m.Keeper.Sent(ctx, id) })
}

// Failed implements notify.Outbox.
func (m *mortal) Failed(ctx context.Context, id int64, attempts int, due time.Time) error {
	return m.step(func() error { return m.Keeper.Failed(ctx, id, attempts, due) })
}

// Merge implements notify.Outbox.
func (m *mortal) Merge(ctx context.Context, ids []int64, into outbox.Entry) error {
	return m.step(func() error { return m.Keeper.Merge(ctx, ids, into) })
}

// process runs watcher and sender until its time is over, or its store is dead. Nothing is closed.
func process(t *testing.T, w *world, m *mortal, rules alert.Rules, boxes []*inbox, length time.Duration) {
	var channels []Channel
	var named []notify.Named
	for i, b := range boxes {
		channels = append(channels, Channel{Name: fmt.Sprint("channel-", i), Buttons: i == 0})
		named = append(named, notify.Named{Name: channels[i].Name, Channel: b})
	}
	log := slog.New(slog.DiscardHandler)
	sender := notify.NewSender(notify.Options{Channels: named, Outbox: m, Now: w.now, Log: log})
	watcher := Open(t.Context(), Options{Rules: rules, Source: w, Keeper: m, Channels: channels, Waiting: sender.Wake, Now: w.now, Doubt: w.doubt,
		Every: 50 * time.Second, Log: log})
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { assert.NoError(t, watcher.Run(ctx)) })
	parts.Go(func() { assert.NoError(t, sender.Run(ctx)) })
	select {
	case <-m.ended:
	case <-ctx.Done():
		m.kill()
	}
	cancel()
	parts.Wait()
}

func openStore(t *testing.T) *store.Store {
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "plantops.db")})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// once puts deliveries together that are the same message: its id says so.
func once(t *testing.T, got []delivery) (list []delivery, again int) {
	ids := map[string]int{}
	for _, d := range got {
		if at, there := ids[d.e.ID]; there {
			assert.Equal(t, list[at].e.Notices, d.e.Notices, "message %s is another", d.e.ID)
			again++
			continue
		}
		ids[d.e.ID] = len(list)
		list = append(list, d)
	}
	return list, again
}

// told counts what is said, by key and what.
func told(list []delivery) map[string]int {
	n := map[string]int{}
	for _, d := range list {
		for _, one := range d.e.Notices {
			n[one.Alert.Key.String()+" "+one.What]++
		}
	}
	return n
}

func TestAMonthInWhichEachBreachIsToldOnceOnEachChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(hours float64) time.Time { return start.Add(time.Duration(hours * float64(time.Hour))) }
		between := func(from, length float64) stretch { return stretch{at(from), at(from + length)} }
		const hours, devices = 30 * 24, 10
		r := rand.New(rand.NewPCG(13, 1))
		w := &world{devices: devices, every: 5 * time.Minute, dry: map[int][]stretch{}, dead: map[int]stretch{3: between(200, 9)}, random: r,
			readings: map[string]history.Reading{}, seen: map[string]int64{}, next: map[int]time.Time{}}
		breaches := 0
		for i := range devices {
			for from := 8 + 20*r.Float64(); from < hours-30; from += 20 + 60*r.Float64() {
				w.dry[i] = append(w.dry[i], between(from, 4+6*r.Float64()))
				breaches++
			}
		}
		for day := 2; day < 29; day += 4 {
			w.network = append(w.network, between(float64(day)*24+24*r.Float64(), 1.5))
			w.unsure = append(w.unsure, between(float64(day)*24+30+24*r.Float64(), 1))
			w.shift = append(w.shift, between(float64(day)*24+60+12*r.Float64(), 20*r.Float64()))
		}
		boxes := []*inbox{{}, {}}
		for day := 1; day < 28; day += 3 {
			boxes[1].down = append(boxes[1].down, between(float64(day)*24+48*r.Float64(), 20*r.Float64()))
		}
		db := openStore(t)
		rules := alert.Rules{After: 10 * time.Minute, Cooldown: time.Hour, OfflineAfter: 3 * time.Minute, Quiet: alert.Hours{From: 22 * 60, To: 6 * 60}}
		kills := 0
		for end := at(hours); time.Now().Before(end); kills++ {
			m := newMortal(db.Outbox())
			if r.IntN(2) == 0 {
				steps := 1 + r.IntN(12)
				m.steps, m.after = &steps, r.IntN(2) == 0
			}
			process(t, w, m, rules, boxes, min(time.Until(end), time.Duration(1+r.IntN(40*60))*time.Minute))
			time.Sleep(time.Duration(r.IntN(60)) * time.Minute) // the box is off
		}
		require.Greater(t, kills, 50)
		for i, b := range boxes {
			list, again := once(t, b.got)
			assert.LessOrEqual(t, again, kills, "only a kill between sending and noting it sends again")
			n := told(list)
			begins := 0
			for d := range devices {
				key := alert.Key{Kind: alert.Threshold, Subject: "plant-" + name(d), Metric: "soil_moisture", Side: alert.Min}
				assert.Equal(t, len(w.dry[d]), n[key.String()+" "+alert.Begins], "channel %d, %s", i, name(d))
				assert.Equal(t, len(w.dry[d]), n[key.String()+" "+alert.Ends], "channel %d, %s", i, name(d))
				begins += n[key.String()+" "+alert.Begins]
				off := alert.Key{Kind: alert.Offline, Subject: name(d)}.String() + " "
				assert.Equal(t, n[off+alert.Begins], n[off+alert.Ends], name(d))
				assert.LessOrEqual(t, n[off+alert.Begins], len(w.network)+1)
			}
			assert.Equal(t, breaches, begins)
			assert.Positive(t, n[alert.Key{Kind: alert.Offline, Subject: name(3)}.String()+" "+alert.Begins])
			assert.Empty(t, waitingFor(t, db, i))
			for _, out := range w.network { // an outage, and the hours after it
				count := 0
				for _, d := range list {
					if slices.ContainsFunc(d.e.Notices, func(n alert.Notice) bool { return n.Alert.Kind == alert.Offline }) && d.at.After(out.from) && d.at.Before(out.to.Add(time.Hour)) {
						count++
					}
				}
				assert.LessOrEqual(t, count, 6, "channel %d: messages of one outage of %d devices", i, devices)
			}
			for k := 8; k < len(list); k++ {
				assert.Greater(t, list[k].at.Sub(list[k-8].at), 9*time.Minute, "channel %d, message %d: a storm", i, k)
			}
		}
	})
}

func waitingFor(t *testing.T, db *store.Store, channel int) []outbox.Entry {
	list, err := db.Outbox().Waiting(t.Context(), fmt.Sprint("channel-", channel))
	require.NoError(t, err)
	return list
}

// One breach, and a kill at every step that the store takes, before it and after it.
func TestAKillAtAnyStepLosesNothingAndTellsNothingTwice(t *testing.T) {
	for step := 1; step <= 16; step++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("step %d, after it %v", step, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					start := time.Now()
					w := &world{devices: 1, every: 5 * time.Minute, dry: map[int][]stretch{0: {{start.Add(2 * time.Hour), start.Add(5 * time.Hour)}}},
						random: rand.New(rand.NewPCG(1, 1)), readings: map[string]history.Reading{}, seen: map[string]int64{}, next: map[int]time.Time{}}
					boxes := []*inbox{{}, {down: []stretch{{start, start.Add(3 * time.Hour)}}}}
					db := openStore(t)
					rules := alert.Rules{After: 10 * time.Minute, OfflineAfter: 3 * time.Minute}
					m := newMortal(db.Outbox())
					left := step
					m.steps, m.after = &left, after
					process(t, w, m, rules, boxes, 8*time.Hour)
					process(t, w, newMortal(db.Outbox()), rules, boxes, time.Until(start.Add(9*time.Hour)))
					key := alert.Key{Kind: alert.Threshold, Subject: "plant-" + name(0), Metric: "soil_moisture", Side: alert.Min}.String() + " "
					for i, b := range boxes {
						list, again := once(t, b.got)
						assert.LessOrEqual(t, again, 1)
						assert.Equal(t, map[string]int{key + alert.Begins: 1, key + alert.Ends: 1}, told(list), "channel %d", i)
						assert.Empty(t, waitingFor(t, db, i))
					}
				})
			})
		}
	}
}
