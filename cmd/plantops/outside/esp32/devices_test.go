//go:build linux

package esp32_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

const library = "../../../../deploy/esp32"

// built is where the library's tests are compiled to, once for all tests here, and not in the checkout.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "plantops-esp32-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(built)
		return m.Run()
	}())
}

// makeLibrary runs make in the library's folder of tests.
func makeLibrary(t *testing.T, target string) {
	t.Helper()
	for _, tool := range []string{"g++", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: the library for the ESP32 is not tested, %s is missing (Debian: apt install g++ make)", tool)
		}
	}
	out, err := exec.Command("make", "-s", "-j2", "-C", filepath.Join(library, "test"), "OUT="+built, target).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

func TestLibraryCore(t *testing.T) { makeLibrary(t, "unit") }

func TestLibraryCompilesAgainstStubsOfTheArduinoCore(t *testing.T) { makeLibrary(t, "shell") }

// TestDevicesAndServerLoseNothing is what the library promises.
func TestDevicesAndServerLoseNothing(t *testing.T) {
	f := &field{
		T:     t,
		hours: setting.Int(t, "PLANTOPS_ESP32_HOURS", 4),
		kills: setting.Int(t, "PLANTOPS_ESP32_KILLS", 4),
		cuts:  setting.Int(t, "PLANTOPS_ESP32_CUTS", 40),
		stall: setting.Int(t, "PLANTOPS_ESP32_STALLS", 1),
		dice:  setting.Random(t),
		clock: newSharedClock(t),
	}
	makeLibrary(t, "devices")
	f.install(buildRig(t))
	secrets := f.server.Register(f.ids()...)
	f.server.Start()
	f.server.AwaitReady()

	began := time.Now()
	start := f.clock.now()
	fleet := f.startDevices(filepath.Join(built, "devices"), secrets)
	f.disturb(start, fleet)
	require.NoError(t, fleet.wait(), "%s", &fleet.said)
	t.Logf("%d hours in %s, %d kills: %s", f.hours, time.Since(began).Round(time.Second), f.killed, &fleet.said)
	counts := f.server.Counts()
	assert.Zero(t, counts.Pending)
	assert.Zero(t, counts.Difference)
	assert.Zero(t, counts.Quarantined)
	f.server.Stop()
	f.verify(readLedger(t, fleet.ledger))
}

// fleetSize is how many devices there are.
const fleetSize = 50

// field is one run.
type field struct {
	*testing.T
	hours, kills, cuts, stall int
	dice                      *rand.Rand
	clock                     sharedClock
	server                    *program.Installation
	killed                    int
}

func (f *field) ids() []string {
	ids := make([]string, fleetSize, fleetSize+1)
	for i := range ids {
		ids[i] = fmt.Sprintf("bed-%d", i+1)
	}
	return append(ids, "probe")
}

// install makes an installation that the rig serves.
func (f *field) install(rig string) {
	dir := f.TempDir()
	in := &program.Installation{T: f.T, Program: rig, Dir: filepath.Join(dir, "data"), Output: &logtest.Log{Keep: 16 << 10}}
	require.NoError(f, os.Mkdir(in.Dir, 0o755))
	in.TCP, in.TLS = program.FreeAddress(f.T), program.FreeAddress(f.T)
	in.Env = []string{
		"TZ=UTC", "HOME=" + dir, "RIG_CLOCK=" + f.clock.path,
		"PLANTOPS_DATA_DIR=" + in.Dir,
		"PLANTOPS_LISTENERS_TCP_ADDRESS=" + in.TCP,
		"PLANTOPS_LISTENERS_TLS_ADDRESS=" + in.TLS,
		"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false",
		"PLANTOPS_HTTP_ADDRESS=off",
		"MQTT_USE_TLS=true",
	}
	f.Cleanup(func() {
		if f.Failed() {
			f.Logf("what the server said last:\n%s", in.Output)
		}
	})
	f.server = in
}

// fleet is the process that has all devices in it.
type fleet struct {
	cmd    *exec.Cmd
	said   bytes.Buffer
	ended  chan struct{}
	err    error
	ledger string
}

func (f *field) startDevices(path string, secrets map[string]string) *fleet {
	_, port, _ := strings.Cut(f.server.TCP, ":")
	d := &fleet{ended: make(chan struct{}), ledger: filepath.Join(f.TempDir(), "ledger")}
	var accounts strings.Builder
	for _, id := range f.ids() {
		fmt.Fprintln(&accounts, id, secrets[id])
	}
	d.cmd = exec.Command(path, port, f.clock.path, d.ledger, strconv.Itoa(f.dice.IntN(1<<30)), strconv.Itoa(f.hours), strconv.Itoa(f.cuts))
	d.cmd.Stdin = strings.NewReader(accounts.String())
	d.cmd.Stdout, d.cmd.Stderr = &d.said, &d.said
	require.NoError(f, d.cmd.Start())
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	f.Cleanup(func() {
		_ = d.cmd.Process.Kill() // an error means that it has ended
		<-d.ended
	})
	return d
}

func (d *fleet) wait() error {
	<-d.ended
	return d.err
}

// disturb kills the server and takes its storage away at random moments of the days, until all of that is done.
func (f *field) disturb(start time.Time, fleet *fleet) {
	type trouble struct {
		at   time.Duration
		kill bool
	}
	var troubles []trouble
	span := time.Duration(f.hours)*time.Hour - 30*time.Minute
	for i := range f.kills + f.stall {
		troubles = append(troubles, trouble{time.Duration(f.dice.Int64N(int64(span))), i < f.kills})
	}
	slices.SortFunc(troubles, func(a, b trouble) int { return int(a.at - b.at) })
	stalls := 0
	for i, next := range troubles {
		if i%7 != 6 { // every seventh comes while the server starts
			f.server.AwaitReady()
		}
		for f.clock.now().Sub(start) < next.at {
			select {
			case <-fleet.ended:
				require.Fail(f, "the devices ended too early", "%v: %s", fleet.err, &fleet.said)
			case <-f.server.Server.Ended:
				require.Fail(f, "the server ended by itself", "%s", f.server.Output)
			case <-time.After(time.Millisecond):
			}
		}
		if next.kill {
			program.Pause(f.server, time.Duration(f.dice.IntN(20))*time.Millisecond) // most kills find something on its way
			f.server.Kill()
			f.server.Start()
			f.killed++
			continue
		}
		f.server.AwaitReady()
		stalls++
		length := 3 * time.Second
		if stalls%8 == 0 {
			length = 12 * time.Second // longer than the server withholds an acknowledgement
		}
		end := f.lockDatabase()
		program.Pause(f.server, length)
		end()
	}
	f.server.AwaitReady()
}

// lockDatabase takes the lock that a writer of a database in WAL mode has, as another program would: one byte of the
// -shm file (https://sqlite.org/walformat.html#wal_locks).
func (f *field) lockDatabase() (end func()) {
	const walWriteLock = 120
	shm, err := os.OpenFile(f.server.Database()+"-shm", os.O_RDWR, 0)
	require.NoError(f, err)
	lock := &syscall.Flock_t{Type: syscall.F_WRLCK, Start: walWriteLock, Len: 1}
	require.NoError(f, syscall.FcntlFlock(shm.Fd(), unix.F_OFD_SETLKW, lock))
	return func() { require.NoError(f, shm.Close()) }
}
