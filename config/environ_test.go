package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOldAndNewNamesSetTheSameKey(t *testing.T) {
	old := []string{"MQTT_HOST=127.0.0.1", "MQTT_PORT=1883", "MQTT_USE_TLS=true", "MQTT_TLS_PORT=8883", "MQTT_CA_CERT=ca.crt",
		"MQTT_BACKEND_USERNAME=backend", "MQTT_BACKEND_PASSWORD=words", "LOG_LEVEL=debug", "LOG_FORMAT=json"}
	var ours []string
	for _, entry := range old {
		ours = append(ours, "PLANTOPS_"+entry)
	}
	byOld, err := Load(write(t, ""), old, nil)
	require.NoError(t, err)
	byOurs, err := Load(write(t, ""), ours, nil)
	require.NoError(t, err)

	want := Default()
	want.MQTT.Host, want.MQTT.UseTLS, want.MQTT.CACert = "127.0.0.1", true, "ca.crt"
	want.MQTT.BackendUsername, want.MQTT.BackendPassword = "backend", "words"
	want.Log = Log{Level: "debug", Format: "json"}
	assert.Equal(t, want, byOld.Config)
	assert.Equal(t, want, byOurs.Config)
	assert.Empty(t, append(byOld.Warnings, byOurs.Warnings...))
}

func TestAnEmptyVariableIsUnset(t *testing.T) {
	l, err := Load(write(t, "mqtt: {ca_cert: ca.crt}"), []string{"MQTT_CA_CERT=", "PLANTOPS_MQTT_CA_CERT=", "PLANTOPS_NONSENSE=", "MQTT_BACKEND_PASSWORD_FILE="}, nil)
	require.NoError(t, err)
	assert.Equal(t, "ca.crt", l.Config.MQTT.CACert)
	assert.Empty(t, l.Warnings)
}

func TestListsInVariablesAreTrimmed(t *testing.T) {
	l, err := Load(write(t, ""), []string{"PLANTOPS_CERTS_EXTRA_NAMES= pi.lan , 10.0.0.9"}, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"pi.lan", "10.0.0.9"}, l.Config.Certs.ExtraNames)
	assert.Equal(t, "pi.lan, 10.0.0.9", valueOf(t, l, "certs.extra_names").Value)
}

func TestUnknownVariablesOfOursAreWarnings(t *testing.T) {
	l, err := Load(write(t, ""), []string{"PLANTOPS_MQTT_USE_TSL=hunter2", "PLANTOPS_PORT=tcp://10.0.0.1:1", "MQTT_USE_TSL=true", "HOME=/root"}, nil)
	require.NoError(t, err)
	require.Len(t, l.Warnings, 2)
	assert.Equal(t, "PLANTOPS_MQTT_USE_TSL: no setting has this variable; it is ignored; did you mean PLANTOPS_MQTT_USE_TLS?", l.Warnings[0])
	assert.Contains(t, l.Warnings[1], "PLANTOPS_PORT: ")
	assert.NotContains(t, strings.Join(l.Warnings, ""), "hunter2")
}

func TestBadVariables(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	secret, other, empty := file("secret", "hunter2\n"), file("other", "hunter3\n"), file("empty", "\n")
	missing := filepath.Join(dir, "missing")

	tests := map[string]struct {
		env  []string
		want string
	}{
		"boolean":                   {[]string{"MQTT_USE_TLS=maybe"}, "mqtt.use_tls: maybe (MQTT_USE_TLS): must be true or false"},
		"number":                    {[]string{"PLANTOPS_MQTT_TLS_PORT=88x"}, "mqtt.tls_port: 88x (PLANTOPS_MQTT_TLS_PORT): must be a whole number"},
		"duration without a unit":   {[]string{"PLANTOPS_INGEST_STALL_TIMEOUT=30"}, "ingest.stall_timeout: 30 (PLANTOPS_INGEST_STALL_TIMEOUT): a duration needs a unit"},
		"list with an empty item":   {[]string{"PLANTOPS_CERTS_EXTRA_NAMES=a,,b"}, "certs.extra_names: a,,b (PLANTOPS_CERTS_EXTRA_NAMES): has an empty item"},
		"value out of range":        {[]string{"MQTT_TLS_PORT=70000"}, "mqtt.tls_port: 70000 (MQTT_TLS_PORT): must be from 0 to 65535"},
		"invisible characters":      {[]string{"MQTT_HOST=local\u200bhost"}, `mqtt.host: "local\u200bhost" (MQTT_HOST): must be a host name`},
		"old and new name disagree": {[]string{"MQTT_PORT=1883", "PLANTOPS_MQTT_PORT=1884"}, "mqtt.port (MQTT_PORT): is also set by PLANTOPS_MQTT_PORT, differently; unset one of them"},
		"secret and its file": {[]string{"MQTT_BACKEND_PASSWORD=hunter2", "MQTT_BACKEND_PASSWORD_FILE=" + secret},
			"mqtt.backend_password (MQTT_BACKEND_PASSWORD_FILE): is also set by MQTT_BACKEND_PASSWORD"},
		"secret and its file by the other name": {[]string{"MQTT_BACKEND_PASSWORD=hunter2", "PLANTOPS_MQTT_BACKEND_PASSWORD_FILE=" + secret},
			"mqtt.backend_password (PLANTOPS_MQTT_BACKEND_PASSWORD_FILE): is also set by MQTT_BACKEND_PASSWORD"},
		"two secret files": {[]string{"MQTT_BACKEND_PASSWORD_FILE=" + secret, "PLANTOPS_MQTT_BACKEND_PASSWORD_FILE=" + other},
			"mqtt.backend_password (MQTT_BACKEND_PASSWORD_FILE): is also set by PLANTOPS_MQTT_BACKEND_PASSWORD_FILE"},
		"secret file missing":     {[]string{"MQTT_BACKEND_PASSWORD_FILE=" + missing}, "mqtt.backend_password (MQTT_BACKEND_PASSWORD_FILE): open " + missing},
		"secret file a directory": {[]string{"MQTT_BACKEND_PASSWORD_FILE=" + dir}, "mqtt.backend_password (MQTT_BACKEND_PASSWORD_FILE): read " + dir},
		"secret file empty":       {[]string{"MQTT_BACKEND_PASSWORD_FILE=" + empty}, empty + " is empty"},
		"secret with a line end":  {[]string{"MQTT_BACKEND_PASSWORD=hunter2\n"}, "mqtt.backend_password: <redacted> (MQTT_BACKEND_PASSWORD): must be"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, ""), test.env, nil)
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "hunter")
			assert.NotContains(t, err.Error(), "\n", "one mistake, one problem")
		})
	}
}

func TestOldAndNewNameMayAgree(t *testing.T) {
	l, err := Load(write(t, ""), []string{"MQTT_USE_TLS=yes", "PLANTOPS_MQTT_USE_TLS=true"}, nil)
	require.NoError(t, err)
	assert.Equal(t, Value{"mqtt.use_tls", "true", "PLANTOPS_MQTT_USE_TLS"}, valueOf(t, l, "mqtt.use_tls"))
}

func TestASecretComesFromAFile(t *testing.T) {
	for text, want := range map[string]string{"hunter2": "hunter2", "hunter2\n": "hunter2", "hunter2\r\n": "hunter2", " two words ": " two words "} {
		path := filepath.Join(t.TempDir(), "password")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		for _, name := range []string{"MQTT_BACKEND_PASSWORD_FILE", "PLANTOPS_MQTT_BACKEND_PASSWORD_FILE"} {
			l, err := Load(write(t, ""), []string{name + "=" + path}, nil)
			require.NoError(t, err)
			assert.Equal(t, want, l.Config.MQTT.BackendPassword.Reveal())
			assert.Equal(t, Value{passwordKey, redacted, name}, valueOf(t, l, passwordKey))
		}
	}
}
