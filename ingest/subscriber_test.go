package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a sink that a test lets through commit by commit: each Append hands its batch to offered and waits for the
// answer.
type gate struct {
	offered chan []store.Message
	answer  chan error
}

func newGate() *gate { return &gate{make(chan []store.Message), make(chan error)} }

func (g *gate) Append(ctx context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	select {
	case g.offered <- slices.Clone(batch):
	case <-ctx.Done():
		return outcomes, ctx.Err()
	}
	select {
	case err := <-g.answer:
		return append(outcomes, make([]store.Outcome, len(batch))...), err
	case <-ctx.Done():
		return outcomes, ctx.Err()
	}
}

// next waits for the next batch.
func (g *gate) next(t *testing.T) []store.Message {
	t.Helper()
	select {
	case batch := <-g.offered:
		return batch
	case <-time.After(patience):
		require.Fail(t, "no batch")
		return nil
	}
}

// open is a sink that stores everything in memory.
type open struct {
	mu       sync.Mutex
	messages []store.Message
}

func (o *open) Append(_ context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, batch...)
	for _, m := range batch {
		if m.Kind == store.Probe {
			outcomes = append(outcomes, store.Proved)
		} else {
			outcomes = append(outcomes, store.Stored)
		}
	}
	return outcomes, nil
}

// logs keeps what was logged, one line a record.
type logs = logtest.Log

func options(s *server) Options {
	o := to("127.0.0.1", s.port(), "devices/+/telemetry", "devices/+/heartbeat")
	o.Username, o.Password, o.Embedded = "plantops_backend", "secret", true
	return o
}

// to are the options that are needed, with the values that a configuration has by default.
func to(host string, port int, topics ...string) Options {
	return Options{Host: host, Port: port, Topics: topics, ClientID: "plantops-ingest", MaxBatch: 1000, StallTimeout: 10 * time.Second}
}

// start runs a subscriber until the test ends, or until the stop that it returns is called; stop returns what Run did.
func start(t *testing.T, o Options, sink Sink) (*Subscriber, func() error) {
	t.Helper()
	sub, err := New(o, sink)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- sub.Run(ctx) }()
	var once sync.Once
	var ended error
	stop := func() error {
		once.Do(func() {
			cancel()
			select {
			case ended = <-result:
			case <-time.After(patience):
				require.Fail(t, "Run does not return")
			}
		})
		return ended
	}
	t.Cleanup(func() { stop() })
	return sub, stop
}

func reading(n int) string {
	return fmt.Sprintf(`{"timestamp":%d,"temperature":%d}`, 1767787200+n, n)
}

func TestAcknowledgesAfterTheCommitAndNotBefore(t *testing.T) {
	s, g := serve(t, nil), newGate()
	sub, _ := start(t, options(s), g)
	s.awaitSubscriptions(1)
	<-sub.Ready()

	s.publish(telemetryTopic, reading(1), 1)
	batch := g.next(t)
	require.Len(t, batch, 1, "an idle box commits at once")
	assert.Equal(t, []store.Value{{Metric: "temperature", Value: 1}}, batch[0].Values)

	// While that commit runs, more arrives; it becomes the next batch, quarantine and heartbeat included.
	s.publish(telemetryTopic, reading(2), 1)
	s.publish(telemetryTopic, `{"temperature":nan}`, 1)
	s.publish("devices/bed-1/heartbeat", ``, 1)
	require.Eventually(t, func() bool { return sub.Stats().Pending == 4 }, patience, time.Millisecond)
	assert.Empty(t, s.acknowledged())

	g.answer <- nil
	batch = g.next(t)
	require.Len(t, batch, 3)
	assert.Equal(t, []store.Kind{store.Telemetry, store.Bad, store.Heartbeat}, []store.Kind{batch[0].Kind, batch[1].Kind, batch[2].Kind})
	s.awaitAcks(1)
	g.answer <- nil
	s.awaitAcks(1, 2, 3, 4)
	require.Eventually(t, func() bool { return sub.Stats().Pending == 0 }, patience, time.Millisecond)
	assert.Equal(t, int64(4), sub.Stats().Stored)
}

func TestWhatFailedIsOfferedAgainAndNotAcknowledged(t *testing.T) {
	s, g := serve(t, nil), newGate()
	o, out := options(s), &logs{}
	o.Log = slog.New(slog.NewTextHandler(out, nil))
	sub, _ := start(t, o, g)
	s.awaitSubscriptions(1)
	s.publish(telemetryTopic, reading(1), 1)
	first := g.next(t)
	for range 2 {
		g.answer <- errors.New("disk full")
		assert.Equal(t, first, g.next(t))
		assert.Empty(t, s.acknowledged())
		assert.EqualError(t, sub.Stats().CommitErr, "disk full")
	}
	g.answer <- nil
	s.awaitAcks(1)
	assert.NoError(t, sub.Stats().CommitErr)
	assert.Equal(t, 1, strings.Count(out.String(), "cannot store messages"), "one line for one fault")
	assert.Equal(t, 1, strings.Count(out.String(), "storing again"))
}

func TestAConnectionThatIsLostIsRetriedAtOnceAndItsMessagesComeAgain(t *testing.T) {
	s, g := serve(t, nil), newGate()
	o := options(s)
	o.Embedded = false // waits a second where it waits at all
	out := &logs{}
	o.Log = slog.New(slog.NewTextHandler(out, nil))
	start(t, o, g)
	s.awaitSubscriptions(1)
	id := s.publish(telemetryTopic, reading(1), 1)
	g.next(t)
	s.cut()
	s.awaitSubscriptions(2) // and the server sends the message again

	g.answer <- nil // for the old connection: acknowledged on neither
	again := g.next(t)
	assert.Empty(t, s.acknowledged())
	require.Len(t, again, 1)
	g.answer <- nil
	s.awaitAcks(id)
	assert.Contains(t, out.String(), `msg="Connecting to MQTT broker at 127.0.0.1:`)
	assert.Contains(t, out.String(), "MQTT connection lost")
	assert.Contains(t, out.String(), "retry_in=0s")
}

func TestSessionIsPersistentAndBounded(t *testing.T) {
	s := serve(t, nil)
	o := options(s)
	o.ReceiveMaximum = 77
	start(t, o, &open{})
	s.awaitSubscriptions(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.False(t, s.connect.CleanStart)
	assert.Equal(t, "plantops-ingest", s.connect.ClientID)
	assert.Equal(t, uint32(sessionExpirySeconds), *s.connect.Properties.SessionExpiryInterval)
	assert.Equal(t, uint16(77), *s.connect.Properties.ReceiveMaximum)
	assert.Nil(t, s.connect.Properties.RequestProblemInfo, "absent means yes")
	assert.Equal(t, "plantops_backend", s.connect.Username)
	assert.Equal(t, "secret", string(s.connect.Password))
	for i, sub := range s.request.Subscriptions {
		assert.Equal(t, o.Topics[i], sub.Topic)
		assert.Equal(t, byte(1), sub.QoS)
		assert.Equal(t, byte(2), sub.RetainHandling, "a retained message would be stored as new on every reconnection")
	}
}

func TestQoS0IsStoredToo(t *testing.T) {
	s, sink := serve(t, nil), &open{}
	sub, _ := start(t, options(s), sink)
	s.awaitSubscriptions(1)
	s.publish(telemetryTopic, reading(1), 0)
	s.publish(telemetryTopic, reading(2), 1)
	s.awaitAcks(1)
	require.Eventually(t, func() bool { return sub.Stats().Stored == 2 }, patience, time.Millisecond)
}

func TestStopStoresAndAcknowledgesWhatHasArrived(t *testing.T) {
	s, g := serve(t, nil), newGate()
	sub, stop := start(t, options(s), g)
	s.awaitSubscriptions(1)
	for n := range 5 {
		s.publish(telemetryTopic, reading(n), 1)
	}
	require.Eventually(t, func() bool { return sub.Stats().Pending == 5 }, patience, time.Millisecond)
	stopped := make(chan error)
	go func() { stopped <- stop() }()
	for stored := 0; stored < 5; {
		stored += len(g.next(t))
		g.answer <- nil
	}
	require.NoError(t, <-stopped)
	s.awaitAcks(1, 2, 3, 4, 5)
	s.await("DISCONNECT", func() bool { return s.parted })
	assert.False(t, sub.Stats().Connected)
}

func TestStopSaysWhatCouldNotBeStored(t *testing.T) {
	s, g := serve(t, nil), newGate()
	o := options(s)
	o.StallTimeout = time.Second
	sub, stop := start(t, o, g)
	s.awaitSubscriptions(1)
	s.publish(telemetryTopic, reading(1), 1)
	s.publish(telemetryTopic, reading(2), 1)
	require.Eventually(t, func() bool { return sub.Stats().Pending == 2 }, patience, time.Millisecond)
	assert.ErrorContains(t, stop(), "store the last 2 messages")
	assert.Empty(t, s.acknowledged())
}

func TestARefusedSubscriptionIsTriedAgainOnANewConnection(t *testing.T) {
	s := serve(t, nil)
	s.suback = packets.SubackNotauthorized
	o, out := options(s), &logs{}
	o.Log = slog.New(slog.NewTextHandler(out, nil))
	sub, _ := start(t, o, &open{})
	s.await("second try", func() bool { return s.clients >= 2 })
	assert.False(t, sub.Stats().Connected)
	assert.Contains(t, out.String(), "broker refused to subscribe devices/+/telemetry: not authorised (0x87)")
	s.mu.Lock()
	s.suback = packets.SubackGrantedQoS1
	s.mu.Unlock()
	select {
	case <-sub.Ready():
	case <-time.After(patience):
		require.Fail(t, "never ready")
	}
}

func TestABrokerThatBreaksTheRulesLosesTheConnection(t *testing.T) {
	s, sink := serve(t, nil), &open{}
	start(t, options(s), sink)
	s.awaitSubscriptions(1)
	s.mu.Lock()
	(&packets.Publish{Topic: telemetryTopic, QoS: 2, PacketID: 9, Properties: &packets.Properties{}}).WriteTo(s.current)
	s.mu.Unlock()
	s.awaitSubscriptions(2)
	assert.Empty(t, sink.messages)
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for field, spoil := range map[string]func(*Options){
		"Host":   func(o *Options) { o.Host = "" },
		"Port":   func(o *Options) { o.Port = 65536 },
		"Topics": func(o *Options) { o.Topics = nil },

		"ClientID":     func(o *Options) { o.ClientID = "" },
		"MaxBatch":     func(o *Options) { o.MaxBatch = 0 },
		"StallTimeout": func(o *Options) { o.StallTimeout = 0 },
	} {
		o := to("localhost", 1883, "devices/#")
		spoil(&o)
		_, err := New(o, &open{})
		assert.ErrorContains(t, err, "Options."+field)
	}
}

func TestReadingsReachTheDatabase(t *testing.T) {
	s, db := serve(t, nil), storetest.Open(t)
	sub, stop := start(t, options(s), db)
	s.awaitSubscriptions(1)
	const n = 500
	var ids []uint16
	for i := range n {
		ids = append(ids, s.publish(fmt.Sprintf("devices/bed-%d/telemetry", i%10), reading(i), 1))
	}
	ids = append(ids,
		s.publish("devices/bed-0/telemetry", reading(0), 1),            // the same again
		s.publish("devices/bed-0/telemetry", `{"temperature":nan}`, 1), // of no use
		s.publish("devices/bed-10/heartbeat", ``, 1))
	s.awaitAcks(ids...)
	require.NoError(t, stop())

	stats := sub.Stats()
	assert.Equal(t, []int64{n + 3, n + 1, 1, 1, 0}, []int64{stats.Received, stats.Stored, stats.Duplicate, stats.Quarantined, stats.Pending})
	totals, err := db.Totals(t.Context())
	require.NoError(t, err)
	assert.Equal(t, store.Counts{Stored: n + 1, Duplicate: 1, Quarantined: 1}, totals)
	rows := 0
	for r, err := range db.Readings(t.Context(), store.Query{Metrics: []string{"temperature"}}) {
		require.NoError(t, err)
		assert.Equal(t, (1767787200+int64(r.Value))*1000, r.Time)
		rows++
	}
	assert.Equal(t, n, rows)
	for q, err := range db.Quarantine(t.Context(), 10) {
		require.NoError(t, err)
		assert.Equal(t, `{"temperature":nan}`, string(q.Payload))
		assert.Contains(t, q.Reason, "not JSON")
	}
}

// Under load with the connection cut again and again, what is acknowledged is stored, and everything is in the end.
func TestNothingIsLostWhenTheConnectionKeepsBreaking(t *testing.T) {
	s, db := serve(t, nil), storetest.Open(t)
	start(t, options(s), db)
	s.awaitSubscriptions(1)
	const n = 300
	for i := range n {
		s.publish(telemetryTopic, reading(i), 1)
		if i%100 == 99 {
			s.cut()
		}
	}
	s.await("every acknowledgement", func() bool { return len(s.unacked) == 0 })
	assert.Empty(t, s.stray)
	rows := 0
	for _, err := range db.Readings(t.Context(), store.Query{Metrics: []string{"temperature"}}) {
		require.NoError(t, err)
		rows++
	}
	assert.Equal(t, n, rows)
}
