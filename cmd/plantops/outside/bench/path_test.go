//go:build linux

package bench_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/store"
)

// TestSpeedOfTheWholePath measures the program as a whole, from the socket to the synced row, beside mosquitto when that
// is installed, and checks that everything was stored. Clients and server share the machine: rates are lower bounds, CPU
// time is the server's alone, and only ratios hold between machines. "make bench" runs it; PLANTOPS_BENCH_READINGS sets
// how many readings each line is from, PLANTOPS_BENCH_ENV the server's environment ("GOGC=50 GOMEMLIMIT=30MiB"), and
// PLANTOPS_BENCH_BEFORE is an earlier version of the program, to be measured in turn with this one. PLANTOPS_BENCH_LINES ("8,10") are
// those that are wanted.
func TestSpeedOfTheWholePath(t *testing.T) {
	if os.Getenv("PLANTOPS_BENCH") == "" {
		t.Skip(`takes a minute: "make bench" runs it`)
	}
	readings := setting.Int(t, "PLANTOPS_BENCH_READINGS", 100_000)
	var table strings.Builder
	lines := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(lines, "QoS\tdevices\tvia\tasked/s\tserver\treadings/s\tCPU µs each\tack p50 ms\tack p99 ms\tRSS MiB\tidle MiB\t")
	compare, before := hasMosquitto(), os.Getenv("PLANTOPS_BENCH_BEFORE")
	only := strings.Split(os.Getenv("PLANTOPS_BENCH_LINES"), ",")
	for i, s := range scenarios(readings) {
		if only[0] != "" && !slices.Contains(only, fmt.Sprint(i+1)) {
			continue
		}
		ours := s.measure(t, plantopsServer)
		ours.print(lines, s, "plantops")
		if compare {
			theirs := s.measure(t, mosquittoServer)
			theirs.print(lines, s, "mosquitto")
			ours.printRatio(lines, &theirs)
		}
		if before != "" {
			theirs := s.measure(t, func(t *testing.T, s *scenario) *subject { return earlierServer(t, s, before) })
			theirs.print(lines, s, "before")
			ours.printRatio(lines, &theirs)
		}
	}
	require.NoError(t, lines.Flush())
	t.Logf("%d readings a line; each of plantops is on disk, mosquitto hands its own to one QoS 1 subscriber\n%s", readings, &table)
}

// scenario is one line of the table.
type scenario struct {
	load.Load
	overTLS bool
}

func scenarios(readings int) (list []scenario) {
	for _, overTLS := range []bool{false, true} {
		for _, qos := range []byte{0, 1} {
			for _, devices := range []int{10, 1000} {
				s := scenario{Load: load.Load{QoS: qos, Devices: devices, Window: 100, Readings: readings}, overTLS: overTLS}
				if devices == 1000 {
					s.Window = 10
				}
				list = append(list, s)
			}
		}
	}
	for _, devices := range []int{10, 100, 1000} { // what a farm asks for
		const perSecond, seconds = 1000, 5
		list = append(list, scenario{overTLS: true,
			Load: load.Load{QoS: 1, Devices: devices, Window: 100, Rate: perSecond, Readings: perSecond * seconds}})
	}
	return list
}

// subject is a server that is measured.
type subject struct {
	pid      int
	plain    string
	tls      string
	stored   func() int64 // readings that have arrived where they were to
	late     bool         // that may be after the acknowledgement
	complete func(acknowledged int64)
	stop     func()
}

// figures are what a line of the table says.
type figures struct {
	load.Result
	perSecond, cpuMicros float64
	memory, idle         int64
}

// measure starts a server, puts the load on it, and ends it.
func (s scenario) measure(t *testing.T, start func(*testing.T, *scenario) *subject) figures {
	t.Helper()
	on := start(t, &s)
	defer on.stop()
	s.Address = on.plain
	if s.overTLS {
		s.Address = on.tls
	}
	f := figures{idle: program.MemoryOf(t, on.pid, "VmRSS")}
	devices, err := s.Connect()
	require.NoError(t, err)

	busy, began := program.CPUTime(t, on.pid), time.Now()
	seen, err := s.Run(devices)
	require.NoError(t, err)
	f.Result = *seen
	took := time.Since(began)
	if s.QoS == 0 || on.late {
		took = awaitAll(on.stored, int64(s.Readings), began)
	}
	f.perSecond = float64(s.Readings) / took.Seconds()
	f.cpuMicros = float64((program.CPUTime(t, on.pid) - busy).Microseconds()) / float64(s.Readings)
	f.memory = program.MemoryOf(t, on.pid, "VmHWM")
	if s.QoS > 0 {
		assert.Equal(t, s.Readings, seen.Acknowledged)
	}
	on.complete(int64(seen.Acknowledged))
	return f
}

// awaitAll waits until so many readings have arrived, or none comes any more, and returns when the last one did.
func awaitAll(stored func() int64, all int64, began time.Time) time.Duration {
	const poll, silence = 5 * time.Millisecond, 3 * time.Second
	last, at := stored(), time.Now()
	for last < all && time.Since(at) < silence {
		<-time.After(poll)
		if now := stored(); now > last {
			last, at = now, time.Now()
		}
	}
	return at.Sub(began)
}

func (f *figures) print(w *tabwriter.Writer, s scenario, server string) {
	via, asked, p50, p99 := "plain", "max", "", ""
	if s.overTLS {
		via = "TLS"
	}
	if s.Rate > 0 {
		asked = fmt.Sprint(s.Rate)
	}
	if s.QoS > 0 {
		p50, p99 = load.Milliseconds(f.Quantile(0.5)), load.Milliseconds(f.Quantile(0.99))
	}
	fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%.0f\t%.1f\t%s\t%s\t%.1f\t%.1f\t\n", s.QoS, s.Devices, via, asked, server,
		f.perSecond, f.cpuMicros, p50, p99, float64(f.memory)/(1<<20), float64(f.idle)/(1<<20))
}

// printRatio says how much faster f is than another, and how much of its CPU time it takes.
func (f *figures) printRatio(w *tabwriter.Writer, other *figures) {
	fmt.Fprintf(w, "\t\t\t\tratio\t%.2f\t%.2f\t\t\t\t\t\n", f.perSecond/other.perSecond, f.cpuMicros/other.cpuMicros)
}

// earlierServer starts an earlier version of the program, which makes its devices itself.
func earlierServer(t *testing.T, s *scenario, path string) *subject {
	t.Helper()
	in := program.Install(t, t.TempDir())
	in.Program = path
	in.Start()
	in.AwaitReady()
	ids := make([]string, s.Devices)
	for i := range ids {
		ids[i] = load.DeviceID(i)
	}
	s.Secrets = in.Add(ids...)
	if s.overTLS {
		s.TLS = in.ClientTLS()
	}
	return &subject{pid: in.Server.Pid, plain: in.TCP, tls: in.TLS, stop: in.Stop,
		stored:   func() int64 { return in.Counts().Stored },
		complete: func(int64) { assert.Equal(t, int64(s.Readings), in.Counts().Stored) },
	}
}

// plantopsServer starts the program with the devices of a scenario registered.
func plantopsServer(t *testing.T, s *scenario) *subject {
	t.Helper()
	in := program.Install(t, t.TempDir(), strings.Fields(os.Getenv("PLANTOPS_BENCH_ENV"))...)
	ids := make([]string, s.Devices)
	for i := range ids {
		ids[i] = load.DeviceID(i)
	}
	s.Secrets = in.Register(ids...)
	in.Start()
	in.AwaitReady()
	if s.overTLS {
		s.TLS = in.ClientTLS()
	}
	beside, err := store.Open(t.Context(), store.Options{Path: in.Database(), ReadOnly: true}) // costs the server nothing
	require.NoError(t, err)
	stop := func() {
		require.NoError(t, beside.Close())
		in.Stop()
	}
	return &subject{pid: in.Server.Pid, plain: in.TCP, tls: in.TLS, stop: stop,
		stored: func() int64 {
			total, err := beside.Totals(t.Context())
			require.NoError(t, err)
			return total.Stored
		},
		complete: func(acknowledged int64) {
			sent := int64(s.Readings)
			assert.Equal(t, program.MessageCounts{Received: sent, Stored: sent}, in.Counts(), "QoS %d, %d devices, %d acknowledged", s.QoS, s.Devices, acknowledged)
		},
	}
}
