package network

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the TCP connection with the deadlines that are ours; what TLS and websocket above it want to set is
// ignored. Setting a deadline costs up to a third of a small write, so an armed one is left alone: a read deadline that
// fires early is set anew, a write deadline is renewed when a quarter of it has passed.
type socket struct {
	net.Conn
	closing      atomic.Bool   // Close was called: reading has ended and the write deadline is final
	draining     atomic.Bool   // what has come is read, and nothing waited for
	writeLate    atomic.Bool   // a Write ran into writeTimeout; websocket hides that
	readTimeout  atomic.Int64  // time.Duration; 0 = none
	writeTimeout time.Duration // of one Write
	written      atomic.Int64  // bytes

	noWait    bool      // Read gives what AwaitInput has read; only the reader uses these thirteen
	quiet     bool      // awaitInput has returned without anything, and is called again
	heard     bool      // something has come since the read deadline was armed
	aheadAt   int32     // so much of ahead is given
	ahead     *[]byte   // what AwaitInput has read; nil: nothing is left of it
	hello     *hello    // of TLS; nil: it is given
	last      *lastRead // since draining began; nil: not yet
	readStart instant   // when the reader last asked
	begun     instant   // a packet that is not complete
	packetBy  instant   // when it must be; 0: there is none
	readBy    instant   // the armed read deadline
	awaitErr  error     // that of awaitInput
	readErr   error     // the last Read's, as TLS and websocket hide or replace it
	writeBy   instant   // the armed write deadline; only the writer uses it
}

// startRead begins the time that the client has for sending something.
func (s *socket) startRead() {
	if s.readTimeout.Load() > 0 {
		s.readStart = now()
	}
}

// AwaitPacket sets a deadline for the rest of a packet of which the beginning was read, or takes it away. fresh says
// that it began in the last Read.
func (s *socket) AwaitPacket(underWay, fresh bool, allowed time.Duration) {
	if !underWay {
		s.packetBy = 0
		return
	}
	if fresh {
		s.begun = now()
	}
	s.packetBy = s.begun.add(allowed)
}

// Late says that the last Read ended because a packet was not complete in time.
func (s *socket) Late() bool {
	return s.packetBy != 0 && s.readBy == s.packetBy && errors.Is(s.readErr, os.ErrDeadlineExceeded)
}

// readDeadline is the earlier one of the read timeout's end, counted from startRead, and packetBy. 0 is none.
func (s *socket) readDeadline() instant {
	timeout := time.Duration(s.readTimeout.Load())
	if timeout <= 0 || s.readStart == 0 {
		return s.packetBy
	}
	if idle := s.readStart.add(timeout); s.packetBy == 0 || idle < s.packetBy {
		return idle
	}
	return s.packetBy
}

// Read reads until readDeadline.
func (s *socket) Read(p []byte) (int, error) {
	switch {
	case s.hello != nil:
		return s.readHello(p)
	case s.ahead != nil:
		return s.takeAhead(p), nil
	case s.draining.Load():
		return s.readLast(p)
	case s.noWait:
		s.readErr = ErrNoInput
		return 0, ErrNoInput
	}
	return s.readSome(p)
}

// readSome waits for something.
func (s *socket) readSome(p []byte) (int, error) {
	deadline := s.readDeadline()
	for {
		if s.draining.Load() {
			return s.readLast(p)
		}
		if deadline != 0 && (s.readBy == 0 || s.readBy > deadline) {
			s.armRead(deadline)
		}
		n, err := s.read(p)
		if n == 0 && s.draining.Load() && !s.closing.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || s.closing.Load() || s.readBy == deadline {
			return n, err
		}
		s.readBy = 0 // an older deadline: the client has been heard since
		if deadline == 0 {
			s.armRead(deadline)
		}
	}
}

// awaitBytes waits until the client has said something, and reads nothing. Until then a connection costs the stack of its
// goroutine: what TLS, websocket and MQTT need, some ten kilobytes, is made for those who speak. io.EOF means that the
// client has gone without a word.
func (s *socket) awaitBytes() error {
	raw, err := s.raw()
	if err != nil || raw == nil {
		return err
	}
	var peeked [1]byte
	var n int
	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		n, _, failed = syscall.Recvfrom(int(fd), peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return failed != syscall.EAGAIN && failed != syscall.EINTR
	})
	if err = cmp.Or(err, failed); err == nil && n == 0 {
		err = io.EOF
	}
	return err
}

// noInput is temporary for crypto/tls, which goes on where it was.
type noInput struct{}

func (noInput) Error() string   { return "nothing has come" }
func (noInput) Timeout() bool   { return false }
func (noInput) Temporary() bool { return true }

// ErrNoInput is the error of Read, after AwaitInput, where it would have to wait.
var ErrNoInput net.Error = noInput{}

// aheadBytes are read at a time.
const aheadBytes = 16 << 10

var aheads = sync.Pool{New: func() any { b := make([]byte, aheadBytes); return &b }}

// awaitInput waits until the client has sent something, or no more will come, which Read tells. The buffer that it is read into
// is there when it is, and the stack is flat meanwhile: an idle connection costs little more than what TLS keeps. Where rest
// is not 0 it sets quiet and returns when nothing has come for so long, or up to twice that.
func (s *socket) awaitInput(rest time.Duration) error {
	raw, err := s.raw()
	if err != nil || raw == nil {
		return err
	}
	deadline := s.readDeadline()
	for !s.draining.Load() && !s.closing.Load() {
		if s.readBy == 0 && (rest > 0 || deadline != 0) || deadline != 0 && s.readBy > deadline {
			by := deadline
			if rest > 0 {
				if early := now().add(rest); by == 0 || by > early {
					by = early
				}
			}
			s.heard = false
			s.armRead(by)
		}
		err := raw.Read(s.readAhead)
		switch {
		case err == nil && s.readErr == nil:
			s.heard = true
			return nil
		case !errors.Is(cmp.Or(err, s.readErr), os.ErrDeadlineExceeded):
			s.readErr = cmp.Or(err, s.readErr)
			return s.readErr
		case s.draining.Load() || s.closing.Load():
		case s.readBy == deadline:
			if s.heard = deadline != s.packetBy && s.readOverdue(raw); s.heard {
				return s.readErr
			}
			s.readErr = err
			return err
		default:
			s.readBy = 0 // one that fires early: the client has been heard since, or may be quiet
			if s.quiet = rest > 0 && !s.heard; s.quiet {
				return nil
			}
			if deadline == 0 && rest == 0 {
				s.armRead(deadline)
			}
		}
	}
	return nil
}

// readOverdue reads what has come when the read deadline is over: the client may have been in time, and this process not, where it
// did not run for a while or had to start a goroutine. It reports whether there is something, or no more will come.
func (s *socket) readOverdue(raw syscall.RawConn) (done bool) {
	_ = raw.Control(func(fd uintptr) { done = s.readAhead(fd) }) // fails where it is closed
	return done
}

// readAhead reads what has come into a buffer. It reports whether it need not be called again.
func (s *socket) readAhead(fd uintptr) (done bool) {
	ahead := aheads.Get().(*[]byte)
	n, err := syscall.Read(int(fd), (*ahead)[:aheadBytes])
	if n > 0 {
		*ahead = (*ahead)[:n]
		s.ahead, s.aheadAt, s.readErr = ahead, 0, nil
		return true
	}
	aheads.Put(ahead)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return false
	}
	if s.readErr = err; err == nil {
		s.readErr = io.EOF
	}
	return true
}

// takeAhead gives what was read ahead.
func (s *socket) takeAhead(p []byte) int {
	n := copy(p, (*s.ahead)[s.aheadAt:])
	s.aheadAt += int32(n)
	if s.readErr = nil; int(s.aheadAt) == len(*s.ahead) {
		*s.ahead = (*s.ahead)[:aheadBytes]
		aheads.Put(s.ahead)
		s.ahead = nil
	}
	return n
}

// raw is nil for what is no socket.
func (s *socket) raw() (syscall.RawConn, error) {
	t, ok := s.Conn.(syscall.Conn)
	if !ok {
		return nil, nil
	}
	return t.SyscallConn()
}

func (s *socket) read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.readErr = err
	return n, err
}

func (s *socket) armRead(t instant) {
	s.readBy = t
	s.Conn.SetReadDeadline(t.time())
	if s.closing.Load() || s.draining.Load() {
		s.interruptRead() // Close or Drain came in between and its deadline must win
	}
}

// ErrDrained is the error of Read when Drain was called and everything that had come is read.
var ErrDrained = errors.New("everything is read that had come")

const (
	// drainBytes is the most that is read after Drain: what the kernel may hold of one connection, so that a client that goes
	// on sending comes to an end.
	drainBytes = 8 << 20
	// drainWait is how long after Drain more is waited for: of two connections the kernel need not bring the bytes in the
	// order in which they were sent.
	drainWait = 20 * time.Millisecond
)

// lastRead is what is read since draining began.
type lastRead struct {
	bytes int
	by    time.Time // until then more is waited for
}

// Drain makes Read return what the client has sent so far and, where it would have to wait, ErrDrained. A connection that ends
// for another one of the same client is drained first: the client may have said on it that it leaves, and what else
// it had to say came before. io.EOF comes in place of ErrDrained when the client takes nothing any more.
func (s *socket) Drain() {
	if !s.draining.Swap(true) {
		s.interruptRead()
	}
}

// readLast reads what has come, and waits for more until lastBy only. Drain may still be about to interrupt it, at any place:
// it has said before that it drains. That is not the end.
func (s *socket) readLast(p []byte) (n int, err error) {
	if s.last == nil {
		s.last = &lastRead{by: time.Now().Add(drainWait)}
	}
	interrupted := func() bool {
		return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !s.closing.Load()
	}
	for err = os.ErrDeadlineExceeded; interrupted() && time.Now().Before(s.last.by); {
		s.finalRead(s.last.by)
		n, err = s.read(p)
	}
	for interrupted() {
		s.finalRead(time.Time{})
		n, err = s.readNow(p)
		s.readErr = err
	}
	s.last.bytes += n
	return n, err
}

// finalRead sets a read deadline while draining; that of Close wins.
func (s *socket) finalRead(by time.Time) {
	s.Conn.SetReadDeadline(by)
	if s.closing.Load() {
		s.interruptRead()
	}
}

// readNow does not wait.
func (s *socket) readNow(p []byte) (n int, err error) {
	raw, err := s.raw()
	if raw == nil || s.last.bytes >= drainBytes || len(p) == 0 {
		return 0, cmp.Or(err, ErrDrained)
	}
	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		n, failed = syscall.Read(int(fd), p)
		return failed != syscall.EINTR
	})
	switch err = cmp.Or(err, failed); {
	case err == syscall.EAGAIN:
		return 0, ErrDrained
	case err == nil && n == 0:
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (s *socket) interruptRead() { s.Conn.SetReadDeadline(time.Unix(1, 0)) }

// Write writes with the write timeout. The caller passes at most chunkBytes or one TLS record.
func (s *socket) Write(p []byte) (int, error) {
	if !s.closing.Load() {
		now := now()
		if s.writeBy.sub(now) < s.writeTimeout*3/4 {
			s.writeBy = now.add(s.writeTimeout)
			s.Conn.SetWriteDeadline(s.writeBy.time())
			if s.closing.Load() {
				s.limitWrite()
			}
		}
	}
	n, err := s.Conn.Write(p)
	s.written.Add(int64(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.writeLate.Store(true)
	}
	return n, err
}

// writeNow writes what the kernel takes at once, and returns how much that is; nothing where Write is to find out what is wrong.
func (s *socket) writeNow(p []byte) (n int) {
	raw, err := s.raw()
	if err != nil || raw == nil {
		return 0
	}
	_ = raw.Write(func(fd uintptr) (done bool) { // nor after the last deadline: Write sets the next
		n, _ = syscall.Write(int(fd), p)
		return true
	})
	n = max(n, 0)
	s.written.Add(int64(n))
	return n
}

// Progress is how far a client has come with what is written to it: two that differ mean that it has taken something in
// between. The kernel takes megabytes at a time for a slow client, so what the client has not acknowledged counts too.
type Progress struct {
	written int64 // by writes that are finished
	unsent  int   // bytes that the kernel holds
}

// Progress may be called from any goroutine. It asks the kernel.
func (s *socket) Progress() Progress {
	p := Progress{written: s.written.Load()}
	t, ok := s.Conn.(syscall.Conn)
	if !ok {
		return p
	}
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // a closed connection makes no progress
			p.unsent, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
		})
	}
	return p
}

// peerGone says that the client has ended its side.
func (s *socket) peerGone() bool {
	return s.readErr != nil && !errors.Is(s.readErr, os.ErrDeadlineExceeded) && s.readErr != ErrDrained && s.readErr != ErrNoInput
}

// limitWrite is the last write deadline.
func (s *socket) limitWrite() { s.Conn.SetWriteDeadline(time.Now().Add(flushTimeout)) }

func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// reset closes the connection without waiting for what the kernel still wants to deliver.
func (s *socket) reset() {
	if t, ok := s.Conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	s.Conn.Close()
}

// closeWrite tells the client that nothing more will come.
func (s *socket) closeWrite() {
	if t, ok := s.Conn.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}
