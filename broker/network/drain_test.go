package network

import (
	"bytes"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/plantops/plantops/broker/refusal"
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

// patiently reads as the broker does: it waits in AwaitInput and takes what Read gives, until Read fails. It returns what it has read.
func patiently(c *Conn, got func(n int)) heard {
	var h heard
	for some := make([]byte, 1000); ; {
		c.AwaitInput()
		for h.err = nil; h.err == nil; {
			var n int
			n, h.err = c.Read(some)
			h.said = append(h.said, some[:n]...)
			if n > 0 {
				got(len(h.said))
			}
		}
		if h.err != ErrNoInput {
			return h
		}
	}
}

func TestAReaderThatWaitsForInputGetsAllOfIt(t *testing.T) {
	for _, kind := range listenerKinds {
		for _, end := range []string{"close", "drain", "silence", "abort"} {
			conns, arrived, ended := make(chan *Conn, 1), make(chan struct{}), make(chan heard, 1)
			want := slices.Clone(connectPacket)
			for i := range 60 { // one byte, some records, and what fills our buffer to the last byte
				want = append(want, bytes.Repeat([]byte{byte(i)}, []int{1, 17, aheadBytes, 3*aheadBytes + 7}[i%4])...)
			}
			total := len(want)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				c.Admitted("")
				conns <- c
				ended <- patiently(c, func(n int) {
					if n == total {
						close(arrived)
					}
				})
				return nil
			})
			client := n.dial(t)
			for p := want; len(p) > 0; {
				k := min(len(p), 1+len(p)%5000)
				_, err := client.Write(p[:k])
				require.NoError(t, err)
				p = p[k:]
			}
			<-arrived
			switch c := <-conns; end {
			case "close":
				client.Close()
			case "drain":
				c.Drain()
			case "silence":
				c.SetReadTimeout(10 * time.Millisecond)
				_, err := client.Write([]byte("last"))
				require.NoError(t, err)
				want = append(want, "last"...)
			case "abort":
				c.abort(refusal.SlowConsumer, nil)
			}
			got := <-ended
			assert.Equal(t, want, got.said, "%s, %s", kind, end)
			switch end {
			case "drain":
				assert.Equal(t, ErrDrained, got.err, kind)
			case "silence":
				assert.ErrorIs(t, got.err, os.ErrDeadlineExceeded, kind)
			case "abort":
				assert.ErrorIs(t, got.err, net.ErrClosed, kind)
			}
		}
	}
}

// Drain says that it drains before it interrupts the reader, who may be anywhere by then.
func TestAnInterruptionThatComesLateIsNotTheEnd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	server, err := listener.Accept()
	require.NoError(t, err)
	defer server.Close()
	for range 5 {
		s := socket{Conn: server}
		s.draining.Store(true)
		over := make(chan struct{})
		go func() {
			defer close(over)
			for until := time.Now().Add(2 * drainWait); time.Now().Before(until); {
				s.interruptRead()
			}
		}()
		n, err := s.Read(make([]byte, 10))
		assert.Zero(t, n)
		assert.Equal(t, ErrDrained, err)
		<-over
	}
}
