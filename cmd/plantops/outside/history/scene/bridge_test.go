//go:build linux

package scene_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/history/scene"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// TestKilledServerBridges kills a server again and again that has a bridge to another one: a client there gets everything. What
// it gets at QoS 2 it gets once.
func TestKilledServerBridges(t *testing.T) {
	far, farAccount := house(t)
	dir := t.TempDir()
	config := fmt.Sprintf("bridges:\n  - name: far\n    address: %s\n    tls: false\n    username: %s\n    password: %s\n"+
		"    topics:\n      - {filter: home/#, qos: 2, remote_prefix: from/}\n", far.TCP, farAccount.User, farAccount.Secret)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.yaml"), []byte(config), 0o600))
	in, account := houseIn(t, dir)
	require.Eventually(t, func() bool { return strings.Contains(in.Output.String(), "bridge is connected") }, setting.Patience, 10*time.Millisecond, "the bridge")

	random := setting.Random(t)
	s := scene.New(scene.Options{Address: in.TCP, Account: account, Random: random, Rate: 300, Rules: strict,
		Far: &scene.Far{Address: far.TCP, Account: farAccount, Prefix: "from/"}})
	s.Start(t.Context())
	for i := range setting.Int(t, "PLANTOPS_TORTURE_KILLS", 4) {
		in.AwaitReady()
		program.Pause(in, lifetime(random, i))
		s.Kill(in.Kill)
		in.Start()
	}
	in.AwaitReady()
	program.Pause(in, time.Second)
	conclude(t, s)
}
