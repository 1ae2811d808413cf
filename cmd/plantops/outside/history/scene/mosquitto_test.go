//go:build linux

package scene_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
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

// mosquitto is one that keeps its state in a file, with a setting more.
func mosquitto(t *testing.T, extra string) *scene.Command {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed: the checker has no other broker to bite")
	}
	dir := t.TempDir()
	address := program.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	config := filepath.Join(dir, "mosquitto.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "user root\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n"+
		"persistence true\npersistence_location %s/\nlistener %s 127.0.0.1\n%s\n", dir, port, extra), 0o600))
	b := &scene.Command{Line: "mosquitto -c " + config + " 2>/dev/null", Address: address}
	require.NoError(t, b.Start())
	t.Cleanup(func() { _ = b.Kill() }) // an error means that it has ended
	return b
}

// lenient excuses what mosquitto does not promise.
var lenient = history.Rules{NoGiveBack: true, Hasty: time.Second, Slack: 3 * time.Second}

// play runs a scene and returns what it found.
func play(t *testing.T, address string, rules history.Rules, then func(*scene.Scene, *rand.Rand)) []history.Fault {
	t.Helper()
	random := setting.Random(t)
	s := scene.New(scene.Options{Address: address, Random: random, Rate: 400, Rules: rules})
	s.Start(t.Context())
	then(s, random)
	h, err := s.End(t.Context(), 3*time.Second)
	require.NoError(t, err)
	t.Log(history.Count(h))
	return history.Check(h, rules)
}

// A broker that stays alive keeps to MQTT: what the checker finds here is the checker's fault, or the broker's.
func TestMosquittoPassesWhileItLives(t *testing.T) {
	b := mosquitto(t, "")
	faults := play(t, b.Address, lenient, func(*scene.Scene, *rand.Rand) {
		<-time.After(setting.Duration(t, "PLANTOPS_HISTORY_LENGTH", 2*time.Second))
	})
	assert.Empty(t, history.Summary(faults, 3))
}

// The control: mosquitto writes its state every half hour, or every second if it is told so, and not before it acknowledges.
func TestMosquittoIsBitten(t *testing.T) {
	for _, extra := range []string{"", "autosave_interval 1"} {
		t.Run(extra, func(t *testing.T) {
			b := mosquitto(t, extra)
			faults := play(t, b.Address, lenient, func(s *scene.Scene, random *rand.Rand) {
				for range setting.Int(t, "PLANTOPS_HISTORY_KILLS", 1) {
					<-time.After(time.Second + time.Duration(random.Int64N(int64(time.Second))))
					s.Kill(func() { require.NoError(t, b.Kill()) })
					require.NoError(t, b.Start())
				}
			})
			t.Log(history.Summary(faults, 1))
			assert.NotEmpty(t, faults)
		})
	}
}
