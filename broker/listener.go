package broker

import "net"

// netListener is one bound address.
type netListener struct{ net.Listener }

// bind opens address for kind "tcp", "tls" or "websocket". It serves nobody yet.
func bind(kind, address string, n *network) (*netListener, error) { return nil, nil }

// addr is the bound address.
func (l *netListener) addr() net.Addr { return l.Addr() }

// serve accepts connections until close (then it returns nil) or until the listener breaks for good. establish
// is called once per connection, in that connection's goroutine; when it returns, the connection is closed.
func (l *netListener) serve(establish func(c *conn) error) error { return nil }

// close stops accepting; the connections stay.
func (l *netListener) close() error { return l.Close() }
