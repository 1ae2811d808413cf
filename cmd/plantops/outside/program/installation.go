//go:build linux

package program

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Installation is one data directory with fixed ports and the real program that serves it, again and again.
type Installation struct {
	T       *testing.T
	Program string   // path of the executable file
	Dir     string   // data_dir
	Env     []string // of every process
	TCP     string   // address of the listener
	TLS     string   // the same

	Server *Process     // the one that was started last
	Output *logtest.Log // the end of what it says
}

// Process is one run of the server.
type Process struct {
	*os.Process
	Ready chan struct{} // closed when it has said that it is
	Ended chan struct{} // closed when it has ended
	Code  int           // exit code, once it has
}

// Install makes an empty data directory in dir; extra settings are environment variables.
func Install(t *testing.T, dir string, settings ...string) *Installation {
	t.Helper()
	program, err := buildProgram()
	require.NoError(t, err)
	in := &Installation{T: t, Dir: filepath.Join(dir, "data"), Output: &logtest.Log{Keep: 16 << 10}}
	in.Program = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd())
	require.NoError(t, os.Mkdir(in.Dir, 0o755))
	in.TCP, in.TLS = FreeAddress(t), FreeAddress(t)
	in.Env = append([]string{
		"TZ=UTC", "HOME=" + dir,
		"PLANTOPS_DATA_DIR=" + in.Dir,
		"PLANTOPS_LISTENERS_TCP_ADDRESS=" + in.TCP,
		"PLANTOPS_LISTENERS_TLS_ADDRESS=" + in.TLS,
		"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false",
		"PLANTOPS_HTTP_ADDRESS=off",
		"MQTT_USE_TLS=true",
	}, settings...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the server said last:\n%s", in.Output)
		}
	})
	return in
}

// FreeAddress finds a port that stays free while the server is down: below those that the kernel gives to
// outgoing connections.
func FreeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	require.Fail(t, "no free port")
	return ""
}

// Database is the path of its file.
func (in *Installation) Database() string { return filepath.Join(in.Dir, "plantops.db") }

// Start starts the server and does not wait for anything.
func (in *Installation) Start() {
	in.T.Helper()
	cmd := exec.Command(in.Program, "serve")
	cmd.Dir, cmd.Env = filepath.Dir(in.Dir), in.Env
	said, err := cmd.StderrPipe()
	require.NoError(in.T, err)
	require.NoError(in.T, cmd.Start())
	p := &Process{Process: cmd.Process, Ready: make(chan struct{}), Ended: make(chan struct{})}
	go func() {
		defer close(p.Ended)
		Follow(in.Output, said, p.Ready)
		_ = cmd.Wait() // what it says is in the exit code
		p.Code = cmd.ProcessState.ExitCode()
	}()
	in.Attach(p)
}

// StartLogged starts the server with all that it says in a file, under a umask that protects nothing.
func (in *Installation) StartLogged(path string) {
	in.T.Helper()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(in.T, err)
	defer out.Close()
	cmd := exec.Command(in.Program, "serve")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = filepath.Dir(in.Dir), in.Env, out, out
	old := unix.Umask(0)
	err = cmd.Start()
	unix.Umask(old)
	require.NoError(in.T, err)
	p := &Process{Process: cmd.Process, Ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // what it says is in the exit code
		p.Code = cmd.ProcessState.ExitCode()
		close(p.Ended)
	}()
	in.Attach(p)
	require.Eventually(in.T, func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), "PlantOps is ready")
	}, setting.Patience, 5*time.Millisecond)
}

// Attach takes over a server that was started, and ends it with the test.
func (in *Installation) Attach(p *Process) {
	in.Server = p
	in.T.Cleanup(func() {
		_ = p.Kill() // an error means that it has ended
		<-p.Ended
	})
}

// AwaitReady waits until the started server serves.
func (in *Installation) AwaitReady() {
	in.T.Helper()
	select {
	case <-in.Server.Ready:
	case <-in.Server.Ended:
		require.Fail(in.T, "the server ended before it was ready", "%s", in.Output)
	case <-time.After(setting.Patience):
		require.Fail(in.T, "the server is not ready", "%s", in.Output)
	}
}

// Pause lets the server work for a while.
func Pause(in *Installation, d time.Duration) {
	in.T.Helper()
	select {
	case <-time.After(d):
	case <-in.Server.Ended:
		require.Fail(in.T, "the server ended by itself", "%s", in.Output)
	}
}

// Kill ends the server with SIGKILL.
func (in *Installation) Kill() {
	in.T.Helper()
	select {
	case <-in.Server.Ended:
		require.Fail(in.T, "the server ended by itself", "%s", in.Output)
	default:
	}
	require.NoError(in.T, in.Server.Kill())
	<-in.Server.Ended
}

// Stop ends the server in order.
func (in *Installation) Stop() {
	in.T.Helper()
	require.NoError(in.T, in.Server.Signal(syscall.SIGTERM))
	<-in.Server.Ended
	require.Equal(in.T, 0, in.Server.Code, "exit code of an orderly stop; the server said:\n%s", in.Output)
}

// Follow copies what a server writes into the log until the writer is gone, and closes ready at the line that says so.
// Devices come and go too often to be kept.
func Follow(log io.Writer, r io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(r)
	for said := false; lines.Scan(); {
		if strings.Contains(lines.Text(), " INF client ") {
			continue
		}
		fmt.Fprintln(log, lines.Text())
		if !said && strings.Contains(lines.Text(), "PlantOps is ready") {
			said = true
			close(ready)
		}
	}
}
