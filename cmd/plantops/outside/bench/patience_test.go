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

// crowd is a thousand publishers and one subscriber, or two of which the second is slow while they send.
type crowd struct {
	qos    byte
	ingest bool // on the topics that are stored
	slow   bool
}

func (c crowd) String() string {
	return fmt.Sprintf("QoS %d, stored %t, slow one %t", c.qos, c.ingest, c.slow)
}

// TestSubscribersGetEverything sends more than a subscriber can take, from a thousand publishers, while another process has a
// core of its own, again and again. Whoever reads gets everything, at every QoS, and so does who reads 100 messages a second as
// long as they come; the publishers must not notice him. "make bench" runs it.
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
	messages := setting.Int(t, "PLANTOPS_BENCH_CROWD", 300_000)
	p99 := map[crowd][]time.Duration{}
	var table strings.Builder
	lines := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(lines, "run\tQoS\tstored\tslow one\tacknowledged\treceived\tslow received\tits last s\tmessages/s\tack p50 ms\tack p99 ms\tRSS MiB\t")
	for run := range setting.Int(t, "PLANTOPS_BENCH_RUNS", 20) {
		for _, ingest := range []bool{false, true} {
			for _, c := range []crowd{{1, ingest, false}, {1, ingest, true}, {0, ingest, false}} {
				seen, memory := c.run(t, messages)
				p99[c] = append(p99[c], seen.Quantile(0.99))
				slow, last := "", ""
				if c.slow {
					slow, last = fmt.Sprint(seen.Received[1]), fmt.Sprintf("%.1f", seen.Last[1].Seconds())
				}
				fmt.Fprintf(lines, "%d\t%d\t%t\t%t\t%d\t%d\t%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", run+1, c.qos, c.ingest, c.slow, seen.Acknowledged, seen.Received[0],
					slow, last, float64(seen.Sent)/seen.Took.Seconds(), load.Milliseconds(seen.Quantile(0.5)), load.Milliseconds(seen.Quantile(0.99)), float64(memory)/(1<<20))
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
		with, without := middle(p99[crowd{1, ingest, true}]), middle(p99[crowd{1, ingest, false}])
		t.Logf("stored %t: PUBACK p99 with a slow subscriber %s ms, without %s ms: ratio %.2f (2 is allowed)", ingest,
			load.Milliseconds(with), load.Milliseconds(without), with.Seconds()/without.Seconds())
	}
}

func middle(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

// run puts the crowd on a server of its own and returns what it saw and the most memory that the server had.
func (c crowd) run(t *testing.T, messages int) (*load.Seen, int64) {
	t.Helper()
	const publishers = 1000
	in := program.Install(t, t.TempDir())
	var ids []string
	for i := range publishers {
		ids = append(ids, load.DeviceID(i))
	}
	secrets := in.Register(ids...)
	in.Start()
	in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(benchPassword), 0o600))
	in.Run("user", "add", "house", "--subscribe", "#", "--password-file", password)
	last := "notes"
	if c.ingest {
		last = "telemetry"
	}
	topics := make([]string, publishers)
	for i, id := range ids {
		topics[i] = "devices/" + id + "/" + last
	}
	traffic := &load.Traffic{Address: in.TCP, QoS: c.qos, Publishers: publishers, Messages: messages, Window: 10, Silence: 15 * time.Second,
		Login:   func(i int) load.Account { return load.Account{User: ids[i], Secret: secrets[ids[i]], ClientID: ids[i]} },
		Topic:   func(i, _ int) string { return topics[i] },
		Readers: []load.Reader{{Account: load.Account{User: "house", Secret: benchPassword, ClientID: "quick"}, Filter: "devices/+/" + last, QoS: c.qos}}}
	if c.slow {
		slow := traffic.Readers[0]
		slow.ClientID, slow.Rate = "slow", 100
		traffic.Readers = append(traffic.Readers, slow)
	}
	seen, err := traffic.Go()
	require.NotNil(t, seen, "%v", err)
	assert.NoError(t, err, "%s", c)
	memory := in.Memory("VmHWM")
	in.Stop()
	return seen, memory
}
