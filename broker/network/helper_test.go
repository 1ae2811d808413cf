package network

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/certs/certstest"
	"github.com/plantops/plantops/config"
)

// soon is how long a test waits for what must happen.
const soon = 30 * time.Second

// least measures until it is less than bound, a few times at most, and returns the least: a busy machine holds up anything
// now and then.
func least(bound time.Duration, measure func() time.Duration) time.Duration {
	took := measure()
	for range 4 {
		if took < bound {
			break
		}
		took = min(took, measure())
	}
	return took
}

// connectPacket is a complete first packet; the network looks at its header only.
var connectPacket = []byte{0x10, 4, 'a', 'b', 'c', 'd'}

var listenerKinds = []string{"tcp", "tls", "websocket"}

// testNet is a network with one listener.
type testNet struct {
	*Network
	l       *Listener
	served  chan error // what serve returned
	mu      sync.Mutex
	reasons map[string]int
	log     logtest.Log
}

// completed are limits of which those that are 0 are as the configuration has them by default.
func completed(some Limits) Limits {
	d := config.Default().Limits
	return Limits{
		MaxConnections:               cmp.Or(some.MaxConnections, d.MaxConnections),
		MaxUnauthenticated:           cmp.Or(some.MaxUnauthenticated, d.MaxUnauthenticated),
		MaxUnauthenticatedPerAddress: cmp.Or(some.MaxUnauthenticatedPerAddress, d.MaxUnauthenticatedPerAddress),
		MaxConnectionsPerAddress:     cmp.Or(some.MaxConnectionsPerAddress, d.MaxConnectionsPerAddress),
		ConnectTimeout:               cmp.Or(some.ConnectTimeout, d.ConnectTimeout),
		MaxPacketBytes:               cmp.Or(some.MaxPacketBytes, d.MaxPacketBytes),
	}
}

// quietNetwork is a network that nobody hears of.
func quietNetwork(some Limits) *Network {
	return New(Options{Limits: completed(some), Log: slog.New(slog.DiscardHandler)})
}

// newTestNet makes a network that is closed, with every goroutine waited for, when the test ends.
func newTestNet(t testing.TB, some Limits) *testNet {
	n := &testNet{reasons: map[string]int{}}
	log := slog.New(slog.NewTextHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n.Network = New(Options{Limits: completed(some), Log: log, Refused: func(why refusal.Refusal, _ refusal.Source) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.reasons[why.Reason]++
	}})
	n.options.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		require.NoError(t, n.Close(ctx), "a goroutine of the network does not end")
		require.Empty(t, n.conns)
		require.Empty(t, n.strangers)
		require.Empty(t, n.addresses)
		require.Zero(t, n.serving)
		require.Zero(t, n.waiting)
	})
	return n
}

// start serves kind with establish on a free port.
func (n *testNet) start(t testing.TB, kind string, establish func(*Conn) error) *testNet {
	t.Helper()
	l, err := n.Bind(kind, "127.0.0.1:0")
	require.NoError(t, err)
	n.serveOn(l, establish)
	return n
}

func (n *testNet) serveOn(l *Listener, establish func(*Conn) error) {
	n.l, n.served = l, make(chan error, 1)
	go func() { n.served <- l.Serve(establish) }()
}

func (n *testNet) dropped(why refusal.Refusal) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reasons[why.Reason]
}

func (n *testNet) count() (open, serving, waiting int) {
	n.Network.mu.Lock()
	defer n.Network.mu.Unlock()
	return len(n.conns), n.serving, n.waiting
}

// rawDial opens a TCP connection from the given loopback address ("" = any).
func (n *testNet) rawDial(t testing.TB, from string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: soon}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", n.l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	return c
}

// requireRefused connects and expects to be sent away, which may be so quick that Dial already notices.
func (n *testNet) requireRefused(t testing.TB, from string) {
	t.Helper()
	d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", n.l.Addr().String())
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
		return
	}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	requireEnd(t, c)
}

// dial is an honest client of the listener's kind.
func (n *testNet) dial(t testing.TB) net.Conn {
	t.Helper()
	return n.handshake(t, n.rawDial(t, ""))
}

// handshake brings up what the listener's kind has above TCP.
func (n *testNet) handshake(t testing.TB, raw net.Conn) net.Conn {
	t.Helper()
	switch n.l.kind {
	case "tls":
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, c.Handshake())
		return c
	case "websocket":
		d := websocket.Dialer{
			NetDial:      func(string, string) (net.Conn, error) { return raw, nil },
			Subprotocols: []string{"mqtt"},
		}
		ws, _, err := d.Dial("ws://"+n.l.Addr().String()+"/mqtt", nil)
		require.NoError(t, err)
		return &wsClient{Conn: raw, ws: ws}
	}
	return raw
}

// wsClient is a websocket client as a stream.
type wsClient struct {
	net.Conn
	ws *websocket.Conn
	r  io.Reader
}

func (c *wsClient) Write(p []byte) (int, error) {
	return len(p), c.ws.WriteMessage(websocket.BinaryMessage, p)
}

func (c *wsClient) Read(p []byte) (int, error) {
	for {
		if c.r == nil {
			_, r, err := c.ws.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			c.r = r
		}
		k, err := c.r.Read(p)
		if err == io.EOF {
			c.r, err = nil, nil
		}
		if k > 0 || err != nil {
			return k, err
		}
	}
}

// readFirst reads the first packet as mochi does.
func readFirst(c *Conn) (*bufio.Reader, error) {
	r := bufio.NewReaderSize(c, 2048)
	if _, err := r.ReadByte(); err != nil {
		return r, err
	}
	length, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return r, err
		}
		length |= int(b&0x7f) << shift
		shift += 7
		if b < 0x80 {
			break
		}
	}
	_, err := r.Discard(length)
	return r, err
}

// login reads the first packet, admits the client, answers with a CONNACK and reads on until the end.
func login(c *Conn) error {
	r, err := readFirst(c)
	if err != nil {
		return err
	}
	c.Admitted("")
	if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// requireLogin sends a CONNECT and waits for the answer.
func requireLogin(t testing.TB, c net.Conn) {
	t.Helper()
	_, err := c.Write(connectPacket)
	require.NoError(t, err)
	answer := make([]byte, 4)
	_, err = io.ReadFull(c, answer)
	require.NoError(t, err)
	require.Equal(t, []byte{0x20, 2, 0, 0}, answer)
}

// requireEnd waits until the server has closed the connection.
func requireEnd(t testing.TB, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var late net.Error
	if err != nil {
		require.False(t, asTimeout(err, &late), "the server keeps the connection: %v", err)
	}
}

func asTimeout(err error, e *net.Error) bool {
	ne, ok := err.(net.Error)
	*e = ne
	return ok && ne.Timeout()
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, soon, 2*time.Millisecond, what)
}

func testCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	return certstest.New(t).Issue("localhost")
}

// countingConn counts the writes that reach the kernel.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}
