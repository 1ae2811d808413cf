//go:build linux

package scene_test

import (
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

const housePassword = "everything in the house"

// house is an installation, not started, with an account that may do everything.
func house(t *testing.T) (*program.Installation, scene.Account) {
	t.Helper()
	return houseIn(t, t.TempDir())
}

func houseIn(t *testing.T, dir string) (*program.Installation, scene.Account) {
	t.Helper()
	in := program.Install(t, dir)
	in.Register("bed-1") // makes the database
	in.Start()
	in.AwaitReady()
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(housePassword), 0o600))
	in.Run("user", "add", "house", "--publish", "#", "--subscribe", "#", "--password-file", password)
	return in, scene.Account{User: "house", Secret: housePassword}
}

// strict asks for everything that MQTT says somebody SHOULD do.
var strict = history.Rules{Slack: 3 * time.Second}

// TestPlantOpsKeepsToMQTT is the mixture without a kill.
func TestPlantOpsKeepsToMQTT(t *testing.T) {
	in, account := house(t)
	random := setting.Random(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: random, Rate: 400, Rules: strict})
	s.Start(t.Context())
	program.Pause(in, setting.Duration(t, "PLANTOPS_HISTORY_LENGTH", 3*time.Second))
	conclude(t, s)
}

// TestTakeoversLoseNothing lets clients take over their own connections. PLANTOPS_TAKEOVERS is for how long: 2m are some
// thousands.
func TestTakeoversLoseNothing(t *testing.T) {
	in, account := house(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: setting.Random(t), Rate: 400, Rules: strict, Cast: scene.Takeovers})
	s.Start(t.Context())
	program.Pause(in, setting.Duration(t, "PLANTOPS_TAKEOVERS", 3*time.Second))
	conclude(t, s)
}

// TestKilledServerKeepsItsSessions kills the server again and again while everything happens at once. PLANTOPS_TORTURE_KILLS
// is how often.
func TestKilledServerKeepsItsSessions(t *testing.T) {
	in, account := house(t)
	random := setting.Random(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: random, Rate: 400, Rules: strict})
	s.Start(t.Context())
	for i := range setting.Int(t, "PLANTOPS_TORTURE_KILLS", 8) {
		if i%5 != 4 { // every fifth dies early, most of them while they start
			in.AwaitReady()
		}
		program.Pause(in, lifetime(random, i))
		s.Kill(in.Kill)
		in.Start()
	}
	in.AwaitReady()
	conclude(t, s)
	in.Stop()
}

func lifetime(random *rand.Rand, i int) time.Duration {
	if i%5 == 4 {
		return time.Duration(random.Int64N(int64(150 * time.Millisecond)))
	}
	return 200*time.Millisecond + time.Duration(random.Int64N(int64(1500*time.Millisecond)))
}

// conclude ends a scene and judges it. PLANTOPS_HISTORY_TRACE is a file for the history.
func conclude(t *testing.T, s *scene.Scene) {
	t.Helper()
	h, err := s.End(t.Context(), 5*time.Second)
	require.NoError(t, err)
	t.Log(history.Count(h))
	if path := os.Getenv("PLANTOPS_HISTORY_TRACE"); path != "" {
		require.NoError(t, history.Write(path, h))
	}
	assert.Empty(t, history.Summary(history.Check(h, s.Rules), 5))
	assert.Empty(t, s.Complaints())
}
