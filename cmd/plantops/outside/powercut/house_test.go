//go:build linux && amd64

package powercut_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
	"github.com/plantops/plantops/cmd/plantops/outside/history/scene"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// TestPowerCutKeepsSessions records a server while the clients of a house do everything at once, and cuts the power at many
// points of the record. After each the program starts with the files as a disk could hold them, the clients come back as
// they were then, and the history checker judges what they got before and afterwards. PLANTOPS_HISTORY_TRACE begins the names of
// files for the histories with faults, and of directories with what was on the disk.
func TestPowerCutKeepsSessions(t *testing.T) {
	random := setting.Random(t)
	h := recordHouse(t, random, setting.Duration(t, "PLANTOPS_POWERCUT_LOAD", 700*time.Millisecond))
	points := chooseCuts(random, h.record.events[h.begin:], setting.Int(t, "PLANTOPS_POWERCUTS_HOUSE", 5))
	broken := 0
	h.replay(t, points, newDisk(false), func(point int, faults []history.Fault) bool {
		if len(faults) > 0 {
			broken++
			t.Errorf("cut at event %d of %d:\n%s", point, len(h.record.events), history.Summary(faults, 3))
		}
		return true
	})
	t.Logf("%d power cuts in a record of %d events and %d of the clients: %d with faults", len(points), len(h.record.events), len(h.events), broken)

	// The control: were the write-ahead log never synced, cuts would have to show. One may leave everything all the same.
	noticed := false
	end := len(h.record.events) - h.begin
	h.replay(t, []int{end / 2, end - 2, end - 1, end, end, end, end, end}, newDisk(true), func(_ int, faults []history.Fault) bool {
		noticed = len(faults) > 0
		return !noticed
	})
	assert.True(t, noticed, "the harness does not notice that nothing is synced")
}

// replay cuts the power at points of the record, which are in order, until then returns false.
func (h *household) replay(t *testing.T, points []int, d *disk, then func(point int, faults []history.Fault) bool) {
	t.Helper()
	next := 0
	for _, point := range points {
		point += h.begin
		for ; next < point; next++ {
			d.advance(h.record.events[next])
		}
		if !then(point, h.resume(t, d, point)) {
			return
		}
	}
}

// household is a record with the history that belongs to it.
type household struct {
	record  *recorder
	begin   int // before this event the accounts were not there
	certs   string
	account scene.Account
	events  []history.Event
	random  *rand.Rand
}

var houseRules = history.Rules{Slack: 3 * time.Second}

func recordHouse(t *testing.T, random *rand.Rand, load time.Duration) *household {
	t.Helper()
	in := program.Install(t, t.TempDir())
	h := &household{record: newRecorder(in.Dir), certs: filepath.Join(in.Dir, "certs"), random: random,
		account: scene.Account{User: "house", Secret: "everything in the house"}}
	h.record.serve(in)
	in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(h.account.Secret), 0o600))
	in.Run("user", "add", h.account.User, "--publish", "#", "--subscribe", "#", "--password-file", password)
	in.Stop()
	h.begin = len(h.record.events)

	s := scene.New(scene.Options{Address: in.TCP, Account: h.account, Random: random, Rate: 300, Rules: houseRules, From: deviceAddress})
	h.record.known = s.Log.Len
	h.record.serve(in)
	in.AwaitReady()
	s.Start(t.Context())
	program.Pause(in, load)
	s.Kill(in.Kill)
	requireFaithful(t, h.record)
	h.record.serve(in)
	in.AwaitReady()
	program.Pause(in, load)
	h.events = s.Log.Events()
	in.Kill()
	requireFaithful(t, h.record)
	s.Stop()
	t.Logf("recorded %s: %s", history.Count(h.events), h.record)
	return h
}

// known is how much the clients knew when the power was cut before an event.
func (h *household) known(point int) int {
	if point < len(h.record.events) {
		return min(h.record.events[point].known, len(h.events))
	}
	return len(h.events)
}

// before is what had happened when the clients knew so much. What was on its way to one whose session ends with its connection
// counts as received: the session is gone, and so is, as with a subscriber's, what a share group had given it. What its publisher sent
// once more afterwards may have made a copy, so it counts for those only who had none.
func (h *household) before(known int) []history.Event {
	type delivery struct {
		client string
		of     history.Message
	}
	sent, again := map[history.Message]bool{}, map[history.Message]bool{}
	clean, fleeting, got := map[string]bool{}, map[string]bool{}, map[delivery]bool{}
	for _, e := range h.events[:known] {
		switch e.Kind {
		case history.Connecting:
			clean[e.Client], fleeting[e.Client] = !e.Resume, false
		case history.Connected:
			fleeting[e.Client] = clean[e.Client]
		case history.Parted, history.Dropped, history.Replaced:
			fleeting[e.Client] = false
		case history.Sending:
			sent[e.Message] = true
		case history.Got:
			got[delivery{e.Client, e.Message}] = true
		}
	}
	events := h.events[:known:known]
	for _, e := range h.events[known:] {
		switch e.Kind {
		case history.Killed:
			return history.Cut(events, len(events))
		case history.Connecting, history.Parted, history.Dropped, history.Replaced:
			fleeting[e.Client] = false
		case history.Sending:
			again[e.Message] = true
		case history.Got:
			d := delivery{e.Client, e.Message}
			if fleeting[e.Client] && sent[e.Message] && !(again[e.Message] && got[d]) {
				events = append(events, e)
				got[d] = true
			}
		}
	}
	return history.Cut(events, len(events))
}

// What is sent once more after the power was cut, in the record, is not sent once more before.
func TestWhatComesOfSendingOnceMoreAfterTheCutIsLeftOut(t *testing.T) {
	m := history.Message{From: "pub", Number: 7}
	event := func(kind history.Kind, client string, again bool) history.Event {
		return history.Event{Kind: kind, Client: client, Message: m, Again: again, QoS: 1}
	}
	h := household{events: []history.Event{
		{Kind: history.Connecting, Client: "sub"}, {Kind: history.Connected, Client: "sub"},
		{Kind: history.Connecting, Client: "late"}, {Kind: history.Connected, Client: "late"},
		event(history.Sending, "pub", false), // and then the power was cut
		event(history.Got, "sub", false), event(history.Sending, "pub", true),
		event(history.Got, "sub", false), event(history.Got, "late", false), event(history.Got, "late", false),
	}}
	got := map[string]int{}
	for _, e := range h.before(5) {
		if e.Kind == history.Got {
			got[e.Client]++
		}
	}
	assert.Equal(t, map[string]int{"sub": 1, "late": 1}, got)
}

// resume starts the program with what is left and lets the clients come back.
func (h *household) resume(t *testing.T, d *disk, point int) []history.Fault {
	t.Helper()
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	in := program.Install(t, dir)
	require.NoError(t, d.cut(h.random, in.Dir))
	image, trace := filepath.Join(dir, "image"), os.Getenv("PLANTOPS_HISTORY_TRACE")
	if trace != "" {
		require.NoError(t, os.CopyFS(image, os.DirFS(in.Dir)))
	}
	certs := filepath.Join(in.Dir, "certs")
	require.NoError(t, os.CopyFS(certs, os.DirFS(h.certs)))
	keys, err := filepath.Glob(filepath.Join(certs, "*.key"))
	require.NoError(t, err)
	for _, key := range keys {
		require.NoError(t, os.Chmod(key, 0o600))
	}
	in.Start()
	in.AwaitReady()
	defer in.Kill()
	s := scene.New(scene.Options{Address: in.TCP, Account: h.account, Random: h.random, Rate: 100, Rules: houseRules,
		Before: h.before(h.known(point))})
	s.Start(t.Context())
	all, err := s.End(t.Context(), 3*time.Second)
	require.NoError(t, err)
	assert.Empty(t, s.Complaints())
	faults := history.Check(all, houseRules)
	if trace != "" && len(faults) > 0 {
		at := fmt.Sprintf("%s-%d", trace, point)
		require.NoError(t, history.Write(at, all))
		require.NoError(t, os.CopyFS(at+"-disk", os.DirFS(image)))
	}
	return faults
}
