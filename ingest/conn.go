package ingest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const dialTimeout = 10 * time.Second

// conn is the network connection under paho. Reads are buffered; paho's own are of single bytes. Writes gather between
// Lock and Unlock, which paho calls around each packet, and leave as one: one system call, one TLS record.
type conn struct {
	net.Conn              // TCP or TLS
	socket       net.Conn // the TCP connection below, to cut it without ceremony
	in           *bufio.Reader
	writeTimeout time.Duration
	onEnd        func() // called when the connection has ended
	session      int    // of the broker, counted from 1; set before anything is taken from it

	mu  sync.Mutex
	out []byte

	over  atomic.Bool
	cause atomic.Pointer[error] // why we cut it
}

// dial connects to the broker; with TLS, which config nil means without, the handshake is part of it. It obeys no proxy
// variables: the broker is on this machine or in this house.
// dialed, which may be nil, is told our end of the TCP connection before anything is sent.
func dial(ctx context.Context, address string, config *tls.Config, writeTimeout time.Duration, dialed func(net.Addr), onEnd func()) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if dialed != nil {
		dialed(socket.LocalAddr())
	}
	c := &conn{Conn: socket, socket: socket, writeTimeout: writeTimeout, onEnd: onEnd}
	if config != nil {
		secure := tls.Client(socket, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			socket.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
		c.Conn = secure
	}
	c.in = bufio.NewReaderSize(c.Conn, 16<<10) // a TLS record
	return c, nil
}

func (c *conn) Read(p []byte) (int, error) { return c.in.Read(p) }

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
	c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout)) // an error here comes again from Write
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
