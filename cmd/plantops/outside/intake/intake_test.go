//go:build linux

package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// report is what an import says with --json.
type report struct {
	Readings  int64 `json:"readings"`
	Devices   int   `json:"devices"`
	Rejected  int64 `json:"rejected"`
	Stored    int64 `json:"stored"`
	Known     int64 `json:"known"`
	Continued int64 `json:"continued_after_line"`
}

func imported(t *testing.T, in *program.Installation, args ...string) (r report) {
	t.Helper()
	began := time.Now()
	require.NoError(t, json.Unmarshal(in.Run(append([]string{"import", "readings", "--json"}, args...)...), &r))
	t.Logf("%v: %+v in %s", args, r, time.Since(began).Round(time.Millisecond))
	return r
}

// checkDevice reads all that is stored of a device and compares each value with what it was made of, where there is no state with the
// mean of its hour. It returns how many values there are.
func checkDevice(t *testing.T, in *program.Installation, name string, device int, states time.Duration) (count int64) {
	t.Helper()
	byName := map[string]metric{}
	for _, m := range metrics {
		byName[m.name] = m
	}
	lines := strings.Split(strings.TrimSpace(string(in.Run("readings", name, "--format", "csv", "--since", start.Format(time.RFC3339)))), "\n")
	for _, line := range lines[1:] {
		cells := strings.Split(line, ",")
		require.Len(t, cells, 4, line)
		at, err := time.Parse(time.RFC3339Nano, cells[0])
		require.NoError(t, err)
		want := byName[cells[2]].value(device, at.Add(-states))
		if states > 0 && at.Truncate(time.Hour).Equal(at) {
			want = byName[cells[2]].value(device, at) + 0.125
		}
		require.Equal(t, strconv.FormatFloat(want, 'f', -1, 64), cells[3], line)
		count++
	}
	return count
}

// An export of InfluxDB 2 and a database of Home Assistant come in beside devices that send, once, and after a kill from where it was.
func TestHistoriesOfOthersComeInBesideLiveReadings(t *testing.T) {
	t.Parallel()
	days, devices := setting.Int(t, "PLANTOPS_HISTORY_DAYS", 3), 3
	if days > 100 {
		devices = 10
	}
	in := program.Install(t, t.TempDir())
	export, recorder := inDir(in.Dir, "export.lp"), inDir(in.Dir, "home-assistant_v2.db")
	values := writeInflux(t, export, devices, days)
	hass := writeRecorder(t, recorder, devices, days)
	in.Start()
	in.AwaitReady()

	alone, live, finish := sendLive(t, in)
	killOnce(t, in, export)
	first := imported(t, in, export, "--apply")
	assert.LessOrEqual(t, first.Stored+first.Known, values)
	second := imported(t, in, export, "--apply")
	assert.Equal(t, report{Readings: values, Devices: devices, Known: values}, second)

	all := imported(t, in, recorder, "--apply")
	assert.Equal(t, report{Readings: hass.states + hass.hours, Devices: devices, Stored: hass.states + hass.hours}, all)
	again := imported(t, in, recorder, "--apply")
	assert.Equal(t, report{Readings: all.Readings, Devices: devices, Known: all.Readings}, again)
	finish()
	for when, r := range map[string]*load.Result{"before": alone, "meanwhile": live} {
		t.Logf("acknowledgements of live readings %s: %d; half of them within %s ms, 99 %% %s, all %s", when, r.Acknowledged,
			load.Milliseconds(r.Quantile(0.5)), load.Milliseconds(r.Quantile(0.99)), load.Milliseconds(r.Quantile(1)))
	}

	var influx, house int64
	for d := range devices {
		influx += checkDevice(t, in, fmt.Sprint("north-", d+1), d, 0)
		house += checkDevice(t, in, fmt.Sprint("house_", d+1), d, 250*time.Millisecond)
	}
	assert.Equal(t, values, influx)
	assert.Equal(t, all.Readings, house)
	var status struct {
		Messages struct{ Difference, Quarantined int64 }
		State    string
	}
	require.NoError(t, json.Unmarshal(in.Run("status", "--json"), &status))
	assert.Zero(t, status.Messages.Difference)
	assert.Zero(t, status.Messages.Quarantined)
	in.Stop()
}

// sendLive lets devices send some readings, and then in the background until finish is called.
func sendLive(t *testing.T, in *program.Installation) (alone, result *load.Result, finish func()) {
	t.Helper()
	const sending = 5
	var ids []string
	for i := range sending {
		ids = append(ids, load.DeviceID(i))
	}
	host, _, err := net.SplitHostPort(in.TCP)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host)
	l := &load.Load{Address: in.TCP, QoS: 1, Devices: sending, Window: 10, Rate: 50, Readings: sending * 10, Secrets: in.Add(ids...)}
	all, err := l.Connect()
	require.NoError(t, err)
	alone, err = l.Run(all)
	require.NoError(t, err)
	result = &load.Result{}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			all, err := l.Connect()
			if err == nil {
				var r *load.Result
				if r, err = l.Run(all); err == nil {
					result.Add(r)
				}
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return alone, result, func() {
		t.Helper()
		close(stop)
		require.NoError(t, <-ended)
	}
}

// killOnce starts an import and kills it in the middle.
func killOnce(t *testing.T, in *program.Installation, file string) {
	t.Helper()
	cmd := exec.Command(in.Program, "import", "readings", file, "--apply")
	cmd.Dir, cmd.Env = filepath.Dir(in.Dir), in.Env
	var said bytes.Buffer
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	before := in.Counts()
	for deadline := time.Now().Add(setting.Patience); in.Counts().Stored < before.Stored+500 && time.Now().Before(deadline); {
		select {
		case <-in.Server.Ended:
			require.Fail(t, "the server ended by itself")
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	err, text := cmd.Wait(), said.String()
	if err == nil || text != "" { // it was faster; it may have said so and not have ended yet
		require.Contains(t, text, "plantops: stored ")
	}
}
