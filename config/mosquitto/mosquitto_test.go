package mosquitto

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/config"
)

var update = flag.Bool("update", false, "write testdata/*.want from what comes out; read the difference")

func options4(files fs.FS, path string) Options {
	return Options{Files: files, Path: path, MaxLevels: 32, CheckName: func(name string) error {
		if strings.ContainsAny(name, "+#/$%") {
			return errors.New("the characters + # / $ % are not allowed")
		}
		return nil
	}}
}

// show writes a result as the files in testdata have it.
func show(t *testing.T, r Result) string {
	var b strings.Builder
	for _, kind := range []Kind{TakenOver, Differently, NoEquivalent} {
		fmt.Fprintf(&b, "== %s\n", kind)
		for _, l := range r.Of(kind) {
			fmt.Fprintf(&b, "%s: %s\n", l.Position(), l.Text)
			if l.Note != "" {
				fmt.Fprintf(&b, "\t%s\n", l.Note)
			}
		}
	}
	fmt.Fprintln(&b, "== accounts")
	for _, a := range r.Accounts {
		fmt.Fprintf(&b, "%s publish=%v subscribe=%v hash=%.4s\n", a.Name, a.Publish, a.Subscribe, a.Hash)
	}
	fmt.Fprintln(&b, "== plantops.yaml")
	require.NoError(t, WriteYAML(&b, r.Settings))
	return b.String()
}

func TestConfigurations(t *testing.T) {
	confs, err := filepath.Glob("testdata/*.conf")
	require.NoError(t, err)
	require.NotEmpty(t, confs)
	for _, conf := range confs {
		t.Run(filepath.Base(conf), func(t *testing.T) {
			r, err := Translate(options4(os.DirFS("testdata"), "/"+filepath.Base(conf)))
			require.NoError(t, err)
			got := show(t, r)
			assert.NotContains(t, got, "hunter", "no secret is repeated")
			want := strings.TrimSuffix(conf, ".conf") + ".want"
			if *update {
				require.NoError(t, os.WriteFile(want, []byte(got), 0o644))
			}
			expected, err := os.ReadFile(want)
			require.NoError(t, err)
			assert.Equal(t, string(expected), got)
		})
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	for name, conf := range map[string]string{
		"include_dir":   "include_dir nowhere",
		"password_file": "password_file nowhere",
		"acl_file":      "acl_file nowhere",
	} {
		files := fstest.MapFS{"m.conf": {Data: []byte(conf)}}
		_, err := Translate(options4(files, "/m.conf"))
		require.ErrorIs(t, err, fs.ErrNotExist, name)
		assert.ErrorContains(t, err, "/m.conf:1", "it says which line asks for the file")
	}
	_, err := Translate(options4(fstest.MapFS{}, "/m.conf"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// What is written for bridges is what the configuration reads.
func TestImportedBridgesCanBeRead(t *testing.T) {
	r, err := Translate(options4(os.DirFS("testdata"), "/bridges.conf"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "plantops.yaml")
	out, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, errors.Join(WriteYAML(out, r.Settings), out.Close()))
	loaded, err := config.Load(path, nil, nil)
	require.NoError(t, err)
	require.Len(t, loaded.Config.Bridges, 2)
	assert.Equal(t, config.Bridge{Name: "farm-north", Address: "mqtt.example.org:8883", TLS: true, CACert: "/ca.pem", ClientCert: "/etc/box.pem",
		ClientKey: "/etc/box.key", ALPN: "x-amzn-mqtt-ca", ClientID: "box-2", Version: "5", Keepalive: 30 * time.Second, SessionExpiry: time.Minute,
		Topics: []config.BridgeTopic{{Filter: "sensors/#", Direction: "out", QoS: 1, LocalPrefix: "home/", RemotePrefix: "farm/"},
			{Direction: "in", QoS: 2, LocalPrefix: "house/door", RemotePrefix: "gate/state"}, {Filter: "#", Direction: "both"}}}, loaded.Config.Bridges[0])
	assert.Equal(t, []config.BridgeTopic{{Filter: "all/#", Direction: "both", QoS: 1, RemotePrefix: "box/"}}, loaded.Config.Bridges[1].Topics)
}
