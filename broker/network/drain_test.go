package network

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// heard is how a connection ended: what came on it, and the error after that.
type heard struct {
	said []byte
	err  error
}

// What has come is read to its end, also what lies in the buffers of TLS and websocket, and the connection need not have ended.
func TestWhatHasComeIsReadWhenAConnectionIsDrained(t *testing.T) {
	words := bytes.Repeat([]byte("last words. "), 5000)
	for _, kind := range listenerKinds {
		for _, closes := range []bool{true, false} {
			sent, ended := make(chan struct{}), make(chan heard, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				r, err := readFirst(c)
				assert.NoError(t, err)
				c.Admitted("")
				_, err = c.Write([]byte{0x20, 2, 0, 0})
				assert.NoError(t, err)
				some := make([]byte, 100)
				_, err = io.ReadFull(r, some)
				assert.NoError(t, err)
				<-sent
				c.Drain()
				rest, err := io.ReadAll(r)
				ended <- heard{append(some, rest...), err}
				return nil
			})
			client := n.dial(t)
			requireLogin(t, client)
			_, err := client.Write(words)
			require.NoError(t, err)
			if closes {
				client.Close()
			}
			close(sent)
			got := <-ended
			assert.Equal(t, words, got.said, kind)
			if !closes {
				assert.Equal(t, ErrDrained, got.err, kind)
			}
		}
	}
}

// A reader that waits for more is interrupted, and one that a client keeps busy comes to an end.
func TestDrainingEnds(t *testing.T) {
	for _, busy := range []bool{true, false} {
		reads, ended := make(chan *Conn), make(chan heard, 1)
		n := newTestNet(t, Limits{}).start(t, TCP, func(c *Conn) error {
			_, err := readFirst(c)
			assert.NoError(t, err)
			c.Admitted("")
			_, err = c.Write([]byte{0x20, 2, 0, 0})
			assert.NoError(t, err)
			reads <- c
			said, err := io.ReadAll(c)
			ended <- heard{said, err}
			return nil
		})
		client := n.dial(t)
		requireLogin(t, client)
		if busy {
			go func() { // it ends with the connection
				for piece := make([]byte, 1<<20); ; {
					if _, err := client.Write(piece); err != nil {
						return
					}
				}
			}()
		}
		(<-reads).Drain()
		got := <-ended
		assert.Equal(t, ErrDrained, got.err)
		assert.Equal(t, busy, len(got.said) > 0)
	}
}

// A client that closes with answers of ours unread resets the connection. Our next write fails, and what it sent is there still.
func TestWhatAClientSaidIsReadAfterAWriteToItHasFailed(t *testing.T) {
	words := bytes.Repeat([]byte("last words. "), 5000)
	gone, ended := make(chan struct{}), make(chan heard, 1)
	n := newTestNet(t, Limits{}).start(t, TCP, func(c *Conn) error {
		r, err := readFirst(c)
		assert.NoError(t, err)
		c.Admitted("")
		_, err = c.Write([]byte{0x20, 2, 0, 0})
		assert.NoError(t, err)
		<-gone
		assert.Eventually(t, func() bool {
			_, err := c.Write([]byte("unwelcome"))
			return err != nil || c.isBroken()
		}, soon, time.Millisecond)
		assert.Equal(t, 0, c.QueuedBytes())
		said, err := io.ReadAll(r)
		ended <- heard{said, err}
		return nil
	})
	client := n.dial(t)
	requireLogin(t, client)
	_, err := client.Write(words)
	require.NoError(t, err)
	require.NoError(t, client.(*net.TCPConn).SetLinger(0))
	require.NoError(t, client.Close())
	close(gone)
	assert.Equal(t, words, (<-ended).said)
}
