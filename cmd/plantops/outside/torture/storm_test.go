//go:build linux

package torture_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"

	"github.com/plantops/plantops/broker/brokertest/logtest"
)

// TestPromiseInAStorm lets everything happen at once that can come between a message and its acknowledgement, in random
// order: connections of devices and of ingest are lost and taken over, ingest is started anew or loses its session,
// accounts are removed, storage is slow, stalls and fails, subscribers do not read or do not acknowledge, wills and
// retained messages go where readings go. At every moment what is acknowledged must be stored; in the end everything
// must be stored, accounted for and let go. PLANTOPS_STORM makes it longer.
func TestPromiseInAStorm(t *testing.T) {
	length := setting.Duration(t, "PLANTOPS_STORM", 1200*time.Millisecond)
	random := setting.Random(t)
	before := runtime.NumGoroutine()

	s := newStorm(t, 12)
	s.fleet.Start()
	s.others(random)
	began, acts, kinds := time.Now(), 0, s.acts()
	for time.Since(began) < length {
		kinds[random.IntN(len(kinds))](random)
		<-time.After(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
		if acts++; acts%8 == 0 {
			s.check()
		}
	}
	s.calm()
	t.Logf("%d acts in %s", acts, time.Since(began).Round(time.Millisecond))

	s.fleet.Drain(2*length + setting.Patience) // there are readings of all that time
	s.check()
	require.NoError(t, s.broker.Drain(t.Context()))
	assert.Equal(t, []int64{0, 0}, []int64{s.broker.Stats().Ingest.Pending, s.stats().Pending})
	s.stopIngest()
	s.verify()
	for name := range s.secrets {
		s.broker.Disconnect(name, "end of the test")
	}
	require.Eventually(t, func() bool { return s.broker.Stats().Connected == 0 }, setting.Patience, time.Millisecond)
	require.NoError(t, s.broker.Close())
	s.proxy.close()
	require.NoError(t, s.db.Close())
	awaitGoroutines(t, before)
}

// awaitGoroutines waits until no more goroutines are there than before.
func awaitGoroutines(t *testing.T, before int) {
	t.Helper()
	for began := time.Now(); runtime.NumGoroutine() > before; <-time.After(time.Millisecond) {
		if time.Since(began) > setting.Patience {
			stacks := make([]byte, 1<<20)
			require.Fail(t, "goroutines are left", "%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

const stormStall = 150 * time.Millisecond

// storm is a broker, a subscriber that reaches it through a proxy, and a store, all of this process.
type storm struct {
	t       *testing.T
	broker  *brokertest.Broker
	proxy   *proxy
	db      *store.Store
	sink    *moodySink
	fleet   *fleet.Fleet
	secrets map[string]string

	said       logtest.Log // by ingest
	stopIngest func()
	past       []ingest.Stats // of the subscribers before
	subscriber *ingest.Subscriber

	calmed  chan struct{}
	working sync.WaitGroup
}

func newStorm(t *testing.T, devices int) *storm {
	t.Helper()
	s := &storm{t: t, secrets: map[string]string{}, calmed: make(chan struct{})}
	s.broker = brokertest.Listen(t, func(o *broker.Options) {
		o.IngestTopics, o.StallTimeout = []string{"devices/+/telemetry"}, stormStall
		o.Log = slog.New(slog.DiscardHandler)
	})
	var err error
	s.db, err = store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "storm.db")})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.db.Close() }) // of a test that has failed
	s.sink = &moodySink{Store: s.db, stored: map[string]map[int64]bool{}}
	t.Cleanup(func() {
		if t.Failed() {
			b := s.broker.Stats()
			t.Logf("%s\nbroker: %+v %+v\ningest: %+v", &s.said, b.Ingest, b.Clients, s.stats())
		}
	})
	require.NoError(t, s.broker.Start())
	s.proxy = newProxy(t, s.broker.Addrs().TCP.String())
	s.startIngest()
	<-s.subscriber.Ready()
	s.broker.AdmitDevices()

	s.fleet = &fleet.Fleet{T: t, Epoch: time.Now().Add(-time.Hour).Truncate(time.Second)}
	for i := range devices {
		id := fmt.Sprint("bed-", i+1)
		s.secrets[id] = brokertest.Password(id)
		s.broker.Accounts.Set(brokertest.Device(id))
		s.fleet.Devices = append(s.fleet.Devices, &fleet.Device{ID: id, Secret: s.secrets[id], Version: 4 + byte(i%2), QoS: 1 + byte(i/2%2),
			Rate: 100, Through: door.Door{Kind: "tcp", Address: s.broker.Addrs().TCP.String()}, Epoch: s.fleet.Epoch, Expected: stormReasons})
	}
	return s
}

// stormReasons are what a device may be told when its account is gone or its session taken over.
var stormReasons = []byte{4, 5, 0x86, 0x87, 0x8E, 0x98}

func (s *storm) startIngest() {
	var err error
	s.subscriber, err = ingest.New(ingest.Options{Host: "127.0.0.1", Port: s.proxy.port(), Topics: []string{"devices/+/telemetry"},
		Username: s.broker.Backend.Username, Password: s.broker.Backend.Password, ClientID: s.broker.Backend.ClientID,
		MaxBatch: 1000, StallTimeout: stormStall * 10, Embedded: true, Log: slog.New(slog.NewTextHandler(&s.said, nil))}, s.sink)
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended, subscriber := make(chan error, 1), s.subscriber
	go func() { ended <- subscriber.Run(ctx) }()
	s.stopIngest = func() {
		cancel()
		err, stats := <-ended, subscriber.Stats()
		if err == nil { // else it had no time to store everything
			assert.Zero(s.t, stats.Pending)
		}
		s.past = append(s.past, stats)
		s.stopIngest = func() {}
	}
	s.t.Cleanup(func() { s.stopIngest() })
}

func (s *storm) stats() ingest.Stats { return s.subscriber.Stats() }

// acts are what can happen.
func (s *storm) acts() []func(*rand.Rand) {
	anyDevice := func(r *rand.Rand) *fleet.Device { return s.fleet.Devices[r.IntN(len(s.fleet.Devices))] }
	sinkMood := func(m mood) func(*rand.Rand) { return func(*rand.Rand) { s.sink.mood.Store(int32(m)) } }
	takeOver := func(r *rand.Rand) {
		d := anyDevice(r)
		s.visit(rawmqtt.Login{User: d.ID, Secret: d.Secret, ClientID: d.ID, Version: d.Version, Resume: true}, nil)
	}
	return []func(*rand.Rand){
		func(*rand.Rand) { s.proxy.cut() },
		func(*rand.Rand) { s.proxy.cut() },
		func(r *rand.Rand) { s.proxy.freeze(time.Duration(r.Int64N(int64(2 * stormStall)))) },
		func(*rand.Rand) { // the session of ingest ends
			s.visit(s.asBackend(s.broker.Backend.ClientID, false), nil)
		},
		func(*rand.Rand) { // somebody else has its session for a moment, and does not acknowledge
			s.visit(s.asBackend(s.broker.Backend.ClientID, true), nil)
		},
		func(*rand.Rand) {
			s.stopIngest()
			s.startIngest()
		},
		takeOver, takeOver, takeOver,
		func(r *rand.Rand) { s.broker.Disconnect(anyDevice(r).ID, "rules changed") },
		func(r *rand.Rand) { // removed, and there again
			id := anyDevice(r).ID
			s.broker.Accounts.Remove(id)
			s.broker.Disconnect(id, "removed")
			s.broker.Accounts.Set(brokertest.Device(id))
		},
		func(r *rand.Rand) { // a will that must be stored, and retained messages among the readings
			d := anyDevice(r)
			topic := "devices/" + d.ID + "/telemetry"
			retained := rawmqtt.Encode(rawmqtt.Publish<<4|1, append(rawmqtt.AppendString(nil, topic), `{"battery":1}`...))
			s.visit(rawmqtt.Login{User: d.ID, Secret: d.Secret, ClientID: d.ID + "-will", Version: 4, WillTopic: topic, WillText: `{"battery":2}`}, retained)
		},
		sinkMood(quick), sinkMood(quick), sinkMood(slow), sinkMood(stalled), sinkMood(failing),
	}
}

// visit makes a connection, says something, and is gone without a word.
func (s *storm) visit(l rawmqtt.Login, then []byte) {
	conn, err := net.Dial("tcp", s.broker.Addrs().TCP.String())
	require.NoError(s.t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(l.Encode())
	if p, err := rawmqtt.Read(bufio.NewReader(conn)); err == nil && p.Reason == 0 {
		_, _ = conn.Write(then)
	}
}

// asBackend is the account of ingest, in MQTT 3.1.1.
func (s *storm) asBackend(client string, resume bool) rawmqtt.Login {
	return rawmqtt.Login{User: s.broker.Backend.Username, Secret: s.broker.Backend.Password, ClientID: client, Version: 4, Resume: resume}
}

// others are subscribers of everything: they come and go, read or not, acknowledge or not.
func (s *storm) others(random *rand.Rand) {
	for i, filter := range []string{"#", "devices/#", "$share/g/devices/+/telemetry", "$share/g/devices/+/telemetry", "+/+/telemetry"} {
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		s.working.Go(func() {
			for s.blowing() {
				s.subscribe(r, fmt.Sprint("other-", i), filter)
			}
		})
	}
}

func (s *storm) blowing() bool {
	select {
	case <-s.calmed:
		return false
	default:
		return true
	}
}

func (s *storm) subscribe(r *rand.Rand, id, filter string) {
	conn, err := net.Dial("tcp", s.broker.Addrs().TCP.String())
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Duration(r.Int64N(int64(time.Second)))))
	_, _ = conn.Write(s.asBackend(id, r.IntN(2) > 0).Encode())
	_, _ = conn.Write(rawmqtt.EncodeSubscribe(4, byte(r.IntN(3)), 1, filter))
	reads, acknowledges := r.IntN(4) > 0, r.IntN(2) > 0
	if !reads {
		_, _ = io.CopyN(io.Discard, conn, 64)
		select {
		case <-time.After(time.Duration(r.Int64N(int64(time.Second)))):
		case <-s.calmed:
		}
		return
	}
	for in := bufio.NewReader(conn); s.blowing(); {
		p, err := rawmqtt.Read(in)
		if err != nil {
			return
		}
		if acknowledges && p.Kind == rawmqtt.Publish && p.QoS() > 0 {
			_, _ = conn.Write(rawmqtt.EncodeAck(map[byte]byte{1: rawmqtt.Puback, 2: rawmqtt.Pubrec}[p.QoS()], p.ID))
			if p.QoS() == 2 {
				_, _ = conn.Write(rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID))
			}
		}
	}
}

// calm ends the storm.
func (s *storm) calm() {
	close(s.calmed)
	s.sink.mood.Store(int32(quick))
	s.working.Wait()
}

// check compares what the devices know at this moment with what is stored.
func (s *storm) check() {
	s.t.Helper()
	sum := s.fleet.Snapshot()
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for _, d := range sum.Each {
		for number := 1; number <= d.Sent; number++ {
			if d.Received[number] && !s.sink.stored[d.Device.ID][d.Device.Time(number)] {
				require.Fail(s.t, "acknowledged and not stored", "%s, version %d, QoS %d, reading %d", d.Device.ID, d.Device.Version, d.Device.QoS, number)
			}
		}
	}
}

// verify is called when nothing moves any more.
func (s *storm) verify() {
	sum := s.fleet.Snapshot()
	assert.Equal(s.t, sum.Sent, sum.Acknowledged)
	assert.Empty(s.t, sum.Faults)
	found := s.fleet.NothingStored()
	for r, err := range s.db.Readings(s.t.Context(), store.Query{}) {
		require.NoError(s.t, err)
		if r.Metric == fleet.MetricName {
			found.Add(r.Device, r.Metric, r.Time, r.Value)
		}
	}
	sum.Verify(s.t, "package store", found)
	assert.Equal(s.t, sum.Sent, found.Rows)

	var counted ingest.Stats
	for _, p := range s.past {
		counted.Stored += p.Stored
		counted.Duplicate += p.Duplicate
		counted.Quarantined += p.Quarantined
	}
	total, err := s.db.Totals(s.t.Context())
	require.NoError(s.t, err)
	s.t.Logf("%+v", total)
	assert.Equal(s.t, []int64{total.Stored, total.Duplicate, total.Quarantined}, []int64{counted.Stored, counted.Duplicate, counted.Quarantined})
}

// moodySink is a store that can be slow, stall or fail.
type moodySink struct {
	*store.Store
	mood atomic.Int32

	mu     sync.Mutex
	stored map[string]map[int64]bool // by device and time: committed
}

type mood int32

const (
	quick mood = iota
	slow
	stalled
	failing
)

func (m *moodySink) Append(ctx context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	switch mood(m.mood.Load()) {
	case slow:
		<-time.After(20 * time.Millisecond)
	case stalled:
		for began := time.Now(); mood(m.mood.Load()) == stalled && time.Since(began) < 3*stormStall; {
			<-time.After(time.Millisecond)
		}
	case failing:
		return outcomes, errors.New("no storage")
	}
	before := len(outcomes)
	outcomes, err := m.Store.Append(ctx, batch, outcomes)
	if err != nil && !errors.Is(err, store.ErrPartly) {
		return outcomes, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch[:len(outcomes)-before] {
		if m.stored[batch[i].Device] == nil {
			m.stored[batch[i].Device] = map[int64]bool{}
		}
		m.stored[batch[i].Device][batch[i].Time] = true
	}
	return outcomes, err
}
