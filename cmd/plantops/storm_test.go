//go:build linux

package main_test

import (
	"bufio"
	"context"
	"encoding/binary"
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
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// TestPromiseInAStorm lets everything happen at once that can come between a message and its acknowledgement, in random
// order: connections of devices and of ingest are lost and taken over, ingest is started anew or loses its session,
// accounts are removed, storage is slow, stalls and fails, subscribers do not read or do not acknowledge, wills and
// retained messages go where readings go. At every moment what is acknowledged must be stored; in the end everything
// must be stored, accounted for and let go. PLANTOPS_STORM makes it longer.
func TestPromiseInAStorm(t *testing.T) {
	length := durationSetting(t, "PLANTOPS_STORM", 1200*time.Millisecond)
	random := seeded(t)
	before := runtime.NumGoroutine()

	s := newStorm(t, 12)
	s.fleet.start()
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

	s.fleet.drain(2*length + patience) // there are readings of all that time
	s.check()
	require.NoError(t, s.broker.Drain(t.Context()))
	assert.Equal(t, []int64{0, 0}, []int64{s.broker.Stats().Ingest.Pending, s.stats().Pending})
	s.stopIngest()
	s.verify()
	for name := range s.secrets {
		s.broker.Disconnect(name, "end of the test")
	}
	require.Eventually(t, func() bool { return s.broker.Stats().Connected == 0 }, patience, time.Millisecond)
	require.NoError(t, s.broker.Close())
	s.proxy.close()
	require.NoError(t, s.db.Close())
	awaitGoroutines(t, before)
}

// awaitGoroutines waits until no more goroutines are there than before.
func awaitGoroutines(t *testing.T, before int) {
	t.Helper()
	for began := time.Now(); runtime.NumGoroutine() > before; <-time.After(time.Millisecond) {
		if time.Since(began) > patience {
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
	fleet   *fleet
	secrets map[string]string

	said       tail // by ingest
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

	s.fleet = &fleet{t: t, epoch: time.Now().Add(-time.Hour).Truncate(time.Second)}
	for i := range devices {
		id := deviceID(i)
		s.secrets[id] = brokertest.Password(id)
		s.broker.Accounts.Set(brokertest.Device(id))
		s.fleet.devices = append(s.fleet.devices, &device{id: id, secret: s.secrets[id], version: 4 + byte(i%2), qos: 1 + byte(i/2%2),
			rate: 100, address: s.broker.Addrs().TCP.String(), epoch: s.fleet.epoch, expected: stormReasons})
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
	anyDevice := func(r *rand.Rand) *device { return s.fleet.devices[r.IntN(len(s.fleet.devices))] }
	sinkMood := func(m mood) func(*rand.Rand) { return func(*rand.Rand) { s.sink.mood.Store(int32(m)) } }
	takeOver := func(r *rand.Rand) {
		d := anyDevice(r)
		s.visit(encodeConnect(d.version, d.id, d.secret), nil)
	}
	return []func(*rand.Rand){
		func(*rand.Rand) { s.proxy.cut() },
		func(*rand.Rand) { s.proxy.cut() },
		func(r *rand.Rand) { s.proxy.freeze(time.Duration(r.Int64N(int64(2 * stormStall)))) },
		func(*rand.Rand) { // the session of ingest ends
			s.visit(encodeLogin(true, s.broker.Backend.ClientID, s.broker.Backend.Username, s.broker.Backend.Password, "", nil), nil)
		},
		func(*rand.Rand) { // somebody else has its session for a moment, and does not acknowledge
			s.visit(encodeLogin(false, s.broker.Backend.ClientID, s.broker.Backend.Username, s.broker.Backend.Password, "", nil), nil)
		},
		func(*rand.Rand) {
			s.stopIngest()
			s.startIngest()
		},
		takeOver, takeOver, takeOver,
		func(r *rand.Rand) { s.broker.Disconnect(anyDevice(r).id, "rules changed") },
		func(r *rand.Rand) { // removed, and there again
			id := anyDevice(r).id
			s.broker.Accounts.Remove(id)
			s.broker.Disconnect(id, "removed")
			s.broker.Accounts.Set(brokertest.Device(id))
		},
		func(r *rand.Rand) { // a will that must be stored, and retained messages among the readings
			d := anyDevice(r)
			topic := "devices/" + d.id + "/telemetry"
			retained := encode(publish<<4|1, append(appendString(nil, topic), `{"battery":1}`...))
			s.visit(encodeLogin(true, d.id+"-will", d.id, d.secret, topic, []byte(`{"battery":2}`)), retained)
		},
		sinkMood(quick), sinkMood(quick), sinkMood(slow), sinkMood(stalled), sinkMood(failing),
	}
}

// visit makes a connection, says something, and is gone without a word.
func (s *storm) visit(login, then []byte) {
	conn, err := net.Dial("tcp", s.broker.Addrs().TCP.String())
	require.NoError(s.t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(login)
	if p, err := readPacket(bufio.NewReader(conn)); err == nil && p.reason == 0 {
		_, _ = conn.Write(then)
	}
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
	_, _ = conn.Write(encodeLogin(r.IntN(2) == 0, id, s.broker.Backend.Username, s.broker.Backend.Password, "", nil))
	_, _ = conn.Write(encode(subscribe<<4|2, append(appendString([]byte{0, 1}, filter), byte(r.IntN(3)))))
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
		qos, id, err := readDelivery(in)
		if err != nil {
			return
		}
		if acknowledges && qos > 0 {
			_, _ = conn.Write(encode(map[byte]byte{1: puback, 2: pubrec}[qos]<<4, id))
			if qos == 2 {
				_, _ = conn.Write(encode(pubcomp<<4, id))
			}
		}
	}
}

// readDelivery reads one packet and returns QoS and packet id if it is a PUBLISH.
func readDelivery(in *bufio.Reader) (qos byte, id []byte, err error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	length, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, length)
	if _, err = io.ReadFull(in, body); err != nil || first>>4 != publish || first&6 == 0 {
		return 0, nil, err
	}
	topicEnds := 2 + binary.BigEndian.Uint16(body)
	return first >> 1 & 3, body[topicEnds : topicEnds+2], nil
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
	sum := s.fleet.snapshot()
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for _, d := range sum.each {
		for number := 1; number <= d.sent; number++ {
			if d.received[number] && !s.sink.stored[d.device.id][d.device.time(number)] {
				require.Fail(s.t, "acknowledged and not stored", "%s, version %d, QoS %d, reading %d", d.device.id, d.device.version, d.device.qos, number)
			}
		}
	}
}

// verify is called when nothing moves any more.
func (s *storm) verify() {
	sum := s.fleet.snapshot()
	assert.Equal(s.t, sum.sent, sum.acknowledged)
	assert.Empty(s.t, sum.faults)
	found := s.fleet.nothingStored()
	for r, err := range s.db.Readings(s.t.Context(), store.Query{}) {
		require.NoError(s.t, err)
		if r.Metric == metricName {
			found.add(r.Device, r.Metric, r.Time, r.Value)
		}
	}
	sum.verify(s.t, "package store", found)
	assert.Equal(s.t, sum.sent, found.rows)

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
	outcomes, err := m.Store.Append(ctx, batch, outcomes)
	if err != nil {
		return outcomes, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch {
		if m.stored[batch[i].Device] == nil {
			m.stored[batch[i].Device] = map[int64]bool{}
		}
		m.stored[batch[i].Device][batch[i].Time] = true
	}
	return outcomes, nil
}

// encodeLogin is encodeConnect in MQTT 3.1.1, with everything to choose.
func encodeLogin(clean bool, id, user, secret, willTopic string, will []byte) []byte {
	flags := byte(0xC0)
	if clean {
		flags |= 2
	}
	if willTopic != "" {
		flags |= 4 | 1<<3
	}
	body := appendString(append(appendString(nil, "MQTT"), 4, flags, 0, 60), id)
	if willTopic != "" {
		body = appendString(appendString(body, willTopic), string(will))
	}
	return encode(1<<4, appendString(appendString(body, user), secret))
}

// proxy stands between ingest and the broker.
type proxy struct {
	listener net.Listener
	to       string
	working  sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	thawed chan struct{} // closed unless frozen
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, to: to, thawed: make(chan struct{})}
	close(p.thawed)
	p.working.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) close() {
	p.listener.Close()
	p.cut()
	p.working.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			near.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, near, far)
		p.mu.Unlock()
		p.working.Go(func() { p.copy(far, near) })
		p.working.Go(func() { p.copy(near, far) })
	}
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		thawed := p.thawed
		p.mu.Unlock()
		<-thawed
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	p.conns = nil
}

// freeze holds up everything for a while.
func (p *proxy) freeze(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		return
	}
	thawed := make(chan struct{})
	p.thawed = thawed
	time.AfterFunc(d, func() { close(thawed) })
}
