package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the box stands where clocks are put forward and back

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// box is a machine without a battery clock: the whole program runs on it, and the test makes time pass, moves its clock and
// pulls the plug.
type box struct {
	*running
	t        *testing.T
	dir      string
	settings []string

	mu     sync.Mutex
	base   time.Time // the true time when the test began, at real
	real   time.Time
	passed time.Duration // that the test let pass, beside what really passes
	off    time.Duration // how far the clock of the box is from the truth
	booted time.Time     // the true time
	synced bool          // the kernel says that a time server has set it
	starts int
	place  *time.Location
}

var firstDay = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func newBox(t *testing.T, settings ...string) *box {
	dir, err := os.MkdirTemp("", "plantops")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	place, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	return &box{t: t, dir: dir, settings: settings, base: firstDay, real: time.Now(), booted: firstDay.Add(-time.Hour), place: place}
}

// read is what the program's clocks show, both at the same moment.
func (b *box) read() (wall time.Time, elapsed time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	truth := b.base.Add(b.passed + time.Since(b.real))
	return truth.Add(b.off).In(b.place), truth.Sub(b.booted)
}

func (b *box) now() time.Time {
	wall, _ := b.read()
	return wall
}

func (b *box) truth() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.base.Add(b.passed + time.Since(b.real))
}

// pass lets time pass.
func (b *box) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.passed += d
}

// set puts the clock of the box off by so much, with or without a time server.
func (b *box) set(off time.Duration, synced bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.off, b.synced = off, synced
}

// setTo makes the clock show a time.
func (b *box) setTo(shown time.Time) {
	truth := b.truth()
	b.set(shown.Sub(truth), false)
}

// boot starts the program after the machine was started.
func (b *box) boot() {
	b.t.Helper()
	b.starts++
	a := &app{now: b.now, clocks: b.read, boot: fmt.Sprint("boot-", b.starts), build: build{Date: firstDay.Add(-30 * 24 * time.Hour)},
		synchronised: func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.synced
		}}
	b.running = newServer(b.t, b.dir, a, b.settings...)
	b.running.start(b.t)
}

// off for so long, and on again at once when the plug is back; the clock then shows what it shows.
func (b *box) powerCut(d time.Duration) {
	b.t.Helper()
	require.NoError(b.t, b.stop())
	b.pass(d)
	b.mu.Lock()
	b.booted, b.synced = b.base.Add(b.passed+time.Since(b.real)), false
	b.mu.Unlock()
}

// doubt is what the running server says about its clock.
func (b *box) doubt() string {
	b.t.Helper()
	s, err := b.control.Status(context.Background())
	require.NoError(b.t, err)
	return s.ClockDoubt
}

// settled waits until the clock is believed and nothing is marked any more.
func (b *box) settled() {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.doubt() == "" }, patience, 20*time.Millisecond, "the clock is believed")
	require.Eventually(b.t, func() bool {
		for _, r := range b.readings(b.t, store.Query{}) {
			if r.ClockUnsure {
				return false
			}
		}
		return true
	}, patience, 50*time.Millisecond, "nothing is marked any more")
}

// sensor is a device: a real MQTT client that trusts what it was given.
type sensor struct {
	box        *box
	id, secret string
	roots      *x509.CertPool
	shows      []tls.Certificate // to the server
	line       *ingest.Publisher
	sent       map[float64]span // value: from when it was measured until it was acknowledged
}

// span is within what a reading was sent: on a busy machine that takes a while.
type span struct{ from, to time.Time }

func (b *box) newSensor(id string) *sensor {
	b.t.Helper()
	s := &sensor{box: b, id: id, secret: b.addDevice(b.t, id), sent: map[float64]span{}}
	s.takeRoots()
	return s
}

// takeRoots is what its owner does with the CA certificates that are printed.
func (s *sensor) takeRoots() {
	reach, err := s.box.control.Contact(context.Background())
	require.NoError(s.box.t, err)
	s.roots = x509.NewCertPool()
	require.True(s.box.t, s.roots.AppendCertsFromPEM([]byte(reach.CA)))
}

// connect connects anew over TLS, by the device's own clock, which is right.
func (s *sensor) connect() error {
	reach, err := s.box.control.Contact(context.Background())
	require.NoError(s.box.t, err)
	return s.dial(reach.TLS, &tls.Config{RootCAs: s.roots, Certificates: s.shows, ServerName: "localhost", Time: s.box.truth})
}

// connectPlain is for who has no clock that could judge a certificate.
func (s *sensor) connectPlain() {
	reach, err := s.box.control.Contact(context.Background())
	require.NoError(s.box.t, err)
	require.NoError(s.box.t, s.dial(reach.TCP, nil))
}

func (s *sensor) dial(address string, conf *tls.Config) error {
	if s.line != nil {
		_ = s.line.Close()
		s.line = nil
	}
	_, port, err := net.SplitHostPort(address)
	require.NoError(s.box.t, err)
	line, err := ingest.Connect(context.Background(), ingest.PublisherOptions{Address: net.JoinHostPort("127.0.0.1", port), TLS: conf,
		Username: s.id, Password: s.secret})
	s.line = line
	return err
}

// send sends two readings and has them acknowledged: one with the device's own time, one without.
func (s *sensor) send() {
	s.box.t.Helper()
	for _, own := range []bool{true, false} {
		at := s.box.truth()
		value := float64(len(s.sent))
		text := fmt.Sprintf(`{"v":%v}`, value)
		if own {
			text = fmt.Sprintf(`{"v":%v,"timestamp":%q}`, value, at.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		require.NoError(s.box.t, s.line.Publish(context.Background(), "devices/"+s.id+"/telemetry", []byte(text), 1))
		s.sent[value] = span{at, s.box.truth()}
	}
}

// nothingLost compares what was acknowledged with what is stored, from a time on: each reading once, at the time when it was
// measured.
func (s *sensor) nothingLost(since time.Time) {
	s.box.t.Helper()
	found := map[float64]time.Time{}
	for _, r := range s.box.readings(s.box.t, store.Query{Devices: []string{s.id}}) {
		require.NotContains(s.box.t, found, r.Value, "stored twice")
		require.False(s.box.t, r.ClockUnsure, "reading %v", r.Value)
		found[r.Value] = time.UnixMilli(r.Time)
	}
	for value, at := range s.sent {
		stored, there := found[value]
		if !there {
			require.True(s.box.t, at.from.Before(since), "reading %v of %s is lost", value, at.from)
			continue
		}
		const off = 3 * time.Second
		require.WithinRange(s.box.t, stored, at.from.Add(-off), at.to.Add(off), "reading %v", value)
	}
	require.LessOrEqual(s.box.t, len(found), len(s.sent))
}
