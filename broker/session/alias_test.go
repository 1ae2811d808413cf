package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// aliasing is a session with a connection of MQTT 5 that takes so many aliases.
func aliasing(t *testing.T, maximum uint16) *Session {
	return online(t, Options{}, func(c *Connection) { c.TopicAliasMaximum = maximum })
}

// told is how the client is told the topic of a message: the name, and the alias.
func told(t *testing.T, s *Session, topic string, qos byte) (name string, alias uint16) {
	t.Helper()
	out := s.Deliver(noon, &Message{Topic: topic, QoS: qos}, Offer{QoS: qos}, nil)
	require.NotEmpty(t, out)
	require.Equal(t, Publish, out[0].Kind)
	return out[0].topic(), out[0].Alias
}

func TestTopicsGetAliasesAsTheyCome(t *testing.T) {
	for _, c := range []struct {
		maximum uint16
		want    int
	}{{0, 0}, {1, 1}, {15, 15}, {16, 16}, {17, 16}, {65535, 16}} {
		s := aliasing(t, c.maximum)
		for round := range 3 {
			for i := range 20 {
				topic := fmt.Sprint("topic ", i)
				name, alias := told(t, s, topic, byte(i%3))
				if i >= c.want {
					assert.Equal(t, topic, name)
					assert.Zero(t, alias, "there are no more than %d", c.want)
					continue
				}
				assert.EqualValues(t, i+1, alias)
				assert.Equal(t, round > 0, name == "", "the name comes once")
			}
		}
	}
}

func TestAliasesThatSaveNothingAreNotGiven(t *testing.T) {
	s := aliasing(t, 16)
	for _, topic := range []string{"a", "a/b", "a/bc"} {
		for range 2 {
			name, alias := told(t, s, topic, 0)
			assert.Equal(t, topic, name)
			assert.Zero(t, alias)
		}
	}
	properties := make([]byte, 127) // their length takes one byte more with the alias
	m := &Message{Topic: "a/b/c", Properties: properties}
	first := s.Deliver(noon, m, Offer{}, nil)[0]
	second := s.Deliver(noon, m, Offer{}, nil)[0]
	first.Alias = 0
	assert.Less(t, second.packetBytes(5), first.packetBytes(5))
}

func TestAliasesHoldLittle(t *testing.T) {
	s := aliasing(t, 16)
	long := func(i int) string { return strings.Repeat(string(rune('a'+i)), 1500) }
	for range 2 {
		for i := range 4 {
			_, alias := told(t, s, long(i), 0)
			assert.Equal(t, i < 2, alias > 0, "topic %d", i)
		}
	}
	_, alias := told(t, s, "a short one", 0)
	assert.EqualValues(t, 3, alias)
}

func TestAliasesEndWithTheConnection(t *testing.T) {
	s := aliasing(t, 16)
	for range 2 {
		told(t, s, "topic", 1)
	}
	s.Disconnect(noon, Lost, nil)
	assert.Zero(t, s.aliases, "nothing is held for who is away")
	connection := Connection{Version: 5, Expiry: Forever, TopicAliasMaximum: 16}
	s.Connect(noon, connection, nil)
	out := s.Resume(noon, 1<<20, nil)
	require.Len(t, out, 2)
	for i, want := range []string{"topic", ""} { // [MQTT-3.3.2-7]
		assert.True(t, out[i].DUP)
		assert.Equal(t, want, out[i].topic())
		assert.EqualValues(t, 1, out[i].Alias)
	}
	s.Connect(noon, Connection{Version: 5, Expiry: Forever}, nil) // over the one before; it takes none
	for _, e := range s.Resume(noon, 1<<20, nil) {
		assert.Equal(t, "topic", e.topic())
		assert.Zero(t, e.Alias)
	}
	s.Connect(noon, Connection{Version: 4, Expiry: Forever, TopicAliasMaximum: 16}, nil)
	for _, e := range s.Resume(noon, 1<<20, nil) {
		assert.Equal(t, "topic", e.topic())
		assert.Zero(t, e.Alias)
	}
}

// A message is as large as what is sent of it.
func TestMaximumPacketSizeIsThatOfTheAlias(t *testing.T) {
	topic := strings.Repeat("t", 60)
	s := online(t, Options{}, func(c *Connection) { c.TopicAliasMaximum, c.MaximumPacketSize = 16, 70 })
	payload := func(n int) *Message { return &Message{Topic: topic, Payload: make([]byte, n)} }
	with, without := 1+1+2+60+1+3, 1+1+2+60+1
	deliver := func(n int) []Effect { return s.Deliver(noon, payload(n), Offer{}, nil) }

	assert.Empty(t, deliver(70-without+1), "too large, and it does not get the alias")
	assert.Equal(t, TakesNever, s.Takes(noon, payload(70-without+1), Offer{}))
	assert.Equal(t, TakesNow, s.Takes(noon, payload(70-without), Offer{}))
	out := deliver(70 - without)
	require.NotEmpty(t, out)
	assert.Zero(t, out[0].Alias, "there is no room for the alias")
	out = deliver(70 - with)
	require.NotEmpty(t, out)
	assert.Equal(t, []any{uint16(1), topic}, []any{out[0].Alias, out[0].topic()})
	out = deliver(70 - with + 60)
	require.NotEmpty(t, out)
	assert.Equal(t, 70, len(out[0].AppendPacket(nil, 5)))
	assert.Equal(t, TakesNow, s.Takes(noon, payload(70-with+60), Offer{}))
	assert.Equal(t, TakesNever, s.Takes(noon, payload(70-with+61), Offer{}))
	assert.Empty(t, deliver(70-with+61))
}
