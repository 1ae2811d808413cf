package network

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is flushed later waits for what comes in between, and not where nothing was written for a while, where it is much, or where
// somebody must not wait.
func TestWhatIsGatheredLeavesTogether(t *testing.T) {
	n := newTestNet(t, Limits{})
	served := make(chan *Conn, 1)
	n.start(t, TCP, func(c *Conn) error {
		served <- c
		return login(c)
	})
	client := n.dial(t)
	requireLogin(t, client)
	c := <-served
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		_, err := io.ReadFull(client, got)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	put := func(g *Gathering, p string) {
		_, err := c.Put([]byte(p), nil)
		require.NoError(t, err)
		require.True(t, c.MarkDirty(), "nobody has said that he will flush")
		g.FlushLater(c)
	}
	written := func() { eventually(t, "it is written", func() bool { return c.QueuedBytes() == 0 }) }

	g := NewGathering(time.Hour, 8)
	put(g, "a")
	read("a")
	written()
	put(g, "b")
	put(g, "c")
	assert.Equal(t, 2, c.QueuedBytes())
	_, err := c.Put([]byte("d"), nil)
	require.NoError(t, err)
	g.Flush(c)
	read("bcd")
	written()
	put(g, "12345678")
	read("12345678")
	written()
	put(NewGathering(time.Millisecond, 8), "e")
	read("e")

	soon := NewGathering(time.Millisecond, 8)
	for range 20 { // by itself
		put(soon, "f")
		read("f")
	}
}
