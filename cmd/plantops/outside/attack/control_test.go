//go:build linux

package attack_test

import (
	"fmt"
	"maps"
	"net"
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

	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// A control here is what experimenters call one: another broker, to see that an attack bites. Package control is something
// else.

// controlSecrets are the accounts of the brokers that the attacks are tried on.
var controlSecrets = map[string]string{"bed-1": "secret-1", "bed-2": "secret-2", "bed-3": "secret-3", "exact": siege.ExactPassword}

// attacks are those that plain mochi is known to fall to. If it does not, the attack does not bite.
var attacks = map[string]siege.Attack{
	"V01": attackTruncatedSubscribe, "V02": attackAnnouncedLength, "V03": attackSilence, "V06": attackDeepTopic,
	"V07": attackForgedWill, "V08": attackStolenSession, "V10": attackBelowTheRule, "V18": attackHoarding,
	"V18 topics": attackAliases, "V18 wills": attackWills,
}

func attackNames() []string { return slices.Sorted(maps.Keys(attacks)) }

// TestControlsFallToTheAttacks runs the attacks that have a control against plain mochi and, where it is installed, apt's
// mosquitto, a fresh one for each, with PLANTOPS_CONTROL=1, which "make torture" sets. It prints a table.
func TestControlsFallToTheAttacks(t *testing.T) {
	if os.Getenv("PLANTOPS_CONTROL") == "" {
		t.Skip(`takes a minute: "make torture" runs it`)
	}
	broker := filepath.Join(t.TempDir(), "broker.test")
	out, err := exec.Command("go", "test", "-c", "-o", broker, "github.com/plantops/plantops/broker").CombinedOutput()
	require.NoError(t, err, "%s", out)
	brokers := map[string]func(*testing.T, string) *siege.Siege{
		"mochi": func(t *testing.T, address string) *siege.Siege { return startMochi(t, broker, address) },
	}
	if _, err := exec.LookPath("mosquitto"); err == nil {
		brokers["mosquitto"] = startMosquitto
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tplain mochi\tmosquitto\t")
	fell := map[string]bool{}
	for _, name := range attackNames() {
		verdicts := map[string]string{"mosquitto": "not installed"}
		for other, start := range brokers {
			t.Run(name+"/"+other, func(t *testing.T) {
				address := program.FreeAddress(t)
				g := start(t, address)
				g.T, g.Secrets, g.Doors = t, controlSecrets, []door.Door{{Kind: "tcp", Address: address}}
				require.Eventually(t, func() bool { return g.Serves(g.Doors[0]) == nil }, setting.Patience, 10*time.Millisecond)
				verdicts[other] = attacks[name](g, g.Doors[0])
			})
		}
		for other, hole := range verdicts {
			if hole == "" {
				verdicts[other] = "holds"
			}
		}
		fell[name] = verdicts["mochi"] != "holds"
		fmt.Fprintf(table, "%s\t%s\t%s\t\n", name, verdicts["mochi"], verdicts["mosquitto"])
	}
	require.NoError(t, table.Flush())
	t.Logf("\n%s", &text)
	for _, name := range attackNames() {
		assert.True(t, fell[name], "%s does not bite: plain mochi withstands it", name)
	}
}

func startMochi(t *testing.T, program, address string) *siege.Siege {
	t.Helper()
	var accounts []string
	for name, secret := range controlSecrets {
		accounts = append(accounts, name+"="+secret)
	}
	cmd := exec.Command(program, "-test.run", "^TestPlainMochi$")
	cmd.Env = append(os.Environ(), "PLANTOPS_CONTROL_ADDRESS="+address, "PLANTOPS_CONTROL_ACCOUNTS="+strings.Join(accounts, " "))
	_, err := cmd.StdinPipe() // open until it is killed
	require.NoError(t, err)
	return besieged(t, cmd)
}

func startMosquitto(t *testing.T, address string) *siege.Siege {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	var passwords strings.Builder
	for name, secret := range controlSecrets {
		fmt.Fprintf(&passwords, "%s:%s\n", name, secret)
	}
	in := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	file := in("passwords", passwords.String())
	out, err := exec.Command("mosquitto_passwd", "-U", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	rules := in("acl", "pattern readwrite devices/%u/#\nuser exact\ntopic readwrite home/exact\n")
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	settings := in("conf", fmt.Sprintf("user root\nallow_anonymous false\npassword_file %s\nacl_file %s\nlistener %s 127.0.0.1\nlog_type none\n", file, rules, port))
	return besieged(t, exec.Command("mosquitto", "-c", settings))
}

func besieged(t *testing.T, cmd *exec.Cmd) *siege.Siege {
	t.Helper()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	})
	return &siege.Siege{T: t, PID: cmd.Process.Pid}
}
