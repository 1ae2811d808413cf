//go:build linux

package bench_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/load"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// roomy is a server whose quotas let one account have many sessions. It knows a hundred devices too: no account may have a
// large part of the memory for what is retained.
func roomy(t *testing.T) (*program.Installation, load.Account, map[string]string) {
	t.Helper()
	in := program.Install(t, t.TempDir(), append([]string{"PLANTOPS_LIMITS_MAX_SESSIONS_PER_ACCOUNT=20000", "PLANTOPS_LIMITS_MAX_CONNECTIONS_PER_ACCOUNT=10000",
		"PLANTOPS_LIMITS_MAX_SUBSCRIPTIONS_PER_ACCOUNT=200000"}, strings.Fields(os.Getenv("PLANTOPS_BENCH_ENV"))...)...)
	var ids []string
	for i := range devices {
		ids = append(ids, load.DeviceID(i))
	}
	secrets := in.Register(ids...)
	in.Start()
	in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(benchPassword), 0o600))
	in.Run("user", "add", "house", "--publish", "#", "--subscribe", "#", "--password-file", password)
	in.Stop() // the first start makes keys, and has their memory for long
	in.Start()
	in.AwaitReady()
	return in, load.Account{User: "house", Secret: benchPassword}, secrets
}

const devices = 100

// visitor is a client that is there, or was.
type visitor struct {
	net.Conn
	in      *bufio.Reader
	present bool // its session was
}

// visit logs in with a session that stays, and subscribes unless filter is "".
func visit(address string, config *tls.Config, a load.Account, filter string) (*visitor, error) {
	conn, err := net.DialTimeout("tcp", address, setting.Patience)
	if err != nil {
		return nil, err
	}
	if config != nil {
		conn = tls.Client(conn, config)
	}
	v := &visitor{Conn: conn, in: bufio.NewReaderSize(conn, 1<<10)}
	if err := conn.SetDeadline(time.Now().Add(setting.Patience)); err != nil {
		return v, err
	}
	out := rawmqtt.Login{User: a.User, Secret: a.Secret, ClientID: a.ClientID, Version: 4, Resume: true, NoKeepalive: true}.Encode()
	if filter != "" {
		out = append(out, rawmqtt.EncodeSubscribe(4, 1, 1, filter)...)
	}
	if _, err := conn.Write(out); err != nil {
		return v, err
	}
	for {
		p, err := rawmqtt.Read(v.in)
		switch {
		case err != nil:
			return v, fmt.Errorf("%s: %w", a.ClientID, err)
		case p.Kind == rawmqtt.Connack && p.Reason != 0:
			return v, fmt.Errorf("%s: CONNACK %#x", a.ClientID, p.Reason)
		case p.Kind == rawmqtt.Connack:
			v.present = p.Body[0] == 1
			if filter == "" {
				return v, nil
			}
		case p.Kind == rawmqtt.Suback:
			return v, nil
		}
	}
}

// each does something for so many, a few at a time.
func each(t *testing.T, count int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	few, errs := make(chan struct{}, 16), make(chan error, count)
	for i := range count {
		few <- struct{}{}
		wg.Go(func() {
			if err := do(i); err != nil {
				errs <- err
			}
			<-few
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

// sessions makes sessions that wait for their clients.
func sessions(t *testing.T, in *program.Installation, a load.Account, count int) {
	t.Helper()
	each(t, count, func(i int) error {
		v, err := visit(in.TCP, nil, named(a, "away-", i), fmt.Sprint("queue/", i))
		if v != nil {
			defer v.Close()
		}
		return err
	})
}

func named(a load.Account, prefix string, i int) load.Account {
	a.ClientID = fmt.Sprint(prefix, i)
	return a
}

// settledMemory is what the server has when it has had some time, and no less comes of it.
func settledMemory(in *program.Installation) int64 {
	least, since := in.Memory("VmRSS"), time.Now()
	for time.Since(since) < 8*time.Second {
		program.Pause(in, 100*time.Millisecond)
		if now := in.Memory("VmRSS"); now < least-(1<<19) {
			least, since = now, time.Now()
		}
	}
	return least
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// TestRestartWithMuchState starts a server with 100,000 retained messages and 10,000 sessions of 10 messages, and looks at how
// long that takes, at its memory, and whether all is there. "make bench" runs it.
func TestRestartWithMuchState(t *testing.T) {
	if os.Getenv("PLANTOPS_BENCH") == "" {
		t.Skip(`takes minutes: "make bench" runs it`)
	}
	const each10, allowed = 10, 3 * time.Second
	retained, away := setting.Int(t, "PLANTOPS_BENCH_RETAINED", 100_000), setting.Int(t, "PLANTOPS_BENCH_SESSIONS", 10_000)
	in, account, secrets := roomy(t)
	empty := settledMemory(in)
	traffic := load.Traffic{Address: in.TCP, QoS: 1, Publishers: 10, Window: 20, Size: 32, Login: func(i int) load.Account { return named(account, "pub-", i) }}
	keep := traffic
	keep.Messages, keep.Retain, keep.Publishers = retained, true, devices
	keep.Login = func(i int) load.Account {
		id := load.DeviceID(i)
		return load.Account{User: id, Secret: secrets[id], ClientID: id}
	}
	keep.Topic = func(i, n int) string { return fmt.Sprintf("devices/%s/kept/%d", load.DeviceID(i), n) }
	seen, err := keep.Go()
	require.NoError(t, err)
	t.Logf("%d retained: %.0f messages/s", retained, float64(seen.Sent)/seen.Took.Seconds())
	sessions(t, in, account, away)
	queue := traffic
	queue.Messages = away * each10
	queue.Topic = func(i, n int) string { return fmt.Sprint("queue/", (i*queue.Messages/queue.Publishers+n)%away) }
	seen, err = queue.Go()
	require.NoError(t, err)
	t.Logf("%d queued: %.0f messages/s", queue.Messages, float64(seen.Sent)/seen.Took.Seconds())
	before := settledMemory(in)
	in.Kill()

	for _, how := range []string{"after a kill", "after an orderly stop"} {
		began := time.Now()
		in.Start()
		in.AwaitReady()
		took := time.Since(began)
		atOnce := in.Memory("VmRSS")
		after := settledMemory(in)
		t.Logf("%s: ready in %s; memory: %s empty, %s before, %s at once, %s later, %s at most", how, took.Round(time.Millisecond), mib(empty), mib(before),
			mib(atOnce), mib(after), mib(in.Memory("VmHWM")))
		assert.Less(t, took, allowed, how)
		if how == "after a kill" {
			in.Stop()
		}
	}
	assert.Equal(t, retained, countRetained(t, in.TCP, account, retained), "retained messages")
	each(t, 100, func(i int) error { return collect(in.TCP, named(account, "away-", i*(away/100)), each10) })
}

// countRetained is how many messages somebody new gets at once.
func countRetained(t *testing.T, address string, a load.Account, most int) (count int) {
	t.Helper()
	v, err := visit(address, nil, named(a, "new-", 0), "devices/#")
	require.NoError(t, err)
	defer v.Close()
	for count < most {
		p, err := rawmqtt.Read(v.in)
		if err != nil {
			return count
		}
		if p.Kind == rawmqtt.Publish {
			count++
			_, err = v.Write(rawmqtt.EncodeAck(rawmqtt.Puback, p.ID))
			require.NoError(t, err)
		}
	}
	return count
}

// collect lets a client that was away come back for its messages.
func collect(address string, a load.Account, count int) error {
	v, err := visit(address, nil, a, "")
	if err != nil {
		return err
	}
	defer v.Close()
	if !v.present {
		return fmt.Errorf("%s: its session is gone", a.ClientID)
	}
	for got := 0; got < count; {
		p, err := rawmqtt.Read(v.in)
		if err != nil {
			return fmt.Errorf("%s: %d of %d messages: %w", a.ClientID, got, count, err)
		}
		if p.Kind == rawmqtt.Publish {
			got++
			if _, err := v.Write(rawmqtt.EncodeAck(rawmqtt.Puback, p.ID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestMemoryOfWhoDoesNothing looks at what 5,000 idle TLS connections cost, and 10,000 sessions that wait for their clients.
// "make bench" runs it.
func TestMemoryOfWhoDoesNothing(t *testing.T) {
	if os.Getenv("PLANTOPS_BENCH") == "" {
		t.Skip(`takes a minute: "make bench" runs it`)
	}
	t.Run("connections", func(t *testing.T) {
		in, account, _ := roomy(t)
		empty, config := settledMemory(in), in.ClientTLS()
		all := make([]*visitor, setting.Int(t, "PLANTOPS_BENCH_CONNECTIONS", 5000))
		each(t, len(all), func(i int) (err error) {
			all[i], err = visit(in.TLS, config, named(account, "idle-", i), "")
			return err
		})
		full := settledMemory(in)
		t.Logf("%d idle TLS connections: %s, %s without them, %s at most", len(all), mib(full), mib(empty), mib(in.Memory("VmHWM")))
		assert.LessOrEqual(t, full, int64(75_000_000))
		for _, v := range all {
			v.Close()
		}
	})
	t.Run("sessions", func(t *testing.T) {
		in, account, _ := roomy(t)
		empty, count := settledMemory(in), setting.Int(t, "PLANTOPS_BENCH_SESSIONS", 10_000)
		sessions(t, in, account, count)
		full := settledMemory(in)
		t.Logf("%d sessions away: %s, %s without them, %s at most", count, mib(full), mib(empty), mib(in.Memory("VmHWM")))
		assert.LessOrEqual(t, full, int64(40_000_000))
	})
}
