//go:build linux

package esp32_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const plantops = "github.com/plantops/plantops/cmd/plantops"

// rigClock is added to the program: its clock is the system's plus what stands in a file, in milliseconds.
const rigClock = `package main

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var rigOffset = sync.OnceValue(func() *atomic.Int64 {
	file, err := os.OpenFile(os.Getenv("RIG_CLOCK"), os.O_RDONLY, 0)
	if err != nil {
		return &atomic.Int64{} // a command beside the server
	}
	defer file.Close()
	page, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*atomic.Int64)(unsafe.Pointer(&page[0]))
})

func rigLead() time.Duration { return time.Duration(rigOffset().Load()) * time.Millisecond }

func rigNow() time.Time { return time.Now().Add(rigLead()) }

// rigElapsed leaps with it, so that no jump is seen.
func rigElapsed() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano()) + rigLead()
}
`

// buildRig builds the program as it is but for its clock, and returns its path.
func buildRig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", plantops).Output()
	require.NoError(t, err)
	source := strings.TrimSpace(string(out))
	replace := map[string]string{filepath.Join(source, "rigclock.go"): write(t, dir, "rigclock.go", rigClock)}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	require.NoError(t, err)
	set := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		changed := bytes.ReplaceAll(text, []byte("clock.Elapsed"), []byte("rigElapsed"))
		if filepath.Base(path) == "main.go" {
			set = bytes.Count(changed, []byte("time.Now,"))
			changed = bytes.ReplaceAll(changed, []byte("time.Now,"), []byte("rigNow,"))
		}
		if !strings.HasSuffix(path, "_test.go") && !bytes.Equal(changed, text) {
			replace[path] = write(t, dir, filepath.Base(path), string(changed))
		}
	}
	require.Equal(t, 1, set, "the one place in main.go where the clock comes from")
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	program := filepath.Join(dir, "plantops")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.buildDate=2026-06-01T00:00:00Z",
		"-overlay", write(t, dir, "overlay.json", string(overlay)), "-o", program, plantops)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	require.NoError(t, err, "%s", said)
	return program
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// sharedClock is the file that devices and server read.
type sharedClock struct {
	t    *testing.T
	path string
}

func newSharedClock(t *testing.T) sharedClock {
	return sharedClock{t, write(t, t.TempDir(), "clock", string(make([]byte, 8)))}
}

func (c sharedClock) now() time.Time {
	c.t.Helper()
	raw, err := os.ReadFile(c.path)
	require.NoError(c.t, err)
	return time.Now().Add(time.Duration(binary.NativeEndian.Uint64(raw)) * time.Millisecond)
}
