//go:build linux

package siege

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// What a broker is held to.
const (
	Silence    = 2 * time.Second  // how long it may bear with who says nothing, in the tests that set its time-out
	Promptness = 20 * time.Second // an answer, or the end of a connection: less than the time-outs that would end it by themselves
	Mebibyte   = 1 << 20
	FewMiB     = 32 * Mebibyte // nothing of a stranger may cost more

	// Effective is how soon a command has its effect after it has returned: a second, and what a busy machine needs to notice it.
	Effective = 15 * time.Second
)

// Siege is a broker under attack. It knows three devices: bed-1 attacks, bed-2 is the victim, bed-3 goes on working;
// and the user exact, who may publish and subscribe to home/exact and nothing else.
type Siege struct {
	T       *testing.T
	In      *program.Installation // nil when it is another broker
	Doors   []door.Door
	PID     int               // of the broker
	Secrets map[string]string // by name of the account
}

// ExactPassword is the one of the user exact.
const ExactPassword = "not-below-it-either"

// Begin starts the real program with all three listeners. settings are environment variables.
func Begin(t *testing.T, settings ...string) *Siege {
	t.Helper()
	in, g := Prepare(t, settings...)
	in.Start()
	in.AwaitReady()
	g.Meet()
	return g
}

// Prepare makes what Begin starts.
func Prepare(t *testing.T, settings ...string) (*program.Installation, *Siege) {
	t.Helper()
	dir := t.TempDir()
	websocket := program.FreeAddress(t)
	in := program.Install(t, dir, append([]string{"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=true",
		"PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS=" + websocket}, settings...)...)
	g := &Siege{T: t, In: in, Secrets: in.Register("bed-1", "bed-2", "bed-3")}
	g.Doors = []door.Door{{Kind: "tcp", Address: in.TCP}, {Kind: "tls", Address: in.TLS}, {Kind: "websocket", Address: websocket}}
	return in, g
}

// Meet notes what there is once the server is ready.
func (g *Siege) Meet() {
	g.T.Helper()
	g.PID, g.Doors[1].TLS = g.In.Server.Pid, g.In.ClientTLS()
}

// AddExact adds the user exact.
func (g *Siege) AddExact() {
	g.T.Helper()
	password := filepath.Join(g.T.TempDir(), "password")
	require.NoError(g.T, os.WriteFile(password, []byte(ExactPassword), 0o600))
	g.In.Run("user", "add", "exact", "--publish", "home/exact", "--subscribe", "home/exact", "--password-file", password)
	g.Secrets["exact"] = ExactPassword
}

// As is the ordinary login of an account.
func (g *Siege) As(user string) rawmqtt.Login {
	return rawmqtt.Login{User: user, Secret: g.Secrets[user], ClientID: user}
}

// Enter logs in; the target must let the user in.
func (g *Siege) Enter(d door.Door, l rawmqtt.Login) *door.Intruder {
	g.T.Helper()
	a, code, err := d.Enter(g.T, l)
	require.NoError(g.T, err, "%s over %s", l.User, d.Kind)
	require.Zero(g.T, code, "CONNACK for %s over %s", l.User, d.Kind)
	return a
}

// Refused makes sure that a login is answered with a refusal, or with the end.
func (g *Siege) Refused(d door.Door, l rawmqtt.Login) {
	g.T.Helper()
	_, code, err := d.Enter(g.T, l)
	if err == nil {
		require.NotZero(g.T, code, "CONNACK for %+v over %s", l, d.Kind)
		return
	}
	require.False(g.T, door.IsTimeout(err), "no answer to %+v over %s", l, d.Kind)
}

// Serves makes sure that a device can log in and store a reading.
func (g *Siege) Serves(d door.Door) error {
	a, code, err := d.Enter(g.T, g.As("bed-3"))
	if err != nil {
		return err
	}
	defer a.Close()
	if code == 0 {
		code, err = a.Publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, time.Now().UnixMilli()))
	}
	if err == nil && code >= rawmqtt.FirstFailure {
		err = fmt.Errorf("refused with %#x", code)
	}
	return err
}

// ServesAll makes sure that the same process still serves on every listener.
func (g *Siege) ServesAll() {
	g.T.Helper()
	for _, d := range g.Doors {
		require.NoError(g.T, g.Serves(d), d.Kind)
	}
	select {
	case <-g.In.Server.Ended:
		require.Fail(g.T, "the server ended", g.In.Output)
	default:
	}
}

// Attack is one of those that run against other brokers too. It returns the hole it found, or "".
type Attack func(g *Siege, d door.Door) (hole string)

// Withstands runs an attack through every door.
func (g *Siege) Withstands(a Attack) {
	g.T.Helper()
	for _, d := range g.Doors {
		require.Empty(g.T, a(g, d), d.Kind)
	}
	g.ServesAll()
}

// EntersInTheEnd logs in. What was closed just before may still count for a moment.
func (g *Siege) EntersInTheEnd(d door.Door, l rawmqtt.Login) *door.Intruder {
	g.T.Helper()
	var a *door.Intruder
	require.Eventually(g.T, func() bool {
		var code byte
		var err error
		a, code, err = d.Enter(g.T, l)
		return err == nil && code == 0
	}, setting.Patience, 10*time.Millisecond, "%s over %s", l.ClientID, d.Kind)
	return a
}
