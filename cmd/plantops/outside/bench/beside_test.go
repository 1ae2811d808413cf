//go:build linux

package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// rival is a broker that runs all the time, to be measured in turn with others.
type rival struct {
	name, address string
	pid           int
	account       load.Account
}

const benchPassword = "measures the broker"

// plantopsRival is ours, with an account that may do everything. path is the program, if it is another one than is tested.
func plantopsRival(t *testing.T, name, path string) *rival {
	t.Helper()
	in := program.Install(t, t.TempDir(), strings.Fields(os.Getenv("PLANTOPS_BENCH_ENV"))...)
	if path != "" {
		in.Program = path
	}
	in.Start()
	in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(benchPassword), 0o600))
	in.Run("user", "add", "house", "--publish", "#", "--subscribe", "#", "--password-file", password)
	return &rival{name, in.TCP, in.Server.Pid, load.Account{User: "house", Secret: benchPassword}}
}

// mosquittoRival has queues without a limit, and keeps its state in a file now and then, as it does by default.
func mosquittoRival(t *testing.T) *rival {
	t.Helper()
	address, dir := program.FreeAddress(t), t.TempDir()
	config := filepath.Join(dir, "mosquitto.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "user root\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n"+
		"persistence true\npersistence_location %s/\nlistener %s 127.0.0.1\n", dir, port(t, address)), 0o600))
	return start(t, &rival{name: "mosquitto", address: address}, "mosquitto", "-c", config)
}

// flashmqRival has two threads. PLANTOPS_FLASHMQ is its program.
func flashmqRival(t *testing.T, path string) *rival {
	t.Helper()
	address, dir := program.FreeAddress(t), t.TempDir()
	config := filepath.Join(dir, "flashmq.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "thread_count 2\nallow_anonymous true\nlog_file %s/log\nstorage_dir %s\nlog_level error\n"+
		"max_qos_msg_pending_per_client 65535\nmax_qos_bytes_pending_per_client 1000000000\nlisten {\n  protocol mqtt\n  inet_protocol ip4\n  inet4_bind_address 127.0.0.1\n  port %s\n}\n",
		dir, dir, port(t, address)), 0o600))
	return start(t, &rival{name: "flashmq", address: address}, path, "--config-file", config)
}

func start(t *testing.T, r *rival, command ...string) *rival {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	})
	r.pid = cmd.Process.Pid
	require.Eventually(t, func() bool { return reachable(r.address) }, setting.Patience, 10*time.Millisecond, r.name)
	return r
}

// contest is one line for each rival: so many publishers, so many readers that all get everything.
type contest struct {
	publishers, readers int
	qos                 byte
	size, messages      int
	durable             bool // the readers keep their sessions
}

// String is what PLANTOPS_BENCH_ONLY has of the contests that are wanted: publishers, readers, QoS and bytes, as in 1000-1-1-64, with -durable.
func (c contest) String() string {
	name := fmt.Sprintf("%d-%d-%d-%d", c.publishers, c.readers, c.qos, c.size)
	if c.durable {
		name += "-durable"
	}
	return name
}

func (c contest) traffic(r *rival) *load.Traffic {
	topics := make([]string, c.publishers)
	for i := range topics {
		topics[i] = fmt.Sprint("bench/", i)
	}
	t := &load.Traffic{Address: r.address, QoS: c.qos, Publishers: c.publishers, Messages: c.messages, Window: 100, Size: c.size, Silence: 3 * time.Second,
		Login: func(i int) load.Account {
			return load.Account{User: r.account.User, Secret: r.account.Secret, ClientID: fmt.Sprint("bench-pub-", i)}
		},
		Topic: func(i, _ int) string { return topics[i] }}
	if c.publishers >= 1000 || c.qos == 2 {
		t.Window = 10 // mosquitto takes 20 at QoS 2
	}
	for i := range c.readers {
		a := load.Account{User: r.account.User, Secret: r.account.Secret, ClientID: fmt.Sprint("bench-sub-", i)}
		t.Readers = append(t.Readers, load.Reader{Account: a, Filter: "bench/+", QoS: c.qos, Resume: c.durable})
	}
	return t
}

// score is what a rival did in one contest.
type score struct {
	perSecond, cpuMicros float64 // deliveries
	switches             float64 // of context, for each delivery
	lost                 int
	p50, p99             time.Duration
}

func (c contest) run(t *testing.T, r *rival) score {
	t.Helper()
	var used time.Duration
	var switches int64
	traffic := c.traffic(r)
	traffic.Begins = func() { used, switches = program.CPUTime(t, r.pid), program.Switches(t, r.pid) }
	traffic.Ends = func() { used, switches = program.CPUTime(t, r.pid)-used, program.Switches(t, r.pid)-switches }
	seen, err := traffic.Go()
	if err != nil {
		t.Logf("%s, %s: %v", r.name, c, err)
		return score{lost: c.messages * c.readers}
	}
	count, took := seen.Delivered()
	each := float64(max(count, 1))
	return score{float64(count) / took.Seconds(), float64(used.Microseconds()) / each, float64(switches) / each, seen.Sent*c.readers - count,
		seen.Quantile(0.5), seen.Quantile(0.99)}
}

func contests(messages int) (all []contest) {
	for _, durable := range []bool{false, true} {
		for _, shape := range []struct{ publishers, readers, part int }{{10, 1, 1}, {1000, 1, 1}, {5, 20, 10}, {1, 1000, 500}} {
			for _, qos := range []byte{0, 1, 2} {
				for _, size := range []int{64, 1024} {
					if durable && (qos == 0 || shape.readers > 20) {
						continue
					}
					all = append(all, contest{shape.publishers, shape.readers, qos, size, max(messages/shape.part, shape.publishers), durable})
				}
			}
		}
	}
	return all
}

// TestSpeedBesideOthers measures the broker beside mosquitto with queues without limit, and beside FlashMQ if
// PLANTOPS_FLASHMQ says where that is: rates of delivery, CPU time of the broker for each once all are connected, in turn, round after
// round, and the median. Clients and brokers share the machine: only ratios hold. "make bench" runs it. PLANTOPS_BENCH_BEFORE is
// another build of ours to be measured with them, PLANTOPS_BENCH_PROGRAM one to be measured in place of what is tested.
func TestSpeedBesideOthers(t *testing.T) {
	if os.Getenv("PLANTOPS_BENCH") == "" {
		t.Skip(`takes many minutes: "make bench" runs it`)
	}
	rivals := []*rival{plantopsRival(t, "plantops", os.Getenv("PLANTOPS_BENCH_PROGRAM"))}
	if path := os.Getenv("PLANTOPS_BENCH_BEFORE"); path != "" {
		rivals = append(rivals, plantopsRival(t, "before", path))
	}
	if hasMosquitto() && os.Getenv("PLANTOPS_BENCH_MOSQUITTO") != "false" {
		rivals = append(rivals, mosquittoRival(t))
	}
	if path := os.Getenv("PLANTOPS_FLASHMQ"); path != "" {
		rivals = append(rivals, flashmqRival(t, path))
	}
	rounds := setting.Int(t, "PLANTOPS_BENCH_ROUNDS", 3)
	var table strings.Builder
	lines := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(lines, "pub\tsub\tQoS\tbytes\tdurable\tbroker\tdeliveries/s\tCPU µs each\tswitches each\tlost\tack p50 ms\tack p99 ms\tours/theirs\tCPU\t")
	for _, c := range contests(setting.Int(t, "PLANTOPS_BENCH_MESSAGES", 100_000)) {
		if only := os.Getenv("PLANTOPS_BENCH_ONLY"); only != "" && !slices.Contains(strings.Fields(only), c.String()) {
			continue
		}
		scores := make([][]score, len(rivals))
		for range rounds {
			for i, r := range rivals {
				scores[i] = append(scores[i], c.run(t, r))
			}
		}
		ours := median(scores[0])
		for i, r := range rivals {
			s := median(scores[i])
			ratio := ""
			if i > 0 {
				ratio = fmt.Sprintf("%.2f\t%.2f", ours.perSecond/s.perSecond, ours.cpuMicros/s.cpuMicros)
			} else {
				ratio = "\t"
			}
			fmt.Fprintf(lines, "%d\t%d\t%d\t%d\t%t\t%s\t%.0f\t%.2f\t%.3f\t%d\t%s\t%s\t%s\t\n", c.publishers, c.readers, c.qos, c.size, c.durable, r.name,
				s.perSecond, s.cpuMicros, s.switches, s.lost, load.Milliseconds(s.p50), load.Milliseconds(s.p99), ratio)
		}
	}
	require.NoError(t, lines.Flush())
	t.Logf("median of %d rounds\n%s", rounds, &table)
}

// median is the score in the middle by rate, with the worst loss of all.
func median(all []score) score {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b score) int { return int(a.perSecond - b.perSecond) })
	middle := sorted[len(sorted)/2]
	for _, s := range all {
		middle.lost = max(middle.lost, s.lost)
	}
	return middle
}
