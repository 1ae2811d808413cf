package network

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/refusal"
)

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	attacks := map[string]struct {
		kind  string
		piece []byte // sent once, or again and again when drip
		drip  bool
	}{
		"silent tcp":             {"tcp", nil, false},
		"silent tls":             {"tls", nil, false},
		"silent websocket":       {"websocket", nil, false},
		"half a CONNECT":         {"tcp", []byte{0x10, 100, 0}, false},
		"dripped CONNECT":        {"tcp", []byte{0x10, 100, 0, 4}, true},
		"half a TLS handshake":   {"tls", clientHello(t), false},
		"half a TLS record":      {"tls", clientHello(t)[:20], false},
		"dripped TLS record":     {"tls", clientHello(t), true},
		"half an HTTP request":   {"websocket", []byte("GET /mqtt HTTP/1.1\r\nHost: x\r\n"), false},
		"dripped HTTP request":   {"websocket", []byte("GET /mqtt HTTP/1.1\r\n"), true},
		"TLS done, then silence": {"tls", nil, false},
	}
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 300 * time.Millisecond
			if name == "TLS done, then silence" {
				timeout = 5 * time.Second // in which a busy machine can do a handshake
			}
			n := newTestNet(t, Limits{ConnectTimeout: timeout}).start(t, attack.kind, login)
			begin := time.Now()
			var client net.Conn
			if name == "TLS done, then silence" {
				client = n.dial(t)
			} else {
				client = n.rawDial(t, "")
			}
			if attack.drip {
				go func() {
					tick := time.NewTicker(timeout / 20)
					defer tick.Stop()
					for i := 0; ; i++ {
						if _, err := client.Write(attack.piece[i%len(attack.piece):][:1]); err != nil {
							return
						}
						<-tick.C
					}
				}()
			} else {
				_, err := client.Write(attack.piece)
				require.NoError(t, err)
			}
			requireEnd(t, client)
			assert.GreaterOrEqual(t, time.Since(begin), timeout)
			eventually(t, "counted", func() bool { return n.dropped(refusal.NoConnectInTime) == 1 })
			assert.Zero(t, n.dropped(refusal.HandshakeFailed)+n.dropped(refusal.UpgradeFailed), "counted once")
		})
	}
}

// clientHello is what a TLS client sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	hello := make([]byte, 4096)
	k, err := ours.Read(hello)
	require.NoError(t, err)
	ours.Close()
	return hello[:k]
}

func TestConnectTimeoutStandsStillWhileWeMakeTheClientWait(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	held, let := make(chan struct{}), make(chan struct{})
	n := newTestNet(t, Limits{ConnectTimeout: timeout, MaxUnauthenticated: 1}).start(t, "tcp", func(c *Conn) error {
		if _, err := readFirst(c); err != nil {
			return err
		}
		c.PauseDeadline()
		held <- struct{}{}
		<-let
		c.ResumeDeadline()
		c.Admitted("")
		_, err := c.Write([]byte{0x20, 2, 0, 0})
		if err != nil {
			return err
		}
		return readAll(c)
	})
	// With one place only, the second client gets in because the first one's is free while it is held.
	first, second := n.dial(t), n.dial(t)
	for _, c := range []net.Conn{first, second} {
		_, err := c.Write(connectPacket)
		require.NoError(t, err)
		<-held
	}
	require.Never(t, func() bool { return n.dropped(refusal.NoConnectInTime) > 0 }, 2*timeout, timeout/10)
	close(let)
	for _, c := range []net.Conn{first, second} {
		_, err := c.Read(make([]byte, 4))
		require.NoError(t, err)
	}
	require.Never(t, func() bool { return n.dropped(refusal.NoConnectInTime) > 0 }, 2*timeout, timeout/10, "after the login there is none")
}

func TestBurstFromOneAddressIsServedCompletely(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			clients := 1000
			if kind == "tls" {
				clients = 300 // the same path; handshakes under -race are slow
			}
			n := newTestNet(t, Limits{MaxUnauthenticated: 50, MaxUnauthenticatedPerAddress: 10}).start(t, kind, func(c *Conn) error {
				n, serving := c.n, 0
				n.mu.Lock()
				serving = n.serving
				n.mu.Unlock()
				assert.LessOrEqual(t, serving, 10)
				return login(c)
			})
			open := make(chan struct{}, clients)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					requireLogin(t, n.dial(t))
					open <- struct{}{}
				})
			}
			all.Wait()
			require.Len(t, open, clients)
			eventually(t, "all are open", func() bool {
				o, serving, waiting := n.count()
				return o == clients && serving == 0 && waiting == 0
			})
			require.Empty(t, n.reasons)
		})
	}
}

func TestSilentSocketsOfOneAddressDoNotKeepOthersWaiting(t *testing.T) {
	n := newTestNet(t, Limits{MaxUnauthenticated: 8, MaxUnauthenticatedPerAddress: 4, ConnectTimeout: time.Minute}).start(t, "tcp", login)
	for range 100 {
		n.rawDial(t, "127.0.0.2")
	}
	eventually(t, "four silent ones are served", func() bool { _, s, w := n.count(); return s == 4 && w == 96 })
	for range 20 {
		requireLogin(t, n.rawDial(t, "127.0.0.3"))
	}
	require.Empty(t, n.reasons)
}

func TestSilentSocketsInAllPlacesAreReplacedSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 900 * time.Millisecond
		n := quietNetwork(Limits{MaxUnauthenticated: 4, MaxUnauthenticatedPerAddress: 4, ConnectTimeout: timeout})
		told := make(chan time.Duration, 1)
		for i := range 40 {
			n.knock("127.0.0.2", 1+i, silent)
		}
		synctest.Wait()
		require.Equal(t, 4, n.serving, "all places are taken")
		begin := time.Now()
		n.knock("127.0.0.3", 1, n.guesser(device, true, told))
		<-told
		require.Less(t, time.Since(begin), timeout*2/3, "36 sockets were there before, one turn is enough")
		require.NoError(t, n.Close(t.Context()))
	})
}

func TestAboveMaxConnectionsTheLongestQueueLoses(t *testing.T) { // and what is in reserve, ten more
	n := newTestNet(t, Limits{MaxConnections: 10, MaxUnauthenticated: 6, MaxUnauthenticatedPerAddress: 2, ConnectTimeout: time.Minute}).start(t, "tcp", login)
	requireLogin(t, n.rawDial(t, "127.0.0.3"))
	for range 3 {
		n.rawDial(t, "127.0.0.5")
	}
	for range 16 {
		n.rawDial(t, "127.0.0.2")
	}
	queued := func(ip string) int {
		n.Network.mu.Lock()
		defer n.Network.mu.Unlock()
		return len(n.addresses[refusal.AddressKey(&net.TCPAddr{IP: net.ParseIP(ip)})].queue)
	}
	eventually(t, "full", func() bool { o, s, w := n.count(); return o == 20 && s == 4 && w == 15 })
	requireLogin(t, n.rawDial(t, "127.0.0.4"))
	eventually(t, "one of the many lost", func() bool { return n.dropped(refusal.TooManyConnections) == 1 })
	n.requireRefused(t, "127.0.0.2")
	eventually(t, "the next of the many is refused", func() bool { return n.dropped(refusal.TooManyConnections) == 2 })
	require.Equal(t, 1, queued("127.0.0.5"))
	require.Equal(t, 13, queued("127.0.0.2"))
	eventually(t, "bounded", func() bool { o, _, _ := n.count(); return o <= 20 })
}

func TestMaxConnectionsPerAddress(t *testing.T) {
	n := newTestNet(t, Limits{MaxConnectionsPerAddress: 2}).start(t, "tcp", login)
	first := n.rawDial(t, "127.0.0.2")
	requireLogin(t, first)
	requireLogin(t, n.rawDial(t, "127.0.0.2"))
	n.requireRefused(t, "127.0.0.2")
	eventually(t, "counted", func() bool { return n.dropped(refusal.TooManyFromAddress) == 1 })
	requireLogin(t, n.rawDial(t, "127.0.0.3"))
	first.Close()
	eventually(t, "room again", func() bool { o, _, _ := n.count(); return o == 2 })
	requireLogin(t, n.rawDial(t, "127.0.0.2"))
}

// failingListener fails the first times.
type failingListener struct {
	net.Listener
	fail chan error
}

func (l *failingListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.fail:
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	default:
		return l.Listener.Accept()
	}
}

func TestAcceptErrorsDoNotEndTheListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &failingListener{inner, make(chan error, 10)}
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, errors.New("odd")} {
		l.fail <- err
	}
	n := newTestNet(t, Limits{})
	n.serveOn(n.adopt("tcp", l), login)
	requireLogin(t, n.rawDial(t, ""))
	require.Contains(t, n.log.String(), "accepting connections fails")
	require.Contains(t, n.log.String(), "accepting connections again")
}

func TestWaitingConnectionsAreGivenUpWhenDescriptorsRunOut(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &failingListener{inner, make(chan error, 1)}
	n := newTestNet(t, Limits{MaxUnauthenticated: 1, ConnectTimeout: time.Minute})
	n.serveOn(n.adopt("tcp", l), login)
	for range 5 {
		n.rawDial(t, "127.0.0.2")
	}
	eventually(t, "four wait", func() bool { _, _, w := n.count(); return w == 4 })
	l.fail <- syscall.EMFILE
	// One more wakes the accept that is under way. It may itself be the one that is given up, before Dial returns.
	d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if c, err := d.Dial("tcp", n.l.Addr().String()); err == nil {
		defer c.Close()
	}
	eventually(t, "one was given up", func() bool { return n.dropped(refusal.TooManyConnections) == 1 })
}

func TestABrokenListenerIsReported(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "tcp", login)
	n.l.Listener.Close() // not by us
	select {
	case err := <-n.served:
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorContains(t, err, n.l.Addr().String())
	case <-time.After(soon):
		require.Fail(t, "serve goes on")
	}
}

func TestBindNamesAddressAndCause(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "tcp", login)
	_, err := n.Bind("tls", n.l.Addr().String())
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, n.l.Addr().String())
	require.NoError(t, n.l.Close())
	require.NoError(t, <-n.served)
	require.Error(t, n.l.Close(), "closed already")
}

func TestTLSHandshakeFailuresSayWhatIsWrong(t *testing.T) {
	tests := map[string]struct {
		server func(*tls.Config)
		client func(n *testNet, t *testing.T)
		want   string
	}{
		"plain MQTT on the TLS port": {nil, func(n *testNet, t *testing.T) {
			c := n.rawDial(t, "")
			_, err := c.Write(connectPacket)
			require.NoError(t, err)
			requireEnd(t, c)
		}, "does not speak TLS"},
		"a client without our ca.crt": {nil, func(n *testNet, t *testing.T) {
			require.Error(t, tls.Client(n.rawDial(t, ""), &tls.Config{ServerName: "127.0.0.1"}).Handshake())
		}, "does not trust the server certificate"},
		"no client certificate": {func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }, func(n *testNet, t *testing.T) {
			requireEnd(t, n.dial(t))
		}, "has no certificate"},
		"a client certificate of somebody else": {func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }, func(n *testNet, t *testing.T) {
			c := tls.Client(n.rawDial(t, ""), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{testCertificate(t)}})
			require.NoError(t, c.Handshake())
			requireEnd(t, c)
		}, "not from our authority"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newTestNet(t, Limits{})
			if test.server != nil {
				test.server(n.options.TLSConfig)
			}
			n.start(t, "tls", login)
			test.client(n, t)
			eventually(t, "counted", func() bool { return n.dropped(refusal.HandshakeFailed) == 1 })
			require.Contains(t, n.log.String(), test.want)
		})
	}
}

func TestTLSState(t *testing.T) {
	for _, kind := range listenerKinds {
		t.Run(kind, func(t *testing.T) {
			n := newTestNet(t, Limits{}).start(t, kind, func(c *Conn) error {
				assert.Equal(t, kind, c.Kind())
				state := c.TLSState()
				if kind == "tls" {
					if assert.NotNil(t, state) {
						assert.True(t, state.HandshakeComplete)
					}
				} else {
					assert.Nil(t, state)
				}
				return login(c)
			})
			requireLogin(t, n.dial(t))
		})
	}
}

// A connection that is closed waits a second for its client's end. Meanwhile it keeps nobody out.
func TestConnectionsThatEndMakeRoom(t *testing.T) {
	n := newTestNet(t, Limits{MaxConnections: 1}).start(t, "tcp", func(c *Conn) error {
		_, err := readFirst(c)
		assert.NoError(t, err)
		c.Admitted("")
		_, err = c.Write([]byte{0x20, 2, 0, 0})
		return err
	})
	for range 3 * reserve(1) {
		requireLogin(t, n.rawDial(t, ""))
	}
	require.Empty(t, n.reasons)
}
