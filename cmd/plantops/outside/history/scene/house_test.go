//go:build linux

package scene_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/history/scene"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

const mebibyte = 1 << 20

const (
	houseDevices    = 50
	readingsAnHour  = 60  // of each device: one a minute
	readingsASecond = 300 // of all together, at most: an hour of the short form has less than a second
	// A reading takes so much in the file, with its share of the indexes and of pages that are not full.
	readingBytes = 48
)

// TestHouseForADay lets a house live for 24 hours of PLANTOPS_HOUSE_HOUR each: fifty devices, which send readings too, and who
// uses them; everybody loses the connection and is back at once, certificates are renewed, accounts come and go, the server reads
// its configuration anew. Nothing may be lost, each acknowledged reading is stored once, and from the eighth hour on nothing may
// grow but the file, by the readings.
func TestHouseForADay(t *testing.T) {
	hour := setting.Duration(t, "PLANTOPS_HOUSE_HOUR", 300*time.Millisecond)
	in, account := house(t)
	in.Run("device", "remove", "bed-1")
	in.Stop() // the first start makes keys, and has their memory for long
	devices := fleet.New(in, houseDevices, min(houseDevices*readingsAnHour/hour.Seconds(), readingsASecond), in.Register)
	for _, d := range devices.Devices {
		d.QoS = 1
	}
	devices.OverTLS(in, 3)
	log := filepath.Join(t.TempDir(), "log")
	in.StartLogged(log)
	alone, database := in.Descriptors(), in.DatabaseDescriptors()
	random := setting.Random(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: random, Rate: 250, Rules: strict, Cast: scene.House})
	s.Start(t.Context())
	devices.Start()
	var early figures
	for h := range 24 {
		program.Pause(in, hour)
		happens(t, in, s, devices, h)
		f := figuresOf(t, in, devices)
		if h <= 8 {
			early = early.most(f)
		}
		t.Logf("hour %d: %s", h+1, f)
	}
	late := figuresOf(t, in, devices)
	devices.Drain(setting.Patience)
	conclude(t, s)
	assert.LessOrEqual(t, late.memory, early.memory+early.memory/4+8*mebibyte, "memory")
	explained := int64(late.readings-early.readings) * readingBytes
	assert.LessOrEqual(t, late.files, early.files+explained+8*mebibyte, "files, of which %d bytes are readings", explained)
	fleet.VerifyDrained(in, devices)
	require.Eventually(t, func() bool { return in.Descriptors() <= alone }, setting.Patience, 20*time.Millisecond,
		"%d descriptors without clients, %d in the end", alone, in.Descriptors())
	// Connections that read the database are made when they are wanted: the store keeps four for questions and four for views, with a
	// file, its log and its index each.
	const readers = (4 + 4) * 3
	assert.LessOrEqual(t, in.DatabaseDescriptors(), database+readers, "descriptors of the database")
	in.NoGoroutinesLeft(log)
}

// happens is what is special at an hour.
func happens(t *testing.T, in *program.Installation, s *scene.Scene, devices *fleet.Fleet, hour int) {
	t.Helper()
	switch hour % 4 {
	case 0:
		s.Storm()
		devices.Storm()
	case 1:
		in.Run("certs", "renew")
	case 2:
		id := fmt.Sprint("guest-", hour)
		in.Add(id)
		in.Run("device", "remove", id)
	case 3:
		require.NoError(t, in.Server.Signal(syscall.SIGHUP))
	}
}

// figures are what must not grow, but for the files by the readings.
type figures struct {
	memory, files int64
	descriptors   int
	readings      int // acknowledged
}

func figuresOf(t *testing.T, in *program.Installation, devices *fleet.Fleet) (f figures) {
	t.Helper()
	f.readings, f.descriptors = devices.Snapshot().Acknowledged, in.Descriptors()
	f.memory = in.Memory("VmRSS")
	paths, err := filepath.Glob(filepath.Join(in.Dir, "*"))
	require.NoError(t, err)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // one may have gone meanwhile
			f.files += info.Size()
		}
	}
	return f
}

func (f figures) most(other figures) figures {
	return figures{max(f.memory, other.memory), max(f.files, other.files), max(f.descriptors, other.descriptors), max(f.readings, other.readings)}
}

func (f figures) String() string {
	return fmt.Sprintf("%.1f MiB of memory, %.1f MiB of files, %d descriptors, %d readings",
		float64(f.memory)/mebibyte, float64(f.files)/mebibyte, f.descriptors, f.readings)
}
