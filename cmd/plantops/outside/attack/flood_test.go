//go:build linux

package attack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// flood is what strangers do to a server while a known device works.
type flood struct {
	*siege.Siege
	silent, oversize, halves int
	worker                   *door.Intruder
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
	in, g := siege.Prepare(t, "PLANTOPS_LIMITS_CONNECT_TIMEOUT="+timeout)
	log := filepath.Join(t.TempDir(), "log")
	in.StartLogged(log)
	g.Meet()
	f.Siege, f.worker = g, g.Enter(g.Doors[0], g.As("bed-3"))
	descriptors, before := in.Descriptors(), in.Memory("VmRSS")
	for i, bound := range []int64{64 * siege.Mebibyte, 80 * siege.Mebibyte} { // the second flood begins with the garbage of the first
		f.run()
		require.Eventually(t, func() bool { return in.Descriptors() <= descriptors }, setting.Patience, 10*time.Millisecond, "descriptors are left")
		f.allPlacesAreFree(i)
		require.Eventually(t, func() bool { return in.Descriptors() <= descriptors }, setting.Patience, 10*time.Millisecond, "descriptors are left")
		highest := in.Memory("VmHWM") - before
		assert.Less(t, highest, bound)
		t.Logf("memory grew by %.1f MiB at its highest, by %.1f MiB after flood %d",
			float64(highest)/siege.Mebibyte, float64(in.Memory("VmRSS")-before)/siege.Mebibyte, i+1)
	}
	slices.Sort(f.took)
	half, p99 := f.took[len(f.took)/2], f.took[len(f.took)*99/100]
	t.Logf("%d acknowledgements, half within %s, p99 %s, slowest %s",
		len(f.took), half.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), f.took[len(f.took)-1].Round(10*time.Microsecond))
	assert.Less(t, half, time.Second, "acknowledgements of the known device")
	if long { // on a machine that does nothing else
		assert.Less(t, p99, 250*time.Millisecond, "acknowledgements of the known device")
	}
	f.worker.Close()
	require.Eventually(t, func() bool { return in.Descriptors() < descriptors }, setting.Patience, 10*time.Millisecond)
	in.NoGoroutinesLeft(log)
}

// work is one reading of the known device.
func (f *flood) work() {
	f.T.Helper()
	began := time.Now()
	require.NoError(f.T, f.worker.SetDeadline(began.Add(setting.Patience)))
	code, err := f.worker.Publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, began.UnixMilli()))
	require.NoError(f.T, err)
	require.Less(f.T, code, byte(rawmqtt.FirstFailure))
	f.took = append(f.took, time.Since(began))
}

// run is one flood, until the strangers have gone.
func (f *flood) run() {
	f.T.Helper()
	large := make([]byte, 200_000)
	var crowd []*door.Intruder
	open := func(i int, address string, said []byte) {
		a, err := (door.Door{Kind: "tcp", Address: address}).Open(f.T, fmt.Sprintf("127.0.0.%d", 2+i%8))
		if err != nil {
			return // refused: there are too many
		}
		a.SendRaw(said)
		crowd = append(crowd, a)
	}
	for i := range f.silent {
		open(i, f.Doors[i%3].Address, nil)
		if i%10 == 0 {
			f.work()
		}
	}
	for i := range f.oversize {
		open(i, f.Doors[0].Address, append([]byte{1 << 4, 0xc0, 0x9a, 0x0c}, large...))
		f.work()
	}
	for i := range f.halves {
		open(i, f.Doors[1].Address, []byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3})
		f.work()
	}
	began := time.Now()
	f.asDevice() // logins of a device while all of them are there
	f.T.Logf("%d silent, %d oversize, %d halves; three logins in %s", f.silent, f.oversize, f.halves, time.Since(began).Round(time.Millisecond))
	for _, a := range crowd {
		a.Close()
	}
	f.asDevice()
}

// asDevice logs a device in through every door, and stores a reading.
func (f *flood) asDevice() {
	f.T.Helper()
	for _, d := range f.Doors {
		l := f.As("bed-3")
		l.ClientID = "bed-3-again"
		a := f.Enter(d, l)
		code, err := a.Publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, time.Now().UnixMilli()))
		require.NoError(f.T, err)
		require.Less(f.T, code, byte(rawmqtt.FirstFailure))
		a.Close()
	}
}

// allPlacesAreFree makes sure that strangers have all places again: with nearly all of them taken from addresses that
// are new, a device logs in at once from another one. The addresses of the flood have a worse standing, but no queue.
func (f *flood) allPlacesAreFree(round int) {
	f.T.Helper()
	const addresses, each = 5, 88 // of the 450 places for strangers, 100 for each address
	var crowd []*door.Intruder
	for i := range addresses * each {
		a, err := (door.Door{Kind: "tcp", Address: f.Doors[0].Address}).Open(f.T, fmt.Sprintf("127.0.%d.%d", 1+round, 1+i%addresses))
		require.NoError(f.T, err)
		crowd = append(crowd, a)
	}
	logIn := func(froms ...string) { // the quickest counts: a busy machine holds up anything now and then
		least := setting.Patience
		for _, from := range froms {
			began := time.Now()
			a, code, err := f.Doors[0].EnterFrom(f.T, from, f.As("bed-2"))
			require.NoError(f.T, err)
			require.Zero(f.T, code)
			a.Close()
			if least = min(least, time.Since(began)); least < 2*time.Second {
				return
			}
		}
		assert.Less(f.T, least, 2*time.Second, "devices at %v wait for a place that nobody has", froms)
	}
	fresh := func(first int) (all []string) {
		for i := range 3 {
			all = append(all, fmt.Sprintf("127.0.%d.%d", 1+round, first+i))
		}
		return all
	}
	logIn(fresh(1 + addresses)...)
	for _, a := range crowd {
		a.Close()
	}
	logIn("127.0.0.9", "127.0.0.8", "127.0.0.7") // of the flood
}
