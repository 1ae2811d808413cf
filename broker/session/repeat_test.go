package session

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// says is receive of a message that is told what it says.
func says(t *testing.T, s *Session, id uint16, qos byte, print uint64) Ticket {
	t.Helper()
	assert.False(t, s.Repeated(id, qos, print))
	return receive(t, s, id, qos)
}

func TestAMessageSentAgainBeforeItsPubackIsTheSame(t *testing.T) {
	s := online(t, Options{}, nil)
	first, second := says(t, s, 7, 1, 10), says(t, s, 8, 1, 10)
	assert.True(t, s.Repeated(7, 1, 10))
	assert.Empty(t, complete(s, second, 0))
	assert.True(t, s.Repeated(8, 1, 10), "done, but its PUBACK waits for the one before")
	assert.Equal(t, []string{"PUBACK id=7", "PUBACK id=8"}, complete(s, first, 0))
	third := says(t, s, 7, 1, 10)
	assert.Equal(t, []string{"PUBACK id=7"}, complete(s, third, 0), "after the PUBACK the id is free")
	assert.Empty(t, s.in().said)
}

func TestAnotherMessageOnAnIDThatWaitsIsAnother(t *testing.T) {
	s := online(t, Options{}, nil)
	first, second := says(t, s, 7, 1, 10), says(t, s, 7, 1, 20)
	assert.True(t, s.Repeated(7, 1, 20))
	assert.Equal(t, []string{"PUBACK id=7"}, complete(s, first, 0))
	assert.True(t, s.Repeated(7, 1, 20), "the second still waits")
	assert.Equal(t, []string{"PUBACK id=7"}, complete(s, second, 0))
	assert.Empty(t, s.in().said)
}

func TestAnotherMessageOnAQoS2IDIsAnother(t *testing.T) {
	s := online(t, Options{}, nil)
	first := says(t, s, 7, 2, 10)
	assert.False(t, s.Repeated(7, 2, 10))
	assert.Empty(t, again(t, s, 7), "the same")
	second := says(t, s, 7, 2, 20)
	assert.Empty(t, complete(s, first, 0), "the client does not speak of it any more")
	assert.Equal(t, []string{"PUBREC id=7"}, complete(s, second, 0), "one answer")
	third := says(t, s, 7, 2, 30)
	assert.Equal(t, []string{"PUBREC id=7"}, complete(s, third, 0), "also between PUBREC and PUBREL")
	assert.Equal(t, []string{"PUBCOMP id=7"}, show(s.Pubrel(7, nil)))
	assert.Zero(t, s.in().open, "nothing counts against Receive Maximum any more")
}

func TestAnotherConnectionHasNothingToRepeat(t *testing.T) {
	s := online(t, Options{}, nil)
	says(t, s, 7, 1, 10)
	s.Disconnect(noon, Lost, nil)
	assert.False(t, s.Repeated(7, 1, 10), "without a connection nothing is received")
	s.Connect(noon, Connection{Version: 5, Expiry: Forever}, nil)
	assert.False(t, s.Repeated(7, 1, 10))
	assert.False(t, s.Repeated(0, 0, 10))
}
