package broker_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// TestPlainMochi is a broker and tests nothing: the mochi server may be imported in this package only, and a test is what
// another package can build and start of it. It is skipped unless one does. It is set up as mochi's manual says, with the
// accounts NAME=PASSWORD of PLANTOPS_CONTROL_ACCOUNTS, to show that attacks on ours bite where nothing stands against them.
// Devices may use devices/NAME/#, exact may use home/exact. It listens on PLANTOPS_CONTROL_ADDRESS and ends with its
// standard input.
func TestPlainMochi(t *testing.T) {
	address := os.Getenv("PLANTOPS_CONTROL_ADDRESS")
	if address == "" {
		t.Skip("a broker for the tests of attacks, which start it")
	}
	ledger := &plainLedger{passwords: map[string]string{}}
	for _, account := range strings.Fields(os.Getenv("PLANTOPS_CONTROL_ACCOUNTS")) {
		name, password, _ := strings.Cut(account, "=")
		ledger.passwords[name] = password
	}
	server := mqtt.New(nil)
	require.NoError(t, server.AddHook(ledger, nil))
	require.NoError(t, server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: address})))
	require.NoError(t, server.Serve())
	_, err := io.Copy(io.Discard, os.Stdin)
	require.NoError(t, err)
	require.NoError(t, server.Close())
}

// plainLedger judges as the ledger that comes with mochi 2.7.9 does, whose package needs a module that we do not.
type plainLedger struct {
	mqtt.HookBase
	passwords map[string]string
}

func (h *plainLedger) Provides(event byte) bool {
	return bytes.Contains([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck}, []byte{event})
}

func (h *plainLedger) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	password, known := h.passwords[string(pk.Connect.Username)]
	return known && password == string(pk.Connect.Password)
}

func (h *plainLedger) OnACLCheck(cl *mqtt.Client, topic string, _ bool) bool {
	rule := []string{"devices", string(cl.Properties.Username), "#"}
	if string(cl.Properties.Username) == "exact" {
		rule = []string{"home", "exact"}
	}
	levels := strings.Split(topic, "/")
	for i, level := range rule { // as it is there: what comes after the rule's last level is not looked at
		if level == "#" {
			return i < len(levels)
		}
		if i >= len(levels) || levels[i] != level {
			return false
		}
	}
	return true
}
