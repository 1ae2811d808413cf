//go:build linux

package reload_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

const viewerPassword = "looks on and counts"

// TestReloadsTouchNobodyElse reloads the real program over and over while devices publish over each listener, viewers
// look on, and strangers, devices and people ask who may do what: SIGHUP with good and bad configurations, certificates
// that are renewed, replaced, spoilt and missing, accounts that come, change and go. No verdict may be wrong, nobody
// else's connection may end, nothing acknowledged may be missing, nothing may be left behind. PLANTOPS_RELOADS is how
// many reloads.
func TestReloadsTouchNobodyElse(t *testing.T) {
	count := setting.Int(t, "PLANTOPS_RELOADS", 60)
	u := newUpheaval(t, setting.Random(t))
	acts := u.acts()
	for _, act := range acts { // each once, so that all is there that stays
		act.do()
	}
	descriptors, memory := u.atRest(), u.In.Memory("VmRSS")
	done := map[string]int{}
	began := time.Now()
	for range count {
		act := acts[u.random.IntN(len(acts))]
		act.do()
		done[act.name]++
		u.sameProcess()
	}
	t.Logf("%d reloads in %s: %v", count, time.Since(began).Round(time.Millisecond), done)
	require.Eventually(t, func() bool { return u.atRest() <= descriptors }, setting.Patience, 50*time.Millisecond,
		"%d descriptors before, %d now", descriptors, u.atRest())
	grown := u.In.Memory("VmRSS") - memory
	t.Logf("%d descriptors at rest, memory grew by %.1f MiB", descriptors, float64(grown)/siege.Mebibyte)
	assert.Less(t, grown, int64(64*siege.Mebibyte))
	u.verify()
	require.Eventually(t, func() bool { return u.In.Descriptors() <= descriptors-u.residents() }, setting.Patience, 20*time.Millisecond)
	u.In.NoGoroutinesLeft(u.log)
}

// upheaval is a server that is reloaded all the time.
type upheaval struct {
	*siege.Siege
	random  *rand.Rand
	log     string // file
	config  string // file
	manager *net.UnixConn
	control *http.Client

	fleet   *fleet.Fleet
	viewers []*viewer
	viewing sync.WaitGroup
	guests  []*guest
	inquiry *inquiry
	stop    func() // the inquiry
}

func newUpheaval(t *testing.T, random *rand.Rand) *upheaval {
	t.Helper()
	dir, websocket := t.TempDir(), program.FreeAddress(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "manager"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { manager.Close() })
	in := program.Install(t, dir, "PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=true", "PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS="+websocket,
		"NOTIFY_SOCKET="+filepath.Join(dir, "manager"))
	u := &upheaval{Siege: &siege.Siege{T: t, In: in, Secrets: map[string]string{}}, random: random, manager: manager,
		log: filepath.Join(dir, "log"), config: filepath.Join(dir, "plantops.yaml")}
	u.Doors = []door.Door{{Kind: "tcp", Address: in.TCP}, {Kind: "tls", Address: in.TLS}, {Kind: "websocket", Address: websocket}}
	u.control = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(in.Dir, "plantops.sock"))
		}}}
	u.fleet = fleet.New(in, 12, 300, in.Register)
	u.writeConfig(goodConfig)
	in.StartLogged(u.log)
	u.awaitReady()
	u.Meet()
	t.Cleanup(func() {
		if text, err := os.ReadFile(u.log); t.Failed() && err == nil {
			t.Logf("what the server said last:\n%s", text[max(0, len(text)-8000):])
		}
	})
	u.populate()
	return u
}

// populate lets everybody in.
func (u *upheaval) populate() {
	u.T.Helper()
	answer, ok := u.order("/users/add", map[string]any{"name": "viewer", "password": viewerPassword, "subscribe": []string{"devices/#"}})
	require.True(u.T, ok, "%v", answer)
	for _, d := range u.Doors {
		u.viewers = append(u.viewers, u.watch(d))
	}
	for i, d := range u.fleet.Devices { // four over each listener: both versions with both QoS
		d.Through = u.Doors[i/4]
	}
	u.fleet.Start()
	for i := range 6 {
		u.guests = append(u.guests, &guest{name: fmt.Sprint("guest-", i), user: i >= 4, was: []standing{{}}})
	}
	u.inquiry = &inquiry{u: u}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for range 8 { // wrong passwords are answered late
		r := rand.New(rand.NewPCG(u.random.Uint64(), 0))
		asking.Go(func() { u.inquiry.run(stop, r) })
	}
	u.stop = sync.OnceFunc(func() {
		close(stop)
		asking.Wait()
	})
	u.T.Cleanup(u.stop)
}

// awaitReady waits until the server tells the service manager that it is ready, after a start or a reload.
func (u *upheaval) awaitReady() {
	u.T.Helper()
	require.NoError(u.T, u.manager.SetReadDeadline(time.Now().Add(setting.Patience)))
	for state := make([]byte, 256); ; {
		n, err := u.manager.Read(state)
		require.NoError(u.T, err)
		if first, _, _ := strings.Cut(string(state[:n]), "\n"); first == "READY=1" {
			return
		}
	}
}

// said returns what the log has had since the moment at which it was so long.
func (u *upheaval) said(since int64) string {
	u.T.Helper()
	return program.SaidSince(u.T, u.log, since)
}

// hangUp sends SIGHUP, waits for the end of the reload and returns what was said meanwhile.
func (u *upheaval) hangUp() string {
	u.T.Helper()
	before, err := os.Stat(u.log)
	require.NoError(u.T, err)
	require.NoError(u.T, u.In.Server.Signal(syscall.SIGHUP))
	u.awaitReady()
	return u.said(before.Size())
}

func (u *upheaval) sameProcess() {
	u.T.Helper()
	select {
	case <-u.In.Server.Ended:
		require.Fail(u.T, "the server ended by itself", "exit code %d", u.In.Server.Code)
	default:
	}
}

// atRest returns how many descriptors the server has while nobody asks and nobody who asked is left.
func (u *upheaval) atRest() int {
	u.T.Helper()
	u.inquiry.resting.Lock()
	defer u.inquiry.resting.Unlock()
	require.Eventually(u.T, func() bool { return u.connections() == u.residents() }, setting.Patience, 20*time.Millisecond)
	return u.In.Descriptors()
}

func (u *upheaval) residents() int { return len(u.fleet.Devices) + len(u.viewers) }

// connections is how many clients the server counts.
func (u *upheaval) connections() int {
	answer, ok := u.status()
	require.True(u.T, ok)
	return int(answer["connections"].(map[string]any)["now"].(float64)) - 1 // its own subscriber
}

// verify looks at everything when no more reloads come.
func (u *upheaval) verify() {
	u.T.Helper()
	u.stop()
	q := u.inquiry
	u.T.Logf("%d questions, %d of them let in, %d while the answer was changing", q.asked.Load(), q.right.Load(), q.either.Load())
	assert.Empty(u.T, q.wrong, "wrong verdicts")
	assert.NotZero(u.T, q.right.Load())
	u.fleet.Drain(setting.Patience)
	s := u.fleet.Snapshot()
	assert.Equal(u.T, len(u.fleet.Devices), s.Connections, "connections of devices that nobody has changed")
	for _, v := range u.viewers {
		assert.Eventually(u.T, func() bool { return v.seen.Load() >= int64(s.Sent) }, setting.Patience, 10*time.Millisecond)
		assert.Equal(u.T, int64(s.Sent), v.seen.Load(), "readings seen over %s", v.from)
		assert.Nil(u.T, v.lost.Load(), "the viewer over %s lost its connection", v.from)
		v.Close()
	}
	u.viewing.Wait()
	s.Verify(u.T, "plantops readings", fleet.ReadCSV(u.In, u.fleet))
	assert.Equal(u.T, s.Sent, s.Acknowledged)
	counts := u.In.Counts() // and it is healthy: each device is accounted for
	u.T.Logf("status: %+v", counts)
	assert.Zero(u.T, counts.Difference)
	assert.Zero(u.T, counts.Pending)
	assert.Zero(u.T, counts.Quarantined)
	assert.GreaterOrEqual(u.T, counts.Stored, int64(s.Sent)+q.stored.Load())
	assert.LessOrEqual(u.T, counts.Stored, int64(s.Sent)+q.sent.Load())
	u.sameProcess()
	assert.Equal(u.T, u.PID, u.In.Server.Pid)
}
