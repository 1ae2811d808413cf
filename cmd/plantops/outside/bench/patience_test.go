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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// crowd is a thousand publishers and one subscriber, or two of which the second is no match for them.
type crowd struct {
	qos    byte
	ingest bool // on the topics that are stored
	second string
}

const (
	slow = "slow" // reads 100 messages/s while they send
	away = "away" // has a session and is not there while they send
)

func (c crowd) String() string {
	return fmt.Sprintf("QoS %d, stored %t, second %q", c.qos, c.ingest, c.second)
}

// TestSubscribersGetEverything sends more than a subscriber can take, from a thousand publishers, while another process has a
// core of its own, again and again. Whoever reads gets everything, at every QoS, and so do who reads 100 messages a second as long
// as they come and who is away meanwhile and has a session; the publishers must not notice them. "make bench" runs it.
func TestSubscribersGetEverything(t *testing.T) {
	if os.Getenv("PLANTOPS_BENCH") == "" {
		t.Skip(`takes many minutes: "make bench" runs it`)
	}
	busy := exec.Command("sh", "-c", "while :; do :; done")
	require.NoError(t, busy.Start())
	defer func() {
		_ = busy.Process.Kill()
		_ = busy.Wait()
	}()
	h := newHall(t)
	messages := setting.Int(t, "PLANTOPS_BENCH_CROWD", 300_000)
	p99 := map[crowd][]time.Duration{}
	var table strings.Builder
	lines := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(lines, "run\tQoS\tstored\tsecond\tacknowledged\treceived\tby second\tits last s\tits messages/s\tmessages/s\tack p50 ms\tack p99 ms\tRSS MiB\t")
	for run := range setting.Int(t, "PLANTOPS_BENCH_RUNS", 20) {
		for _, ingest := range []bool{false, true} {
			for _, c := range []crowd{{1, ingest, ""}, {1, ingest, slow}, {1, ingest, away}, {0, ingest, ""}} {
				seen, memory := h.run(t, c, messages)
				p99[c] = append(p99[c], seen.Quantile(0.99))
				second, last, rate := "", "", ""
				if c.second != "" {
					second, last = fmt.Sprint(seen.Received[1]), fmt.Sprintf("%.1f", seen.Last[1].Seconds())
					rate = fmt.Sprintf("%.0f", float64(seen.Late[1])/max(seen.Last[1]-seen.Took, time.Millisecond).Seconds())
				}
				fmt.Fprintf(lines, "%d\t%d\t%t\t%s\t%d\t%d\t%s\t%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", run+1, c.qos, c.ingest, c.second, seen.Acknowledged,
					seen.Received[0], second, last, rate, float64(seen.Sent)/seen.Took.Seconds(), load.Milliseconds(seen.Quantile(0.5)),
					load.Milliseconds(seen.Quantile(0.99)), float64(memory)/(1<<20))
				for _, got := range seen.Received {
					assert.Equal(t, seen.Sent, got, "run %d: received, %s", run+1, c)
				}
				if c.qos > 0 {
					assert.Equal(t, seen.Sent, seen.Acknowledged, "run %d: acknowledged, %s", run+1, c)
				}
			}
		}
	}
	require.NoError(t, lines.Flush())
	t.Logf("%d messages from 1000 publishers\n%s", messages, &table)
	for _, ingest := range []bool{false, true} {
		for _, second := range []string{slow, away} {
			with, without := middle(p99[crowd{1, ingest, second}]), middle(p99[crowd{1, ingest, ""}])
			t.Logf("stored %t: PUBACK p99 with a subscriber that is %s %s ms, without %s ms: ratio %.2f (2 is allowed)", ingest, second,
				load.Milliseconds(with), load.Milliseconds(without), with.Seconds()/without.Seconds())
		}
	}
}

func middle(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// hall is where crowds meet: a server whose devices are made once. Each crowd finds the database as it was at first.
type hall struct {
	in      *program.Installation
	ids     []string
	secrets map[string]string
	first   []byte // the database
}

func newHall(t *testing.T) *hall {
	t.Helper()
	h := &hall{in: program.Install(t, t.TempDir())}
	for i := range 1000 {
		h.ids = append(h.ids, load.DeviceID(i))
	}
	h.secrets = h.in.Register(h.ids...)
	h.in.Start()
	h.in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(benchPassword), 0o600))
	h.in.Run("user", "add", "house", "--subscribe", "#", "--password-file", password)
	h.in.Stop()
	var err error
	h.first, err = os.ReadFile(h.in.Database())
	require.NoError(t, err)
	return h
}

// run lets a crowd in and returns what it saw and the most memory that the server had.
func (h *hall) run(t *testing.T, c crowd, messages int) (*load.Seen, int64) {
	t.Helper()
	for _, end := range []string{"-wal", "-shm"} {
		require.NoError(t, os.RemoveAll(h.in.Database()+end))
	}
	require.NoError(t, os.WriteFile(h.in.Database(), h.first, 0o600))
	h.in.Start()
	h.in.AwaitReady()
	last := "notes"
	if c.ingest {
		last = "telemetry"
	}
	topics := make([]string, len(h.ids))
	for i, id := range h.ids {
		topics[i] = "devices/" + id + "/" + last
	}
	traffic := &load.Traffic{Address: h.in.TCP, QoS: c.qos, Publishers: len(h.ids), Messages: messages, Window: 10, Silence: 15 * time.Second,
		Login: func(i int) load.Account {
			return load.Account{User: h.ids[i], Secret: h.secrets[h.ids[i]], ClientID: h.ids[i]}
		},
		Topic:   func(i, _ int) string { return topics[i] },
		Readers: []load.Reader{{Account: load.Account{User: "house", Secret: benchPassword, ClientID: "quick"}, Filter: "devices/+/" + last, QoS: c.qos}}}
	if c.second != "" {
		second := traffic.Readers[0]
		second.ClientID = c.second
		if c.second == slow {
			second.Rate = 100
		} else {
			second.Resume, second.Away = true, true
		}
		traffic.Readers = append(traffic.Readers, second)
	}
	seen, err := traffic.Go()
	require.NotNil(t, seen, "%v", err)
	assert.NoError(t, err, "%s", c)
	memory := h.in.Memory("VmHWM")
	h.in.Stop()
	return seen, memory
}
