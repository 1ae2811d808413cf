package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/broker/topic"
)

const passwordKey = "mqtt.backend_password"

// Validate returns every problem with the values, one a line, or nil. Load has
// called it for what it returns.
func (c Config) Validate() error { return join(c.problems()) }

func (c Config) problems() []problem {
	v := &validator{config: &c}
	v.files()
	v.listeners()
	v.http()
	v.certs()
	v.mqtt()
	v.ingest()
	v.bridges()
	v.alerts()
	v.numbers()
	v.oneOf("log.level", "debug", "info", "warn", "error")
	v.oneOf("log.format", "text", "json")
	return v.problems
}

// validator collects problems with one configuration.
type validator struct {
	config   *Config
	problems []problem
}

// refuse adds a problem with the value of a key.
func (v *validator) refuse(key, remedy string, args ...any) {
	s, _ := find(key)
	v.problems = append(v.problems, problem{key: key, value: s.shown(s.text(v.config)), remedy: fmt.Sprintf(remedy, args...)})
}

// refuseItem adds a problem with one item of a list.
func (v *validator) refuseItem(key, item, remedy string) {
	v.problems = append(v.problems, problem{key: key, value: shown(item), remedy: remedy})
}

func (v *validator) oneOf(key string, words ...string) {
	s, _ := find(key)
	if !slices.Contains(words, s.text(v.config)) {
		v.refuse(key, "must be one of %s", strings.Join(words, ", "))
	}
}

// files checks the paths: not whether a file is there, which is for its user.
func (v *validator) files() {
	if v.config.DataDir == "" {
		v.refuse("data_dir", "must name a directory, for example ./data")
	}
	for _, key := range []string{"data_dir", "store.path", "certs.dir", "certs.ca_cert", "certs.server_cert", "certs.server_key", "certs.crl",
		"mqtt.ca_cert", "mqtt.client_cert", "mqtt.client_key", "backup.dir"} {
		if s, _ := find(key); !printable(s.text(v.config)) {
			v.refuse(key, "must be a path without control characters")
		}
	}
}

func (v *validator) listeners() {
	l := v.config.Listeners
	sockets := []struct {
		section string
		enabled bool
		address string
	}{
		{"listeners.tcp", l.TCP.Enabled, l.TCP.Address},
		{"listeners.tls", l.TLS.Enabled, l.TLS.Address},
		{"listeners.websocket", l.WebSocket.Enabled, l.WebSocket.Address},
	}
	for i, d := range sockets {
		if d.address == "" && !d.enabled {
			continue
		}
		if !validAddress(d.address) {
			v.refuse(d.section+".address", "must be host:port with a port from 0 to 65535, for example 127.0.0.1:1883 or :8883")
			continue
		}
		for _, other := range sockets[:i] {
			if d.enabled && other.enabled && collide(d.address, other.address) {
				v.refuse(d.section+".address", "is taken by %s; give each listener its own port", other.section)
			}
		}
	}
	for _, origin := range l.WebSocket.AllowedOrigins {
		if !validOrigin(origin) {
			v.refuseItem("listeners.websocket.allowed_origins", origin, "must be scheme://host or scheme://host:port with http or https, or *")
		}
	}
}

// openDoors returns a warning for each listener that other machines can use without the certificate that they would have
// to show over TLS.
func (c Config) openDoors() []string {
	l := c.Listeners
	var warnings []string
	warn := func(key, address string, enabled bool) {
		if enabled && l.TLS.Enabled && l.TLS.RequireCertificate && !isLoopback(address) {
			warnings = append(warnings, fmt.Sprintf("%s: %s is open to other machines, and no certificate is asked for there: "+
				"listeners.tls.require_certificate is for the TLS listener only", key, shown(address)))
		}
	}
	warn("listeners.tcp.address", l.TCP.Address, l.TCP.Enabled)
	warn("listeners.websocket.address", l.WebSocket.Address, l.WebSocket.Enabled)
	return warnings
}

func (v *validator) certs() {
	c := v.config.Certs
	if (c.ServerCert == "") != (c.ServerKey == "") {
		v.refuse(missing(c.ServerCert, "certs.server_cert", "certs.server_key"), "certs.server_cert and certs.server_key go together; set both or none")
	}
	for _, name := range c.ExtraNames {
		if !validCertName(name) {
			v.refuseItem("certs.extra_names", name, "must be a host name or an IP address, without a scheme or a port")
		}
	}
}

func (v *validator) mqtt() {
	c, m := v.config, v.config.MQTT
	if (m.ClientCert == "") != (m.ClientKey == "") {
		v.refuse(missing(m.ClientCert, "mqtt.client_cert", "mqtt.client_key"), "mqtt.client_cert and mqtt.client_key go together; set both or none")
	}
	for _, key := range []string{"mqtt.backend_username", passwordKey} {
		s, _ := find(key)
		text := m.BackendUsername
		if s.secret() {
			text = m.BackendPassword.Reveal()
		}
		if !printable(text) || len(text) > 65535 {
			v.refuse(key, "must be at most 65535 bytes of text, without line ends and other control characters")
		}
	}
	if !validHost(m.Host) {
		v.refuse("mqtt.host", "must be a host name or an IP address, without a scheme or a port")
		return
	}
	if c.Embedded() {
		v.embedded()
		return
	}
	v.between("mqtt.port", 1, 65535)
	v.between("mqtt.tls_port", 1, 65535)
}

// embedded checks what must fit together when the subscriber's broker is ours.
func (v *validator) embedded() {
	l, m := v.config.Listeners, v.config.MQTT
	// 0 follows the listener, as not set does.
	v.between("mqtt.port", 0, 65535)
	v.between("mqtt.tls_port", 0, 65535)
	if m.BackendUsername == "" || strings.ContainsAny(m.BackendUsername, "+#/$") {
		v.refuse("mqtt.backend_username", "must be a name without + # / $, which mean something in topics")
	}
	if !isThisMachine(m.Host, v.config.Certs.ExtraNames) {
		v.refuse("mqtt.host", "is not this machine, but a listener is enabled; use localhost, add the name to certs.extra_names, or disable all listeners to serve another broker")
	}
	switch {
	case m.UseTLS && !l.TLS.Enabled:
		v.refuse("mqtt.use_tls", "but listeners.tls is disabled; enable it, or set mqtt.use_tls to false")
	case !m.UseTLS && !l.TCP.Enabled:
		v.refuse("mqtt.use_tls", "but listeners.tcp is disabled; enable it, or set mqtt.use_tls to true")
	case m.UseTLS && !reaches(m.Host, l.TLS.Address):
		v.refuse("mqtt.host", "does not lead to listeners.tls.address %s; use the same address for both", shown(l.TLS.Address))
	case !m.UseTLS && !reaches(m.Host, l.TCP.Address):
		v.refuse("mqtt.host", "does not lead to listeners.tcp.address %s; use the same address for both", shown(l.TCP.Address))
	}
}

func (v *validator) ingest() {
	topics := v.config.IngestTopics()
	if len(topics) == 0 {
		v.refuse("ingest.topics", "must have at least one topic filter, for example devices/+/telemetry")
	}
	taken := topic.Filters{NoControl: true}
	if v.config.Embedded() {
		taken.MaxLevels = max(v.config.Limits.MaxTopicLevels, leastLevels)
	}
	for i, t := range topics {
		switch fault := taken.Fault(t); {
		case fault == topic.FaultLevels:
			v.refuseItem("ingest.topics", t, "has more levels than limits.max_topic_levels")
		case fault != topic.Faultless:
			v.refuseItem("ingest.topics", t, fmt.Sprintf("must be an MQTT topic filter: + stands for a whole level, # for the last ones, for example devices/+/telemetry; %s", fault))
		case slices.Contains(topics[:i], t):
			v.refuseItem("ingest.topics", t, "is there twice; remove one")
		}
	}
}

const (
	day         = 24 * time.Hour
	leastLevels = 3 // devices/ID/telemetry
)

// numbers checks the least and the most. The least durations catch a value
// that was meant in another unit.
func (v *validator) numbers() {
	v.between("ingest.max_batch", 1, 100_000)
	v.within("ingest.stall_timeout", 100*time.Millisecond, time.Hour)
	v.within("ingest.offline_after", time.Second, 365*day)
	if v.config.Store.Retention != 0 {
		v.within("store.retention", time.Hour, 100*365*day)
	}
	v.retentionRules()
	if least := v.config.Store.MinCommitInterval; least != 0 {
		v.within("store.min_commit_interval", time.Millisecond, time.Minute)
		if stall := v.config.Ingest.StallTimeout; least <= time.Minute && least > stall/commitShare {
			v.refuse("store.min_commit_interval", "must be a quarter of ingest.stall_timeout (%s) at most, or devices are disconnected before their messages are stored: "+
				"lower it, or raise ingest.stall_timeout to %s", formatDuration(stall), formatDuration(commitShare*least))
		}
	}
	if v.config.Store.SQLHourlyKeep != 0 {
		v.within("store.sql_hourly_keep", time.Hour, 100*365*day)
	}
	if n := v.config.Store.MaxSize; n != 0 && n < leastSize {
		v.refuse("store.max_size", "must be 0 (as large as the disk) or at least %s", leastSize)
	}
	if v.config.Backup.Every != 0 {
		v.within("backup.every", time.Hour, 365*day)
	}
	v.between("backup.keep", 1, 10_000)
	if strings.ContainsRune(v.config.Backup.After, 0) {
		v.refuse("backup.after", "must be a command without a zero byte")
	}
	v.between("limits.max_connections", 1, 1_000_000)
	v.between("limits.max_unauthenticated", 1, 1_000_000)
	v.between("limits.max_unauthenticated_per_address", 1, 1_000_000)
	v.between("limits.max_connections_per_address", 0, 1_000_000)
	v.within("limits.connect_timeout", 100*time.Millisecond, 10*time.Minute)
	v.between("limits.max_packet_bytes", 1024, 268_435_455) // the most that MQTT can write [MQTT 5, 1.5.5]
	v.between("limits.max_topic_levels", leastLevels, 1000)
	for _, key := range []string{"max_connections_per_account", "max_sessions_per_account", "max_sessions", "max_subscriptions_per_account",
		"max_retained_per_account"} {
		v.between("limits."+key, 1, 1_000_000)
	}
	v.between("limits.max_queued_bytes_per_account", 64<<10, 1<<30)
	v.between("limits.max_queued_bytes", 64<<10, 1<<30)
	v.between("limits.max_disk_messages_per_account", 1000, 100_000_000)
	v.between("limits.max_disk_bytes_per_account", 1<<20, 1<<30)
}

// commitShare is the share of ingest.stall_timeout, one in so many, that store.min_commit_interval is at most: a message may wait for
// two commits, and those take time too.
const commitShare = 4

// leastSize is what a database needs to be of use: the journal and the broker's state have some 30 MB of it at times.
const leastSize Size = 100e6

func (v *validator) between(key string, least, most int) {
	s, _ := find(key)
	if n := s.value(v.config).(int); n < least || n > most {
		v.refuse(key, "must be from %d to %d", least, most)
	}
}

func (v *validator) within(key string, least, most time.Duration) {
	s, _ := find(key)
	if d := s.value(v.config).(time.Duration); d < least || d > most {
		zero := ""
		switch key {
		case "store.retention":
			zero = "0 (for ever) or "
		case "store.sql_hourly_keep":
			zero = "0 (as long as readings) or "
		case "store.min_commit_interval":
			zero = "0 (as soon as the disk can) or "
		case "backup.every", "alerts.repeat":
			zero = "0 (never) or "
		}
		v.refuse(key, "must be %sfrom %s to %s", zero, formatDuration(least), formatDuration(most))
	}
}

// missing returns the key whose value is not there.
func missing(value, key, other string) string {
	if value == "" {
		return key
	}
	return other
}

// printable reports whether text is valid and has no control characters.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
