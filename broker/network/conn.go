package network

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/refusal"
)

// Conn is one client's connection; mochi sees it as a net.Conn. Bytes pass through
// conn (first-packet limit, outgoing queue) - TLS or websocket, where there is one - socket (deadlines) - TCP.
//
// One goroutine (run) belongs to it from the time it is served until nothing has come for a while, and again when something does (see
// parking); a second one lives only while there is something to write and ends with closing the socket. So an idle connection costs no
// stack.
type Conn struct {
	socket               // the lower half; RemoteAddr and LocalAddr come from it
	n      *Network      // shared
	from   *Listener     // the same for many
	resume Resumer       // nil: establish has not been called, or serves to the end
	stream io.ReadWriter // the upper half: &socket, *tls.Conn or *webSocket; set by run

	// guarded by n.parking.mu
	parked int32 // in n.parking.places, counted from 1; 0: a goroutine serves it
	polled bool  // its socket is known to the poller

	// guarded by n.mu
	place   bool // takes one of the places for strangers
	own     bool // made by this program, see expect
	judged  bool // its password has been found right or wrong
	address *address
	person  *string       // whose password was right, if it can be guessed; nil: nobody's
	waited  time.Duration // for, until since
	since   instant       // the CONNECT deadline runs from; 0 = it stands still

	readMu sync.Mutex // held by whoever reads from the socket: mochi, then linger
	first  firstPacket
	known  atomic.Bool                     // admitted
	dirty  atomic.Bool                     // somebody has put something into the queue and will flush
	user   atomic.Pointer[string]          // the account that has logged in; nil before
	charge atomic.Pointer[func(units int)] // told of the queue; nil before ChargeTo
	writer
}

func newConn(from *Listener, raw net.Conn) *Conn {
	c := &Conn{n: from.n, from: from}
	c.socket.Conn, c.socket.writeTimeout = raw, from.n.writeTimeout
	return c
}

// Resumer goes on with a connection that was quiet, in another goroutine. ErrQuiet says that it is so again.
type Resumer interface{ Resume() error }

// ErrQuiet is what establish returns, after OnInput, when AwaitInput has told it that the connection is quiet.
var ErrQuiet = errors.New("the connection is quiet")

// OnInput says who goes on when something comes on a connection that was quiet. It is called once, by establish.
func (c *Conn) OnInput(r Resumer) { c.resume = r }

// run serves the connection until it is quiet and waits without a goroutine, or has ended.
func (c *Conn) run() {
	for c.serve() {
		if c.n.parking.park(c) {
			return // somebody else may have it already
		}
	}
}

// serve brings the connection up, lets establish use it or go on with it, and closes it, unless it is only quiet. A panic in there
// ends this connection only.
func (c *Conn) serve() (quiet bool) {
	defer func() {
		if !quiet {
			c.Close()
			c.n.work.Done()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			c.n.drop(c, refusal.Panic, fmt.Errorf("%v\n%s", r, debug.Stack()))
		}
	}()
	var err error
	if c.resume != nil {
		err = c.resume.Resume()
	} else {
		err = c.open()
		c.ready()
		if err != nil {
			return false
		}
		err = c.from.establish(c)
	}
	if err == ErrQuiet && c.resume != nil {
		return true
	}
	if err != nil {
		c.n.options.Log.Debug("connection ended", "listener", c.Kind(), "remote", c.RemoteAddr().String(), "err", err)
	}
	return false
}

// open does the TLS handshake or the websocket upgrade. It accounts for its own errors.
func (c *Conn) open() error {
	c.stream = &c.socket
	if err := c.awaitBytes(); err != nil {
		switch c.Kind() {
		case TLS:
			return c.failed(handshakeReason(err), err)
		case WebSocket:
			return c.failed(refusal.UpgradeFailed, err)
		}
		return err
	}
	switch c.Kind() {
	case TLS:
		c.hello = &hello{}
		t := tls.Server(&c.socket, c.n.options.TLSConfig)
		c.stream = t
		if err := t.Handshake(); err != nil {
			return c.failed(handshakeReason(err), tlsCause(err))
		}
	case WebSocket:
		ws, err := c.upgrade()
		if err != nil {
			c.stream = &c.socket
			return c.failed(refusal.UpgradeFailed, err)
		}
		c.stream = ws
	default:
		c.stream = &c.socket
	}
	return nil
}

// failed reports err unless the network itself has closed the connection.
func (c *Conn) failed(why refusal.Refusal, err error) error {
	if !c.closing.Load() {
		c.n.drop(c, why, err)
	}
	return err
}

// AwaitInput waits until there is something to read, or Read has an error to tell. From then on Read gives what has come and, where it
// would have to wait, ErrNoInput. Call it at first, when it does not wait, for TLS may hold what came with the handshake, and then
// after ErrNoInput only. On a websocket nothing of this holds, there Read waits.
//
// quiet says that nothing has come for some seconds, and that the caller, if it has called OnInput, should return ErrQuiet: then it is
// resumed when AwaitInput would have returned otherwise.
func (c *Conn) AwaitInput() (quiet bool) {
	if c.Kind() == WebSocket || c.closing.Load() {
		return false
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if !c.quiet {
		c.startRead()
	}
	c.quiet = false
	if !c.noWait {
		c.noWait = true
		return false
	}
	rest := time.Duration(0)
	if c.resume != nil && pollerBuilt {
		rest = c.n.parking.quietAfter
	}
	c.awaitErr = c.awaitInput(rest)
	return c.quiet
}

// Drain is that of the socket, also where nobody reads.
func (c *Conn) Drain() {
	c.socket.Drain()
	c.n.parking.wake(c)
}

// Read reads what the client sent. Before the login it refuses a first packet that is too large as soon as it is
// announced, so nobody allocates memory for it.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closing.Load() {
		return 0, net.ErrClosed // linger may have the lock
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	if c.awaitErr != nil {
		return 0, c.awaitErr
	}
	if !c.noWait {
		c.startRead()
	}
	n, err := c.stream.Read(p)
	c.n.received.Add(int64(n))
	if err != nil && c.readErr != nil {
		if err = c.readErr; err == ErrDrained && c.isBroken() {
			err = io.EOF
		}
	} else if ws, ok := c.stream.(*webSocket); ok && err != nil {
		err = ws.ended(err)
		if err != io.EOF {
			c.n.drop(c, refusal.FrameNotAllowed, err) // also when the writer has noticed first that gorilla closed
		}
	}
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	if n > 0 && !c.known.Load() {
		if err := c.first.check(p[:n], min(firstPacketBytes, c.n.options.Limits.MaxPacketBytes)); err != nil {
			c.n.drop(c, *err, nil)
			return 0, fmt.Errorf("read CONNECT: %w", *err)
		}
	}
	return n, err
}

// Write copies p into the outgoing queue. It never waits for the socket. A full queue closes the connection.
func (c *Conn) Write(p []byte) (int, error) {
	idle, err := c.Put(p, nil)
	if err != nil {
		return 0, err
	}
	if idle {
		c.Flush()
	}
	return len(p), nil
}

// Close returns at once. The queue is still written (for at most flushTimeout), then the client is given a moment to
// read it, see finish.
func (c *Conn) Close() error {
	c.shut(false)
	return nil
}

// abort closes the connection at once without flushing, counted and logged as why; err may be nil.
func (c *Conn) abort(why refusal.Refusal, err error) {
	if c.shut(true) {
		c.n.drop(c, why, err)
	}
}

// SetDeadline, SetReadDeadline and SetWriteDeadline do nothing: the deadlines are ours (SetReadTimeout, writeTimeout).
func (c *Conn) SetDeadline(time.Time) error { return nil }

// Admitted says that the CONNECT of a user was accepted: the deadline, the first-packet limit and the count of the
// strangers end. What the connection is closed for is put down to the user from now on, if it is not "". Nobody may be waiting for
// Done: what was made for those who did so before is let go.
func (c *Conn) Admitted(user string) {
	if user != "" {
		c.user.Store(&user)
	}
	c.known.Store(true)
	c.forgetDone()
	c.n.loggedIn(c)
}

// PauseDeadline stops the CONNECT deadline while the broker makes the client wait, and gives its place among the
// unauthenticated to the next one. Call it only after the client's credentials were found good.
func (c *Conn) PauseDeadline() { c.n.pauseClock(c) }

// ResumeDeadline lets the CONNECT deadline run again, where it stopped.
func (c *Conn) ResumeDeadline() { c.n.resumeClock(c) }

// IsClosing says that Close was called, or that the connection was closed for a reason.
func (c *Conn) IsClosing() bool { return c.closing.Load() }

// SetReadTimeout makes Read fail when nothing is received for d; 0 = never. It holds from the next Read on.
func (c *Conn) SetReadTimeout(d time.Duration) { c.readTimeout.Store(int64(d)) }

// TLSState is nil on a connection without TLS.
func (c *Conn) TLSState() *tls.ConnectionState {
	t, ok := c.stream.(*tls.Conn)
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	return &state
}

// Kind is TCP, TLS or WebSocket.
func (c *Conn) Kind() string { return c.from.kind }

// firstPacket follows the fixed header of the first packet.
type firstPacket struct {
	seen   uint8 // bytes of the header
	done   bool
	length int32
}

// check returns why the connection must end, or nil.
func (f *firstPacket) check(p []byte, limit int) *refusal.Refusal {
	for _, b := range p {
		if f.done {
			return nil
		}
		f.seen++
		if f.seen == 1 {
			if b == tlsHandshakeRecord {
				return &refusal.TLSOnPlainPort
			}
			continue
		}
		f.length |= int32(b&0x7f) << (7 * (f.seen - 2))
		more := b&0x80 != 0
		if int(f.length) > limit || more && f.seen == 5 {
			return &refusal.FirstPacketTooLarge
		}
		f.done = !more
	}
	return nil
}
