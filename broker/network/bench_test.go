package network

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkSmallWrites sends PUBACK-sized packets to one client and reports how many went into one write to the kernel.
func BenchmarkSmallWrites(b *testing.B) {
	for _, kind := range listenerKinds {
		b.Run(kind, func(b *testing.B) {
			sent := make(chan *countingConn, 1)
			n := newTestNet(b, Limits{})
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			n.serveOn(n.adopt(kind, &countingListener{inner}), func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				packet := []byte{0x40, 2, 0, 1}
				b.ResetTimer()
				for range b.N {
					for c.QueuedBytes() > queueBytes/2 {
						runtime.Gosched()
					}
					if _, err := c.Write(packet); err != nil {
						return err
					}
				}
				sent <- c.socket.Conn.(*countingConn)
				_, err = r.ReadByte()
				return err
			})
			client := n.dial(b)
			require.NoError(b, client.SetDeadline(time.Time{}))
			_, err = client.Write(connectPacket)
			require.NoError(b, err)
			_, err = io.CopyN(io.Discard, client, int64(4*b.N))
			require.NoError(b, err)
			b.StopTimer()
			c := <-sent
			b.ReportMetric(float64(b.N)/float64(c.writes.Load()), "packets/write")
			b.ReportMetric(0, "B/op")
		})
	}
}

type countingListener struct{ net.Listener }

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: c}, nil
}

// BenchmarkPingPong is one small packet each way: the latency of the writer that has nothing to join.
func BenchmarkPingPong(b *testing.B) {
	for _, kind := range listenerKinds {
		b.Run(kind, func(b *testing.B) {
			n := newTestNet(b, Limits{}).start(b, kind, func(c *Conn) error {
				r, err := readFirst(c)
				if err != nil {
					return err
				}
				c.Admitted("")
				c.SetReadTimeout(time.Minute)
				p := make([]byte, 64)
				for {
					k, err := r.Read(p)
					if err != nil {
						return err
					}
					if _, err := c.Write(p[:k]); err != nil {
						return err
					}
				}
			})
			client := n.dial(b)
			require.NoError(b, client.SetDeadline(time.Time{}))
			_, err := client.Write(connectPacket)
			require.NoError(b, err)
			p := make([]byte, 4)
			b.ReportAllocs()
			for b.Loop() {
				client.Write(p)
				io.ReadFull(client, p)
			}
		})
	}
}

// BenchmarkAcknowledgements is one goroutine that answers 100 devices in turn, as after a commit.
func BenchmarkAcknowledgements(b *testing.B) {
	const devices, burst = 100, 10
	for _, kind := range listenerKinds {
		b.Run(kind, func(b *testing.B) {
			conns := make(chan *Conn, devices)
			n := newTestNet(b, Limits{}).start(b, kind, func(c *Conn) error {
				if _, err := readFirst(c); err != nil {
					return err
				}
				c.Admitted("")
				conns <- c
				<-c.Done()
				return nil
			})
			var all []*Conn
			clients := make([]net.Conn, devices)
			for i := range clients {
				clients[i] = n.dial(b)
				require.NoError(b, clients[i].SetDeadline(time.Time{}))
				_, err := clients[i].Write(connectPacket)
				require.NoError(b, err)
				all = append(all, <-conns)
				go io.Copy(io.Discard, clients[i])
			}
			ack := []byte{0x40, 2, 0, 1}
			for b.Loop() {
				for range burst {
					for _, c := range all {
						c.Write(ack)
					}
				}
				for _, c := range all {
					for c.QueuedBytes() > 0 {
						runtime.Gosched()
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*devices*burst), "ns/ack")
		})
	}
}

// BenchmarkIdleConnections reports the memory of a logged-in, idle connection (client included: subtract one socket)
// and of one that waits for its turn.
func BenchmarkIdleConnections(b *testing.B) {
	const clients = 1000
	for _, kind := range listenerKinds {
		for name, places := range map[string]int{"idle": clients, "waiting": 1} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				n := newTestNet(b, Limits{MaxUnauthenticated: places, MaxUnauthenticatedPerAddress: places}).start(b, kind, func(c *Conn) error {
					var p [64]byte
					if _, err := c.Read(p[:]); err != nil {
						return err
					}
					c.Admitted("")
					if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil {
						return err
					}
					_, err := c.Read(p[:])
					return err
				})
				for b.Loop() {
					before := memory()
					raw := make([]net.Conn, clients)
					for i := range raw {
						raw[i] = n.rawDial(b, "")
					}
					socket := (memory() - before) / clients // of the client; of the server's side what waits for its turn
					before = memory()
					if places > 1 {
						for _, c := range raw {
							requireLogin(b, n.handshake(b, c))
						}
					}
					eventually(b, "accepted", func() bool { o, _, _ := n.count(); return o == clients })
					b.ReportMetric((memory()-before)/clients, "B/login")
					b.ReportMetric(socket, "B/accept")
					for _, c := range raw {
						c.Close()
					}
					eventually(b, "closed", func() bool { o, _, _ := n.count(); return o == 0 })
				}
			})
		}
	}
}

// memory is what the process uses after a collection.
func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}
