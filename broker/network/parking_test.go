package network

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/refusal"
)

// parrot serves a connection as the broker does: it is quiet when nothing comes. It sends back what it reads.
type parrot struct {
	*Conn
	ended chan error
}

func (e *parrot) Resume() error {
	for some := make([]byte, 100); ; {
		if e.AwaitInput() {
			return ErrQuiet
		}
		for {
			n, err := e.Read(some)
			if n > 0 {
				_, _ = e.Write(some[:n]) // fails where the connection is over, which Read tells
			}
			if err == ErrNoInput {
				break
			} else if err != nil {
				e.ended <- err
				return err
			}
		}
	}
}

// echoing is a network whose connections are quiet after d.
func echoing(t *testing.T, kind string, d time.Duration) (n *testNet, conns chan *parrot) {
	if !pollerBuilt {
		t.Skip("connections keep their goroutines on this system")
	}
	n, conns = newTestNet(t, Limits{MaxConnections: 2000, MaxUnauthenticated: 2000, MaxUnauthenticatedPerAddress: 2000}), make(chan *parrot, 2000)
	n.SetQuietAfter(d)
	n.start(t, kind, func(c *Conn) error {
		c.Admitted("")
		e := &parrot{c, make(chan error, 1)}
		c.OnInput(e)
		conns <- e
		return e.Resume()
	})
	return n, conns
}

// say expects what it says back.
func say(t testing.TB, c net.Conn, what string) {
	t.Helper()
	_, err := io.WriteString(c, what)
	require.NoError(t, err)
	answer := make([]byte, len(what))
	_, err = io.ReadFull(c, answer)
	require.NoError(t, err)
	require.Equal(t, what, string(answer))
}

func TestAQuietConnectionWaitsWithoutAGoroutine(t *testing.T) {
	for _, kind := range []string{"tcp", "tls"} {
		n, conns := echoing(t, kind, time.Millisecond)
		client := n.dial(t)
		say(t, client, "\x10\x02first")
		c := <-conns
		for range 5 {
			eventually(t, "it is parked", func() bool { return n.parking.waiting() == 1 })
			say(t, client, "and again")
		}
		eventually(t, "it is parked", func() bool { return n.parking.waiting() == 1 })
		_, err := c.Write([]byte("to whom nothing came of"))
		require.NoError(t, err)
		_, err = io.ReadFull(client, make([]byte, len("to whom nothing came of")))
		require.NoError(t, err)
		assert.Equal(t, 1, n.parking.waiting(), "a write wakes nobody")
		require.NoError(t, client.Close())
		assert.Equal(t, io.EOF, <-c.ended)
		assert.Zero(t, n.parking.waiting())
	}
}

func TestAQuietConnectionEnds(t *testing.T) {
	for _, kind := range []string{"tcp", "tls"} {
		for end, want := range map[string]error{"silence": os.ErrDeadlineExceeded, "drain": ErrDrained, "close": net.ErrClosed, "abort": net.ErrClosed,
			"late": os.ErrDeadlineExceeded} {
			n, conns := echoing(t, kind, time.Millisecond)
			client := n.dial(t)
			say(t, client, "\x10\x02first")
			c := <-conns
			switch end {
			case "silence": // it holds from the next wait on
				c.SetReadTimeout(50 * time.Millisecond)
			case "late":
				c.SetReadTimeout(time.Hour)
			}
			say(t, client, "and again")
			eventually(t, "it is parked", func() bool { return n.parking.waiting() == 1 || len(c.ended) > 0 })
			switch end {
			case "drain":
				c.Drain()
			case "close":
				require.NoError(t, c.Close())
			case "abort":
				c.abort(refusal.SlowConsumer, nil)
			case "late": // than another one
				other := n.dial(t)
				say(t, other, "\x10\x02first")
				o := <-conns
				o.SetReadTimeout(50 * time.Millisecond)
				say(t, other, "and again")
				assert.ErrorIs(t, <-o.ended, os.ErrDeadlineExceeded, kind)
				assert.Equal(t, 1, n.parking.waiting(), "the other one stays")
				say(t, client, "still here")
				continue
			}
			assert.ErrorIs(t, <-c.ended, want, "%s %s", kind, end)
			requireEnd(t, client)
		}
	}
}

func TestTheNetworkClosesQuietConnections(t *testing.T) {
	n, conns := echoing(t, "tcp", time.Millisecond)
	const many = 300
	for range many {
		say(t, n.dial(t), "\x10\x02first")
	}
	eventually(t, "all are parked", func() bool { return n.parking.waiting() == many })
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	require.NoError(t, n.Close(ctx))
	for range many {
		assert.ErrorIs(t, <-(<-conns).ended, net.ErrClosed)
	}
}

// What the poller says may be old: the socket is closed, its descriptor that of another connection, which may be parked too.
func TestWhatIsSaidOfAConnectionThatHasLeftWakesNoOther(t *testing.T) {
	n, conns := echoing(t, "tcp", time.Millisecond)
	client := n.dial(t)
	say(t, client, "\x10\x02first")
	c := <-conns
	eventually(t, "it is parked", func() bool { return n.parking.waiting() == 1 })
	n.parking.mu.Lock()
	old := event{c.parked - 1, n.parking.places[c.parked-1].turn}
	n.parking.mu.Unlock()
	say(t, client, "and again")
	eventually(t, "it is parked", func() bool { return n.parking.waiting() == 1 })
	n.parking.happened([]event{old})
	assert.Equal(t, 1, n.parking.waiting())
	say(t, client, "and again")
}

// Something comes, or the connection ends, at the very moment at which it is about to be quiet; and new ones take the descriptors
// of those that have ended.
func TestNothingIsMissedWhileAConnectionBecomesQuiet(t *testing.T) {
	for kind, rounds := range map[string]int{"tcp": 8, "tls": 3} {
		const pause = 2 * time.Millisecond
		n, conns := echoing(t, kind, pause)
		var clients, servers sync.WaitGroup
		stop := make(chan struct{})
		servers.Go(func() {
			for i := 0; ; i++ {
				select {
				case e := <-conns:
					servers.Go(func() {
						if i%3 == 0 {
							select {
							case <-time.After(rand.N(20 * pause)):
								e.Drain()
							case <-e.Done():
							}
						}
						<-e.ended
					})
				case <-stop:
					return
				}
			}
		})
		for range 16 {
			clients.Go(func() {
				for range rounds {
					c := n.dial(t)
					for range 15 {
						if _, err := io.WriteString(c, "\x10\x02hello"); err != nil {
							break // drained
						}
						if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
							var late net.Error
							assert.False(t, asTimeout(err, &late), "%s: nobody has read it", kind)
							break
						}
						wait := time.NewTimer(pause + rand.N(2*pause))
						<-wait.C
					}
					c.Close()
				}
			})
		}
		clients.Wait()
		close(stop)
		servers.Wait()
		eventually(t, "nobody is left", func() bool { open, _, _ := n.count(); return open == 0 && n.parking.waiting() == 0 })
	}
}

// A process that did not run for a while finds both at once: that the time is over, and what the client has said in time.
func TestWhatHasComeCountsWhenItIsFoundLate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	c, err := l.Accept()
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(client, "in time")
	require.NoError(t, err)
	s := &socket{Conn: c, readStart: now().add(-time.Hour)}
	s.readTimeout.Store(int64(time.Minute))
	require.NoError(t, s.awaitBytes())
	require.NoError(t, s.awaitInput(time.Second))
	some := make([]byte, 10)
	assert.Equal(t, "in time", string(some[:s.takeAhead(some)]))
	assert.ErrorIs(t, s.awaitInput(time.Second), os.ErrDeadlineExceeded)
	_, err = io.WriteString(client, "the rest of a packet")
	require.NoError(t, err)
	s.armRead(0)
	require.NoError(t, s.awaitBytes())
	s.packetBy = now().add(-2 * time.Hour)
	assert.ErrorIs(t, s.awaitInput(time.Second), os.ErrDeadlineExceeded, "which has had its time")
}
