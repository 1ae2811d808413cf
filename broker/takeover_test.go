package broker_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// takeovers is how often a client comes back in these tests: PLANTOPS_TAKEOVERS, or few.
func takeovers(t *testing.T, few int) int {
	asked := os.Getenv("PLANTOPS_TAKEOVERS")
	if asked == "" {
		return few
	}
	n, err := strconv.Atoi(asked)
	require.NoError(t, err)
	return n
}

// A client publishes, says goodbye, closes, and is back at once. Mosquitto, which reads its sockets in the order in which something
// comes, loses nothing of that.
func TestLastWordsAreHeardBeforeAClientTakesOver(t *testing.T) {
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		for qos := range byte(3) {
			for _, clean := range []bool{true, false} {
				b := brokertest.Start(t, brokertest.Device("bed-1"))
				lastWords(t, b, kind, version, qos, clean, takeovers(t, 10))
			}
		}
	})
}

func lastWords(t *testing.T, b *brokertest.Broker, kind brokertest.Kind, version, qos byte, clean bool, times int) {
	const each = 8 // messages, of which mochi's buffer holds a few
	reader := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", version))
	require.Equal(t, byte(2), reader.Subscribe("devices/bed-1/#", 2))
	login := lasting("bed-1", "esp", version)
	login.Resume = !clean
	login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "dead"}
	padding := strings.Repeat(".", 1000)
	for i := range times {
		c, ack := brokertest.TryDial(t, b, kind, login)
		require.Equal(t, byte(0), ack.ReasonCode)
		c.SendBytes(brokertest.Record(t, version, func(c *brokertest.Client) {
			for n := range each {
				c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, PacketID: uint16(i*each+n)%60000 + 1,
					TopicName: telemetry, Payload: fmt.Appendf(nil, "%d %s", i*each+n, padding)})
				if qos == 2 { // or it would have more unfinished than it may have
					c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: uint16(i*each+n)%60000 + 1})
				}
			}
			c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		}))
		c.Close()
	}
	login.Will = nil
	brokertest.Dial(t, b, kind, login).Disconnect()
	for i := range times * each {
		pk := reader.Receive()
		require.Equal(t, telemetry, pk.TopicName, "a will after a goodbye, message %d, over %s in version %d with QoS %d: %q", i, kind, version, qos, pk.Payload)
		var n int
		_, err := fmt.Sscan(string(pk.Payload), &n)
		require.NoError(t, err)
		require.Equal(t, i, n, "messages are lost, over %s in version %d with QoS %d", kind, version, qos)
	}
	reader.AwaitNoMessage()
}

// Two clients publish without a break. A subscriber is taken over again and again, in three ways: its old connection is still
// there, has just been closed, or has ended. Whoever sent last words in between is heard too.
func TestTakeoversUnderLoad(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for _, persistent := range []bool{true, false} {
			t.Run(fmt.Sprintf("version %d, persistent %v", version, persistent), func(t *testing.T) {
				t.Parallel()
				takeOverUnderLoad(t, version, persistent, takeovers(t, 60))
			})
		}
	}
}

func takeOverUnderLoad(t *testing.T, version byte, persistent bool, times int) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := lasting("bed-1", "reader", version)
	if !persistent {
		login = as("bed-1", version)
		login.ClientID = "reader"
	}
	seen := map[string]bool{}
	onTheirWay := make(chan struct{}, 500) // so that the session's queue is never full
	arrived := func() bool {
		select {
		case <-onTheirWay:
			return true
		default:
			return false
		}
	}
	take := func(c *brokertest.Client) string {
		payload := string(c.Receive().Payload)
		seen[payload] = true
		arrived()
		return payload
	}
	reader := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/#", 1))

	var over atomic.Bool
	sent := make(chan int, 2)
	for i := range 2 {
		sender := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", version))
		go func() {
			n := 0
			for ; !over.Load(); n++ {
				onTheirWay <- struct{}{}
				sender.Publish(telemetry, fmt.Sprintf("%d/%d", i, n), 1)
			}
			sent <- n
		}()
	}

	words := login
	words.ClientID = "words"
	words.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "dead", QoS: 1}
	for i := range times {
		last, ack := brokertest.TryDial(t, b, brokertest.Kinds[i%3], words)
		require.Equal(t, byte(0), ack.ReasonCode)
		last.SendPublish(telemetry, fmt.Sprintf("words/%d", i), 1)
		last.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		last.Close()

		old := reader
		switch i % 3 {
		case 1:
			old.Close()
		case 2:
			old.Disconnect()
		}
		reader, ack = brokertest.TryDial(t, b, brokertest.Kinds[i/3%3], login)
		require.Equal(t, byte(0), ack.ReasonCode)
		require.Equal(t, persistent, ack.SessionPresent)
		if code := old.AwaitClosed(); i%3 == 0 {
			require.Equal(t, map[byte]byte{4: 0, 5: 0x8E}[version], code)
		}
		if !persistent {
			require.Equal(t, byte(1), reader.Subscribe("devices/bed-1/#", 1))
			for arrived() { // or were lost before that, as they may be
			}
		}
		for range 5 { // it is not deaf
			require.NotEqual(t, "dead", take(reader))
		}
	}
	words.Will = nil
	brokertest.Dial(t, b, brokertest.TCP, words).Disconnect()
	over.Store(true)
	for range 2 {
		arrived()
	}
	counts := []int{<-sent, <-sent}
	require.Equal(t, byte(0), reader.Publish("devices/bed-1/end", "end", 1))
	for take(reader) != "end" {
	}
	assert.NotContains(t, seen, "dead", "a will after a goodbye")
	if persistent {
		for i := range times {
			assert.Contains(t, seen, fmt.Sprintf("words/%d", i))
		}
		assert.Len(t, seen, counts[0]+counts[1]+times+1)
	}
	held := broker.Held{Sessions: 3, Connections: 3, Subscriptions: 1} // reader and senders
	if persistent {
		held.Sessions++ // whose words were last
	}
	awaitHeld(t, b, "bed-1", held)
}
