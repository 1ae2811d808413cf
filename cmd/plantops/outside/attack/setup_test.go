//go:build linux

package attack_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// What an installation gives away or lets in by itself: classes V13, V14 and V17.

// guesses are logins that some product or other was delivered with.
var guesses = []rawmqtt.Login{
	{}, {ClientID: "x"}, {User: "admin", Secret: "admin"}, {User: "admin", Secret: "public"}, {User: "admin"}, {User: "root", Secret: "root"},
	{User: "mqtt", Secret: "mqtt"}, {User: "plantops", Secret: "plantops"}, {User: "guest", Secret: "guest"},
	{User: "plantops_backend"}, {User: "plantops_backend", Secret: "plantops_backend"}, {User: "plantops_backend", Secret: "password"},
	{User: "plantops_backend", Secret: "plantops", ClientID: "plantops-ingest"}, {User: "bed-1"}, {User: "bed-1", Secret: "bed-1"},
}

func TestV13NoAccountsAndDamagedAccountsLetNobodyIn(t *testing.T) {
	in, g := siege.Prepare(t)
	require.NoError(t, os.RemoveAll(in.Dir)) // no accounts at all
	in.Start()
	in.AwaitReady()
	g.Meet()
	for _, d := range g.Doors {
		for _, l := range append(guesses, g.As("bed-1")) {
			g.Refused(d, l)
		}
	}
	in.Stop()

	require.NoError(t, os.WriteFile(in.Database(), bytes.Repeat([]byte{0}, 1<<16), 0o600))
	in.Start()
	select {
	case <-in.Server.Ended:
		assert.NotZero(t, in.Server.Code)
	case <-in.Server.Ready:
		for _, d := range g.Doors { // a database that was made anew has no accounts either
			g.Refused(d, g.As("bed-1"))
		}
	case <-time.After(setting.Patience):
		require.Fail(t, "neither ready nor ended")
	}
}

func TestV13ExhaustedDescriptorsLetNobodyIn(t *testing.T) {
	g := siege.Begin(t)
	used, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID))
	require.NoError(t, err)
	var before unix.Rlimit
	require.NoError(t, unix.Prlimit(g.PID, unix.RLIMIT_NOFILE, nil, &before))
	require.NoError(t, unix.Prlimit(g.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(used)) + 8, Max: before.Max}, nil))
	var crowd []net.Conn
	for range 40 { // more than there are descriptors: the kernel takes them in, the server cannot
		c, err := net.DialTimeout("tcp", g.Doors[0].Address, setting.Patience)
		require.NoError(t, err)
		crowd = append(crowd, c)
	}
	wrong := g.As("bed-1")
	wrong.Secret = "guessed"
	late, err := net.DialTimeout("tcp", g.Doors[0].Address, setting.Patience)
	require.NoError(t, err)
	_, err = late.Write(wrong.Encode())
	require.NoError(t, err)
	for _, c := range crowd {
		c.Close()
	}
	require.NoError(t, late.SetDeadline(time.Now().Add(setting.Patience)))
	answer := make([]byte, 4)
	if _, err := late.Read(answer); err == nil {
		assert.NotZero(t, answer[3], "reason code")
	}
	late.Close()
	for _, d := range g.Doors {
		g.Refused(d, wrong)
	}
	g.ServesAll()
}

func TestV14SecretsStayWhereTheyBelong(t *testing.T) {
	const backend, guess = "backend-password-1749", "guessed-password-5518"
	in, g := siege.Prepare(t, "LOG_LEVEL=debug", "MQTT_BACKEND_PASSWORD="+backend)
	require.NoError(t, os.RemoveAll(in.Dir)) // the server makes it
	log := filepath.Join(t.TempDir(), "log")
	in.StartLogged(log)
	g.Meet()
	g.Secrets = in.Add("bed-1", "bed-2", "bed-3")
	g.AddExact()
	old := g.Secrets["bed-2"]
	for _, d := range g.Doors {
		g.Enter(d, g.As("exact"))
		require.NoError(t, g.Serves(d))
		wrong := g.As("bed-1")
		wrong.Secret = guess
		g.Refused(d, wrong)
		wrong.Version = 4
		g.Refused(d, wrong)
		a := g.Enter(d, g.As("bed-1"))
		a.Send(truncatedSubscribe) // a panic that is logged
		require.True(t, a.Ended(setting.Patience))
	}
	in.Run("device", "rotate", "bed-2")

	secrets := map[string]string{"the backend's password": backend, "a wrong password": guess, "a user's password": siege.ExactPassword,
		"a rotated secret": old, "a device's secret": g.Secrets["bed-1"]}
	for _, name := range []string{"ca.key", "server.key"} {
		pem, err := os.ReadFile(filepath.Join(in.Dir, "certs", name))
		require.NoError(t, err)
		secrets[name] = strings.Split(string(pem), "\n")[1]
	}
	places := map[string][]byte{}
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"config", "show"}, {"device", "list", "--json"}, {"device", "show", "bed-1"},
		{"user", "list", "--json"}, {"certs", "show", "--pem"}} {
		places[strings.Join(args, " ")] = in.Run(args...)
	}
	for _, path := range []string{log, fmt.Sprintf("/proc/%d/cmdline", g.PID), in.Database(), in.Database() + "-wal"} {
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
	checkModes(t, in.Dir)
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
	g := siege.Begin(t)
	for _, d := range g.Doors {
		for _, l := range guesses {
			g.Refused(d, l)
		}
	}
	want := map[string]bool{}
	for _, d := range g.Doors {
		want[d.Address] = true
	}
	assert.Equal(t, want, listening(t, g.PID))
	for _, path := range []string{"/", "/status", "/metrics", "/api/v5/login", "/../../etc/passwd", "/%2e%2e/plantops.db", "/mqtt"} {
		a, err := (door.Door{Kind: "tcp", Address: g.Doors[2].Address}).Open(t, "")
		require.NoError(t, err)
		a.SendRaw([]byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n"))
		answer, _ := a.In.ReadString('\n') // what comes before the end is looked at
		assert.NotContains(t, answer, " 200 ", path)
		a.Close()
	}
	info, err := os.Stat(filepath.Join(g.In.Dir, "plantops.sock"))
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
