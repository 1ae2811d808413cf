package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBridgesFromTheFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte("from a file\n"), 0o600))
	path := write(t, `
bridges:
  - name: cloud
    address: mqtt.example.org:8883
    ca_cert: /etc/ca.pem
    client_cert: /etc/box.pem
    client_key: /etc/box.key
    alpn: x-amzn-mqtt-ca
    client_id: box-1
    version: 5
    keepalive: 2m
    session_expiry: 1d
    topics:
      - {filter: devices/+/telemetry, qos: 2, remote_prefix: farm/}
      - {filter: orders/#, direction: in, local_prefix: cloud/, remote_prefix: ""}
  - name: attic
    address: 192.168.1.9:1883
    tls: no
    username: box
    password_file: `+secret+`
    topics: [{filter: "#", direction: both, qos: 0, local_prefix: attic/}]
`)
	loaded, err := Load(path, nil, nil)
	require.NoError(t, err)
	assert.Equal(t, []Bridge{
		{Name: "cloud", Address: "mqtt.example.org:8883", TLS: true, CACert: "/etc/ca.pem", ClientCert: "/etc/box.pem", ClientKey: "/etc/box.key",
			ALPN: "x-amzn-mqtt-ca", ClientID: "box-1", Version: "5", Keepalive: 2 * time.Minute, SessionExpiry: 24 * time.Hour,
			Topics: []BridgeTopic{{Filter: "devices/+/telemetry", Direction: "out", QoS: 2, RemotePrefix: "farm/"},
				{Filter: "orders/#", Direction: "in", QoS: 1, LocalPrefix: "cloud/"}}},
		{Name: "attic", Address: "192.168.1.9:1883", Username: "box", Password: "from a file", PasswordFile: secret, Version: "5",
			Keepalive: time.Minute, SessionExpiry: 7 * 24 * time.Hour,
			Topics: []BridgeTopic{{Filter: "#", Direction: "both", LocalPrefix: "attic/"}}},
	}, loaded.Config.Bridges)
	assert.Equal(t, "cloud, attic", loaded.value("bridges").Value)
	assert.Equal(t, path+":3", strings.Replace(loaded.source("bridges"), ":2", ":3", 1))
	assert.Len(t, loaded.Warnings, 1)
	assert.Contains(t, loaded.Warnings[0], "attic sends its password without encryption")
}

// good is a bridge without its name; what is added to it is what is wrong.
const good = "address: mqtt.example.org:8883, topics: [{filter: a/#}]"

func TestBridgesThatAreNotWrittenRight(t *testing.T) {
	for text, says := range map[string]string{
		"cloud":                       "bridges (PATH:1): must be a list",
		"[cloud]":                     "bridges[0] (PATH:1): must have keys such as name, address and topics",
		"[{" + good + "}]":            "bridges[0].name (PATH:1): must be a name of at most 32 letters",
		"[{name: a b, " + good + "}]": `bridges[0].name: "a b" (PATH:1): must be a name`,
		"[{name: a, " + good + "}, {name: a, " + good + "}]":                                  "bridges[1].name: a (PATH:1): is the name of another bridge",
		"[{name: a, " + good + ", client_id: x}, {name: b, " + good + ", client_id: x}]":      "bridges[1].client_id: x (PATH:1): is that of another bridge",
		"[{name: a, topics: [{filter: a}]}]":                                                  "bridges[0].address (PATH:1): must be host:port",
		"[{name: a, address: example.org, topics: [{filter: a}]}]":                            "bridges[0].address: example.org (PATH:1): must be host:port",
		"[{name: a, address: 'localhost:1883', tls: false, topics: [{filter: a}]}]":           "is this broker itself",
		"[{name: a, address: 'b:1'}]":                                                         "bridges[0].topics (PATH:1): must have at least one item",
		"[{name: a, " + good + ", tls: maybe}]":                                               "tls must be true or false",
		"[{name: a, " + good + ", tls: false, alpn: mqtt}]":                                   "bridges[0].alpn: mqtt (PATH:1): is for TLS only",
		"[{name: a, " + good + ", client_cert: x}]":                                           "bridges[0].client_key (PATH:1): client_cert and client_key go together",
		"[{name: a, " + good + ", version: 3.1.1}]":                                           "bridges[0].version: 3.1.1 (PATH:1): must be 5: bridges speak MQTT 5 only",
		"[{name: a, " + good + ", version: 4}]":                                               "must be 5",
		"[{name: a, " + good + ", keepalive: 60}]":                                            "keepalive a duration needs a unit",
		"[{name: a, " + good + ", keepalive: 1s}]":                                            "bridges[0].keepalive: 1s (PATH:1): must be from 5s",
		"[{name: a, " + good + ", session_expiry: 365d}]":                                     "bridges[0].session_expiry: 365d (PATH:1): must be from 1m to 30d",
		"[{name: a, " + good + ", password: x, password_file: y}]":                            "has both password and password_file",
		"[{name: a, " + good + ", password_file: /nowhere/x}]":                                "password_file: open /nowhere/x",
		"[{name: a, " + good + ", password: 123456}]":                                         "bridges[0]: <redacted> (PATH:1): password is not text to YAML",
		"[{name: a, " + good + ", adress: b}]":                                                "an item has no adress; did you mean address?",
		"[{name: a, address: 'b:1', topics: [{filter: a, qos: 3}]}]":                          "bridges[0].topics[0].qos: 3 (PATH:1): must be 0, 1 or 2",
		"[{name: a, address: 'b:1', topics: [{filter: a, qos: one}]}]":                        "bridges[0].topics[0]: one (PATH:1): qos must be a whole number",
		"[{name: a, address: 'b:1', topics: [{filter: a, direction: up}]}]":                   "bridges[0].topics[0].direction: up (PATH:1): must be out",
		"[{name: a, address: 'b:1', topics: [{direction: out}]}]":                             "bridges[0].topics[0].filter (PATH:1): must be a topic filter",
		"[{name: a, address: 'b:1', topics: [{filter: a}, {filter: 'b/#/c'}]}]":               "bridges[0].topics[1].filter: b/#/c (PATH:1): b/#/c must be an MQTT topic filter: # must be the last level",
		"[{name: a, address: 'b:1', topics: [{filter: '#', local_prefix: x}]}]":               "bridges[0].topics[0].local_prefix: x (PATH:1): x# must be an MQTT topic filter",
		"[{name: a, address: 'b:1', topics: [{filter: a, remote_prefix: 'x/+/'}]}]":           "must have no + and no #",
		"[{name: a, address: 'b:1', topics: [{filter: $share/g/a}]}]":                         "must not be a shared subscription",
		"[{name: a, address: 'b:1', topics: [{filter: $SYS/#, direction: in}]}]":              "must not begin with $",
		"[{name: a, address: 'b:1', topics: [{filter: a}, {filter: a}]}]":                     "bridges[0].topics[1].filter: a (PATH:1): is there twice",
		"[{name: a, address: 'b:1', topics: [{filter: a/" + strings.Repeat("b/", 32) + "}]}]": "it has too many levels",
		"[{name: a, address: 'b:1', topics: [{filter: a, alias: b}]}]":                        "an item has no alias",
	} {
		path := write(t, "bridges: "+text+"\n")
		_, err := Load(path, nil, nil)
		assert.ErrorContains(t, err, strings.ReplaceAll(says, "PATH", path), "%s", text)
	}
}

func TestAllThatIsWrongWithBridgesIsSaidAtOnce(t *testing.T) {
	_, err := Load(write(t, `
listeners: {tcp: {enabled: false}, tls: {enabled: false}, websocket: {enabled: false}}
mqtt: {host: broker}
bridges:
  - name: one
    address: nowhere
    version: 3
    topics: [{filter: a, qos: 7}]
  - name: two
    adress: b:1
  - name: three
`), nil, nil)
	for _, says := range []string{"a bridge is between the embedded broker", "bridges[0].address", "bridges[0].version", "bridges[0].topics[0].qos",
		"bridges[1]", "bridges[2].address", "bridges[2].topics"} {
		assert.ErrorContains(t, err, says)
	}
}

func TestBridgesThatMayGoInCirclesAreSaid(t *testing.T) {
	for topics, odd := range map[string]bool{
		"[{filter: '#', direction: both}]":                                        true,
		"[{filter: '#', direction: in}, {filter: '#', direction: out}]":           true,
		"[{filter: '#', direction: both, remote_prefix: box/}]":                   false,
		"[{filter: '#', direction: out}]":                                         false,
		"[{filter: 'devices/#', direction: both}, {filter: '#', direction: out}]": false,
	} {
		loaded, err := Load(write(t, "bridges: [{name: a, address: 'b:1', topics: "+topics+"}]\n"), nil, nil)
		require.NoError(t, err)
		assert.Equal(t, odd, len(loaded.Warnings) > 0, topics)
	}
}
