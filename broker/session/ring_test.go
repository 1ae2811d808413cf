package session

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRingKeepsNothingThatWasTaken(t *testing.T) {
	var r ring[*int]
	for range 3 {
		for i := range keepSlots {
			r.push(&i)
		}
		for i := range keepSlots {
			assert.Equal(t, i, *r.pop())
		}
		assert.Equal(t, make([]*int, keepSlots), r.slots, "small enough to stay, and empty")
	}
	for i := range keepSlots + 1 {
		r.push(&i)
	}
	for range keepSlots + 1 {
		r.pop()
	}
	assert.Empty(t, r.slots, "a burst is given back")
}
