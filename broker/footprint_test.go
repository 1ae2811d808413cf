package broker_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// heap is what is in use after everything that can go has gone.
func heap() int {
	var m runtime.MemStats
	for range 3 { // what is in a pool goes at the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// padding is some user properties of so many KiB together.
func padding(kib int) (all []packets.UserProperty) {
	for ; kib > 0; kib -= 48 {
		all = append(all, packets.UserProperty{Key: "k", Val: strings.Repeat("v", min(kib, 48)<<10)})
	}
	return all
}

func TestWhatStaysOfAPacketIsSmall(t *testing.T) {
	const n = 64
	b := limited(t, broker.Limits{})
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	pad := padding(192)
	before := heap()
	for i := range n {
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: uint16(i + 1),
			Properties: packets.Properties{User: pad}, Filters: packets.Subscriptions{{Filter: fmt.Sprintf("devices/bed-1/%d/+/#", i), Qos: 1}}})
		require.Equal(t, []byte{1}, c.Await(packets.Suback).ReasonCodes)
	}
	assert.Eventually(t, func() bool { return heap()-before < n*64<<10 }, brokertest.Patience, 10*time.Millisecond, "subscriptions")

	login := lasting("bed-1", "", 5)
	login.Properties.User = padding(48)
	before = heap()
	for i := range n {
		login.ClientID = fmt.Sprint("esp-", i)
		brokertest.Dial(t, b, brokertest.TCP, login).Disconnect()
	}
	awaitHeld(t, b, "bed-1", broker.Held{Sessions: n + 1, Connections: 1, Subscriptions: n})
	assert.Eventually(t, func() bool { return heap()-before < n*9<<10 }, brokertest.Patience, 10*time.Millisecond,
		"sessions keep neither their packets nor their connections: %d", heap()-before)
}

func TestALongFilterCountsForSeveral(t *testing.T) {
	b := limited(t, broker.Limits{MaxSubscriptionsPerAccount: 8})
	long := "devices/bed-1/" + strings.Repeat("x", 5<<10)
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		over := map[byte]byte{4: 0x80, 5: 0x97}[version]
		c := brokertest.Dial(t, b, kind, as("bed-1", version))
		for _, step := range []struct {
			filter string
			code   byte
			held   int
		}{{long, 1, 6}, {long, 1, 6}, {long + "/+", over, 6}, {"devices/bed-1/a", 1, 7}, {"devices/bed-1/b", 1, 8}, {"devices/bed-1/c", over, 8}} {
			assert.Equal(t, step.code, c.Subscribe(step.filter, 1))
			awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1, Subscriptions: step.held})
		}
		c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 50,
			Filters: packets.Subscriptions{{Filter: long}, {Filter: long + "/+"}}})
		c.Await(packets.Unsuback)
		awaitHeld(t, b, "bed-1", broker.Held{Sessions: 1, Connections: 1, Subscriptions: 2})
		c.Disconnect()
		awaitHeld(t, b, "bed-1", broker.Held{})
	})
}
