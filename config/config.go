// Package config turns a YAML file, environment variables and flags into one
// Config that does not change any more.
//
// Loading is strict: what is not known, or does not mean exactly one thing, is
// a problem, and every problem is reported at once with its key, its value,
// where it came from and what would be accepted. Defaults stand in Default and
// nowhere else; names and meanings stand in one table, see Keys.
//
// The package opens no file that a setting names, except files that hold a
// secret: whether a certificate exists or a port is free is for the packages
// that use them.
package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is everything that can be set. It is a plain value: Load returns it
// valid, and nobody changes it afterwards.
type Config struct {
	DataDir   string    `mapstructure:"data_dir"`
	Listeners Listeners `mapstructure:"listeners"`
	Certs     Certs     `mapstructure:"certs"`
	MQTT      MQTT      `mapstructure:"mqtt"`
	Ingest    Ingest    `mapstructure:"ingest"`
	Bridges   []Bridge  `mapstructure:"bridges"`
	Store     Store     `mapstructure:"store"`
	Backup    Backup    `mapstructure:"backup"`
	HTTP      HTTP      `mapstructure:"http"`
	Alerts    Alerts    `mapstructure:"alerts"`
	Limits    Limits    `mapstructure:"limits"`
	Log       Log       `mapstructure:"log"`
}

// Listeners are where the embedded broker takes connections. With all of them disabled
// there is no embedded broker, and ingest serves the broker at mqtt.host.
type Listeners struct {
	TCP       TCPListener       `mapstructure:"tcp"`
	TLS       TLSListener       `mapstructure:"tls"`
	WebSocket WebSocketListener `mapstructure:"websocket"`
}

// TCPListener is MQTT without encryption.
type TCPListener struct {
	Enabled bool   `mapstructure:"enabled"`
	Address string `mapstructure:"address"` // host:port; no host means every address, port 0 any free port
}

// TLSListener is MQTT over TLS.
type TLSListener struct {
	Enabled            bool   `mapstructure:"enabled"`
	Address            string `mapstructure:"address"`
	RequireCertificate bool   `mapstructure:"require_certificate"` // clients must show a certificate of our authority
}

// WebSocketListener is MQTT over websocket, without encryption.
type WebSocketListener struct {
	Enabled        bool     `mapstructure:"enabled"`
	Address        string   `mapstructure:"address"`
	AllowedOrigins []string `mapstructure:"allowed_origins"` // scheme://host[:port], or "*" for any
}

// Certs says where the local certificate authority keeps its files and which
// names the server certificate has beside those the host has by itself.
type Certs struct {
	Dir        string   `mapstructure:"dir"` // "" means certs in the data directory, see Config.CertsDir
	CACert     string   `mapstructure:"ca_cert"`
	ServerCert string   `mapstructure:"server_cert"`
	ServerKey  string   `mapstructure:"server_key"`
	CRL        string   `mapstructure:"crl"`
	ExtraNames []string `mapstructure:"extra_names"`
}

// MQTT says how ingest reaches the broker, the embedded one or another.
type MQTT struct {
	Host            string `mapstructure:"host"`
	Port            int    `mapstructure:"port"`
	UseTLS          bool   `mapstructure:"use_tls"`
	TLSPort         int    `mapstructure:"tls_port"`
	CACert          string `mapstructure:"ca_cert"`
	ClientCert      string `mapstructure:"client_cert"`
	ClientKey       string `mapstructure:"client_key"`
	BackendUsername string `mapstructure:"backend_username"`
	BackendPassword Secret `mapstructure:"backend_password"` // "" with the embedded broker: drawn at start
}

// Ingest says what is subscribed to and how it is written.
type Ingest struct {
	Topics       []string      `mapstructure:"topics"`
	Sources      []Source      `mapstructure:"sources"`
	MaxBatch     int           `mapstructure:"max_batch"` // messages in one transaction
	StallTimeout time.Duration `mapstructure:"stall_timeout"`
	OfflineAfter time.Duration `mapstructure:"offline_after"`
}

// Store says where readings are and how long they stay.
type Store struct {
	Path      string        `mapstructure:"path"`      // "" means plantops.db in the data directory, see Config.StorePath
	Retention time.Duration `mapstructure:"retention"` // 0 means for ever
	// RetentionRules are for some devices in place of Retention: the first that fits counts.
	RetentionRules []RetentionRule `mapstructure:"retention_rules"`

	MaxSize Size `mapstructure:"max_size"` // of the database, what is in use of it; 0 means any

	// MinCommitInterval is the least time between two commits; 0 means that they follow what comes.
	MinCommitInterval time.Duration `mapstructure:"min_commit_interval"`

	SQLHourly     bool          `mapstructure:"sql_hourly"`      // tables of hours for other programs
	SQLHourlyKeep time.Duration `mapstructure:"sql_hourly_keep"` // of hours whose readings are deleted; 0 means as long as readings
}

// Backup says when backups are made by themselves, and where.
type Backup struct {
	Every time.Duration `mapstructure:"every"` // 0 means never
	Keep  int           `mapstructure:"keep"`
	Dir   string        `mapstructure:"dir"`   // "" means backups in the data directory, see Config.BackupDir
	After string        `mapstructure:"after"` // command for a shell; "" means none
	Certs bool          `mapstructure:"certs"` // the certificates and their keys go along
}

// Limits keep one client, or many strangers, from using up the machine.
type Limits struct {
	MaxConnections               int           `mapstructure:"max_connections"`
	MaxUnauthenticated           int           `mapstructure:"max_unauthenticated"`
	MaxUnauthenticatedPerAddress int           `mapstructure:"max_unauthenticated_per_address"`
	MaxConnectionsPerAddress     int           `mapstructure:"max_connections_per_address"` // 0 means no limit
	ConnectTimeout               time.Duration `mapstructure:"connect_timeout"`
	MaxPacketBytes               int           `mapstructure:"max_packet_bytes"`
	MaxTopicLevels               int           `mapstructure:"max_topic_levels"`
	MaxConnectionsPerAccount     int           `mapstructure:"max_connections_per_account"`
	MaxSessionsPerAccount        int           `mapstructure:"max_sessions_per_account"`
	MaxSessions                  int           `mapstructure:"max_sessions"`
	MaxSubscriptionsPerAccount   int           `mapstructure:"max_subscriptions_per_account"`
	MaxRetainedPerAccount        int           `mapstructure:"max_retained_per_account"`
	MaxQueuedBytesPerAccount     int           `mapstructure:"max_queued_bytes_per_account"`
	MaxQueuedBytes               int           `mapstructure:"max_queued_bytes"`
	MaxDiskMessagesPerAccount    int           `mapstructure:"max_disk_messages_per_account"`
	MaxDiskBytesPerAccount       int           `mapstructure:"max_disk_bytes_per_account"`
}

// Log says how much is logged, and how it looks.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn, error
	Format string `mapstructure:"format"` // text, json
}

// Default returns the configuration of a box that was told nothing. It is valid.
func Default() Config {
	return Config{
		DataDir: "./data",
		Listeners: Listeners{
			TCP:       TCPListener{Enabled: true, Address: "127.0.0.1:1883"},
			TLS:       TLSListener{Enabled: true, Address: ":8883"},
			WebSocket: WebSocketListener{Enabled: true, Address: "127.0.0.1:9001", AllowedOrigins: []string{}},
		},
		Certs: Certs{ExtraNames: []string{}},
		MQTT: MQTT{
			Host:            "localhost",
			Port:            1883,
			TLSPort:         8883,
			BackendUsername: "plantops_backend",
		},
		Ingest: Ingest{
			Topics:       []string{"devices/+/telemetry", "devices/+/telemetry/+", "devices/+/heartbeat"},
			Sources:      []Source{},
			MaxBatch:     1000,
			StallTimeout: 10 * time.Second,
			OfflineAfter: 180 * time.Second,
		},
		Bridges: []Bridge{},
		Limits: Limits{
			MaxConnections:               10000,
			MaxUnauthenticated:           500,
			MaxUnauthenticatedPerAddress: 100,
			ConnectTimeout:               30 * time.Second,
			MaxPacketBytes:               256 << 10,
			MaxTopicLevels:               32,
			MaxConnectionsPerAccount:     2000,
			MaxSessionsPerAccount:        2000,
			MaxSessions:                  20000,
			MaxSubscriptionsPerAccount:   10000,
			MaxRetainedPerAccount:        25000,
			MaxQueuedBytesPerAccount:     64 << 20,
			MaxQueuedBytes:               128 << 20,
			MaxDiskMessagesPerAccount:    1_000_000,
			MaxDiskBytesPerAccount:       256 << 20,
		},
		Store:  Store{SQLHourly: true, RetentionRules: []RetentionRule{}},
		Backup: Backup{Keep: 7, Certs: true},
		HTTP:   HTTP{Address: "127.0.0.1:8080", AllowedHosts: []string{}, TrustedProxies: []string{}},
		Alerts: Alerts{Channels: []AlertChannel{}, After: 5 * time.Minute, Cooldown: time.Hour, Offline: true, Silent: true, Stuck: true},
		Log:    Log{Level: "info", Format: "text"},
	}
}

// Embedded reports whether this process is the broker: any listener is enabled.
func (c Config) Embedded() bool {
	return c.Listeners.TCP.Enabled || c.Listeners.TLS.Enabled || c.Listeners.WebSocket.Enabled
}

// IngestTopics is ingest.topics less those of the defaults that limits.max_topic_levels leaves no room for: who lowered that
// before there was telemetry of one metric keeps a configuration that works.
func (c Config) IngestTopics() []string {
	if !c.Embedded() || !slices.Equal(c.Ingest.Topics, Default().Ingest.Topics) {
		return c.Ingest.Topics
	}
	return slices.DeleteFunc(slices.Clone(c.Ingest.Topics), func(topic string) bool {
		return strings.Count(topic, "/") >= max(c.Limits.MaxTopicLevels, leastLevels)
	})
}

// StorePath returns the path of the database.
func (c Config) StorePath() string {
	if c.Store.Path != "" {
		return c.Store.Path
	}
	return filepath.Join(c.DataDir, "plantops.db")
}

// BackupDir returns the folder of backups that are made by themselves.
func (c Config) BackupDir() string {
	if c.Backup.Dir != "" {
		return c.Backup.Dir
	}
	return filepath.Join(c.DataDir, "backups")
}

// CertsDir returns the directory of the certificate authority.
func (c Config) CertsDir() string {
	if c.Certs.Dir != "" {
		return c.Certs.Dir
	}
	return filepath.Join(c.DataDir, "certs")
}

// CACertPath returns the file with the authority that the subscriber trusts:
// mqtt.ca_cert, else our own when the broker is embedded and TLS is on.
// "" means the roots of the system.
func (c Config) CACertPath() string {
	switch {
	case c.MQTT.CACert != "":
		return c.MQTT.CACert
	case !c.Embedded() || !c.MQTT.UseTLS:
		return ""
	case c.Certs.CACert != "":
		return c.Certs.CACert
	}
	return filepath.Join(c.CertsDir(), "ca.crt")
}

// SocketPath returns the path of the control socket.
func (c Config) SocketPath() string {
	return filepath.Join(c.DataDir, "plantops.sock")
}
