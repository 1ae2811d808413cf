package session

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Of a message of QoS 2 that has begun and cannot be read any more the PUBREL goes out, but not before CONNACK.
func TestWhatCannotBeReadIsReleasedWhenItsTurnComes(t *testing.T) {
	s := online(t, Options{Kept: true}, nil)
	deliver(s, "a", 2)
	deliver(s, "b", 1)
	deliver(s, "c", 2)
	s.Disconnect(noon, Lost, nil)
	s.Connect(noon, Connection{Version: 5, Expiry: Forever}, nil)
	for _, e := range s.Load(noon, nil, s.Newest(), nil) {
		assert.False(t, e.IsPacket(), "nothing is sent before Resume")
	}
	var packets []string
	for _, e := range s.Resume(noon, 1<<30, nil) {
		packets = append(packets, show([]Effect{e})...)
	}
	assert.Equal(t, []string{"PUBREL id=1", "PUBREL id=3"}, packets)
	s.Pubcomp(noon, 1, nil)
	s.Pubcomp(noon, 3, nil)
	assert.Zero(t, s.Stats().InFlight)
	assert.Zero(t, s.Stats().Bytes)
}
