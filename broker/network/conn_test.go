package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/refusal"
)

func TestManyWritersArriveWholeAndInOrder(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			const writers, each = 8, 500
			big := bytes.Repeat([]byte{7}, 3*chunkBytes+5) // shared, split into chunks
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				var all sync.WaitGroup
				for w := range writers {
					all.Go(func() {
						for i := range each {
							record := binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(i))
							_, err := c.Write(record)
							assert.NoError(t, err)
							clear(record) // Write must have copied it
						}
					})
				}
				all.Wait()
				if _, err := c.Put(nil, big); err != nil {
					return err
				}
				c.Flush()
				_, err = r.ReadByte()
				return err
			})
			client := n.dial(t)
			_, err := client.Write(connectPacket)
			require.NoError(t, err)
			next := make([]uint32, writers)
			record := make([]byte, 5)
			for range writers * each {
				_, err := io.ReadFull(client, record)
				require.NoError(t, err)
				w := record[0]
				require.Equal(t, next[w], binary.BigEndian.Uint32(record[1:]), "writer %d", w)
				next[w]++
			}
			got := make([]byte, len(big))
			_, err = io.ReadFull(client, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(big, got))
		})
	}
}

// Who reads from a connection writes to it, too, as far as that does not wait.
func TestWhatAReaderWritesItselfArrivesWholeAndInOrder(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			full, records := make(chan struct{}), make(chan uint32, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				next := uint32(0)
				put := func() {
					record := make([]byte, 1000)
					binary.BigEndian.PutUint32(record, next)
					next++
					_, err := c.Put(record, nil)
					assert.NoError(t, err)
					c.FlushOwn()
				}
				for c.QueuedBytes() < 100<<10 { // until the client's kernel takes no more
					put()
				}
				close(full)
				for range 10_000 {
					for c.QueuedBytes() > 200<<10 {
						<-time.After(time.Millisecond)
					}
					put()
				}
				records <- next // before the record that says that it was the last one
				next = math.MaxUint32
				put()
				_, err = r.ReadByte()
				return err
			})
			client := n.dial(t)
			_, err := client.Write(connectPacket)
			require.NoError(t, err)
			<-full
			record := make([]byte, 1000)
			for next := uint32(0); ; next++ {
				_, err := io.ReadFull(client, record)
				require.NoError(t, err)
				number := binary.BigEndian.Uint32(record)
				if number == math.MaxUint32 {
					require.Equal(t, <-records, next)
					break
				}
				require.Equal(t, next, number)
			}
		})
	}
}

// The caller of Write must not wait, and the queue is bounded.
func TestClientThatNeverReadsIsClosed(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			longest := make(chan time.Duration, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				if _, err := readFirst(c); err != nil {
					return err
				}
				c.Admitted("")
				var worst time.Duration
				packet := make([]byte, 1000)
				for {
					begin := time.Now()
					_, err := c.Write(packet)
					worst = max(worst, time.Since(begin))
					assert.LessOrEqual(t, c.QueuedBytes(), c.n.queueLimit)
					if err != nil {
						longest <- worst
						return err
					}
				}
			})
			client := n.dial(t)
			_, err := client.Write(connectPacket)
			require.NoError(t, err)
			select {
			case worst := <-longest:
				assert.Less(t, worst, n.writeTimeout/2, "Write waited for the socket")
			case <-time.After(soon):
				require.Fail(t, "the queue never became full")
			}
			eventually(t, "counted", func() bool { return n.dropped(refusal.SlowConsumer) == 1 })
			eventually(t, "closed", func() bool { open, _, _ := n.count(); return open == 0 })
		})
	}
}

func TestClientThatStopsReadingRunsIntoTheWriteTimeout(t *testing.T) {
	t.Parallel()
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newTestNet(t, Limits{MaxPacketBytes: 16 << 20})
			n.writeTimeout = 200 * time.Millisecond
			n.start(t, kind, func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				if _, err := c.Put(nil, make([]byte, 32<<20)); err != nil { // more than any socket buffer
					return err
				}
				c.Flush()
				_, err = r.ReadByte()
				assert.Error(t, err)
				select {
				case <-c.Done():
				default:
					assert.Fail(t, "done is not closed")
				}
				return nil
			})
			client := n.dial(t)
			_, err := client.Write(connectPacket)
			require.NoError(t, err)
			eventually(t, "counted", func() bool { return n.dropped(refusal.WriteTimeout) == 1 })
			eventually(t, "closed", func() bool { open, _, _ := n.count(); return open == 0 })
		})
	}
}

// With unread input waiting, a plain close would reset the connection and take the CONNACK along.
func TestLastPacketArrivesAlthoughInputIsUnread(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			connack := []byte{0x20, 2, 0, 5}
			closed := make(chan time.Duration, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				if _, err := readFirst(c); err != nil {
					return err
				}
				_, err := c.Write(connack)
				begin := time.Now()
				c.Close()
				closed <- time.Since(begin)
				_, readErr := c.Read(make([]byte, 1))
				assert.ErrorIs(t, readErr, net.ErrClosed)
				_, writeErr := c.Write(connack)
				assert.ErrorIs(t, writeErr, net.ErrClosed)
				return err
			})
			require.Less(t, least(flushTimeout, func() time.Duration {
				raw := n.rawDial(t, "")
				client := n.handshake(t, raw)
				_, err := client.Write(connectPacket)
				require.NoError(t, err)
				_, err = client.Write(make([]byte, 200<<10)) // nobody reads this
				require.NoError(t, err)
				took := <-closed
				eventually(t, "no longer counted", func() bool { _, serving, _ := n.count(); return serving == 0 })
				got, err := io.ReadAll(client)
				require.NoError(t, err, "the client must see an orderly end")
				require.Equal(t, connack, got)
				require.Never(t, func() bool { _, err := raw.Write([]byte("more")); return err != nil },
					lingerTimeout/5, lingerTimeout/50, "a reset would take the refusal away from a client that has not read it")
				return took
			}), flushTimeout, "Close waited")
		})
	}
}

func TestCloseFreesABlockedReaderAtOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			conns := make(chan *Conn, 1)
			left := make(chan error, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				if _, err := readFirst(c); err != nil {
					return err
				}
				c.Admitted("")
				c.SetReadTimeout(time.Minute)
				conns <- c
				_, err := c.Read(make([]byte, 1))
				left <- err
				return err
			})
			require.Less(t, least(lingerTimeout/2, func() time.Duration {
				client := n.dial(t) // stays open and silent, so linger runs its full time
				_, err := client.Write(connectPacket)
				require.NoError(t, err)
				c := <-conns
				begin := time.Now()
				c.Close()
				require.ErrorIs(t, <-left, net.ErrClosed)
				took := time.Since(begin)
				requireEnd(t, client)
				eventually(t, "closed after lingering", func() bool { open, _, _ := n.count(); return open == 0 })
				return took
			}), lingerTimeout/2)
		})
	}
}

func TestReadTimeoutRunsFromTheLastRead(t *testing.T) {
	t.Parallel()
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const timeout = 2 * time.Second // a busy machine may well hold the client up for half of that
			silent := make(chan time.Duration, 1)
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				if _, err := readFirst(c); err != nil {
					return err
				}
				c.Admitted("")
				c.SetReadTimeout(timeout)
				assert.NoError(t, c.SetDeadline(time.Now().Add(time.Millisecond))) // mochi's, ignored
				c.Write([]byte{1})
				for {
					begin := time.Now()
					if _, err := c.Read(make([]byte, 10)); err != nil {
						var late net.Error
						assert.True(t, asTimeout(err, &late), "%v", err)
						silent <- time.Since(begin)
						return err
					}
					c.Write([]byte{1})
				}
			})
			client := n.dial(t)
			_, err := client.Write(connectPacket)
			require.NoError(t, err)
			begin := time.Now()
			for time.Since(begin) < 2*timeout { // a busy client, longer than the timeout
				_, err := io.ReadFull(client, make([]byte, 1))
				require.NoError(t, err)
				_, err = client.Write([]byte{9})
				require.NoError(t, err)
			}
			select {
			case got := <-silent:
				require.GreaterOrEqual(t, got, timeout)
			case <-time.After(soon):
				require.Fail(t, "a silent client is not ended")
			}
		})
	}
}

func TestReadTimeoutCanBeTakenAway(t *testing.T) {
	t.Parallel()
	conns := make(chan *Conn, 1)
	n := newTestNet(t, Limits{}).start(t, "tcp", func(c *Conn) error {
		c.SetReadTimeout(50 * time.Millisecond)
		if _, err := readFirst(c); err != nil {
			return err
		}
		c.Admitted("")
		c.SetReadTimeout(0)
		conns <- c
		return readAll(c)
	})
	client := n.dial(t)
	_, err := client.Write(connectPacket)
	require.NoError(t, err)
	c := <-conns
	require.Never(t, func() bool { return isDone(c) }, 200*time.Millisecond, 10*time.Millisecond)
}

// readAll reads until the end.
func readAll(c *Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}

func isDone(c *Conn) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				c.Write([]byte{0x20, 2, 0, 0})
				for {
					b, err := r.ReadByte()
					if err != nil {
						return err
					}
					if b == 'x' {
						panic("index out of range in somebody's decoder")
					}
					c.Write([]byte{b})
				}
			})
			good, bad := n.dial(t), n.dial(t)
			requireLogin(t, good)
			requireLogin(t, bad)
			_, err := bad.Write([]byte("x"))
			require.NoError(t, err)
			requireEnd(t, bad)
			eventually(t, "counted", func() bool { return n.dropped(refusal.Panic) == 1 })
			require.Contains(t, n.log.String(), "somebody's decoder")
			require.Contains(t, n.log.String(), "conn_test.go", "the stack")

			_, err = good.Write([]byte("y"))
			require.NoError(t, err)
			_, err = io.ReadFull(good, make([]byte, 1))
			require.NoError(t, err)
		})
	}
}

func TestCloseOfTheNetworkEndsEverything(t *testing.T) {
	t.Parallel()
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newTestNet(t, Limits{MaxUnauthenticated: 3}).start(t, kind, login)
			loggedIn := n.dial(t)
			requireLogin(t, loggedIn)
			for range 5 {
				n.rawDial(t, "") // three are served and silent, two wait
			}
			eventually(t, "served and waiting", func() bool {
				open, serving, waiting := n.count()
				return open == 6 && serving == 3 && waiting == 2
			})
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			require.NoError(t, n.Close(ctx))
			require.NoError(t, <-n.served)
			requireEnd(t, loggedIn)
		})
	}
}

func TestCloseOfTheNetworkIsBounded(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	n := newTestNet(t, Limits{}).start(t, "tcp", func(c *Conn) error {
		close(entered)
		<-release // a part that does not notice the end
		return nil
	})
	client := n.dial(t)
	_, err := client.Write(connectPacket)
	require.NoError(t, err)
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Close(ctx) }()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.DeadlineExceeded)
	case <-time.After(soon):
		assert.Fail(t, "Close waits for a part that does not end")
	}
	close(release)
}

// Who says nothing costs next to nothing: what belongs to a login is made when somebody begins one.
func TestNothingIsMadeForASilentConnection(t *testing.T) {
	var established atomic.Int64
	n := newTestNet(t, Limits{}).start(t, "tcp", func(c *Conn) error {
		established.Add(1)
		_, err := io.ReadAll(c)
		return err
	})
	silent, gone, speaker := n.rawDial(t, ""), n.rawDial(t, ""), n.rawDial(t, "")
	eventually(t, "served", func() bool { _, serving, _ := n.count(); return serving == 3 })
	gone.Close()
	eventually(t, "forgotten", func() bool { open, _, _ := n.count(); return open == 2 })
	require.Zero(t, established.Load())
	_, err := speaker.Write(connectPacket[:1])
	require.NoError(t, err)
	eventually(t, "established", func() bool { return established.Load() == 1 })
	silent.Close()
	eventually(t, "forgotten", func() bool { open, _, _ := n.count(); return open == 1 })
	require.EqualValues(t, 1, established.Load())
}
