package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key describes one setting for documents and help texts.
type Key struct {
	Path    string   // as in the file, with dots: "mqtt.use_tls"
	Env     []string // variables that set it; for a secret also those that name a file with it (…_FILE)
	Unit    string   // of the value: "bytes", "duration", "port", "number", "yes/no", "list" or "text"
	Default string
	Meaning string
	Secret  bool
}

// Keys returns every setting in the order of the file.
func Keys() []Key {
	def := Default()
	keys := make([]Key, 0, len(settings))
	for _, s := range settings {
		keys = append(keys, Key{
			Path:    s.path,
			Env:     append(s.variables(), s.fileVariables()...),
			Unit:    s.unit(),
			Default: s.text(&def),
			Meaning: s.meaning,
			Secret:  s.secret(),
		})
	}
	return keys
}

// Changes returns the keys in which two configurations differ: those that a
// running process can take over, and those that need a restart.
func Changes(old, new Config) (live, restart []string) {
	for _, s := range settings {
		switch {
		case reflect.DeepEqual(s.field(&old), s.field(&new)):
		case s.live:
			live = append(live, s.path)
		default:
			restart = append(restart, s.path)
		}
	}
	return live, restart
}

// setting is a row of the one table from which variable names, documents,
// parsing and comparison come.
type setting struct {
	path    string
	field   func(*Config) any // pointer to the field; its type says how text is parsed
	meaning string
	legacy  bool   // the old system had it too: mqtt.host is also MQTT_HOST
	old     string // what the old system called it, where that is another name
	live    bool   // can change while the process runs
}

var settings = []setting{
	{path: "data_dir", field: func(c *Config) any { return &c.DataDir }, meaning: "directory of the database, the certificates and the control socket"},

	{path: "listeners.tcp.enabled", field: func(c *Config) any { return &c.Listeners.TCP.Enabled }, meaning: "accept MQTT without encryption"},
	{path: "listeners.tcp.address", field: func(c *Config) any { return &c.Listeners.TCP.Address }, meaning: "host:port of the plain listener; no host means every address"},
	{path: "listeners.tls.enabled", field: func(c *Config) any { return &c.Listeners.TLS.Enabled }, meaning: "accept MQTT over TLS"},
	{path: "listeners.tls.address", field: func(c *Config) any { return &c.Listeners.TLS.Address }, meaning: "host:port of the TLS listener; no host means every address"},
	{path: "listeners.tls.require_certificate", field: func(c *Config) any { return &c.Listeners.TLS.RequireCertificate }, meaning: "TLS clients must show a certificate of our authority"},
	{path: "listeners.websocket.enabled", field: func(c *Config) any { return &c.Listeners.WebSocket.Enabled }, meaning: "accept MQTT over websocket, without encryption"},
	{path: "listeners.websocket.address", field: func(c *Config) any { return &c.Listeners.WebSocket.Address }, meaning: "host:port of the websocket listener; no host means every address"},
	{path: "listeners.websocket.allowed_origins", field: func(c *Config) any { return &c.Listeners.WebSocket.AllowedOrigins }, meaning: "web pages, such as https://farm.example, that may connect beside those of the same host; * means any"},

	{path: "certs.dir", field: func(c *Config) any { return &c.Certs.Dir }, meaning: "directory of the certificate authority; empty means certs in data_dir"},
	{path: "certs.ca_cert", field: func(c *Config) any { return &c.Certs.CACert }, meaning: "certificates of the authorities, the root and those in between; empty means ca.crt in certs.dir"},
	{path: "certs.server_cert", field: func(c *Config) any { return &c.Certs.ServerCert }, meaning: "certificate of the server, others in between may follow; empty means server.crt in certs.dir"},
	{path: "certs.server_key", field: func(c *Config) any { return &c.Certs.ServerKey }, meaning: "key of the server; empty means server.key in certs.dir"},
	{path: "certs.crl", field: func(c *Config) any { return &c.Certs.CRL }, meaning: "revocation list from outside; empty means our own, ca.crl in certs.dir"},
	{path: "certs.extra_names", field: func(c *Config) any { return &c.Certs.ExtraNames }, meaning: "names and addresses in the server certificate beside those of the host"},

	{path: "mqtt.host", field: func(c *Config) any { return &c.MQTT.Host }, legacy: true, meaning: "broker that the subscriber connects to; this machine while a listener is enabled"},
	{path: "mqtt.port", field: func(c *Config) any { return &c.MQTT.Port }, legacy: true, meaning: "its port without TLS; not set, it follows the plain listener"},
	{path: "mqtt.use_tls", field: func(c *Config) any { return &c.MQTT.UseTLS }, legacy: true, meaning: "connect the subscriber over TLS"},
	{path: "mqtt.tls_port", field: func(c *Config) any { return &c.MQTT.TLSPort }, legacy: true, meaning: "its port with TLS; not set, it follows the TLS listener"},
	{path: "mqtt.ca_cert", field: func(c *Config) any { return &c.MQTT.CACert }, legacy: true, meaning: "authority to trust; empty means our own with the embedded broker, else those of the system"},
	{path: "mqtt.client_cert", field: func(c *Config) any { return &c.MQTT.ClientCert }, meaning: "certificate that the subscriber shows; empty means none, or one of its own when the embedded broker requires it"},
	{path: "mqtt.client_key", field: func(c *Config) any { return &c.MQTT.ClientKey }, meaning: "key of mqtt.client_cert"},
	{path: "mqtt.backend_username", field: func(c *Config) any { return &c.MQTT.BackendUsername }, legacy: true, meaning: "user name of the subscriber"},
	{path: "mqtt.backend_password", field: func(c *Config) any { return &c.MQTT.BackendPassword }, legacy: true, meaning: "its password; empty with the embedded broker means a random one, drawn at start"},

	{path: "ingest.topics", field: func(c *Config) any { return &c.Ingest.Topics }, meaning: "topic filters whose messages are stored"},
	{path: "ingest.sources", field: func(c *Config) any { return &c.Ingest.Sources }, meaning: "other people's programs whose messages are stored too, see docs/sources.md; a variable has names of presets"},
	{path: "ingest.max_batch", field: func(c *Config) any { return &c.Ingest.MaxBatch }, meaning: "most messages in one transaction"},
	{path: "ingest.stall_timeout", field: func(c *Config) any { return &c.Ingest.StallTimeout }, meaning: "a sender whose message is not on disk by then is disconnected, so that it sends again"},
	{path: "ingest.offline_after", field: func(c *Config) any { return &c.Ingest.OfflineAfter }, live: true, meaning: "a device not heard from for so long is offline"},

	{path: "bridges", field: func(c *Config) any { return &c.Bridges }, live: true, meaning: "other brokers to which messages go, or from which they come, see below; in the file only"},

	{path: "store.path", field: func(c *Config) any { return &c.Store.Path }, meaning: "database file; empty means plantops.db in data_dir"},
	{path: "store.retention", field: func(c *Config) any { return &c.Store.Retention }, meaning: "how long readings are kept, such as 365d; 0 means for ever"},
	{path: "store.retention_rules", field: func(c *Config) any { return &c.Store.RetentionRules }, meaning: "how long readings of some devices are kept, in place of store.retention, see below; in the file only"},
	{path: "store.max_size", field: func(c *Config) any { return &c.Store.MaxSize }, meaning: "how large the database may become, such as 20GB: above it the oldest readings go; 0 means as large as the disk"},
	{path: "store.min_commit_interval", field: func(c *Config) any { return &c.Store.MinCommitInterval }, meaning: "least time between two commits, such as 1s: spares the card, and acknowledgements come so much later; 0 means as soon as the disk can"},
	{path: "store.sql_hourly", field: func(c *Config) any { return &c.Store.SQLHourly }, meaning: "keep minimum, mean and maximum of each hour in a plain table for other programs, see docs/sql.md"},
	{path: "store.sql_hourly_keep", field: func(c *Config) any { return &c.Store.SQLHourlyKeep }, meaning: "how long those hours are kept when their readings are deleted, such as 3650d; 0 means no longer than the readings"},

	{path: "backup.every", field: func(c *Config) any { return &c.Backup.Every }, meaning: "how often a backup is made by itself, such as 1d; 0 means never"},
	{path: "backup.keep", field: func(c *Config) any { return &c.Backup.Keep }, meaning: "how many of those backups are kept; older ones are removed"},
	{path: "backup.dir", field: func(c *Config) any { return &c.Backup.Dir }, meaning: "folder of those backups, best on another disk; empty means backups in data_dir"},
	{path: "backup.after", field: func(c *Config) any { return &c.Backup.After }, meaning: "command that is run by a shell after each of them, with its path in PLANTOPS_BACKUP; empty means none"},
	{path: "backup.certs", field: func(c *Config) any { return &c.Backup.Certs }, meaning: "put the certificates and their keys into those backups, without which devices do not know a restored server"},

	{path: "http.address", field: func(c *Config) any { return &c.HTTP.Address }, meaning: "host:port of the web page and its API: on the loopback plain, else over TLS, or plain to trusted_proxies; off means none"},
	{path: "http.base_path", field: func(c *Config) any { return &c.HTTP.BasePath }, meaning: "path below which a proxy serves them, such as /plantops"},
	{path: "http.allowed_hosts", field: func(c *Config) any { return &c.HTTP.AllowedHosts }, meaning: "names by which browsers may call this machine, beside localhost, its own names and addresses, and certs.extra_names"},
	{path: "http.trusted_proxies", field: func(c *Config) any { return &c.HTTP.TrustedProxies }, meaning: "addresses and networks of reverse proxies, which end TLS and say for whom they ask"},
	{path: "http.registration_address", field: func(c *Config) any { return &c.HTTP.RegistrationAddress }, meaning: "host:port, such as :8000, where old firmware registers over plain HTTP while a pairing window is open (plantops pair); empty means none"},

	{path: "alerts.channels", field: func(c *Config) any { return &c.Alerts.Channels }, meaning: "where alerts go: ntfy, Discord, Telegram, webhooks, e-mail, MQTT topics, see docs/alerts.md; in the file only"},
	{path: "alerts.discord_webhook_url", field: func(c *Config) any { return &c.Alerts.DiscordWebhook }, old: "DISCORD_WEBHOOK_URL", meaning: "webhook of a Discord channel to which alerts go too; empty means none"},
	{path: "alerts.quiet_hours", field: func(c *Config) any { return &c.Alerts.QuietHours }, meaning: "when nothing is said, such as 22:00-07:00 by the clock of this machine; it is told afterwards in one message. Empty means never"},
	{path: "alerts.after", field: func(c *Config) any { return &c.Alerts.After }, meaning: "how long a threshold must be passed before that is an alert, and kept before it is over"},
	{path: "alerts.cooldown", field: func(c *Config) any { return &c.Alerts.Cooldown }, meaning: "how long after an alert began the next one of the same kind and plant, or device, waits"},
	{path: "alerts.repeat", field: func(c *Config) any { return &c.Alerts.Repeat }, meaning: "how often an alert that nobody acknowledged is said again; 0 means never"},
	{path: "alerts.offline", field: func(c *Config) any { return &c.Alerts.Offline }, meaning: "alert when a device is offline: after ingest.offline_after, and twice its usual interval"},
	{path: "alerts.silent", field: func(c *Config) any { return &c.Alerts.Silent }, meaning: "alert when a device is heard of, and one of its metrics is late by twice its usual interval"},
	{path: "alerts.stuck", field: func(c *Config) any { return &c.Alerts.Stuck }, meaning: "alert when a sensor has had one value for a day or more, while others vary"},
	{path: "alerts.page_url", field: func(c *Config) any { return &c.Alerts.PageURL }, meaning: "address of the web page as a phone reaches it, for the buttons of ntfy; empty means no buttons"},
	{path: "alerts.heartbeat_url", field: func(c *Config) any { return &c.Alerts.HeartbeatURL }, meaning: "address that is called every minute while all is well, so that somebody notices when this machine is gone; empty means none"},

	{path: "limits.max_connections", field: func(c *Config) any { return &c.Limits.MaxConnections }, meaning: "most connections at a time"},
	{path: "limits.max_unauthenticated", field: func(c *Config) any { return &c.Limits.MaxUnauthenticated }, meaning: "most connections at a time that have not logged in yet"},
	{path: "limits.max_unauthenticated_per_address", field: func(c *Config) any { return &c.Limits.MaxUnauthenticatedPerAddress }, meaning: "the same, from one address"},
	{path: "limits.max_connections_per_address", field: func(c *Config) any { return &c.Limits.MaxConnectionsPerAddress }, meaning: "most connections from one address; 0 means no limit"},
	{path: "limits.connect_timeout", field: func(c *Config) any { return &c.Limits.ConnectTimeout }, meaning: "time from the connection to the complete MQTT login"},
	{path: "limits.max_packet_bytes", field: func(c *Config) any { return &c.Limits.MaxPacketBytes }, meaning: "largest MQTT packet"},
	{path: "limits.max_topic_levels", field: func(c *Config) any { return &c.Limits.MaxTopicLevels }, meaning: "most levels in a topic"},
	{path: "limits.max_connections_per_account", field: func(c *Config) any { return &c.Limits.MaxConnectionsPerAccount }, meaning: "most connections of one account; more are refused"},
	{path: "limits.max_sessions_per_account", field: func(c *Config) any { return &c.Limits.MaxSessionsPerAccount }, meaning: "most sessions of one account, those that wait for their client included; new ones above it are refused, none is ended"},
	{path: "limits.max_sessions", field: func(c *Config) any { return &c.Limits.MaxSessions }, meaning: "the same, of all accounts"},
	{path: "limits.max_subscriptions_per_account", field: func(c *Config) any { return &c.Limits.MaxSubscriptionsPerAccount }, meaning: "most subscriptions of one account, a filter of more than 8 levels or 1 KiB counting for several; more are refused"},
	{path: "limits.max_retained_per_account", field: func(c *Config) any { return &c.Limits.MaxRetainedPerAccount }, meaning: "most retained messages of one account; what cannot be kept is refused"},
	{path: "limits.max_queued_bytes_per_account", field: func(c *Config) any { return &c.Limits.MaxQueuedBytesPerAccount }, meaning: "most bytes that wait in memory for the clients of one account; what comes then waits on disk"},
	{path: "limits.max_queued_bytes", field: func(c *Config) any { return &c.Limits.MaxQueuedBytes }, meaning: "the same, of all accounts; 256 KiB may wait for each account all the same"},
	{path: "limits.max_disk_messages_per_account", field: func(c *Config) any { return &c.Limits.MaxDiskMessagesPerAccount }, meaning: "most messages that wait on disk for the clients of one account; above it the session for which most waits is ended"},
	{path: "limits.max_disk_bytes_per_account", field: func(c *Config) any { return &c.Limits.MaxDiskBytesPerAccount }, meaning: "the same in bytes; of all accounts no more waits than half of what the disk has free"},

	{path: "log.level", field: func(c *Config) any { return &c.Log.Level }, legacy: true, live: true, meaning: "debug, info, warn or error"},
	{path: "log.format", field: func(c *Config) any { return &c.Log.Format }, legacy: true, meaning: "text or json"},
}

// find returns the setting with that path.
func find(path string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.path == path })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

// variables returns the environment variables that hold the value, ours first.
func (s setting) variables() []string {
	switch s.field(new(Config)).(type) {
	case *[]Bridge, *[]RetentionRule, *[]AlertChannel:
		return nil // there is too much in one for a line
	}
	old := strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
	if s.legacy {
		return []string{prefix + old, old}
	}
	if s.old != "" {
		return []string{prefix + old, s.old}
	}
	return []string{prefix + old}
}

// fileVariables returns the variables that name a file with the value: for
// secrets only.
func (s setting) fileVariables() []string {
	if !s.secret() {
		return nil
	}
	names := s.variables()
	for i := range names {
		names[i] += "_FILE"
	}
	return names
}

func (s setting) secret() bool {
	_, ok := s.field(new(Config)).(*Secret)
	return ok
}

// unit follows from the type of the field, and for numbers from the name.
func (s setting) unit() string {
	switch s.field(new(Config)).(type) {
	case *bool:
		return "yes/no"
	case *time.Duration:
		return "duration"
	case *Size:
		return "size"
	case *[]string, *[]Source, *[]Bridge, *[]RetentionRule, *[]AlertChannel:
		return "list"
	case *int:
		switch {
		case strings.Contains(s.path, "_bytes"):
			return "bytes"
		case strings.HasSuffix(s.path, "port"):
			return "port"
		}
		return "number"
	default:
		return "text"
	}
}

// value returns what c holds, as the type of the field.
func (s setting) value(c *Config) any {
	return reflect.ValueOf(s.field(c)).Elem().Interface()
}

// text returns what c holds as a person would write it; a secret only says that it is there.
func (s setting) text(c *Config) string {
	switch v := s.value(c).(type) {
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case time.Duration:
		return formatDuration(v)
	case Size:
		return v.String()
	case []string:
		return strings.Join(v, ", ")
	case []Source:
		return sourceNames(v)
	case []Bridge:
		return bridgeNames(v)
	case []RetentionRule:
		return retentionText(v)
	case []AlertChannel:
		return channelNames(v)
	case Secret:
		if v == "" {
			return ""
		}
		return redacted
	default:
		return v.(string)
	}
}
