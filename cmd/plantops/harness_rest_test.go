//go:build linux

package main_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a server has that nobody uses: descriptors and goroutines that were left behind.

func (in *installation) descriptors() int {
	in.t.Helper()
	used, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", in.server.Pid))
	require.NoError(in.t, err)
	return len(used)
}

// noGoroutinesLeft compares a server without clients, which was started with startLogged, with one that has just
// started. It ends both.
func (in *installation) noGoroutinesLeft(log string) {
	in.t.Helper()
	_, waiting := in.goroutines(log)
	in.startLogged(log + ".fresh")
	fresh, _ := in.goroutines(log + ".fresh")
	for creator, n := range waiting {
		assert.LessOrEqual(in.t, n, fresh[creator], "goroutines created by %s", creator)
	}
	in.t.Logf("%d kinds of goroutines wait in the end, %d are in a server that has just started", len(waiting), len(fresh))
}

var (
	goroutineState = regexp.MustCompile(`(?m)^goroutine .*\[(.*)\]:$`)
	createdBy      = regexp.MustCompile(`(?m)^created by (\S+)`)
	atWork         = regexp.MustCompile(`^(running|runnable|syscall|preempted|copystack)\b`)
)

// goroutines makes the server tell of its goroutines, which ends it, and returns how many there were besides those of
// the runtime, by who had created them: all, and those that wait. What is left behind waits; who works will end, such as
// the checkpoint that comes a second after the last write.
func (in *installation) goroutines(log string) (all, waiting map[string]int) {
	in.t.Helper()
	before, err := os.Stat(log)
	require.NoError(in.t, err)
	require.NoError(in.t, in.server.Signal(syscall.SIGQUIT))
	<-in.server.ended
	all, waiting = map[string]int{}, map[string]int{}
	for dump := range strings.SplitSeq(saidSince(in.t, log, before.Size()), "\n\n") {
		state, creator := goroutineState.FindStringSubmatch(dump), createdBy.FindStringSubmatch(dump)
		if state == nil || creator == nil || strings.HasPrefix(creator[1], "runtime.") {
			continue
		}
		all[creator[1]]++
		if !atWork.MatchString(state[1]) {
			waiting[creator[1]]++
		}
	}
	require.NotEmpty(in.t, waiting)
	return all, waiting
}

// saidSince returns what a log has had since the moment at which it was so long.
func saidSince(t *testing.T, log string, length int64) string {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	return string(text[length:])
}
