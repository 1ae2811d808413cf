package network

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollerBuilt says that there is a poller on this system.
const pollerBuilt = true

// poller watches the sockets of connections that have no goroutine, by an epoll of its own: that of the runtime only wakes
// goroutines. It waits in that, so it has no thread. The lock of parking guards its fields.
type poller struct {
	file  *os.File // the epoll; nil: there is none
	raw   syscall.RawConn
	ended chan struct{} // closed when run has returned
}

// begin starts the poller. Where the system has none to give, who serves a connection keeps its goroutine.
func (l *poller) begin(p *parking) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so the runtime watches it
		_ = unix.Close(fd)
		return
	}
	file := os.NewFile(uintptr(fd), "epoll")
	raw, err := file.SyscallConn()
	if err != nil || file.SetReadDeadline(time.Time{}) != nil {
		_ = file.Close()
		return
	}
	l.file, l.raw, l.ended = file, raw, make(chan struct{})
	go l.run(p, raw, file)
}

func (l *poller) works() bool { return l.file != nil }

// watch has the parking told once of a place and its turn, when there is something to read on c, or it has ended.
func (l *poller) watch(c *Conn, place, turn int32) bool {
	raw, err := c.raw()
	if err != nil || raw == nil {
		return false
	}
	what := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: place, Pad: turn}
	how := unix.EPOLL_CTL_MOD
	if !c.polled {
		how = unix.EPOLL_CTL_ADD
	}
	watched := false
	_ = raw.Control(func(socket uintptr) { // neither is closed meanwhile
		_ = l.raw.Control(func(epoll uintptr) { watched = unix.EpollCtl(int(epoll), how, int(socket), &what) == nil })
	})
	c.polled = c.polled || watched
	return watched
}

// wakeAt has the parking swept at a time; zero: not.
func (l *poller) wakeAt(t time.Time) { _ = l.file.SetReadDeadline(t) } // fails where it is closed

// run tells the parking what happens, until end.
func (l *poller) run(p *parking, raw syscall.RawConn, file *os.File) {
	defer close(l.ended)
	defer p.over()
	var found [128]unix.EpollEvent
	var events [len(found)]event
	n := 0
	look := func(epoll uintptr) (done bool) {
		var err error
		n, err = unix.EpollWait(int(epoll), found[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	}
	for {
		n = 0
		err := raw.Read(look)
		switch {
		case err == nil && n > 0:
			for i, e := range found[:n] {
				events[i] = event{e.Fd, e.Pad}
			}
			p.happened(events[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.sweep()
		default: // it is closed
			return
		}
	}
}

// end returns when run has. It may be called again.
func (l *poller) end() {
	if l.file != nil {
		_ = l.file.Close()
		<-l.ended
	}
}
