package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// patient is a box without a server in an empty directory.
func patient(t *testing.T) Patient {
	t.Helper()
	dir := t.TempDir()
	return Patient{DataDir: dir, StorePath: filepath.Join(dir, "plantops.db"), CertsDir: filepath.Join(dir, "certs"), Now: time.Now,
		StallTimeout: 10 * time.Second, Patience: 5 * time.Second, Root: t.TempDir(), ServerErr: control.ErrUnreachable}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(t, os.Chmod(path, mode))
}

// only is the finding of that name, of which there must be one.
func only(t *testing.T, r Report, name string) Finding {
	t.Helper()
	var found []Finding
	for _, f := range r.Checks {
		if f.Name == name {
			found = append(found, f)
		}
	}
	require.Len(t, found, 1, "%s in %v", name, r.Checks)
	return found[0]
}

func TestEveryFailureAndWarningHasItsRepair(t *testing.T) {
	p := patient(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	p.Listeners = map[string]string{"tcp": busy.Addr().String(), "tls": "127.0.0.1:0"}
	p.Settings = map[string]string{"tcp": "listeners.tcp.address", "tls": "listeners.tls.address"}
	p.Built = time.Now().Add(time.Hour)
	write(t, filepath.Join(p.CertsDir, "ca.crt"), "not a certificate", 0o644)
	write(t, filepath.Join(p.CertsDir, "server.key"), "", 0o644)
	r := Examine(t.Context(), p)
	assert.False(t, r.Healthy)
	for _, f := range r.Checks {
		if f.State == Fail || f.State == Warn {
			assert.NotEmpty(t, f.Repair, "%v", f)
		}
		assert.NotEmpty(t, f.Found, "%v", f)
	}
	for name, want := range map[string]string{"server": "no server is running", "listener tcp": "another program has " + busy.Addr().String(),
		"certificates": "ca.crt is no certificate", "clock": "before this program was built", "permissions": "server.key can be used by everybody"} {
		f := only(t, r, name)
		assert.Equal(t, Fail, f.State, name)
		assert.Contains(t, f.Found, want)
	}
	assert.Contains(t, only(t, r, "listener tcp").Repair, "listeners.tcp.address")
	assert.Equal(t, Skip, only(t, r, "listener tls").State)
}

func TestSomebodyElseIsSentToTheRightUser(t *testing.T) {
	p := patient(t)
	p.ServerErr = control.ErrUnauthorized
	f := only(t, Examine(t.Context(), p), "server")
	assert.Contains(t, f.Repair, "sudo -u plantops plantops doctor")
}

func TestPermissionsOfFilesOfOthers(t *testing.T) {
	p := patient(t)
	require.NoError(t, os.Chmod(p.DataDir, 0o777))
	write(t, p.StorePath, "", 0o604)
	var r Report
	p.checkPermissions(&r)
	require.Len(t, r.Checks, 2)
	assert.Contains(t, r.Checks[0].Repair, "chmod o-w "+p.DataDir)
	assert.Contains(t, r.Checks[1].Repair, "chmod o-rwx "+p.StorePath)

	p.DataDir = filepath.Join(p.DataDir, "nowhere")
	r = Report{}
	p.checkPermissions(&r)
	assert.Equal(t, Fail, only(t, r, "permissions").State)
}

func TestWearOfCards(t *testing.T) {
	for name, c := range map[string]struct {
		life, reserves string
		state          State
		found          string
	}{
		"a new eMMC":                 {"0x01 0x01\n", "0x01\n", OK, "up to 10 %"},
		"the older of two kinds":     {"0x02 0x05\n", "0x01\n", OK, "up to 50 %"},
		"nearly over":                {"0x09 0x01\n", "0x01\n", Warn, "up to 90 %"},
		"over":                       {"0x0b 0x01\n", "0x01\n", Fail, "its life is over"},
		"most reserves used":         {"0x03 0x01\n", "0x02\n", Warn, "most reserves"},
		"all reserves used":          {"0x03 0x01\n", "0x03\n", Fail, "nearly all reserves"},
		"only reserves":              {"", "0x01\n", OK, "up to 0 %"},
		"an SD card that tells zero": {"0x00 0x00\n", "0x00\n", Skip, "does not tell"},
		"an SD card":                 {"", "", Skip, "does not tell"},
		"nonsense":                   {"many\n", "few\n", Skip, "does not tell"},
	} {
		t.Run(name, func(t *testing.T) {
			p := patient(t)
			card := filepath.Join(p.Root, "sys/block/mmcblk0/device")
			require.NoError(t, os.MkdirAll(card, 0o755))
			if c.life != "" {
				write(t, filepath.Join(card, "life_time"), c.life, 0o644)
			}
			if c.reserves != "" {
				write(t, filepath.Join(card, "pre_eol_info"), c.reserves, 0o644)
			}
			var r Report
			p.checkWear(&r)
			f := only(t, r, "card wear")
			assert.Equal(t, c.state, f.State)
			assert.Contains(t, f.Found, c.found)
		})
	}
	var r Report
	p := patient(t)
	p.checkWear(&r)
	assert.Contains(t, only(t, r, "card wear").Found, "no SD card")
}

func TestMemory(t *testing.T) {
	p := patient(t)
	var r Report
	p.checkMemory(&r, nil)
	assert.Equal(t, Skip, only(t, r, "memory").State)
	write(t, filepath.Join(p.Root, "proc/meminfo"), "MemTotal:         443000 kB\nMemAvailable:      50000 kB\nHugePages_Total:       0\n", 0o644)
	write(t, filepath.Join(p.Root, "proc/7/status"), "Name:\tplantops\nVmRSS:\t   30720 kB\n", 0o644)
	r = Report{}
	p.checkMemory(&r, &control.Status{PID: 7})
	f := only(t, r, "memory")
	assert.Equal(t, Warn, f.State)
	assert.Equal(t, "48.8 MiB of 432.6 MiB available; the server uses 30.0 MiB", f.Found)
	write(t, filepath.Join(p.Root, "proc/meminfo"), "MemTotal:         443000 kB\nMemAvailable:     250000 kB\n", 0o644)
	r = Report{}
	p.checkMemory(&r, nil)
	assert.Equal(t, OK, only(t, r, "memory").State)
}

func TestSpeedOfASyncLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	took, err := syncSpeed(dir)
	require.NoError(t, err)
	assert.Positive(t, took)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
	_, err = syncSpeed(filepath.Join(dir, "nowhere"))
	require.Error(t, err)
}

// probed is a server whose answers are given.
type probed struct {
	control.Operator
	status control.Status
	probe  func(context.Context) error
	reach  control.Contact
	users  map[string]bool
}

func (s *probed) Status(context.Context) (control.Status, error)   { return s.status, nil }
func (s *probed) Contact(context.Context) (control.Contact, error) { return s.reach, nil }
func (s *probed) Probe(ctx context.Context) error                  { return s.probe(ctx) }
func (s *probed) AddUser(_ context.Context, u store.NewUser) error {
	s.users[u.Name] = true
	return nil
}
func (s *probed) RemoveUser(_ context.Context, name string) error {
	delete(s.users, name)
	return nil
}

func TestMessageThatDoesNotComeThroughIsAFailureWithinBounds(t *testing.T) {
	p := patient(t)
	p.Patience = 20 * time.Millisecond
	server := &probed{status: control.Status{Health: control.Degraded, Problems: []string{"the disk is nearly full"}}, users: map[string]bool{},
		probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	p.Server = server
	r := Examine(t.Context(), p)
	assert.Equal(t, Fail, only(t, r, "path to the database").State)
	assert.Equal(t, Warn, only(t, r, "server").State)
	assert.Empty(t, server.users)

	server.probe = func(context.Context) error { return control.ErrNoBroker }
	server.status = control.Status{Health: control.Unhealthy, Problems: []string{"readings cannot be stored: disk full"}}
	r = Examine(t.Context(), p)
	assert.Equal(t, Skip, only(t, r, "path to the database").State)
	assert.Equal(t, Finding{"server", Fail, "readings cannot be stored: disk full", only(t, r, "server").Repair}, only(t, r, "server"))
}

// What listens there may be anything.
func TestListenerThatAnswersWronglyIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"no websocket":       {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with 404 Not Found"},
		"another proof":      {"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n", "answered wrongly"},
		"MQTT without HTTP":  {"\x20\x02\x00\x00", "read the answer to the upgrade"},
		"nothing, and close": {"", "read the answer to the upgrade"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					request := make([]byte, 4096)
					_, _ = conn.Read(request)
					_, _ = conn.Write([]byte(c.answer))
					conn.Close()
				}
			}()
			p := patient(t)
			p.Send = func(context.Context, string, *tls.Config, string, string, string) error {
				return errors.New("not asked")
			}
			f := p.checkListener(t.Context(), "websocket", l.Addr().String(), control.Contact{}, "doctor-1", strings.Repeat("p", 26))
			assert.Equal(t, Fail, f.State)
			assert.Contains(t, f.Found, c.want)
			assert.NotEmpty(t, f.Repair)
		})
	}
}
