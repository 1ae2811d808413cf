package config

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDefaultTopicsFitALowLimitOfLevels(t *testing.T) {
	c := Default()
	assert.Equal(t, []string{"devices/+/telemetry", "devices/+/telemetry/+", "devices/+/heartbeat"}, c.IngestTopics())
	c.Limits.MaxTopicLevels = 3
	assert.Equal(t, []string{"devices/+/telemetry", "devices/+/heartbeat"}, c.IngestTopics())
	assert.NoError(t, c.Validate())
	c.Ingest.Topics = []string{"a/b/c/d"}
	assert.Equal(t, []string{"a/b/c/d"}, c.IngestTopics(), "what was written is not left out, but refused")
	assert.ErrorContains(t, c.Validate(), "a/b/c/d")
}

func TestDefaultIsValid(t *testing.T) {
	assert.NoError(t, Default().Validate())
}

// What ships must load, and may differ from the defaults only where it says so.
func TestShippedFilesDifferFromTheDefaultsOnlyWhereListed(t *testing.T) {
	tests := map[string][]string{
		"../deploy/plantops.yaml":      {"mqtt.use_tls"},
		"../deploy/plantops.prod.yaml": {"data_dir", "listeners.tcp.enabled", "listeners.websocket.enabled", "mqtt.use_tls", "log.format"},
	}
	for path, want := range tests {
		t.Run(path, func(t *testing.T) {
			l, err := Load(path, nil, nil)
			require.NoError(t, err)
			assert.Empty(t, l.Warnings)
			live, restart := Changes(Default(), l.Config)
			assert.ElementsMatch(t, want, slices.Concat(live, restart))
		})
	}
}

// The struct and the table are two lists of the same keys.
func TestTheTableNamesEveryFieldOnce(t *testing.T) {
	var fields []string
	var walk func(typ reflect.Type, path string)
	walk = func(typ reflect.Type, path string) {
		for f := range typ.Fields() {
			key := strings.TrimPrefix(path+"."+f.Tag.Get("mapstructure"), ".")
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type, key)
				continue
			}
			fields = append(fields, key)
		}
	}
	walk(reflect.TypeFor[Config](), "")

	var paths, variables []string
	for _, k := range Keys() {
		paths = append(paths, k.Path)
		variables = append(variables, k.Env...)
		assert.NotEmpty(t, k.Meaning, k.Path)
		if k.Path == "bridges" || k.Path == "store.retention_rules" || k.Path == "alerts.channels" {
			assert.Empty(t, k.Env, "it stands in the file only")
			continue
		}
		assert.Equal(t, "PLANTOPS_"+strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_")), k.Env[0])
	}
	assert.Equal(t, fields, paths)
	slices.Sort(variables)
	assert.Len(t, slices.Compact(variables), len(variables), "two keys share a variable")
}

// Each field of the table must be the one that its key fills.
func TestEveryKeyIsReadFromItsFirstVariable(t *testing.T) {
	values := map[string]string{
		"data_dir": "d", "listeners.tcp.address": ":1", "listeners.tls.address": ":2", "listeners.websocket.address": ":3",
		"listeners.websocket.allowed_origins": "*", "certs.extra_names": "pi.lan", "mqtt.host": "127.0.0.1", "mqtt.port": "1", "mqtt.tls_port": "2",
		"ingest.topics": "a", "store.retention": "12h", "store.min_commit_interval": "1s", "store.max_size": "20GB", "store.sql_hourly_keep": "3650d", "backup.every": "1d", "log.level": "debug", "log.format": "json",
		"alerts.discord_webhook_url": "https://discord.example/1", "alerts.quiet_hours": "22:00-07:00", "alerts.after": "1m", "alerts.cooldown": "2h",
		"alerts.repeat": "1d", "alerts.page_url": "https://plants.example", "alerts.heartbeat_url": "https://beat.example/2",
		"ingest.stall_timeout": "11s", "ingest.offline_after": "12m", "limits.connect_timeout": "13s", "limits.max_packet_bytes": "2048",
		"limits.max_queued_bytes_per_account": "100000", "limits.max_queued_bytes": "200000",
		"limits.max_disk_messages_per_account": "2000", "limits.max_disk_bytes_per_account": "2000000",
		"http.address": ":4", "http.registration_address": ":5", "http.base_path": "/plants", "http.trusted_proxies": "10.0.0.0/8",
	}
	var environ []string
	want := map[string]string{}
	for i, s := range settings {
		if len(s.variables()) == 0 {
			continue
		}
		def := Default()
		text, ok := values[s.path]
		switch v := s.value(&def).(type) {
		case bool:
			// The listeners stay on, so that the ports above belong together.
			text = map[bool]string{true: "true", false: "yes"}[v]
			want[s.path] = "true"
		case int:
			if !ok {
				text = string(rune('3'+i%6)) + "0"
			}
			want[s.path] = text
		case Secret:
			if want[s.path] = redacted; !ok {
				text = "words"
			}
		default:
			if !ok {
				text = s.path
			}
			want[s.path] = text
		}
		environ = append(environ, s.variables()[0]+"="+text)
	}
	l, err := Load(write(t, ""), environ, nil)
	require.NoError(t, err)
	for _, v := range l.Values {
		if want[v.Key] == "" {
			continue // it has no variable
		}
		assert.Equal(t, want[v.Key], v.Value, v.Key)
		assert.Equal(t, "PLANTOPS_"+strings.ToUpper(strings.ReplaceAll(v.Key, ".", "_")), v.Source)
	}
}

func TestKeysTellDefaultsAndSecrets(t *testing.T) {
	keys := map[string]Key{}
	for _, k := range Keys() {
		keys[k.Path] = k
	}
	assert.Equal(t, []string{"PLANTOPS_MQTT_BACKEND_PASSWORD", "MQTT_BACKEND_PASSWORD",
		"PLANTOPS_MQTT_BACKEND_PASSWORD_FILE", "MQTT_BACKEND_PASSWORD_FILE"}, keys[passwordKey].Env)
	assert.True(t, keys[passwordKey].Secret)
	assert.Equal(t, "3m", keys["ingest.offline_after"].Default)
	assert.Equal(t, "devices/+/telemetry, devices/+/telemetry/+, devices/+/heartbeat", keys["ingest.topics"].Default)
	assert.Equal(t, []string{"PLANTOPS_LOG_LEVEL", "LOG_LEVEL"}, keys["log.level"].Env)
	for path, unit := range map[string]string{
		"limits.max_packet_bytes": "bytes", "limits.max_queued_bytes_per_account": "bytes", "limits.max_topic_levels": "number",
		"mqtt.tls_port": "port", "ingest.stall_timeout": "duration", "mqtt.use_tls": "yes/no", "ingest.topics": "list",
		"data_dir": "text", passwordKey: "text",
	} {
		assert.Equal(t, unit, keys[path].Unit, path)
	}
}

func TestChangesTellWhatNeedsARestart(t *testing.T) {
	changed := Default()
	changed.Log.Level = "debug"
	changed.Ingest.OfflineAfter = time.Minute
	changed.Ingest.Topics = []string{"devices/+/telemetry"}
	changed.MQTT.BackendPassword = "words"
	live, restart := Changes(Default(), changed)
	assert.Equal(t, []string{"ingest.offline_after", "log.level"}, live)
	assert.Equal(t, []string{"mqtt.backend_password", "ingest.topics"}, restart)

	live, restart = Changes(Default(), Default())
	assert.Empty(t, slices.Concat(live, restart))
}

func TestPathsThatFollowFromOthers(t *testing.T) {
	c := Default()
	c.DataDir = "/srv"
	assert.Equal(t, "/srv/plantops.db", c.StorePath())
	assert.Equal(t, "/srv/certs", c.CertsDir())
	assert.Equal(t, "/srv/plantops.sock", c.SocketPath())
	assert.Empty(t, c.CACertPath(), "no TLS, no authority")

	c.MQTT.UseTLS = true
	assert.Equal(t, "/srv/certs/ca.crt", c.CACertPath(), "embedded: our own")
	c.Certs.Dir = "/tls"
	assert.Equal(t, "/tls/ca.crt", c.CACertPath())
	c.Certs.CACert = "/tls/farm.crt"
	assert.Equal(t, "/tls/farm.crt", c.CACertPath())
	c.MQTT.CACert = "/other.crt"
	assert.Equal(t, "/other.crt", c.CACertPath(), "what is set holds")

	c.MQTT.CACert = ""
	c.Listeners = Listeners{}
	assert.Empty(t, c.CACertPath(), "another broker: the roots of the system")
	c.Store.Path = "/db"
	assert.Equal(t, "/db", c.StorePath())
}

// Validate is also for configurations that were not loaded: it knows no sources.
func TestValidateWithoutSources(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"duration without a unit": {func(c *Config) { c.Ingest.StallTimeout = 30 }, "ingest.stall_timeout: 30ns: must be from 100ms to 1h"},
		"password of bytes":       {func(c *Config) { c.MQTT.BackendPassword = "hunter2\xff" }, "mqtt.backend_password: <redacted>: must be"},
		"topic with NUL":          {func(c *Config) { c.Ingest.Topics = []string{"a\x00b"} }, `ingest.topics: "a\x00b": must be an MQTT topic filter`},
		"very long value":         {func(c *Config) { c.MQTT.Host = strings.Repeat("a", 300) }, strings.Repeat("a", 80) + "…: must be"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := Default()
			test.change(&c)
			err := c.Validate()
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestThisMachineIsKnownByItsNamesAndAddresses(t *testing.T) {
	own, err := os.Hostname()
	require.NoError(t, err)
	short, _, _ := strings.Cut(own, ".")
	hosts := []string{"localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.1.1", "::1", own, short, short + ".local"}
	for _, a := range localAddresses() {
		hosts = append(hosts, a.String())
	}
	for _, host := range hosts {
		assert.True(t, isThisMachine(host, nil), host)
	}
	for _, host := range []string{"broker.example", "192.0.2.1", "local", "0.0.0.0"} {
		assert.False(t, isThisMachine(host, nil), host)
	}
}
