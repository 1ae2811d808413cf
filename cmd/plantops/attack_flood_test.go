//go:build linux

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flood is what strangers do to a server while a known device works.
type flood struct {
	*siege
	silent, oversize, halves int
	worker                   *intruder
	took                     []time.Duration // acknowledgements of the worker
}

// TestV03FloodOfStrangersLeavesRoomForDevices opens silent sockets, oversize first packets and halves of TLS handshakes
// from several addresses while a known device works, twice: nothing of the first flood may be left at the second one.
// PLANTOPS_FLOOD=1 is the long form.
func TestV03FloodOfStrangersLeavesRoomForDevices(t *testing.T) {
	f, timeout := &flood{silent: 300, oversize: 20, halves: 50}, "10s"
	long := os.Getenv("PLANTOPS_FLOOD") != ""
	if long {
		f, timeout = &flood{silent: 10_000, oversize: 100, halves: 1000}, "30s"
	}
	in, g := prepare(t, "PLANTOPS_LIMITS_CONNECT_TIMEOUT="+timeout)
	log := filepath.Join(t.TempDir(), "log")
	in.startLogged(log)
	g.meet()
	f.siege, f.worker = g, g.enter(g.doors[0], g.as("bed-3"))
	descriptors, before := in.descriptors(), in.memory("VmRSS")
	for i, bound := range []int64{64 * mebibyte, 80 * mebibyte} { // the second flood begins with the garbage of the first

		f.run()
		require.Eventually(t, func() bool { return in.descriptors() <= descriptors }, patience, 10*time.Millisecond, "descriptors are left")
		f.allPlacesAreFree(i)
		require.Eventually(t, func() bool { return in.descriptors() <= descriptors }, patience, 10*time.Millisecond, "descriptors are left")
		highest := in.memory("VmHWM") - before
		assert.Less(t, highest, bound)
		t.Logf("memory grew by %.1f MiB at its highest, by %.1f MiB after flood %d",
			float64(highest)/mebibyte, float64(in.memory("VmRSS")-before)/mebibyte, i+1)
	}
	slices.Sort(f.took)
	p99 := f.took[len(f.took)*99/100]
	t.Logf("%d acknowledgements, p99 %s, slowest %s", len(f.took), p99.Round(10*time.Microsecond), f.took[len(f.took)-1].Round(10*time.Microsecond))
	if long {
		assert.Less(t, p99, 250*time.Millisecond)
	}
	f.worker.Close()
	require.Eventually(t, func() bool { return in.descriptors() < descriptors }, patience, 10*time.Millisecond)
	in.noGoroutinesLeft(log)
}

// work is one reading of the known device.
func (f *flood) work() {
	f.t.Helper()
	began := time.Now()
	require.NoError(f.t, f.worker.SetDeadline(began.Add(patience)))
	code, err := f.worker.publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, began.UnixMilli()))
	require.NoError(f.t, err)
	require.Less(f.t, code, byte(firstFailure))
	f.took = append(f.took, time.Since(began))
}

// run is one flood, until the strangers have gone.
func (f *flood) run() {
	f.t.Helper()
	large := make([]byte, 200_000)
	var crowd []*intruder
	open := func(i int, address string, said []byte) {
		a, err := (door{kind: "tcp", address: address}).open(f.t, fmt.Sprintf("127.0.0.%d", 2+i%8))
		if err != nil {
			return // refused: there are too many
		}
		a.write(said)
		crowd = append(crowd, a)
	}
	for i := range f.silent {
		open(i, f.doors[i%3].address, nil)
		if i%10 == 0 {
			f.work()
		}
	}
	for i := range f.oversize {
		open(i, f.doors[0].address, append([]byte{1 << 4, 0xc0, 0x9a, 0x0c}, large...))
		f.work()
	}
	for i := range f.halves {
		open(i, f.doors[1].address, []byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3})
		f.work()
	}
	began := time.Now()
	f.asDevice() // logins of a device while all of them are there
	f.t.Logf("%d silent, %d oversize, %d halves; three logins in %s", f.silent, f.oversize, f.halves, time.Since(began).Round(time.Millisecond))
	for _, a := range crowd {
		a.Close()
	}
	f.asDevice()
}

// asDevice logs a device in through every door, and stores a reading.
func (f *flood) asDevice() {
	f.t.Helper()
	for _, d := range f.doors {
		l := f.as("bed-3")
		l.client = "bed-3-again"
		a := f.enter(d, l)
		code, err := a.publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, time.Now().UnixMilli()))
		require.NoError(f.t, err)
		require.Less(f.t, code, byte(firstFailure))
		a.Close()
	}
}

// allPlacesAreFree makes sure that strangers have all places again: with nearly all of them taken from addresses that
// are new, a device logs in at once from another one. The addresses of the flood have a worse standing, but no queue.
func (f *flood) allPlacesAreFree(round int) {
	f.t.Helper()
	const addresses, each = 5, 88 // of the 450 places for strangers, 100 for each address
	var crowd []*intruder
	for i := range addresses * each {
		a, err := (door{kind: "tcp", address: f.doors[0].address}).open(f.t, fmt.Sprintf("127.0.%d.%d", 1+round, 1+i%addresses))
		require.NoError(f.t, err)
		crowd = append(crowd, a)
	}
	logIn := func(from string) {
		began := time.Now()
		a, code, err := f.doors[0].enterFrom(f.t, from, f.as("bed-2"))
		require.NoError(f.t, err)
		require.Zero(f.t, code)
		assert.Less(f.t, time.Since(began), 2*time.Second, "a device at %s waits for a place that nobody has", from)
		a.Close()
	}
	logIn(fmt.Sprintf("127.0.%d.%d", 1+round, 1+addresses))
	for _, a := range crowd {
		a.Close()
	}
	logIn("127.0.0.9")
}
