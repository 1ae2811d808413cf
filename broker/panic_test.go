package broker

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/access"
)

// panicking is an account store that breaks for the one name, as code of ours would.
type panicking struct{}

func (panicking) Authenticate(user string, _ []byte, _ access.Wait) (access.Account, bool) {
	return access.Account{Name: user, Publish: everything, Subscribe: everything}, true
}

func (panicking) Lookup(name string) (access.Account, bool) {
	if name == "ours" {
		panic("a fault of ours")
	}
	return access.Account{Name: name, Publish: everything, Subscribe: everything}, true
}

// serveBrittle starts a broker that breaks when ours logs in.
func serveBrittle(t *testing.T) *Broker {
	t.Helper()
	b, err := Listen(complete(Options{TCP: "127.0.0.1:0", Accounts: panicking{}, Backend: Backend{Username: "b", ClientID: "b"}}))
	require.NoError(t, err)
	require.NoError(t, b.Start())
	b.AdmitDevices()
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// A panic in what mochi decodes goes on to network/conn.go, which ends the connection: dieOfPanic would end this test. What passes
// the Screen makes none that is known, so it is left out.
func TestAPanicOfMochisEndsItsConnectionOnly(t *testing.T) {
	b := serveBrittle(t)
	l := newLink(b.hook, nil)
	l.screen.Version = 5
	broken := []byte("\x82\x06\x00\x01\x00\x00\x01a") // SUBSCRIBE without options
	assert.Panics(t, func() { _ = l.take(broken, new(packets.Packet)) })
	_, wrong := l.screen.Pass(broken)
	assert.NotNil(t, wrong)
}

func TestAPanicOfOursEndsTheProgram(t *testing.T) {
	const asked = "PLANTOPS_TEST_PANIC"
	if os.Getenv(asked) != "" {
		b := serveBrittle(t)
		conn, err := net.Dial("tcp", b.Addrs().TCP.String())
		require.NoError(t, err)
		body := "\x00\x04MQTT\x04\xc2\x00\x00\x00\x04ours\x00\x04ours\x00\x01p"
		_, err = conn.Write(append([]byte{0x10, byte(len(body))}, body...))
		require.NoError(t, err)
		time.AfterFunc(time.Minute, func() { os.Exit(0) })
		select {}
	}
	self := exec.Command(os.Args[0], "-test.run=^TestAPanicOfOursEndsTheProgram$")
	self.Env = append(os.Environ(), asked+"=1")
	said, err := self.CombinedOutput()
	ended, is := err.(*exec.ExitError)
	require.True(t, is, "it ends by itself: %v", err)
	assert.Equal(t, 2, ended.ExitCode())
	assert.True(t, strings.Contains(string(said), "panic: a fault of ours"), "%s", said)
	assert.Contains(t, string(said), "(*hook).account", "where it was")
}
