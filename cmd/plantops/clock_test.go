package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// Each fault of a clock by itself, with the whole program.

const aDay = 24 * time.Hour

// startedBox runs for an hour and has a reading.
func startedBox(t *testing.T, settings ...string) (*box, *sensor) {
	b := newBox(t, settings...)
	b.boot()
	s := b.newSensor("bed-1")
	require.NoError(t, s.connect())
	s.send()
	require.Empty(t, b.doubt())
	return b, s
}

func TestReadingsThatCameIn1970AreKeptAndDated(t *testing.T) {
	b, s := startedBox(t, "PLANTOPS_STORE_RETENTION=365d")
	b.powerCut(time.Minute)
	b.setTo(time.Unix(30, 0))
	b.boot()
	require.NoError(t, s.connect())
	s.send()
	assert.Contains(t, b.doubt(), "before")
	n, _, err := b.server.DeleteOld(t.Context(), 10*365*aDay)
	require.NoError(t, err)
	assert.Zero(t, n)
	b.pass(time.Minute)
	s.send()
	b.set(0, true)
	b.settled()
	n, _, err = b.server.DeleteOld(t.Context(), 10*365*aDay)
	require.NoError(t, err)
	assert.Zero(t, n)
	s.nothingLost(time.Time{})
}

// The server is killed between the arrival and the time server.
func TestAnotherProcessOfTheSameStartDatesWhatTheFirstCouldNot(t *testing.T) {
	b, s := startedBox(t, "PLANTOPS_STORE_RETENTION=365d")
	b.powerCut(time.Minute)
	b.setTo(time.Unix(30, 0))
	b.boot()
	require.NoError(t, s.connect())
	s.send()
	require.NoError(t, b.stop())
	b.set(0, true)
	b.starts-- // the same start of the machine
	b.boot()
	b.settled()
	s.nothingLost(time.Time{})

	marked := b.newSensor("bed-2") // and what came in another start of the machine stays marked, and stays
	b.powerCut(time.Minute)
	b.setTo(time.Unix(30, 0))
	b.boot()
	require.NoError(t, marked.connect())
	marked.send()
	b.powerCut(time.Minute)
	b.set(0, true)
	b.boot()
	require.Eventually(t, func() bool { return b.doubt() == "" }, patience, 20*time.Millisecond)
	n, _, err := b.server.DeleteOld(t.Context(), 100*365*aDay)
	require.NoError(t, err)
	assert.Zero(t, n)
	kept := b.readings(t, store.Query{Devices: []string{"bed-2"}})
	require.Len(t, kept, 2)
	assert.True(t, kept[0].ClockUnsure)
}

func TestAClockThatIsTwoYearsAheadForAWhileDeletesNothing(t *testing.T) {
	b, s := startedBox(t, "PLANTOPS_STORE_RETENTION=365d")
	require.NoError(t, s.line.Publish(t.Context(), "devices/bed-1/telemetry", []byte("garbage"), 1))
	doomed := b.newSensor("bed-2")
	require.NoError(t, doomed.connect())
	served := b.authority.ServerPEM()
	b.set(730*aDay, false)
	s.send()
	doomed.send()
	require.NoError(t, doomed.line.Close()) // it dies
	assert.Contains(t, b.doubt(), "jumped by 17520h")
	n, _, err := b.server.DeleteOld(t.Context(), 10*365*aDay)
	require.NoError(t, err)
	assert.Zero(t, n)
	_, err = b.control.ReloadCertificates(t.Context())
	require.NoError(t, err)
	assert.Equal(t, served, b.authority.ServerPEM(), "no certificate is made")
	require.Error(t, func() error { _, err := b.authority.Issue("x"); return err }())
	b.pass(8 * time.Second)
	b.set(0, false)
	b.settled()
	_, _, err = b.server.DeleteOld(t.Context(), 10*365*aDay)
	require.NoError(t, err)
	s.nothingLost(time.Time{})
	doomed.nothingLost(time.Time{})
	status, err := b.control.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(1), status.Messages.Quarantined)
	b.pass(time.Hour)
	s.send()
	status, err = b.control.Status(t.Context())
	require.NoError(t, err)
	for _, d := range status.Devices {
		assert.Equal(t, d.ID == "bed-1", d.Online, d.ID)
		assert.False(t, d.LastSeen.Time().After(b.truth()), d.ID)
	}
}

// fake-hwclock: the machine starts with the time at which it was stopped.
func TestDevicesTimesAreBelievedWhileTheClockIsDaysBehind(t *testing.T) {
	b, s := startedBox(t)
	b.powerCut(3 * aDay)
	b.set(-3*aDay, false)
	b.boot()
	require.NoError(t, s.connect())
	assert.NotEmpty(t, b.doubt())
	s.send()
	own := b.readings(t, store.Query{Devices: []string{"bed-1"}, From: b.truth().Add(-time.Hour).UnixMilli()})
	require.Len(t, own, 1, "the one with its own time, not thrown away")
	assert.Equal(t, store.FromDevice, own[0].TimeSource)
	b.set(0, true)
	b.settled()
	s.nothingLost(time.Time{})
}

func TestAClockOutsideTheLifeOfTheAuthorityIsNoReasonToStop(t *testing.T) {
	for name, off := range map[string]time.Duration{"before": -3 * aDay, "after": 11 * 365 * aDay} {
		t.Run(name, func(t *testing.T) {
			b, s := startedBox(t, "MQTT_USE_TLS=true")
			print := b.authority.Fingerprint()
			b.powerCut(time.Minute)
			b.set(off, false)
			b.boot()
			assert.NotEmpty(t, b.doubt())
			require.NoError(t, s.connect())
			s.send()
			b.set(0, true)
			b.settled()
			assert.Equal(t, print, b.authority.Fingerprint())
			s.nothingLost(time.Time{})
		})
	}
}

// A first start in 1970, with a program that does not know when it was built.
func TestNoAuthorityIsMadeIn1970(t *testing.T) {
	b := newBox(t)
	b.setTo(time.Unix(30, 0))
	r := newServer(t, b.dir, &app{now: b.now, clocks: b.read, boot: "boot-1", synchronised: func() bool { return false }}, b.settings...)
	manager := serviceManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.serve(ctx) }()
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), "waiting for time") }, patience, time.Millisecond)
	for range 2 { // or it would end the program after TimeoutStartSec
		text := make([]byte, 1024)
		n, err := manager.Read(text)
		require.NoError(t, err)
		assert.Equal(t, stillStarting, string(text[:n]))
	}
	assert.NoFileExists(t, filepath.Join(b.dir, "certs", "ca.crt"))
	b.set(0, false)
	select {
	case <-r.log.ready:
	case <-time.After(patience):
		require.Fail(t, "it does not go on", r.log.String())
	}
	from, _, _ := r.authority.Life()
	assert.WithinDuration(t, b.truth(), from, 2*time.Hour)
	cancel()
	require.NoError(t, <-ended)
}

// Somebody starts it for the first time, on a machine that was switched on a minute ago and finds no time server.
func TestTheFirstStartWaitsForNothing(t *testing.T) {
	b := newBox(t)
	b.booted = firstDay.Add(-time.Minute)
	began := time.Now()
	b.boot()
	assert.Less(t, time.Since(began), patience)
	assert.Empty(t, b.doubt())
	s := b.newSensor("bed-1")
	require.NoError(t, s.connect())
	s.send()
	s.nothingLost(time.Time{})
	b.powerCut(time.Minute) // the second start has what it needs, whatever it thinks of the clock
	b.boot()
	assert.Equal(t, "this machine has just been started, and no time server has confirmed its clock", b.doubt())
	require.NoError(t, s.connect())
	s.send()
	b.pass(10 * time.Minute)
	b.settled()
	s.nothingLost(time.Time{})
}

// What is known of the clock cannot be written down, because the disk is full for instance.
func TestAServerStartsWithoutWritingTheClockDown(t *testing.T) {
	b, s := startedBox(t)
	require.NoError(t, b.stop())
	db, err := sql.Open("sqlite", b.loaded.Config.StorePath())
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TRIGGER no BEFORE INSERT ON clock_line BEGIN SELECT raise(ABORT, 'no room'); END`)
	require.NoError(t, errors.Join(err, db.Close()))
	b.boot()
	assert.Contains(t, b.log.String(), "cannot keep what is known of the clock")
	require.NoError(t, s.connect())
	s.send()
	s.nothingLost(time.Time{})
}

// store.retention was a year and is 30 days now: what that costs is said, and goes when a person confirms it.
func TestALoweredRetentionWaitsForAPerson(t *testing.T) {
	b, s := startedBox(t)
	for range 100 {
		b.pass(aDay)
		s.send()
	}
	require.NoError(t, b.stop())
	b.settings = []string{"PLANTOPS_STORE_RETENTION=30d"}
	b.boot()
	n, _, err := b.server.DeleteOld(t.Context(), 0)
	require.NoError(t, err)
	assert.Zero(t, n)
	command := func(args ...string) (string, error) {
		var out strings.Builder
		a := *b.app
		a.stdout, a.stderr = &out, &out
		root := newRoot(&a)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	text, err := command("retention", "show")
	require.NoError(t, err)
	assert.Regexp(t, `waiting +142 messages, from 2026-11-30`, text)
	text, _ = command("status") // this machine may have problems of its own
	assert.Regexp(t, `wait\s+to\s+be\s+deleted`, text)
	_, err = command("retention", "confirm")
	require.ErrorContains(t, err, "add --yes", "no terminal")
	text, err = command("retention", "confirm", "--yes")
	require.NoError(t, err)
	assert.Contains(t, text, "142 messages")
	require.Eventually(t, func() bool { return len(b.readings(t, store.Query{Devices: []string{"bed-1"}})) == 202-142 }, patience, 20*time.Millisecond,
		"the running server does it at once")
	_, err = command("retention", "confirm", "--yes")
	require.ErrorContains(t, err, "nothing waits")
	s.nothingLost(b.truth().Add(-30 * aDay))
}

// Certificates of clients are judged by a time that is not before they were made, whatever the clock shows.
func TestClientCertificatesHoldWhileTheClockIsNotSet(t *testing.T) {
	for name, wrong := range map[string]func(b *box){
		"1970":        func(b *box) { b.setTo(time.Unix(30, 0)) },
		"years ahead": func(b *box) { b.set(30*365*aDay, false) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "MQTT_USE_TLS=true", "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true")
			b.boot()
			b.pass(100 * aDay)
			s := b.newSensor("bed-1")
			pair, err := issueInMemory(b.authority, s.id)
			require.NoError(t, err)
			s.shows = []tls.Certificate{pair}
			require.NoError(t, s.connect())
			s.send()
			b.powerCut(time.Minute)
			wrong(b)
			b.boot()
			require.NotEmpty(t, b.doubt())
			require.NoError(t, s.connect())
			s.send()
			b.set(0, true)
			b.settled()
			require.NoError(t, s.connect())
			s.send()
			s.nothingLost(time.Time{})
		})
	}
}
