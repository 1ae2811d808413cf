package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// write puts a configuration file into a directory of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plantops.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func valueOf(t *testing.T, l Loaded, key string) Value {
	t.Helper()
	v := l.value(key)
	require.Equal(t, key, v.Key)
	return v
}

func TestWithoutAnythingSetTheDefaultsHold(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := os.Stat(searched[1]); err == nil {
		t.Skip("this machine has " + searched[1])
	}
	l, err := Load("", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, Default(), l.Config)
	assert.Empty(t, l.Path)
	assert.Empty(t, l.Warnings)
	assert.Equal(t, Value{"mqtt.tls_port", "8883", "default"}, valueOf(t, l, "mqtt.tls_port"))
}

func TestTheFileInTheWorkingDirectoryIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("plantops.yaml", []byte("\nlog: {level: debug}\n"), 0o600))
	l, err := Load("", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "plantops.yaml", l.Path)
	assert.Equal(t, Value{"log.level", "debug", "plantops.yaml:2"}, valueOf(t, l, "log.level"))
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "plantops.yaml")
	_, err := Load(missing, nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist, "named and missing")
	assert.ErrorContains(t, err, missing)

	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("plantops.yaml", 0o700))
	_, err = Load("", nil, nil)
	assert.ErrorContains(t, err, "read plantops.yaml", "a directory is not passed over")
}

func TestEveryLayerOverridesTheOneBefore(t *testing.T) {
	path := write(t, "mqtt: {backend_username: file}\nlog: {level: error, format: json}\ningest: {topics: [one/topic]}\n")
	env := []string{"MQTT_BACKEND_USERNAME=env", "LOG_LEVEL=warn"}
	l, err := Load(path, env, map[string]string{"log.level": "debug"})
	require.NoError(t, err)

	want := Default()
	want.Log = Log{Level: "debug", Format: "json"}
	want.MQTT.BackendUsername = "env"
	want.Ingest.Topics = []string{"one/topic"}
	assert.Equal(t, want, l.Config)
	assert.Equal(t, "flag --log-level", valueOf(t, l, "log.level").Source)
	assert.Equal(t, "MQTT_BACKEND_USERNAME", valueOf(t, l, "mqtt.backend_username").Source)
	assert.Equal(t, path+":2", valueOf(t, l, "log.format").Source)
	assert.Equal(t, "default", valueOf(t, l, "data_dir").Source)
	assert.Len(t, l.Values, len(Keys()))
}

func TestValuesAreReadAsWritten(t *testing.T) {
	tests := map[string]struct {
		file  string
		check func(t *testing.T, c Config)
	}{
		"password that looks like a number, in quotes": {`mqtt: {backend_password: "0123"}`,
			func(t *testing.T, c Config) { assert.Equal(t, "0123", c.MQTT.BackendPassword.Reveal()) }},
		"password that starts like an alias, in quotes": {`mqtt: {backend_password: "*words"}`,
			func(t *testing.T, c Config) { assert.Equal(t, "*words", c.MQTT.BackendPassword.Reveal()) }},
		"text with capitals": {"data_dir: /Srv/Plants",
			func(t *testing.T, c Config) { assert.Equal(t, "/Srv/Plants", c.DataDir) }},
		"number in quotes": {`ingest: {max_batch: "50"}`,
			func(t *testing.T, c Config) { assert.Equal(t, 50, c.Ingest.MaxBatch) }},
		"retention in days": {"store: {retention: 365d}",
			func(t *testing.T, c Config) { assert.Equal(t, 365*24*time.Hour, c.Store.Retention) }},
		"size with a unit": {"store: {max_size: 20GB}",
			func(t *testing.T, c Config) { assert.Equal(t, Size(20e9), c.Store.MaxSize) }},
		"size in bytes": {"store: {max_size: 300000001}",
			func(t *testing.T, c Config) { assert.Equal(t, Size(300_000_001), c.Store.MaxSize) }},
		"size with a space and small letters": {"store: {max_size: 1 tb}",
			func(t *testing.T, c Config) { assert.Equal(t, Size(1e12), c.Store.MaxSize) }},
		"retention zero needs no unit": {"store: {retention: 0}",
			func(t *testing.T, c Config) { assert.Zero(t, c.Store.Retention) }},
		"fewer items than the default": {"ingest: {topics: [a/b]}",
			func(t *testing.T, c Config) { assert.Equal(t, []string{"a/b"}, c.Ingest.Topics) }},
		"shared filter": {"ingest: {topics: [$share/plants/devices/+/telemetry]}",
			func(t *testing.T, c Config) {
				assert.Equal(t, []string{"$share/plants/devices/+/telemetry"}, c.Ingest.Topics)
			}},
		"empty list": {"certs: {extra_names: []}",
			func(t *testing.T, c Config) { assert.Empty(t, c.Certs.ExtraNames) }},
		"names and addresses": {`certs: {extra_names: [pi.farm.lan, "*.farm.lan", 192.168.1.9, "fe80::1"]}`,
			func(t *testing.T, c Config) { assert.Len(t, c.Certs.ExtraNames, 4) }},
		"words of the old system": {"log: {level: WARNING, format: console}",
			func(t *testing.T, c Config) { assert.Equal(t, Log{Level: "warn", Format: "text"}, c.Log) }},
		"free ports": {`listeners: {tcp: {address: "127.0.0.1:0"}, tls: {address: "127.0.0.1:0"}, websocket: {address: "127.0.0.1:0"}}`,
			func(t *testing.T, c Config) { assert.Equal(t, "127.0.0.1:0", c.Listeners.WebSocket.Address) }},
		"host by a name of the certificate": {"mqtt: {host: pi.farm.lan}\ncerts: {extra_names: [pi.farm.lan]}",
			func(t *testing.T, c Config) { assert.Equal(t, "pi.farm.lan", c.MQTT.Host) }},
		"another broker": {"mqtt: {host: broker.example}\nlisteners: {tcp: {enabled: no}, tls: {enabled: off}, websocket: {enabled: 0}}",
			func(t *testing.T, c Config) { assert.False(t, c.Embedded()) }},
		"nothing but a comment":        {"# nothing yet\n", func(t *testing.T, c Config) { assert.Equal(t, Default(), c) }},
		"nothing but a document start": {"---\n", func(t *testing.T, c Config) { assert.Equal(t, Default(), c) }},
		"empty":                        {"", func(t *testing.T, c Config) { assert.Equal(t, Default(), c) }},
		"empty section in braces":      {"mqtt: {}\n", func(t *testing.T, c Config) { assert.Equal(t, Default(), c) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := Load(write(t, test.file), nil, nil)
			require.NoError(t, err)
			test.check(t, l.Config)
		})
	}
}

func TestBooleansInFileAndEnvironment(t *testing.T) {
	words := map[string]bool{"true": true, "True": true, "yes": true, "YES": true, "on": true, "1": true,
		"false": false, "no": false, "Off": false, "0": false}
	for word, want := range words {
		l, err := Load(write(t, "mqtt:\n  use_tls: "+word+"\n"), nil, nil)
		require.NoError(t, err, word)
		assert.Equal(t, want, l.Config.MQTT.UseTLS, "file: %s", word)

		l, err = Load(write(t, fmt.Sprintf("mqtt: {use_tls: %t}", !want)), []string{"MQTT_USE_TLS=" + word}, nil)
		require.NoError(t, err, word)
		assert.Equal(t, want, l.Config.MQTT.UseTLS, "environment: %s", word)
	}
}

// Each file in testdata breaks one rule, which its name says; its first lines
// say what the error must contain.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = Load(path, nil, nil)
			require.Error(t, err)

			wanted := 0
			for line := range strings.Lines(string(text)) {
				want, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# want: ")
				if !ok {
					break
				}
				wanted++
				assert.ErrorContains(t, err, strings.ReplaceAll(want, "FILE", path))
			}
			require.NotZero(t, wanted, "the file does not say what is wanted")
			assert.LessOrEqual(t, len(strings.Split(err.Error(), "\n")), wanted, "one rule broken, one problem:\n%s", err)
			assert.NotContains(t, err.Error(), "hunter2")
			assert.NotContains(t, err.Error(), "0123")
			assert.NotContains(t, err.Error(), "1e3")
		})
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	path := write(t, "mqtt:\n  use_tsl: true\n  port: 88.9\ningest:\n  stall_timeout: 30\n  max_batch: 0\n")
	_, err := Load(path, []string{"PLANTOPS_LOG_FORMAT=xml", "MQTT_TLS_PORT=88x"}, map[string]string{"log.level": "loud", "log.colour": "red"})
	require.Error(t, err)
	assert.Equal(t, []string{
		"mqtt.use_tsl (" + path + ":2): no such setting; did you mean mqtt.use_tls?",
		"mqtt.port: 88.9 (" + path + ":3): must be a whole number, written with the digits 0 to 9 only",
		"ingest.stall_timeout: 30 (" + path + ":5): a duration needs a unit, for example 10s, 3m, 12h or 365d",
		"mqtt.tls_port: 88x (MQTT_TLS_PORT): must be a whole number, written with the digits 0 to 9 only",
		`log.colour (flag --log-colour): no such setting; "plantops config show" lists every setting`,
		"ingest.max_batch: 0 (" + path + ":6): must be from 1 to 100000",
		"log.level: loud (flag --log-level): must be one of debug, info, warn, error",
		"log.format: xml (PLANTOPS_LOG_FORMAT): must be one of text, json",
	}, strings.Split(err.Error(), "\n"))
}

func TestPortsFollowTheListeners(t *testing.T) {
	const free = `listeners: {tcp: {address: "127.0.0.1:0"}, tls: {address: "127.0.0.1:0"}}`
	tests := map[string]struct {
		file     string
		env      []string
		tcp, tls int
		want     int
		problem  string
	}{
		"not set, plain":    {file: free, tcp: 40001, tls: 40002, want: 40001},
		"not set, TLS":      {file: free, env: []string{"MQTT_USE_TLS=1"}, tcp: 40001, tls: 40002, want: 40002},
		"zero follows too":  {file: free, env: []string{"MQTT_PORT=0"}, tcp: 40001, want: 40001},
		"set and the same":  {env: []string{"MQTT_PORT=1883"}, tcp: 1883, want: 1883},
		"set and different": {file: free, env: []string{"MQTT_PORT=1883"}, tcp: 40001, problem: "mqtt.port: 1883 (MQTT_PORT): but listeners.tcp listens on port 40001"},
		"the unused port contradicts": {file: free, env: []string{"MQTT_TLS_PORT=9999"}, tcp: 40001, tls: 40002,
			problem: "mqtt.tls_port: 9999 (MQTT_TLS_PORT): but listeners.tls listens on port 40002"},
		"another broker": {file: "listeners: {tcp: {enabled: false}, tls: {enabled: false}, websocket: {enabled: false}}",
			env: []string{"MQTT_HOST=broker.example", "MQTT_PORT=2883"}, want: 2883},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := Load(write(t, test.file), test.env, nil)
			require.NoError(t, err)
			port, err := l.SubscriberPort(test.tcp, test.tls)
			if test.problem != "" {
				require.ErrorContains(t, err, test.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, port)
		})
	}
}

func TestProblemOfAUserOfTheConfigurationLooksLikeOurs(t *testing.T) {
	l, err := Load(write(t, ""), []string{"MQTT_USE_TLS=true", "MQTT_CA_CERT=/nonexistent", "MQTT_BACKEND_PASSWORD=hunter2"}, nil)
	require.NoError(t, err)
	assert.EqualError(t, l.Problem("mqtt.ca_cert", "is missing"), "mqtt.ca_cert: /nonexistent (MQTT_CA_CERT): is missing")
	assert.EqualError(t, l.Problem("mqtt.backend_password", "is refused"), "mqtt.backend_password: <redacted> (MQTT_BACKEND_PASSWORD): is refused")
}

func TestAPasswordThatOthersCanReadIsAWarning(t *testing.T) {
	path := write(t, "mqtt: {backend_password: words}\n")
	l, err := Load(path, nil, nil)
	require.NoError(t, err)
	assert.Empty(t, l.Warnings, "readable by its owner only")

	require.NoError(t, os.Chmod(path, 0o644))
	l, err = Load(path, nil, nil)
	require.NoError(t, err)
	require.Len(t, l.Warnings, 1)
	assert.Contains(t, l.Warnings[0], "chmod 640 "+path)

	path = write(t, "mqtt: {backend_password: \"\"}\n")
	require.NoError(t, os.Chmod(path, 0o644))
	l, err = Load(path, nil, nil)
	require.NoError(t, err)
	assert.Empty(t, l.Warnings, "nothing to read")
}

func TestASecretNeverShowsItself(t *testing.T) {
	l, err := Load(write(t, "mqtt: {backend_password: hunter2}\n"), nil, nil)
	require.NoError(t, err)
	require.Equal(t, "hunter2", l.Config.MQTT.BackendPassword.Reveal())
	assert.Equal(t, redacted, valueOf(t, l, passwordKey).Value)

	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&b, verb, l)
		fmt.Fprintf(&b, verb, l.Config.MQTT.BackendPassword)
	}
	b.WriteString(l.Config.MQTT.BackendPassword.String())
	asJSON, err := json.Marshal(l)
	require.NoError(t, err)
	b.Write(asJSON)
	asYAML, err := yaml.Marshal(l)
	require.NoError(t, err)
	b.Write(asYAML)
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("loaded", "config", l, "password", l.Config.MQTT.BackendPassword)
	}
	assert.NotContains(t, b.String(), "hunter2")
	assert.NotContains(t, b.String(), fmt.Sprintf("%x", "hunter2"))
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(f, err)
	for _, path := range append(files, "../deploy/plantops.yaml", "../deploy/plantops.prod.yaml") {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data, "MQTT_PORT=1883\x00PLANTOPS_CERTS_EXTRA_NAMES=a, b", "info")
	}
	f.Add([]byte("mqtt: {host: !!binary aA==, <<: {}}\n"), "PLANTOPS_MQTT_PORT=1\x00MQTT_PORT=01", "")
	path := filepath.Join(f.TempDir(), "plantops.yaml")
	f.Fuzz(func(t *testing.T, data []byte, env, level string) {
		// The property: whatever comes, there is an error, or a valid
		// configuration with a source for every key. Never a panic.
		require.NoError(t, os.WriteFile(path, data, 0o600))
		l, err := Load(path, strings.Split(env, "\x00"), map[string]string{"log.level": level})
		if err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		require.NoError(t, l.Config.Validate())
		for _, v := range l.Values {
			assert.NotEmpty(t, v.Source, v.Key)
		}
	})
}

func TestDoorsThatAskForNoCertificateAreWarnings(t *testing.T) {
	const required = "PLANTOPS_LISTENERS_TLS_REQUIRE_CERTIFICATE=true"
	const tcp, websocket = "PLANTOPS_LISTENERS_TCP_ADDRESS=", "PLANTOPS_LISTENERS_WEBSOCKET_ADDRESS="
	for name, c := range map[string]struct {
		env  []string
		want []string // keys
	}{
		"loopback only":      {[]string{required, tcp + "localhost:1883", websocket + "[::1]:9001"}, nil},
		"not required":       {[]string{tcp + ":1883"}, nil},
		"no TLS":             {[]string{required, tcp + ":1883", "PLANTOPS_LISTENERS_TLS_ENABLED=false"}, nil},
		"every address":      {[]string{required, tcp + ":1883", websocket + "[::]:9001"}, []string{"listeners.tcp.address: :1883", "listeners.websocket.address: [::]:9001"}},
		"one address":        {[]string{required, websocket + "192.0.2.1:9001"}, []string{"listeners.websocket.address: 192.0.2.1:9001"}},
		"open, but disabled": {[]string{required, websocket + ":9001", "PLANTOPS_LISTENERS_WEBSOCKET_ENABLED=false"}, nil},
	} {
		l, err := Load(write(t, "log: {}\n"), c.env, nil)
		require.NoError(t, err, name)
		require.Len(t, l.Warnings, len(c.want), name)
		for i, want := range c.want {
			assert.True(t, strings.HasPrefix(l.Warnings[i], want+" is open to other machines"), l.Warnings[i])
		}
	}
}
