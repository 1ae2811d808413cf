package ingest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const dialTimeout = 10 * time.Second

// conn is the network connection under paho. Reads are buffered; paho's own are of single bytes. Writes gather between
// Lock and Unlock, which paho calls around each packet, and leave as one: one system call, one TLS record.
type conn struct {
	net.Conn          // TCP or TLS
	socket   net.Conn // the TCP connection below, to cut it without ceremony
	in       *bufio.Reader
	frame    frame         // of what was read; the reader's
	timed    bool          // reading has a deadline; the reader's
	patience time.Duration // with a write, and with a packet that has begun
	onEnd    func()        // called when the connection has ended
	before   func()        // called before more is read, for which it may have to wait; nil: nobody is to know
	session  int           // of the broker, counted from 1; set before anything is taken from it

	mu  sync.Mutex
	out []byte

	over  atomic.Bool
	cause atomic.Pointer[error] // why we cut it
}

// dialOptions say what a connection is.
type dialOptions struct {
	address  string
	config   *tls.Config    // nil: plain TCP
	patience time.Duration  // with a write, and with a packet that has begun
	limit    int            // the largest packet, without its head
	dialed   func(net.Addr) // nil, or told our end of the TCP connection before anything is sent
	before   func()         // called before more is read, for which it may have to wait; may be nil
	onEnd    func()         // called when the connection has ended
}

// dial connects to the broker; with TLS the handshake is part of it. It obeys no proxy variables: the broker is on this
// machine or in this house.
func dial(ctx context.Context, o dialOptions) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", o.address)
	if err != nil {
		return nil, err
	}
	if o.dialed != nil {
		o.dialed(socket.LocalAddr())
	}
	c := &conn{Conn: socket, socket: socket, patience: o.patience, frame: frame{limit: o.limit}, before: o.before, onEnd: o.onEnd}
	if o.config != nil {
		secure := tls.Client(socket, o.config)
		if err := secure.HandshakeContext(ctx); err != nil {
			socket.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		c.Conn = secure
	}
	c.in = bufio.NewReaderSize(c.Conn, 16<<10) // a TLS record
	return c, nil
}

// Read returns what the broker sent. What paho must not see ends the connection, and so does a packet that has begun and does
// not go on; while none has, the keepalive finds a broker that is silent.
func (c *conn) Read(p []byte) (int, error) {
	if c.in.Buffered() == 0 {
		if c.before != nil {
			c.before()
		}
		c.time(c.frame.underWay())
	}
	n, err := c.in.Read(p)
	if wrong := c.frame.pass(p[:n]); wrong != nil {
		c.fail(wrong)
		return 0, wrong
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("broker stopped in the middle of a packet: %w", err)
		c.fail(err)
	}
	return n, err
}

// time sets a deadline for what is read next, or takes it away.
func (c *conn) time(bounded bool) {
	if bounded {
		c.Conn.SetReadDeadline(time.Now().Add(c.patience)) // an error here comes again from Read
	} else if c.timed {
		c.Conn.SetReadDeadline(time.Time{})
	}
	c.timed = bounded
}

// Write adds to the packet under way; the caller holds the lock.
func (c *conn) Write(p []byte) (int, error) {
	if c.over.Load() {
		return 0, net.ErrClosed
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

// Lock starts a packet.
func (c *conn) Lock() { c.mu.Lock() }

// Unlock sends what was written since Lock. What the broker does not take in time ends the connection.
func (c *conn) Unlock() {
	defer c.mu.Unlock()
	if len(c.out) == 0 {
		return
	}
	c.Conn.SetWriteDeadline(time.Now().Add(c.patience)) // an error here comes again from Write
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.fail(err)
	}
}

// acknowledge sends one PUBACK for each packet id, in this order, in one write. On a connection that has ended nothing
// leaves: the broker sends those messages again on the next one. paho's own way, Client.Ack, waits for a ticker.
func (c *conn) acknowledge(ids []uint16) {
	if c == nil || len(ids) == 0 {
		return
	}
	c.Lock()
	defer c.Unlock()
	for _, id := range ids {
		c.out = append(c.out, 0x40, 2, byte(id>>8), byte(id)) // reason 0 and properties left out [MQTT 5, 3.4.2.1]
	}
}

// fail cuts the connection and remembers the first reason.
func (c *conn) fail(cause error) {
	c.cause.CompareAndSwap(nil, &cause)
	c.over.Store(true)
	c.socket.Close()
	c.onEnd()
}

// Close ends the connection in order.
func (c *conn) Close() error {
	c.over.Store(true)
	err := c.Conn.Close()
	c.onEnd()
	return err
}

// ended tells whether nothing more can be sent. A nil connection has ended.
func (c *conn) ended() bool { return c == nil || c.over.Load() }
