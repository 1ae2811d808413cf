package broker

import (
	"crypto/tls"
	"net"
	"time"
)

// conn is one client's connection; mochi sees it as a net.Conn.
type conn struct{ net.Conn }

// Write copies p into the outgoing queue. It never waits for the socket. A full queue closes the connection.
func (c *conn) Write(p []byte) (int, error) { return len(p), c.send(p) }

// send queues p without copying it where that pays; the caller must not change p any more.
func (c *conn) send(p []byte) error { return nil }

// admitted says that the CONNECT was accepted: the deadline, the first-packet limit and the count of the unauthenticated end.
func (c *conn) admitted() {}

// hold stops the CONNECT deadline while the broker makes the client wait, and gives its place among the
// unauthenticated to the next one. Call it only after the client's credentials were found good.
func (c *conn) hold() {}

// unhold lets the CONNECT deadline run again, where it stopped.
func (c *conn) unhold() {}

// setReadTimeout closes the connection when nothing is received for d; 0 = never. It holds from the next Read on.
func (c *conn) setReadTimeout(d time.Duration) {}

// setQueueLimit replaces the limit of the outgoing queue in bytes (the backend's connection needs more than a device's).
func (c *conn) setQueueLimit(bytes int) {}

// queuedBytes is what the outgoing queue holds.
func (c *conn) queuedBytes() int { return 0 }

// tlsState is nil on a connection without TLS.
func (c *conn) tlsState() *tls.ConnectionState { return nil }

// done is closed when the connection is closed.
func (c *conn) done() <-chan struct{} { return nil }

// listener is "tcp", "tls" or "websocket".
func (c *conn) listener() string { return "" }

// abort closes the connection at once without flushing, counted and logged under reason.
func (c *conn) abort(reason string) {}
