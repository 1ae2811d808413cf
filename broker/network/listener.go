package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// Listener is one bound address; Addr tells which.
type Listener struct {
	net.Listener
	kind      string
	n         *Network
	establish func(*Conn) error // set by Serve
	closing   chan struct{}
}

// The kinds of listeners, as counters and the log name them.
const (
	TCP       = "tcp"
	TLS       = "tls"
	WebSocket = "websocket"
)

// Bind opens an address for a kind of listener. It serves nobody yet; the kernel already queues connections. The error
// names the address and the cause.
func (n *Network) Bind(kind, address string) (*Listener, error) {
	config := net.ListenConfig{
		// A client that loses its power without a word, and has no MQTT keepalive, is found after two minutes.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4},
	}
	inner, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open %s listener: %w", kind, err)
	}
	return n.adopt(kind, inner), nil
}

// adopt makes inner one of the network's listeners.
func (n *Network) adopt(kind string, inner net.Listener) *Listener {
	l := &Listener{Listener: inner, kind: kind, n: n, closing: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners = append(n.listeners, l)
	return l
}

// Close stops accepting; the connections stay. The second call returns an error and does no harm.
func (l *Listener) Close() error {
	l.n.mu.Lock()
	select {
	case <-l.closing:
	default:
		close(l.closing)
	}
	l.n.mu.Unlock()
	return l.Listener.Close()
}

// Serve accepts connections until Close (then it returns nil) or until the listener breaks for good. establish
// is called once per connection, in that connection's goroutine; when it returns, the connection is closed.
//
// An error of Accept (no file descriptors left, a client that has gone already) is no reason to end: it retries, and logs
// the begin, once a minute, and the end.
func (l *Listener) Serve(establish func(c *Conn) error) error {
	l.establish = establish
	var trouble acceptTrouble
	for {
		raw, err := l.Accept()
		if err == nil {
			trouble.over(l)
			l.n.enter(newConn(l, raw))
			continue
		}
		select {
		case <-l.closing:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK) {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.n.shed()
		}
		select {
		case <-l.closing:
			return nil
		case <-time.After(trouble.pause(l, err)):
		}
	}
}

// acceptTrouble is a row of Accept errors.
type acceptTrouble struct {
	since, logged time.Time
	wait          time.Duration
	count         int
}

func (t *acceptTrouble) pause(l *Listener, err error) time.Duration {
	now := time.Now()
	t.count++
	t.wait = min(max(2*t.wait, acceptPauseMin), acceptPauseMax)
	if t.since.IsZero() {
		t.since = now
	}
	if now.Sub(t.logged) >= time.Minute {
		t.logged = now
		l.n.options.Log.Error("accepting connections fails, retrying", "listener", l.kind, "count", t.count, "err", err)
	}
	return t.wait
}

func (t *acceptTrouble) over(l *Listener) {
	if t.count > 0 {
		l.n.options.Log.Info("accepting connections again", "listener", l.kind, "count", t.count, "took", time.Since(t.since))
		*t = acceptTrouble{}
	}
}
