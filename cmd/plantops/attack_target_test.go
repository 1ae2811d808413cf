//go:build linux

package main_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// siege is a broker under attack. It knows three devices: bed-1 attacks, bed-2 is the victim, bed-3 goes on working;
// and the user exact, who may publish and subscribe to home/exact and nothing else.
type siege struct {
	t       *testing.T
	in      *installation // nil when it is another broker
	doors   []door
	pid     int
	secrets map[string]string
}

const exactPassword = "not-below-it-either"

// besiege starts the real program with all three listeners. settings are environment variables.
func besiege(t *testing.T, settings ...string) *siege {
	t.Helper()
	in, g := prepare(t, settings...)
	in.start()
	in.awaitReady()
	g.meet()
	return g
}

// prepare makes what besiege starts.
func prepare(t *testing.T, settings ...string) (*installation, *siege) {
	t.Helper()
	dir := t.TempDir()
	websocket := freeAddress(t)
	in := newInstallation(t, dir, append([]string{"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=true",
		"PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=" + websocket}, settings...)...)
	g := &siege{t: t, in: in, secrets: in.register("bed-1", "bed-2", "bed-3")}
	g.doors = []door{{kind: "tcp", address: in.tcp}, {kind: "tls", address: in.tls}, {kind: "websocket", address: websocket}}
	return in, g
}

// meet notes what there is once the server is ready.
func (g *siege) meet() {
	g.t.Helper()
	g.pid, g.doors[1].tls = g.in.server.Pid, g.in.clientTLS()
}

// addExact adds the user exact.
func (g *siege) addExact() {
	g.t.Helper()
	password := filepath.Join(g.t.TempDir(), "password")
	require.NoError(g.t, os.WriteFile(password, []byte(exactPassword), 0o600))
	g.in.run("user", "add", "exact", "--publish", "home/exact", "--subscribe", "home/exact", "--password-file", password)
	g.secrets["exact"] = exactPassword
}

func (g *siege) as(user string) login {
	return login{user: user, secret: g.secrets[user], client: user}
}

// enter logs in; the target must let the user in.
func (g *siege) enter(d door, l login) *intruder {
	g.t.Helper()
	a, code, err := d.enter(g.t, l)
	require.NoError(g.t, err, "%s over %s", l.user, d.kind)
	require.Zero(g.t, code, "CONNACK for %s over %s", l.user, d.kind)
	return a
}

// refused makes sure that a login is answered with a refusal, or with the end.
func (g *siege) refused(d door, l login) {
	g.t.Helper()
	_, code, err := d.enter(g.t, l)
	if err == nil {
		require.NotZero(g.t, code, "CONNACK for %+v over %s", l, d.kind)
		return
	}
	require.False(g.t, isTimeout(err), "no answer to %+v over %s", l, d.kind)
}

// serves makes sure that a device can log in and store a reading.
func (g *siege) serves(d door) error {
	a, code, err := d.enter(g.t, g.as("bed-3"))
	if err != nil {
		return err
	}
	defer a.Close()
	if code == 0 {
		code, err = a.publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, time.Now().UnixMilli()))
	}
	if err == nil && code >= firstFailure {
		err = fmt.Errorf("refused with %#x", code)
	}
	return err
}

// servesAll makes sure that the same process still serves on every listener.
func (g *siege) servesAll() {
	g.t.Helper()
	for _, d := range g.doors {
		require.NoError(g.t, g.serves(d), d.kind)
	}
	select {
	case <-g.in.server.ended:
		require.Fail(g.t, "the server ended", g.in.output)
	default:
	}
}

// attack is one of those that run against other brokers too. It returns the hole it found, or "".
type attack func(g *siege, d door) (hole string)

// attacks are those that some other broker falls to.
var attacks = map[string]attack{
	"V01": attackTruncatedSubscribe, "V02": attackAnnouncedLength, "V03": attackSilence, "V06": attackDeepTopic,
	"V07": attackForgedWill, "V08": attackStolenSession, "V10": attackBelowTheRule, "V18": attackHoarding,
}

// withstands runs an attack through every door.
func (g *siege) withstands(a attack) {
	g.t.Helper()
	for _, d := range g.doors {
		require.Empty(g.t, a(g, d), d.kind)
	}
	g.servesAll()
}

func attackNames() []string { return slices.Sorted(maps.Keys(attacks)) }
