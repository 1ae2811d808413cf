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

	"github.com/plantops/plantops/cmd/plantops/outside/history/scene"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

const mebibyte = 1 << 20

// TestHouseForADay lets a house live for 24 hours of PLANTOPS_HOUSE_HOUR each: fifty devices and who uses them; everybody loses
// the connection and is back at once, certificates are renewed, accounts come and go, the server reads its configuration anew.
// Nothing may be lost, and from the eighth hour on nothing may grow.
func TestHouseForADay(t *testing.T) {
	hour := setting.Duration(t, "PLANTOPS_HOUSE_HOUR", 300*time.Millisecond)
	in, account := house(t)
	in.Stop() // the first start makes keys, and has their memory for long
	log := filepath.Join(t.TempDir(), "log")
	in.StartLogged(log)
	alone := in.Descriptors()
	random := setting.Random(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: random, Rate: 250, Rules: strict, Cast: scene.House})
	s.Start(t.Context())
	var early figures
	for h := range 24 {
		program.Pause(in, hour)
		happens(t, in, s, h)
		f := figuresOf(t, in)
		if h <= 8 {
			early = early.most(f)
		}
		t.Logf("hour %d: %s", h+1, f)
	}
	late := figuresOf(t, in)
	conclude(t, s)
	assert.LessOrEqual(t, late.memory, early.memory+early.memory/4+8*mebibyte, "memory")
	assert.LessOrEqual(t, late.files, early.files+early.files/4+8*mebibyte, "files")
	require.Eventually(t, func() bool { return in.Descriptors() <= alone }, setting.Patience, 20*time.Millisecond,
		"%d descriptors without clients, %d in the end", alone, in.Descriptors())
	in.NoGoroutinesLeft(log)
}

// happens is what is special at an hour.
func happens(t *testing.T, in *program.Installation, s *scene.Scene, hour int) {
	t.Helper()
	switch hour % 4 {
	case 0:
		s.Storm()
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

// figures are what must not grow.
type figures struct {
	memory, files int64
}

func figuresOf(t *testing.T, in *program.Installation) (f figures) {
	t.Helper()
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
	return figures{max(f.memory, other.memory), max(f.files, other.files)}
}

func (f figures) String() string {
	return fmt.Sprintf("%.1f MiB of memory, %.1f MiB of files", float64(f.memory)/mebibyte, float64(f.files)/mebibyte)
}
