//go:build linux

package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const viewerPassword = "looks on and counts"

// TestReloadsTouchNobodyElse reloads the real program over and over while devices publish over each listener, viewers
// look on, and strangers, devices and people ask who may do what: SIGHUP with good and bad configurations, certificates
// that are renewed, replaced, spoilt and missing, accounts that come, change and go. No verdict may be wrong, nobody
// else's connection may end, nothing acknowledged may be missing, nothing may be left behind. PLANTOPS_RELOADS is how
// many reloads.
func TestReloadsTouchNobodyElse(t *testing.T) {
	count := intSetting(t, "PLANTOPS_RELOADS", 60)
	u := newUpheaval(t, seeded(t))
	acts := u.acts()
	for _, act := range acts { // each once, so that all is there that stays
		act.do()
	}
	descriptors, memory := u.atRest(), u.in.memory("VmRSS")
	done := map[string]int{}
	began := time.Now()
	for range count {
		act := acts[u.random.IntN(len(acts))]
		act.do()
		done[act.name]++
		u.sameProcess()
	}
	t.Logf("%d reloads in %s: %v", count, time.Since(began).Round(time.Millisecond), done)
	require.Eventually(t, func() bool { return u.atRest() <= descriptors }, patience, 50*time.Millisecond,
		"%d descriptors before, %d now", descriptors, u.atRest())
	grown := u.in.memory("VmRSS") - memory
	t.Logf("%d descriptors at rest, memory grew by %.1f MiB", descriptors, float64(grown)/mebibyte)
	assert.Less(t, grown, int64(64*mebibyte))
	u.verify()
	require.Eventually(t, func() bool { return u.in.descriptors() <= descriptors-u.residents() }, patience, 20*time.Millisecond)
	u.in.noGoroutinesLeft(u.log)
}

// upheaval is a server that is reloaded all the time.
type upheaval struct {
	*siege
	random  *rand.Rand
	log     string // file
	config  string // file
	manager *net.UnixConn
	control *http.Client

	fleet   *fleet
	viewers []*viewer
	viewing sync.WaitGroup
	guests  []*guest
	inquiry *inquiry
	stop    func() // the inquiry
}

func newUpheaval(t *testing.T, random *rand.Rand) *upheaval {
	t.Helper()
	dir, websocket := t.TempDir(), freeAddress(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "manager"), Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { manager.Close() })
	in := newInstallation(t, dir, "PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=true", "PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS="+websocket,
		"NOTIFY_SOCKET="+filepath.Join(dir, "manager"))
	u := &upheaval{siege: &siege{t: t, in: in, secrets: map[string]string{}}, random: random, manager: manager,
		log: filepath.Join(dir, "log"), config: filepath.Join(dir, "plantops.yaml")}
	u.doors = []door{{kind: "tcp", address: in.tcp}, {kind: "tls", address: in.tls}, {kind: "websocket", address: websocket}}
	u.control = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(in.dir, "plantops.sock"))
		}}}
	u.fleet = newFleet(in, 12, 300, in.register)
	u.writeConfig(goodConfig)
	in.startLogged(u.log)
	u.awaitReady()
	u.meet()
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
	u.t.Helper()
	answer, ok := u.order("/users/add", map[string]any{"name": "viewer", "password": viewerPassword, "subscribe": []string{"devices/#"}})
	require.True(u.t, ok, "%v", answer)
	for _, d := range u.doors {
		u.viewers = append(u.viewers, u.watch(d))
	}
	for i, d := range u.fleet.devices { // four over each listener: both versions with both QoS
		through := u.doors[i/4]
		d.address, d.tls, d.websocket = through.address, through.tls, through.kind == "websocket"
	}
	u.fleet.start()
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
	u.t.Cleanup(u.stop)
}

// awaitReady waits until the server tells the service manager that it is ready, after a start or a reload.
func (u *upheaval) awaitReady() {
	u.t.Helper()
	require.NoError(u.t, u.manager.SetReadDeadline(time.Now().Add(patience)))
	for state := make([]byte, 256); ; {
		n, err := u.manager.Read(state)
		require.NoError(u.t, err)
		if string(state[:n]) == "READY=1" {
			return
		}
	}
}

// said returns what the log has had since the moment at which it was so long.
func (u *upheaval) said(since int64) string {
	u.t.Helper()
	return saidSince(u.t, u.log, since)
}

// hangUp sends SIGHUP, waits for the end of the reload and returns what was said meanwhile.
func (u *upheaval) hangUp() string {
	u.t.Helper()
	before, err := os.Stat(u.log)
	require.NoError(u.t, err)
	require.NoError(u.t, u.in.server.Signal(syscall.SIGHUP))
	u.awaitReady()
	return u.said(before.Size())
}

func (u *upheaval) sameProcess() {
	u.t.Helper()
	select {
	case <-u.in.server.ended:
		require.Fail(u.t, "the server ended by itself", "exit code %d", u.in.server.code)
	default:
	}
}

// atRest returns how many descriptors the server has while nobody asks and nobody who asked is left.
func (u *upheaval) atRest() int {
	u.t.Helper()
	u.inquiry.resting.Lock()
	defer u.inquiry.resting.Unlock()
	require.Eventually(u.t, func() bool { return u.connections() == u.residents() }, patience, 20*time.Millisecond)
	return u.in.descriptors()
}

func (u *upheaval) residents() int { return len(u.fleet.devices) + len(u.viewers) }

// connections is how many clients the server counts.
func (u *upheaval) connections() int {
	answer, ok := u.status()
	require.True(u.t, ok)
	return int(answer["connections"].(map[string]any)["now"].(float64)) - 1 // its own subscriber
}

// verify looks at everything when no more reloads come.
func (u *upheaval) verify() {
	u.t.Helper()
	u.stop()
	q := u.inquiry
	u.t.Logf("%d questions, %d of them let in, %d while the answer was changing", q.asked.Load(), q.right.Load(), q.either.Load())
	assert.Empty(u.t, q.wrong, "wrong verdicts")
	assert.NotZero(u.t, q.right.Load())
	u.fleet.drain(patience)
	s := u.fleet.snapshot()
	assert.Equal(u.t, len(u.fleet.devices), s.connections, "connections of devices that nobody has changed")
	for _, v := range u.viewers {
		assert.Eventually(u.t, func() bool { return v.seen.Load() >= int64(s.sent) }, patience, 10*time.Millisecond)
		assert.Equal(u.t, int64(s.sent), v.seen.Load(), "readings seen over %s", v.from)
		assert.Nil(u.t, v.lost.Load(), "the viewer over %s lost its connection", v.from)
		v.Close()
	}
	u.viewing.Wait()
	s.verify(u.t, "plantops readings", readCSV(u.in, u.fleet))
	assert.Equal(u.t, s.sent, s.acknowledged)
	counts := u.in.counts() // and it is healthy: each device is accounted for
	u.t.Logf("status: %+v", counts)
	assert.Zero(u.t, counts.Difference)
	assert.Zero(u.t, counts.Pending)
	assert.Zero(u.t, counts.Quarantined)
	assert.GreaterOrEqual(u.t, counts.Stored, int64(s.sent)+q.stored.Load())
	assert.LessOrEqual(u.t, counts.Stored, int64(s.sent)+q.sent.Load())
	u.sameProcess()
	assert.Equal(u.t, u.pid, u.in.server.Pid)
}
