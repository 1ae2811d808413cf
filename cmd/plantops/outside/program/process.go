//go:build linux

package program

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Memory is MemoryOf of the server.
func (in *Installation) Memory(name string) int64 {
	in.T.Helper()
	return MemoryOf(in.T, in.Server.Pid, name)
}

// MemoryOf returns a line of /proc/PID/status in bytes: VmRSS now, VmHWM at its highest.
func MemoryOf(t *testing.T, pid int, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(t, err)
			return kB << 10
		}
	}
	require.Fail(t, "no such line", name)
	return 0
}

// CPUTime is the user and system time that a process has used.
func CPUTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// Switches is how often the threads of a process that there are have waited or had to.
func Switches(t *testing.T, pid int) (n int64) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread may have ended meanwhile
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "ctxt_switches") {
				count, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				require.NoError(t, err)
				n += count
			}
		}
	}
	return n
}

// Descriptors is how many files and sockets the server has open besides the database.
func (in *Installation) Descriptors() int {
	in.T.Helper()
	others, _ := in.descriptors()
	return others
}

// DatabaseDescriptors is how many are of the database: each connection that reads it has some, from when it was first wanted.
func (in *Installation) DatabaseDescriptors() int {
	in.T.Helper()
	_, database := in.descriptors()
	return database
}

func (in *Installation) descriptors() (others, database int) {
	in.T.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", in.Server.Pid))
	require.NoError(in.T, err)
	for _, link := range links {
		if file, err := os.Readlink(link); err == nil && strings.HasPrefix(filepath.Base(file), "plantops.db") { // one may be closed meanwhile
			database++
		} else {
			others++
		}
	}
	return others, database
}

// NoGoroutinesLeft compares a server without clients, which was started with StartLogged, with one that has just
// started. It ends both.
func (in *Installation) NoGoroutinesLeft(log string) {
	in.T.Helper()
	_, waiting := in.goroutines(log)
	in.StartLogged(log + ".fresh")
	fresh, _ := in.goroutines(log + ".fresh")
	for creator, n := range waiting {
		assert.LessOrEqual(in.T, n, fresh[creator], "goroutines created by %s", creator)
	}
	in.T.Logf("%d kinds of goroutines wait in the end, %d are in a server that has just started", len(waiting), len(fresh))
}

var (
	goroutineState = regexp.MustCompile(`(?m)^goroutine .*\[(.*)\]:$`)
	createdBy      = regexp.MustCompile(`(?m)^created by (\S+)`)
	atWork         = regexp.MustCompile(`^(running|runnable|syscall|preempted|copystack)\b`)
)

// goroutines makes the server tell of its goroutines, which ends it, and returns how many there were besides those of
// the runtime, by who had created them: all, and those that wait. What is left behind waits; who works will end, such as
// the checkpoint that comes a second after the last write.
func (in *Installation) goroutines(log string) (all, waiting map[string]int) {
	in.T.Helper()
	before, err := os.Stat(log)
	require.NoError(in.T, err)
	require.NoError(in.T, in.Server.Signal(syscall.SIGQUIT))
	<-in.Server.Ended
	all, waiting = map[string]int{}, map[string]int{}
	for dump := range strings.SplitSeq(SaidSince(in.T, log, before.Size()), "\n\n") {
		state, creator := goroutineState.FindStringSubmatch(dump), createdBy.FindStringSubmatch(dump)
		if state == nil || creator == nil || strings.HasPrefix(creator[1], "runtime.") {
			continue
		}
		all[creator[1]]++
		if !atWork.MatchString(state[1]) {
			waiting[creator[1]]++
		}
	}
	require.NotEmpty(in.T, waiting)
	return all, waiting
}

// SaidSince returns what a log has had since the moment at which it was so long.
func SaidSince(t *testing.T, log string, length int64) string {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	return string(text[length:])
}
