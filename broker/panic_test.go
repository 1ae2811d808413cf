package broker

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
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

// brittle stands for a mochi that breaks on a packet, before and after it has asked our hook.
type brittle struct{ mqtt.HookBase }

func (*brittle) ID() string               { return "brittle" }
func (*brittle) Provides(event byte) bool { return event == mqtt.OnPacketProcessed }
func (*brittle) OnPacketProcessed(_ *mqtt.Client, pk packets.Packet, _ error) {
	if pk.FixedHeader.Type == packets.Pingreq {
		panic("a fault of mochi's")
	}
}

// serveBrittle starts a broker in which both can break.
func serveBrittle(t *testing.T) *Broker {
	t.Helper()
	b, err := Listen(complete(Options{TCP: "127.0.0.1:0", Accounts: panicking{}, Backend: Backend{Username: "b", ClientID: "b"}}))
	require.NoError(t, err)
	require.NoError(t, b.server.AddHook(&brittle{}, nil))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// enter logs in with a user name and, if it is let in, returns the connection.
func enter(t *testing.T, b *Broker, user string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addrs().TCP.String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	body := "\x00\x04MQTT\x04\xc2\x00\x00\x00\x04" + user + "\x00\x04" + user + "\x00\x01p"
	_, err = conn.Write(append([]byte{0x10, byte(len(body))}, body...))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 4))
	require.NoError(t, err)
	return conn
}

func TestAPanicOfMochisEndsItsConnectionOnly(t *testing.T) {
	b := serveBrittle(t)
	bystander, broken := enter(t, b, "safe"), enter(t, b, "evil")
	_, err := broken.Write([]byte{0xc0, 0})
	require.NoError(t, err)
	_, err = broken.Read(make([]byte, 4))
	require.NoError(t, err, "the PINGRESP went before")
	_, err = broken.Read(make([]byte, 4))
	require.Error(t, err)
	require.Eventually(t, func() bool { return b.Stats().Connected == 1 }, 10*time.Second, time.Millisecond)
	_, err = bystander.Write([]byte("\x32\x06\x00\x01t\x00\x01x"))
	require.NoError(t, err)
	_, err = bystander.Read(make([]byte, 4))
	assert.NoError(t, err)
	assert.EqualValues(t, 1, b.Stats().Refused["panic"])
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
