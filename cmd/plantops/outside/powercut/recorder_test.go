//go:build linux && amd64

package powercut_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/cmd/plantops/outside/program"
)

// recorder runs a server under ptrace and writes down, in one order, what it does to its database files and what it
// says to devices. A write, and what is said, is recorded before the kernel sees it, a sync after the kernel has
// returned from it: what the record calls durable is durable, and what it calls said may have been heard. It needs no
// tool, only the right to trace one's own children, which containers give too. It knows the system calls of amd64.
type recorder struct {
	dir    string                 // of the database
	wanted func(path string) bool // whether a file is recorded; others are not
	killAt int                    // the process is killed when so many events are recorded; 0: it is not
	events []*event
	files  int            // so many files so far
	names  map[string]int // the directory as it is now: path to file
	voices int            // so many connections so far

	fds     map[int]target // of the running process
	calls   map[int]*call  // by thread: entered and not returned from
	process int
	err     error // what the record cannot express

	known func() int // how much the clients know, to be noted with each event; nil: nobody asks
	words bool       // what it says on its standard output is recorded
}

type eventKind uint8

const (
	written   eventKind = iota // data at offset of file
	truncated                  // file to size offset
	created                    // name, for file
	removed                    // name
	renamed                    // name, to another
	linked                     // name, which has another one too
	synced                     // file, or with file 0 the directory
	said                       // data to device, on connection file
)

// event is one step of the record.
type event struct {
	kind     eventKind
	file     int
	name     string
	other    string // renamed, linked: the new name
	offset   int64
	data     []byte
	device   net.IP
	began    int // synced: so many events were recorded when it was called
	finished int // so many events were recorded when the call returned; 0: it did not return
	known    int // the recorder's, just before
}

// target is what a descriptor refers to.
type target struct {
	file   int  // 0: none of the database
	dir    bool // the directory
	voice  int  // a device's connection; 0: none
	device net.IP
}

// call is a system call that has been entered.
type call struct {
	number  uint64
	args    [6]uint64
	event   *event
	path    string // open, unlink, rename, link: of a file that is recorded
	other   string // rename, link: the new one
	existed bool
	began   int
}

// newRecorder records what happens to the files of the database in a directory. The index of the write-ahead log (-shm) is
// none: SQLite makes it anew after a power cut.
func newRecorder(dir string) *recorder {
	database := filepath.Join(dir, "plantops.db")
	return &recorder{dir: dir, names: make(map[string]int), wanted: func(path string) bool {
		return strings.HasPrefix(path, database) && !strings.HasSuffix(path, "-shm")
	}}
}

// serve starts the installation's server and returns; the record is complete when the server has ended.
func (r *recorder) serve(in *program.Installation) {
	in.T.Helper()
	said, stderr, err := os.Pipe()
	require.NoError(in.T, err)
	p := &program.Process{Ready: make(chan struct{}), Ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.Ended)
		p.Code = r.run(in.Program, []string{"plantops", "serve"}, filepath.Dir(in.Dir), in.Env, stderr, func(pid int, err error) {
			stderr.Close()
			if err == nil {
				p.Process, err = os.FindProcess(pid)
			}
			started <- err
		})
	}()
	go func() {
		program.Follow(in.Output, said, p.Ready)
		said.Close()
	}()
	require.NoError(in.T, <-started, "start the server under ptrace")
	in.Attach(p)
}

// run runs a program, whose output goes to out, and returns its exit code, -1 after a signal. It calls begun once the process is there, or
// cannot be.
func (r *recorder) run(program string, args []string, dir string, env []string, out *os.File, begun func(pid int, err error)) (code int) {
	runtime.LockOSThread() // a process is traced by a thread
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(program, args, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: []uintptr{0, out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	begun(pid, err)
	if err != nil {
		return -1
	}
	return r.trace(pid)
}

// trace follows the process to its end and returns its exit code, -1 after a signal.
func (r *recorder) trace(pid int) (code int) {
	r.process, r.fds, r.calls = pid, make(map[int]target), make(map[int]*call)
	if r.words {
		r.voices++
		r.fds[1] = target{voice: r.voices}
	}
	defer r.settle()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		r.fail("wait for the first stop: %v", err)
		return -1
	}
	options := syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		r.fail("set ptrace options: %v", err)
	}
	_ = syscall.PtraceSyscall(pid, 0)
	known := map[int]bool{pid: true}
	for {
		// Only what is of this process: other children, of this thread too, belong to other tests.
		thread, err := syscall.Wait4(-pid, &status, syscall.WALL|syscall.WNOTHREAD, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			r.fail("wait: %v", err)
			return -1
		case status.Exited() || status.Signaled():
			delete(known, thread)
			if thread == pid {
				return status.ExitStatus()
			}
			continue
		}
		signal := status.StopSignal()
		switch {
		case signal == syscall.SIGTRAP|0x80:
			r.syscall(thread)
			signal = 0
		case signal == syscall.SIGTRAP: // an event of ptrace itself
			signal = 0
		case signal == syscall.SIGSTOP && !known[thread]: // how a new thread begins
			signal = 0
		}
		known[thread] = true
		_ = syscall.PtraceSyscall(thread, int(signal)) // an error means that the thread was killed: Wait4 tells
	}
}

// fail notes that the record is not to be trusted.
func (r *recorder) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("record of the server: "+format, args...)
	}
}

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h.
type syscallInfo struct {
	op     uint8
	_      [3]uint8
	_      uint32
	_      [2]uint64
	values [7]uint64 // entry: number and arguments; exit: result
}

const (
	infoEntry = 1
	infoExit  = 2
)

func (r *recorder) syscall(thread int) {
	var info syscallInfo
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch errno {
	case 0:
	case syscall.ESRCH:
		return // killed meanwhile
	default:
		r.fail("ask what a thread stopped for (Linux 5.3 can tell): %v", errno)
		return
	}
	switch info.op {
	case infoEntry:
		c := &call{number: info.values[0], args: [6]uint64(info.values[1:]), began: len(r.events)}
		r.calls[thread] = c
		r.enter(c)
	case infoExit:
		if c := r.calls[thread]; c != nil {
			r.leave(c, int64(info.values[0]))
		}
		delete(r.calls, thread)
	}
}

// enter records what must not be recorded too late.
func (r *recorder) enter(c *call) {
	fd := int(int32(c.args[0]))
	on := r.fds[fd]
	switch c.number {
	case unix.SYS_WRITE, unix.SYS_WRITEV:
		if on.voice != 0 {
			r.add(c, &event{kind: said, file: on.voice, device: on.device, data: r.outgoing(c)})
		}
		if on.file != 0 {
			r.add(c, &event{kind: written, file: on.file, offset: r.position(fd), data: r.outgoing(c)})
		}
	case unix.SYS_PWRITE64:
		if on.file != 0 {
			r.add(c, &event{kind: written, file: on.file, offset: int64(c.args[3]), data: r.read(c.args[1], c.args[2])})
		}
	case unix.SYS_FTRUNCATE:
		if on.file != 0 {
			r.add(c, &event{kind: truncated, file: on.file, offset: int64(c.args[1])})
		}
	case unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FALLOCATE:
		r.refuse(on, "pwritev or fallocate")
	case unix.SYS_CLOSE:
		delete(r.fds, fd)
	case unix.SYS_OPEN, unix.SYS_UNLINK, unix.SYS_TRUNCATE:
		r.name(c, c.args[0])
		if c.path != "" && c.number == unix.SYS_TRUNCATE {
			r.fail("truncate of %s", c.path)
		}
	case unix.SYS_OPENAT, unix.SYS_UNLINKAT:
		r.name(c, c.args[1])
	case unix.SYS_RENAME, unix.SYS_LINK:
		r.twoNames(c, c.args[0], c.args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		r.twoNames(c, c.args[1], c.args[3])
	}
}

// leave records what must not be recorded too early.
func (r *recorder) leave(c *call, result int64) {
	on := r.fds[int(int32(c.args[0]))]
	if e := c.event; e != nil {
		e.finished = len(r.events)
		switch {
		case e.kind == truncated && result != 0:
			r.fail("ftruncate: %v", syscall.Errno(-result))
		case e.kind != truncated:
			e.data = e.data[:max(result, 0)]
		}
	}
	if result < 0 {
		return
	}
	switch c.number {
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		if on.file != 0 || on.dir {
			r.note(&event{kind: synced, file: on.file, began: c.began})
		}
	case unix.SYS_OPEN, unix.SYS_OPENAT:
		r.opened(int(result), c)
	case unix.SYS_UNLINK, unix.SYS_UNLINKAT:
		if c.path != "" {
			r.note(&event{kind: removed, name: c.path})
			delete(r.names, c.path)
		}
	case unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		if c.path != "" {
			r.note(&event{kind: renamed, name: c.path, other: c.other})
			r.names[c.other] = r.names[c.path]
			delete(r.names, c.path)
		}
	case unix.SYS_LINK, unix.SYS_LINKAT:
		if c.path != "" {
			r.note(&event{kind: linked, name: c.path, other: c.other})
			r.names[c.other] = r.names[c.path]
		}
	case unix.SYS_ACCEPT4:
		if device := r.peer(c.args[1]); device != nil && device[1] == deviceNet {
			r.voices++
			r.fds[int(result)] = target{voice: r.voices, device: device}
		}
	}
}

func (r *recorder) opened(fd int, c *call) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.process, fd))
	switch {
	case err != nil:
	case path == r.dir:
		r.fds[fd] = target{dir: true}
	case c.path != "":
		if !c.existed {
			r.files++
			r.names[c.path] = r.files
			r.note(&event{kind: created, name: c.path, file: r.files})
		} else if flags := c.openFlags(); flags&unix.O_TRUNC != 0 {
			r.note(&event{kind: truncated, file: r.names[c.path], finished: len(r.events) + 1})
		}
		r.fds[fd] = target{file: r.names[c.path]}
	}
}

func (c *call) openFlags() uint64 {
	if c.number == unix.SYS_OPEN {
		return c.args[1]
	}
	return c.args[2]
}

// position is where the next write without an offset goes.
func (r *recorder) position(fd int) (at int64) {
	link := fmt.Sprintf("/proc/%d/fd/%d", r.process, fd)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", r.process, fd))
	var flags int64
	if err == nil {
		_, err = fmt.Sscanf(string(text), "pos:\t%d\nflags:\t%o", &at, &flags)
	}
	if err == nil && flags&unix.O_APPEND != 0 {
		var info os.FileInfo
		if info, err = os.Stat(link); err == nil {
			at = info.Size()
		}
	}
	if err != nil {
		r.fail("position in a file: %v", err)
	}
	return at
}

// add records the event of a call that is running.
func (r *recorder) add(c *call, e *event) {
	c.event = e
	r.note(e)
}

func (r *recorder) note(e *event) {
	if r.known != nil {
		e.known = r.known()
	}
	r.events = append(r.events, e)
	if len(r.events) == r.killAt {
		_ = syscall.Kill(r.process, syscall.SIGKILL) // what it is about to do, it does not
	}
}

func (r *recorder) refuse(on target, what string) {
	if on.file != 0 {
		r.fail("%s on a database file", what)
	}
}

// name reads the path argument of a call and keeps it if the file is recorded.
func (r *recorder) name(c *call, at uint64) {
	path := r.text(at)
	if !r.wanted(path) {
		return
	}
	_, err := os.Lstat(path)
	c.path, c.existed = path, err == nil
}

// twoNames is name of a call that gives a file another one.
func (r *recorder) twoNames(c *call, at, otherAt uint64) {
	r.name(c, at)
	other := r.text(otherAt)
	if (c.path != "") != r.wanted(other) {
		r.fail("%s becomes %s: only one of them is recorded", r.text(at), other)
	}
	c.other = other
}

// text reads a string that ends with a zero.
func (r *recorder) text(at uint64) string {
	text := r.read(at, 256)
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	return string(text)
}

// read copies from the memory of the process, less than size where that ends.
func (r *recorder) read(at, size uint64) []byte {
	if size == 0 {
		return nil
	}
	buf := make([]byte, size)
	local := []unix.Iovec{{Base: &buf[0], Len: size}}
	n, err := unix.ProcessVMReadv(r.process, local, []unix.RemoteIovec{{Base: uintptr(at), Len: int(size)}}, 0)
	if err != nil && err != syscall.ESRCH { // killed meanwhile
		// A path may lie at the end of the memory: read it page by page.
		if rest := 4096 - at%4096; rest < size {
			return r.read(at, rest)
		}
		r.fail("read memory: %v", err)
	}
	return buf[:max(n, 0)]
}

// outgoing is what a write or a writev sends.
func (r *recorder) outgoing(c *call) []byte {
	if c.number == unix.SYS_WRITE {
		return r.read(c.args[1], c.args[2])
	}
	var data []byte
	vectors := r.read(c.args[1], c.args[2]*16)
	for ; len(vectors) >= 16; vectors = vectors[16:] {
		data = append(data, r.read(binary.NativeEndian.Uint64(vectors), binary.NativeEndian.Uint64(vectors[8:]))...)
	}
	return data
}

// deviceNet marks the source addresses of devices: 127.1.x.y.
const deviceNet = 1

func deviceAddress(i int) net.IP { return net.IPv4(127, deviceNet, byte(i/250), byte(1+i%250)).To4() }

// peer reads a socket address; nil if it is not IPv4.
func (r *recorder) peer(at uint64) net.IP {
	address := r.read(at, 8)
	if len(address) < 8 || binary.NativeEndian.Uint16(address) != unix.AF_INET {
		return nil
	}
	return net.IP(address[4:8])
}

// String sums the record up.
func (r *recorder) String() string {
	counts := make(map[eventKind]int)
	wraps := 0
	for _, e := range r.events {
		counts[e.kind]++
		if e.kind == written && e.offset == 0 && bytes.HasPrefix(e.data, []byte{0x37, 0x7f, 0x06, 0x82}) {
			wraps++ // a header of a write-ahead log
		}
	}
	return fmt.Sprintf("%d writes, %d syncs, the log begun %d times, %d sends", counts[written], counts[synced], wraps, counts[said])
}

// settle finds out what became of the writes that the end of the process interrupted.
func (r *recorder) settle() {
	for _, c := range r.calls {
		if c.event == nil || c.event.kind != written {
			continue
		}
		e := c.event
		for path, file := range r.names {
			content, err := os.ReadFile(path)
			if file != e.file || err != nil {
				continue
			}
			end := min(int(e.offset)+len(e.data), len(content))
			if e.offset > int64(end) || !bytes.Equal(content[e.offset:end], e.data) {
				e.data = nil
			}
		}
		e.finished = len(r.events)
	}
}
