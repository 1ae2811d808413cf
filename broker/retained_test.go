package broker_test

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

const state = "devices/bed-1/state"

// retainedFor returns whether a new subscriber gets a retained message on the topic.
func retainedFor(t *testing.T, b *brokertest.Broker, login brokertest.Login, topic string) bool {
	t.Helper()
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	defer c.Close()
	require.Equal(t, byte(1), c.Subscribe(topic, 1))
	c.Ping()
	return c.Has(packets.Publish)
}

func TestWhatARemovedAccountHadRetainedIsGone(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		for _, name := range []string{"bed-1", "bed-2"} {
			code, _ := sendRetained(brokertest.Dial(t, b, kind, as(name, version)), "devices/"+name+"/state", "kept", 1)
			require.Zero(t, code)
		}
		login := as("bed-1", version)
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "offline", QoS: 1, Retain: true}
		brokertest.Dial(t, b, kind, login).Close()
		require.Eventually(t, func() bool { return b.RetainedCount() == 3 }, brokertest.Patience, time.Millisecond, "with the will")

		b.Disconnect("bed-1", "its password was changed")
		assert.Equal(t, 3, b.RetainedCount(), "who stays keeps them")
		assert.True(t, retainedFor(t, b, b.AsBackend(), state))
		b.Accounts.Remove("bed-1")
		b.Disconnect("bed-1", "it was removed")
		assert.Equal(t, 1, b.RetainedCount())
		assert.False(t, retainedFor(t, b, b.AsBackend(), "devices/bed-1/#"))
		b.Accounts.Set(brokertest.Device("bed-1"))
		assert.False(t, retainedFor(t, b, as("bed-1", version), "devices/bed-1/#"), "the next owner of the name")
		assert.True(t, retainedFor(t, b, as("bed-2", version), "devices/bed-2/state"))
	})
}

func TestRetainedMessagesObeyTheirPublishersRulesOfTheMoment(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
	for _, topic := range []string{state, "devices/bed-1/other"} {
		code, _ := sendRetained(c, topic, "kept", 1)
		require.Zero(t, code)
	}
	narrower := brokertest.Device("bed-1")
	narrower.Publish = []string{"devices/bed-1/other"}
	b.Accounts.Set(narrower)
	assert.False(t, retainedFor(t, b, b.AsBackend(), state), "also before anybody was told of the change")
	assert.True(t, retainedFor(t, b, b.AsBackend(), "devices/bed-1/other"))
	b.Disconnect("bed-1", "its rules were changed")
	assert.Equal(t, 1, b.RetainedCount())
}

// A message that another account has replaced is that account's.
func TestARetainedMessageBelongsToWhoSentItLast(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	_, _ = sendRetained(brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5)), state, "of the device", 1)
	_, _ = sendRetained(brokertest.Dial(t, b, brokertest.TCP, b.AsBackend()), state, "of the backend", 1)
	b.Accounts.Remove("bed-1")
	b.Disconnect("bed-1", "it was removed")
	assert.True(t, retainedFor(t, b, b.AsBackend(), state))
}
