//go:build linux

package main_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What an installation gives away or lets in by itself: classes V13, V14 and V17.

// guesses are logins that some product or other was delivered with.
var guesses = []login{
	{}, {client: "x"}, {user: "admin", secret: "admin"}, {user: "admin", secret: "public"}, {user: "admin"}, {user: "root", secret: "root"},
	{user: "mqtt", secret: "mqtt"}, {user: "plantops", secret: "plantops"}, {user: "guest", secret: "guest"},
	{user: "plantops_backend"}, {user: "plantops_backend", secret: "plantops_backend"}, {user: "plantops_backend", secret: "password"},
	{user: "plantops_backend", secret: "plantops", client: "plantops-ingest"}, {user: "bed-1"}, {user: "bed-1", secret: "bed-1"},
}

func TestV13NoAccountsAndDamagedAccountsLetNobodyIn(t *testing.T) {
	in, g := prepare(t)
	require.NoError(t, os.RemoveAll(in.dir)) // no accounts at all
	in.start()
	in.awaitReady()
	g.meet()
	for _, d := range g.doors {
		for _, l := range append(guesses, g.as("bed-1")) {
			g.refused(d, l)
		}
	}
	in.stop()

	require.NoError(t, os.WriteFile(in.database(), bytes.Repeat([]byte{0}, 1<<16), 0o600))
	in.start()
	select {
	case <-in.server.ended:
		assert.NotZero(t, in.server.code)
	case <-in.server.ready:
		for _, d := range g.doors { // a database that was made anew has no accounts either
			g.refused(d, g.as("bed-1"))
		}
	case <-time.After(patience):
		require.Fail(t, "neither ready nor ended")
	}
}

func TestV13ExhaustedDescriptorsLetNobodyIn(t *testing.T) {
	g := besiege(t)
	used, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid))
	require.NoError(t, err)
	var before unix.Rlimit
	require.NoError(t, unix.Prlimit(g.pid, unix.RLIMIT_NOFILE, nil, &before))
	require.NoError(t, unix.Prlimit(g.pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(used)) + 8, Max: before.Max}, nil))
	var crowd []net.Conn
	for range 40 { // more than there are descriptors: the kernel takes them in, the server cannot
		c, err := net.DialTimeout("tcp", g.doors[0].address, patience)
		require.NoError(t, err)
		crowd = append(crowd, c)
	}
	wrong := g.as("bed-1")
	wrong.secret = "guessed"
	late, err := net.DialTimeout("tcp", g.doors[0].address, patience)
	require.NoError(t, err)
	_, err = late.Write(wrong.encode())
	require.NoError(t, err)
	for _, c := range crowd {
		c.Close()
	}
	require.NoError(t, late.SetDeadline(time.Now().Add(patience)))
	answer := make([]byte, 4)
	if _, err := late.Read(answer); err == nil {
		assert.NotZero(t, answer[3], "reason code")
	}
	late.Close()
	for _, d := range g.doors {
		g.refused(d, wrong)
	}
	g.servesAll()
}

// startLogged starts the server with all that it says in a file, under a umask that protects nothing.
func (in *installation) startLogged(path string) {
	in.t.Helper()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(in.t, err)
	defer out.Close()
	cmd := exec.Command(in.program, "serve")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = filepath.Dir(in.dir), in.env, out, out
	old := unix.Umask(0)
	err = cmd.Start()
	unix.Umask(old)
	require.NoError(in.t, err)
	p := &process{Process: cmd.Process, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // what it says is in the exit code
		p.code = cmd.ProcessState.ExitCode()
		close(p.ended)
	}()
	in.attach(p)
	require.Eventually(in.t, func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), "PlantOps is ready")
	}, patience, 5*time.Millisecond)
}

func TestV14SecretsStayWhereTheyBelong(t *testing.T) {
	const backend, guess = "backend-password-1749", "guessed-password-5518"
	in, g := prepare(t, "LOG_LEVEL=debug", "MQTT_BACKEND_PASSWORD="+backend)
	require.NoError(t, os.RemoveAll(in.dir)) // the server makes it
	log := filepath.Join(t.TempDir(), "log")
	in.startLogged(log)
	g.meet()
	g.secrets = in.add("bed-1", "bed-2", "bed-3")
	g.addExact()
	old := g.secrets["bed-2"]
	for _, d := range g.doors {
		g.enter(d, g.as("exact"))
		require.NoError(t, g.serves(d))
		wrong := g.as("bed-1")
		wrong.secret = guess
		g.refused(d, wrong)
		wrong.version = 4
		g.refused(d, wrong)
		a := g.enter(d, g.as("bed-1"))
		a.send(truncatedSubscribe) // a panic that is logged
		require.True(t, a.ended(patience))
	}
	in.run("device", "rotate", "bed-2")

	secrets := map[string]string{"the backend's password": backend, "a wrong password": guess, "a user's password": exactPassword,
		"a rotated secret": old, "a device's secret": g.secrets["bed-1"]}
	for _, name := range []string{"ca.key", "server.key"} {
		pem, err := os.ReadFile(filepath.Join(in.dir, "certs", name))
		require.NoError(t, err)
		secrets[name] = strings.Split(string(pem), "\n")[1]
	}
	places := map[string][]byte{}
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"config", "show"}, {"device", "list", "--json"}, {"device", "show", "bed-1"},
		{"user", "list", "--json"}, {"certs", "show", "--pem"}} {
		places[strings.Join(args, " ")] = in.run(args...)
	}
	for _, path := range []string{log, fmt.Sprintf("/proc/%d/cmdline", g.pid), in.database(), in.database() + "-wal"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		places[path] = text
	}
	for place, text := range places {
		assert.NotEmpty(t, text, place)
		for what, secret := range secrets {
			assert.False(t, bytes.Contains(text, []byte(secret)), "%s is in %s", what, place)
		}
	}
	checkModes(t, in.dir)
}

// checkModes makes sure that nobody else may change anything, and read certificates only.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files++
		open := info.Mode().Perm() & 0o077
		if entry.IsDir() || filepath.Ext(path) == ".crt" {
			open &= 0o022
		}
		assert.Zero(t, open, "%s has mode %s", path, info.Mode())
		return nil
	}))
	assert.Greater(t, files, 8)
}

func TestV17NothingListensBesidesAndNoPasswordIsDelivered(t *testing.T) {
	g := besiege(t)
	for _, d := range g.doors {
		for _, l := range guesses {
			g.refused(d, l)
		}
	}
	want := map[string]bool{}
	for _, d := range g.doors {
		want[d.address] = true
	}
	assert.Equal(t, want, listening(t, g.pid))
	for _, path := range []string{"/", "/status", "/metrics", "/api/v5/login", "/../../etc/passwd", "/%2e%2e/plantops.db", "/mqtt"} {
		a, err := (door{kind: "tcp", address: g.doors[2].address}).open(t, "")
		require.NoError(t, err)
		a.write([]byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n"))
		answer, _ := a.in.ReadString('\n') // what comes before the end is looked at
		assert.NotContains(t, answer, " 200 ", path)
		a.Close()
	}
	info, err := os.Stat(filepath.Join(g.in.dir, "plantops.sock"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "the way to give orders")
}

// listening returns the IPv4 TCP addresses at which a process listens, and fails when it has others.
func listening(t *testing.T, pid int) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		link, _ := os.Readlink(filepath.Join(dir, entry.Name())) // it may be closed meanwhile
		if inode, found := strings.CutPrefix(link, "socket:["); found {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	found := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			const listens = "0A"
			if len(fields) < 10 || !inodes[fields[9]] || table[:3] == "tcp" && fields[3] != listens {
				continue
			}
			var ip, port uint32
			_, err := fmt.Sscanf(fields[1], "%08X:%04X", &ip, &port)
			require.NoError(t, err)
			require.Equal(t, "tcp", table, "another socket: %s", line)
			found[fmt.Sprintf("%d.%d.%d.%d:%d", byte(ip), byte(ip>>8), byte(ip>>16), byte(ip>>24), port)] = true
		}
	}
	return found
}
