//go:build linux

package main_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// patience is how long the harness waits for what should come soon.
const patience = 30 * time.Second

// buildProgram builds the program as it is released, once per test run. The file has no name any more when it is
// returned, only a descriptor of this process: nothing is left behind however the tests end.
var buildProgram = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "plantops-harness-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "plantops")
	build := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plantops: %w\n%s", err, out)
	}
	return os.Open(path)
})

// installation is one data directory with fixed ports and the real program that serves it, again and again.
type installation struct {
	t       *testing.T
	program string
	dir     string
	env     []string
	tcp     string
	tls     string

	server *process // the one that was started last
	output *tail
}

// process is one run of the server.
type process struct {
	*os.Process
	ready chan struct{} // closed when it has said that it is
	ended chan struct{} // closed when it has ended
	code  int           // exit code, once it has
}

// newInstallation makes an empty data directory in dir; extra settings are environment variables.
func newInstallation(t *testing.T, dir string, settings ...string) *installation {
	t.Helper()
	program, err := buildProgram()
	require.NoError(t, err)
	in := &installation{t: t, program: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), dir: filepath.Join(dir, "data"), output: &tail{}}
	require.NoError(t, os.Mkdir(in.dir, 0o755))
	in.tcp, in.tls = freeAddress(t), freeAddress(t)
	in.env = append([]string{
		"TZ=UTC", "HOME=" + dir,
		"PLANTOPS_DATA_DIR=" + in.dir,
		"PLANTOPS_LISTENERS_TCP_ADDRESS=" + in.tcp,
		"PLANTOPS_LISTENERS_TLS_ADDRESS=" + in.tls,
		"PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false",
		"MQTT_USE_TLS=true",
	}, settings...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the server said last:\n%s", in.output)
		}
	})
	return in
}

// freeAddress finds a port that stays free while the server is down: below those that the kernel gives to
// outgoing connections.
func freeAddress(t *testing.T) string {
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

func (in *installation) database() string { return filepath.Join(in.dir, "plantops.db") }

// start starts the server and does not wait for anything.
func (in *installation) start() {
	in.t.Helper()
	cmd := exec.Command(in.program, "serve")
	cmd.Dir, cmd.Env = filepath.Dir(in.dir), in.env
	said, err := cmd.StderrPipe()
	require.NoError(in.t, err)
	require.NoError(in.t, cmd.Start())
	p := &process{Process: cmd.Process, ready: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		in.output.follow(said, p.ready)
		_ = cmd.Wait() // what it says is in the exit code
		p.code = cmd.ProcessState.ExitCode()
	}()
	in.attach(p)
}

// attach takes over a server that was started, and ends it with the test.
func (in *installation) attach(p *process) {
	in.server = p
	in.t.Cleanup(func() {
		_ = p.Kill() // an error means that it has ended
		<-p.ended
	})
}

// awaitReady waits until the started server serves.
func (in *installation) awaitReady() {
	in.t.Helper()
	select {
	case <-in.server.ready:
	case <-in.server.ended:
		require.Fail(in.t, "the server ended before it was ready", "%s", in.output)
	case <-time.After(patience):
		require.Fail(in.t, "the server is not ready", "%s", in.output)
	}
}

// pause lets the server work for a while.
func pause(in *installation, d time.Duration) {
	in.t.Helper()
	select {
	case <-time.After(d):
	case <-in.server.ended:
		require.Fail(in.t, "the server ended by itself", "%s", in.output)
	}
}

// kill ends the server with SIGKILL.
func (in *installation) kill() {
	in.t.Helper()
	select {
	case <-in.server.ended:
		require.Fail(in.t, "the server ended by itself", "%s", in.output)
	default:
	}
	require.NoError(in.t, in.server.Kill())
	<-in.server.ended
}

// stop ends the server in order.
func (in *installation) stop() {
	in.t.Helper()
	require.NoError(in.t, in.server.Signal(syscall.SIGTERM))
	<-in.server.ended
	require.Equal(in.t, 0, in.server.code, "exit code of an orderly stop; the server said:\n%s", in.output)
}

// run runs another plantops command and returns its standard output; the command must succeed.
func (in *installation) run(args ...string) []byte {
	in.t.Helper()
	cmd := exec.Command(in.program, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = filepath.Dir(in.dir), in.env, &stderr
	out, err := cmd.Output()
	require.NoError(in.t, err, "plantops %s: %s", strings.Join(args, " "), &stderr)
	return out
}

// messageCounts is the equation as the status command prints it.
type messageCounts struct {
	Received, Stored, Duplicate, Quarantined, Refused, Pending, Difference int64
}

// counts asks the running server; that it is healthy is part of the answer.
func (in *installation) counts() messageCounts {
	in.t.Helper()
	var status struct{ Messages messageCounts }
	require.NoError(in.t, json.Unmarshal(in.run("status", "--json"), &status))
	return status.Messages
}

// add makes accounts for devices through the running server and returns their secrets.
func (in *installation) add(ids ...string) map[string]string {
	in.t.Helper()
	secrets := make(map[string]string, len(ids))
	for _, id := range ids {
		var given struct {
			Secret string `json:"mqtt_password"`
		}
		require.NoError(in.t, json.Unmarshal(in.run("device", "add", id, "--json"), &given))
		secrets[id] = given.Secret
	}
	return secrets
}

// register makes accounts for devices while no server runs and returns their secrets.
func (in *installation) register(ids ...string) map[string]string {
	in.t.Helper()
	db, err := store.Open(in.t.Context(), store.Options{Path: in.database()})
	require.NoError(in.t, err)
	secrets := make(map[string]string, len(ids))
	for _, id := range ids {
		secrets[id], err = db.AddDevice(in.t.Context(), id)
		require.NoError(in.t, err)
	}
	require.NoError(in.t, db.Close())
	return secrets
}

// clientTLS trusts the authority that the server has made.
func (in *installation) clientTLS() *tls.Config {
	in.t.Helper()
	pem, err := os.ReadFile(filepath.Join(in.dir, "certs", "ca.crt"))
	require.NoError(in.t, err)
	roots := x509.NewCertPool()
	require.True(in.t, roots.AppendCertsFromPEM(pem))
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// memory is procMemory of the server.
func (in *installation) memory(name string) int64 {
	in.t.Helper()
	return procMemory(in.t, in.server.Pid, name)
}

// procMemory returns a line of /proc/PID/status in bytes: VmRSS now, VmHWM at its highest.
func procMemory(t *testing.T, pid int, name string) int64 {
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

// tail keeps the last lines that a server wrote.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// follow reads until the writer is gone and closes ready at the line that says so. Devices come and go too often to
// be kept.
func (l *tail) follow(r io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(r)
	for said := false; lines.Scan(); {
		if strings.Contains(lines.Text(), " INF client ") {
			continue
		}
		_, _ = l.Write(lines.Bytes())
		if !said && strings.Contains(lines.Text(), "PlantOps is ready") {
			said = true
			close(ready)
		}
	}
}

// Write keeps one line.
func (l *tail) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines = append(l.lines, string(line)); len(l.lines) > 40 {
		l.lines = l.lines[1:]
	}
	return len(line), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
