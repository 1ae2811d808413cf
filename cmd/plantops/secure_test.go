package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store"
)

func TestFreshInstallLetsNobodyIn(t *testing.T) {
	r := startServer(t)
	outside := r.outside(t)
	db, err := r.app.openReadOnly(t.Context(), r.loaded.Config)
	require.NoError(t, err)
	defer db.Close()
	devices, err := db.Devices(t.Context())
	require.NoError(t, err)
	assert.Empty(t, devices)
	users, err := db.Users(t.Context())
	require.NoError(t, err)
	assert.Empty(t, users)

	for _, login := range []brokertest.Login{
		{}, {ClientID: "bed-1"}, {ClientID: "plantops-ingest"}, {User: "bed-1", Password: "bed-1"},
		{User: "plantops_backend"}, {User: "plantops_backend", Password: "plantops_backend"}, {User: "plantops_backend", Password: "plantops"},
		{User: "plantops_backend", Password: "<redacted>"}, {User: "plantops", Password: "plantops"}, {User: "admin", Password: "admin"},
		{User: "root", Password: "root"}, {User: "guest", Password: "guest"}, {User: "mosquitto", Password: "mosquitto"},
	} {
		for _, kind := range brokertest.Kinds {
			for _, version := range []byte{4, 5} {
				login.Version = version
				_, answer := brokertest.TryDial(t, outside, kind, login)
				assert.Contains(t, []byte{4, 5, 0x85, 0x86, 0x87}, answer.ReasonCode, "%+v over %s", login, kind)
			}
		}
	}
}

func TestPlainListenersAreOnTheLoopback(t *testing.T) {
	deployed, err := filepath.Glob("../../deploy/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, deployed)
	for _, path := range deployed {
		loaded, err := config.Load(path, nil, nil)
		require.NoError(t, err)
		requirePlainOnLoopback(t, path, loaded.Config.Listeners)
	}
	requirePlainOnLoopback(t, "the defaults", config.Default().Listeners)
}

func requirePlainOnLoopback(t *testing.T, where string, l config.Listeners) {
	t.Helper()
	for name, address := range map[string]string{"tcp": l.TCP.Address, "websocket": l.WebSocket.Address} {
		bound, err := netip.ParseAddrPort(address)
		require.NoError(t, err, "%s: %s %q", where, name, address)
		require.True(t, bound.Addr().IsLoopback(), "%s: %s %q", where, name, address)
	}
}

func TestFilesAreForTheirOwnerWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077} {
		t.Run(fmt.Sprintf("%04o", mask), func(t *testing.T) {
			defer unix.Umask(unix.Umask(mask))
			r := startServer(t)
			secret := r.addDevice(t, "bed-1")
			device := brokertest.Dial(t, r.outside(t), brokertest.TLS, brokertest.Login{User: "bed-1", Password: secret})
			require.Equal(t, byte(0), device.Publish("devices/bed-1/telemetry", `{"temperature":21}`, 1))

			var found []string
			require.NoError(t, filepath.WalkDir(r.loaded.Config.DataDir, func(path string, entry fs.DirEntry, err error) error {
				require.NoError(t, err)
				info, err := entry.Info()
				if errors.Is(err, fs.ErrNotExist) { // it has got its name meanwhile
					return nil
				}
				require.NoError(t, err)
				mode := info.Mode().Perm()
				switch {
				case entry.IsDir():
					assert.Zero(t, mode&0o022, "%s has mode %04o", path, mode)
				case strings.Contains(entry.Name(), ".crt-"): // a certificate that is being written
					assert.Zero(t, mode&0o133, "%s has mode %04o", path, mode)
				case filepath.Ext(path) == ".crt":
					assert.Equal(t, fs.FileMode(0o644), mode, path)
				default:
					assert.Equal(t, fs.FileMode(0o600), mode, path)
				}
				found = append(found, entry.Name())
				return nil
			}))
			assert.Subset(t, found, []string{"ca.key", "server.key", "ca.crt", "server.crt", "plantops.db", "plantops.db-wal", "plantops.sock", "plantops.lock"})
		})
	}
}

// A password on a command line can be read by everybody on the machine. -P of pub and sub, which people know of mosquitto_pub, says
// so, and there is --password-file.
func TestNoCommandTakesASecretAsAnArgument(t *testing.T) {
	secret := regexp.MustCompile(`(?i)pass|secret|token|credential|psk|key`)
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		_, arguments, _ := strings.Cut(cmd.Use, " ")
		assert.NotRegexp(t, secret, arguments, "argument of %s", cmd.CommandPath())
		check := func(f *pflag.Flag) {
			if !strings.HasSuffix(f.Name, "-file") && !strings.HasPrefix(f.Usage, "file with ") {
				assert.NotRegexp(t, secret, f.Name, "flag of %s", cmd.CommandPath())
			}
		}
		cmd.LocalFlags().VisitAll(check)
		cmd.PersistentFlags().VisitAll(check)
		for _, child := range cmd.Commands() {
			look(child)
		}
	}
	look(newRoot(&app{}))
}

// forms are the ways in which a secret could be written by accident.
func forms(secret string) map[string]string {
	return map[string]string{
		"as it is": secret, "in hexadecimal": hex.EncodeToString([]byte(secret)), "in base64": base64.StdEncoding.EncodeToString([]byte(secret)),
		"as numbers": strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
}

func TestSecretsAreNowhere(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			const backend, wrong, short = "of the backend alone", "a wrong one of somebody", "shorty"
			r := startServer(t, "LOG_LEVEL=debug", "LOG_FORMAT="+format, "MQTT_BACKEND_PASSWORD="+backend)
			outside, ctx := r.outside(t), context.Background()
			first := r.addDevice(t, "bed-1")
			second, err := r.control.RotateDevice(ctx, "bed-1")
			require.NoError(t, err)
			r.addUser(t, "vera", "viewer", rules{})
			secrets := map[string]string{"backend's": backend, "device's first": first, "device's": second, "user's": userPassword,
				"wrong": wrong, "too short": short}

			var said bytes.Buffer // everything that a person may see: the log, answers and errors
			for i, kind := range brokertest.Kinds {
				for user, password := range map[string]string{"bed-1": second, "vera": userPassword, "plantops_backend": backend} {
					login := brokertest.Login{User: user, Password: password, Version: 4 + byte(i%2)}
					c := brokertest.Dial(t, outside, kind, login)
					c.Subscribe("devices/bed-1/#", 1)
					c.SendConnect(login) // a second one is against the rules
					c.AwaitClosed()
					login.Password = password + wrong
					brokertest.TryDial(t, outside, kind, login)
				}
				brokertest.TryDial(t, outside, kind, brokertest.Login{User: "bed-1", Password: first})
			}
			for _, order := range []error{
				r.control.AddUser(ctx, store.NewUser{Name: "bob", Subscribe: []string{"#"}, Password: short}),
				r.control.AddUser(ctx, store.NewUser{Name: "vera", Subscribe: []string{"#"}, Password: wrong}),
				r.control.SetPassword(ctx, "nobody", wrong),
				r.control.SetPassword(ctx, "vera", short),
			} {
				require.Error(t, order)
				fmt.Fprintln(&said, order)
			}
			for _, line := range []string{"status", "status --json", "config show", "config show --json", "config check", "device list", "device list --json",
				"device show bed-1 --json", "user list", "user list --json", "quarantine list --json", "certs show", "certs show --json", "device rotate nobody"} {
				person := &app{stdout: &said, stderr: &said, environ: r.app.environ, now: time.Now}
				run(ctx, strings.Fields(line), person)
			}
			require.NoError(t, r.stop())
			said.WriteString(r.log.String())
			for _, word := range []string{"bed-1", "vera", "<redacted>", " = 0 stored", "not found"} { // it all took place
				require.Contains(t, said.String(), word)
			}

			stored := filesBelow(t, r.loaded.Config.DataDir)
			for _, name := range []string{"ca.key", "server.key"} {
				lines := strings.Split(stored[name], "\n")
				require.Greater(t, len(lines), 3, name)
				assert.NotContains(t, said.String(), lines[1], "the key in %s", name)
			}
			for whose, secret := range secrets {
				for how, form := range forms(secret) {
					if strings.Contains(said.String(), form) {
						at := strings.Index(said.String(), form)
						assert.Fail(t, "a secret was told", "the %s password %s: ...%s", whose, how, said.String()[max(0, at-200):at+len(form)])
					}
					for name, content := range stored {
						assert.False(t, strings.Contains(content, form), "the %s password %s is in %s", whose, how, name)
					}
				}
			}
		})
	}
}

// filesBelow is the content of every file in a directory, by its name.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		files[entry.Name()] = string(content)
		return err
	}))
	return files
}
