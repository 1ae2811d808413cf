package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/cmd/plantops/alerting"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/keep"
)

// This file turns the configuration into the options of the other packages, and checks what none of
// them can see alone.

// ingestClientID is the MQTT client id of the subscriber. The embedded broker keeps it for that alone.
const ingestClientID = "plantops-ingest"

func storeOptions(cfg config.Config, now func() time.Time, log *slog.Logger) store.Options {
	return store.Options{Path: cfg.StorePath(), MinCommitInterval: cfg.Store.MinCommitInterval, FullBatch: cfg.Ingest.MaxBatch, Now: now, Log: log}
}

func certsOptions(cfg config.Config, now func() time.Time, built time.Time, log *slog.Logger) certs.Options {
	return certs.Options{
		Dir:            cfg.CertsDir(),
		CACert:         cfg.Certs.CACert,
		ServerCert:     cfg.Certs.ServerCert,
		ServerKey:      cfg.Certs.ServerKey,
		CRL:            cfg.Certs.CRL,
		ExtraNames:     cfg.Certs.ExtraNames,
		Now:            now,
		NotBeforeClock: built,
		Log:            log,
	}
}

// wiring is what the options of the broker, the subscriber and its TLS are made of. serve fills it in while it starts
// the parts.
type wiring struct {
	loaded config.Loaded
	now    func() time.Time
	built  time.Time   // no correct clock shows less
	clock  *timekeeper // nil until the store is open
	log    *slog.Logger

	sources   *source.Set // of ingest.sources; nil: none
	store     *store.Store
	authority *certs.Authority // nil without a TLS listener
	password  string           // of the subscriber
	port      int              // that the subscriber connects to
	tls       *tls.Config      // of the subscriber; nil without TLS
	box       string           // names this process in what bridges carry
}

func brokerOptions(w wiring) broker.Options {
	cfg, l := w.loaded.Config, w.loaded.Config.Listeners
	o := broker.Options{
		AllowedOrigins:     l.WebSocket.AllowedOrigins,
		RequireCertificate: l.TLS.RequireCertificate,
		Accounts:           accounts{w.store},
		Backend: broker.Backend{Username: cfg.MQTT.BackendUsername, Password: w.password, ClientID: ingestClientID,
			ClientIDPrefix: bridge.ClientIDPrefix},
		IngestTopics: cfg.IngestTopics(),
		SourceTopics: w.sources.Filters(),
		StallTimeout: cfg.Ingest.StallTimeout,
		Limits:       broker.Limits(cfg.Limits),
		Name:         broker.Name{Key: bridge.HopProperty, Value: w.box},
		Refused:      func(device, reason string) { w.store.AddRefused(device, reason, 1) },
		Storage:      w.store,
		Exhausted:    w.store.Hasten,
		FreeBytes:    freeBytes(w),
		Log:          w.log,
		Now:          w.now,
	}
	if w.clock != nil {
		o.Unsure = w.clock.Unsure
	}
	if l.TCP.Enabled {
		o.TCP = l.TCP.Address
	}
	if l.TLS.Enabled {
		o.TLS, o.TLSConfig = l.TLS.Address, w.authority.ServerTLS(l.TLS.RequireCertificate)
		o.Revoked = w.authority.Revoked
	}
	if l.WebSocket.Enabled {
		o.WebSocket = l.WebSocket.Address
	}
	return o
}

// freeBytes asks what the file system of the database has left. When it cannot tell, that is no reason to end a session.
func freeBytes(w wiring) func() int64 {
	return func() int64 {
		space, err := w.store.Space()
		if err != nil {
			return math.MaxInt64 / 4
		}
		return space.FreeBytes
	}
}

func ingestOptions(w wiring) ingest.Options {
	cfg := w.loaded.Config
	o := ingest.Options{
		Host:       cfg.MQTT.Host,
		Port:       w.port,
		TLS:        w.tls,
		Username:   cfg.MQTT.BackendUsername,
		Password:   w.password,
		ClientID:   ingestClientID,
		Topics:     subscribedTopics(cfg, w.sources),
		Sources:    w.sources,
		ProbeTopic: probeTopic(cfg),
		MaxBatch:   cfg.Ingest.MaxBatch,
		Gather:     w.store.Gather,
		// What the embedded broker takes from a device comes with a few bytes more.
		MaxPacketBytes: 2 * cfg.Limits.MaxPacketBytes,
		StallTimeout:   cfg.Ingest.StallTimeout,
		Embedded:       cfg.Embedded(),
		Look:           w.clock.look,
		Now:            w.now,
		Log:            w.log,
	}
	if w.tls != nil && cfg.Embedded() {
		o.Roots = w.authority.Follow(w.tls.RootCAs)
	}
	return o
}

// bridgeOptions are those of all bridges. Files that a bridge names are read for each connection.
func bridgeOptions(w wiring, cfg config.Config) []bridge.Options {
	m, limits := w.loaded.Config.MQTT, w.loaded.Config.Limits
	here := bridge.Broker{Name: "local broker", Address: hostPort(m.Host, w.port), Username: m.BackendUsername, Password: w.password,
		MaxPacketBytes: 2 * limits.MaxPacketBytes, MaxLevels: limits.MaxTopicLevels}
	if w.tls != nil {
		roots := w.authority.Follow(w.tls.RootCAs)
		here.TLS = func() (*tls.Config, error) {
			now := w.tls.Clone()
			now.RootCAs = roots()
			return now, nil
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "box"
	}
	var all []bridge.Options
	for i, b := range cfg.Bridges {
		o := bridge.Options{Name: b.Name, Local: here, Box: w.box, SessionExpiry: b.SessionExpiry, KeepAlive: b.Keepalive,
			Patience: w.loaded.Config.Ingest.StallTimeout, Log: w.log, Now: w.now,
			Remote: bridge.Broker{Name: "remote broker", Address: b.Address, Username: b.Username, Password: b.Password.Reveal(),
				ClientID: cmp.Or(b.ClientID, "plantops-"+host+"-"+b.Name), MaxPacketBytes: limits.MaxPacketBytes}}
		o.Local.ClientID = bridge.ClientIDPrefix + b.Name
		if b.TLS {
			o.Remote.TLS = func() (*tls.Config, error) {
				return bridgeTLS(config.Loaded{Config: cfg}, i, tlsClock(w.now, w.built, nil))
			}
		}
		for _, t := range b.Topics {
			r := bridge.Route{Filter: t.Filter, QoS: byte(t.QoS), LocalPrefix: t.LocalPrefix, RemotePrefix: t.RemotePrefix}
			if t.Out() {
				r.Direction |= bridge.Out
			}
			if t.In() {
				r.Direction |= bridge.In
			}
			o.Routes = append(o.Routes, r)
		}
		all = append(all, o)
	}
	return all
}

// bridgeTLS reads what a bridge trusts and shows. What is wrong is a problem of its settings.
func bridgeTLS(loaded config.Loaded, i int, clock func() time.Time) (*tls.Config, error) {
	b := loaded.Config.Bridges[i]
	at := fmt.Sprintf("bridges[%d].", i)
	c := &tls.Config{MinVersion: tls.VersionTLS12, Time: clock}
	var err error
	if b.CACert != "" {
		if c.RootCAs, err = certs.LoadRoots(b.CACert, time.Time{}); err != nil {
			return nil, loaded.Problem(at+"ca_cert", err.Error())
		}
	}
	if b.ClientCert != "" {
		pair, err := certs.LoadClient(b.ClientCert, b.ClientKey)
		if err != nil {
			return nil, loaded.Problem(at+"client_cert", err.Error())
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if b.ALPN != "" {
		c.NextProtos = []string{b.ALPN}
	}
	return c, nil
}

// checkBridges finds files of bridges that cannot be used.
func checkBridges(loaded config.Loaded) error {
	var errs []error
	for i, b := range loaded.Config.Bridges {
		if b.TLS {
			_, err := bridgeTLS(loaded, i, nil)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// applyBridges makes the bridges of cfg those that run. Of those that are no more, nothing waits here any longer.
func applyBridges(w wiring, group *bridge.Group, br *broker.Broker, before, cfg config.Config) error {
	named := func(list []config.Bridge, name string) int {
		return slices.IndexFunc(list, func(b config.Bridge) bool { return b.Name == name })
	}
	same := func(name string) bool {
		i, j := named(before.Bridges, name), named(cfg.Bridges, name)
		return i >= 0 && i == j && reflect.DeepEqual(before.Bridges[i], cfg.Bridges[j])
	}
	if err := group.Apply(bridgeOptions(w, cfg), same); err != nil {
		return err
	}
	keep := func(id string) bool { return named(cfg.Bridges, strings.TrimPrefix(id, bridge.ClientIDPrefix)) >= 0 }
	if n := br.EndSessions(keep); n > 0 {
		w.log.Info("what waited for bridges that are no more is gone", "count", n)
	}
	return nil
}

// compileSources returns what ingest.sources says; nil when it has none.
func compileSources(loaded config.Loaded) (*source.Set, error) {
	list := loaded.Config.Ingest.Sources
	if len(list) == 0 {
		return nil, nil
	}
	configs := make([]source.Config, len(list))
	for i, s := range list {
		configs[i] = source.Config{Preset: s.Preset, Name: s.Name, Base: s.Base, Topic: s.Topic, Availability: s.Availability,
			Device: s.Device, Value: s.Value, Time: s.Time}
		for _, f := range s.Fields {
			configs[i].Fields = append(configs[i].Fields, source.Field{From: f.From, To: f.To, Scale: f.Scale, Offset: f.Offset, Unit: f.Unit})
		}
	}
	set, err := source.Compile(configs)
	if err != nil {
		return nil, control.KindOf(errConfig, loaded.Problem("ingest.sources", err.Error()))
	}
	return set, nil
}

// subscribedTopics are all filters whose messages ingest gets.
func subscribedTopics(cfg config.Config, sources *source.Set) []string {
	topics := slices.Clone(cfg.IngestTopics())
	for _, filter := range sources.Filters() {
		if !slices.ContainsFunc(topics, func(there string) bool { return topic.Covers(there, filter) }) {
			topics = append(topics, filter)
		}
	}
	return topics
}

// checkTopics finds topics that would be subscribed and not understood, and sources that cannot be subscribed.
func checkTopics(loaded config.Loaded) error {
	sources, err := compileSources(loaded)
	if err != nil {
		return err
	}
	cfg := loaded.Config
	var errs []error
	for _, filter := range cfg.IngestTopics() {
		bare, _ := topic.Unshare(filter) // config has checked it
		ours := slices.ContainsFunc(ingest.DeviceTopics(), func(of string) bool { return topic.Overlap(of, bare) })
		if !ours && !sources.Understands(bare) {
			errs = append(errs, loaded.Problem("ingest.topics", fmt.Sprintf("nothing understands %s: what comes there would go to quarantine; "+
				"say in ingest.sources what it is (docs/sources.md), or remove it", filter)))
		}
	}
	for _, filter := range sources.Filters() {
		if levels := topic.Levels(filter); cfg.Embedded() && levels > cfg.Limits.MaxTopicLevels {
			errs = append(errs, loaded.Problem("ingest.sources", fmt.Sprintf("needs %s, which has more levels than limits.max_topic_levels, %d",
				filter, cfg.Limits.MaxTopicLevels)))
		}
	}
	return errors.Join(errs...)
}

// retentionRules are those of the configuration, which knows no other package.
func retentionRules(cfg config.Config) keep.Rules {
	rules := make(keep.Rules, len(cfg.Store.RetentionRules))
	for i, r := range cfg.Store.RetentionRules {
		rules[i] = keep.Rule{Device: r.Device, Keep: r.Keep}
	}
	return rules
}

// controlOptions are those without a server, and without the authority: whoever has it open adds it.
// openAlerts takes up alerts where an earlier process left them.
func (s *service) openAlerts(ctx context.Context, w wiring, br *broker.Broker) (*alerting.Alerting, error) {
	cfg := w.loaded.Config
	return alerting.Open(ctx, alerting.Options{Config: cfg, Store: w.store, Faults: s.server.Faults, Well: s.server.Alive, Now: w.now, Doubt: w.clock.Doubt, Log: w.log,
		Publisher: publisher{broker: br, address: s.running.BrokerAddress, tls: w.tls, user: cfg.MQTT.BackendUsername, password: w.password}})
}

func (a *app) controlOptions(cfg config.Config, db *store.Store) control.Options {
	o := control.Options{
		Store:           db,
		BackendUsername: cfg.MQTT.BackendUsername,
		OfflineAfter:    cfg.Ingest.OfflineAfter,
		Keep:            cfg.Store.Retention,
		Rules:           retentionRules(cfg),
		MaxBytes:        int64(cfg.Store.MaxSize),
		Backup:          control.BackupPlan{Every: cfg.Backup.Every, Dir: cfg.BackupDir()},
		Version:         a.build.Version,
		Now:             a.now,
	}
	l := cfg.Listeners
	if l.TCP.Enabled {
		o.Listeners.TCP = l.TCP.Address
	}
	if l.TLS.Enabled {
		o.Listeners.TLS = l.TLS.Address
	}
	if l.WebSocket.Enabled {
		o.Listeners.WebSocket = l.WebSocket.Address
	}
	return o
}

// probeTopic is where the embedded broker sends probes; another broker has none.
func probeTopic(cfg config.Config) string {
	if !cfg.Embedded() {
		return ""
	}
	return broker.ProbeTopic
}

// accounts shows the accounts of the database to the broker.
type accounts struct{ store *store.Store }

func (a accounts) Authenticate(user string, password []byte, w broker.Wait) (broker.Account, bool) {
	account, ok := a.store.Authenticate(user, password, store.Wait(w))
	return brokerAccount(account), ok
}

func (a accounts) Lookup(name string) (broker.Account, bool) {
	account, ok := a.store.Account(name)
	return brokerAccount(account), ok
}

func brokerAccount(a store.Account) broker.Account {
	return broker.Account{Name: a.Name, Publish: a.Publish, Subscribe: a.Subscribe, Admin: a.Admin, Guessable: a.Role != store.RoleDevice}
}

// backendPassword returns the password that the subscriber shows. With the embedded broker and none
// configured it is drawn now and never leaves the process.
func backendPassword(cfg config.Config) string {
	if password := cfg.MQTT.BackendPassword.Reveal(); password != "" || !cfg.Embedded() {
		return password
	}
	return rand.Text()
}

// checkWiring reports what is wrong with a valid configuration on this machine, before anything is made.
// A zero now skips the dates of certificates.
func checkWiring(loaded config.Loaded, now time.Time) error {
	cfg := loaded.Config
	var errs []error
	m := cfg.MQTT
	if len(cfg.SocketPath()) > control.MaxSocketPathBytes {
		errs = append(errs, loaded.Problem("data_dir", fmt.Sprintf("is too long for a unix socket in it: use at most %d bytes, or a relative path",
			control.MaxSocketPathBytes-len("/plantops.sock"))))
	}
	if !cfg.Embedded() && m.BackendUsername != "" && m.BackendPassword == "" && m.ClientCert == "" {
		errs = append(errs, loaded.Problem("mqtt.backend_password", fmt.Sprintf("must be set for the broker at %s (MQTT_BACKEND_PASSWORD); "+
			"for one that asks for none, set mqtt.backend_username to nothing in the file", m.Host)))
	}
	if m.UseTLS && !(usesOwnCA(cfg) && !exists(cfg.CACertPath())) {
		_, err := trustedRoots(loaded, now)
		errs = append(errs, err)
	}
	errs = append(errs, checkTopics(loaded))
	errs = append(errs, checkBridges(loaded))
	if cfg.Certs.CRL != "" && needsAuthority(cfg) {
		errs = append(errs, checkRevocationList(loaded))
	}
	if m.ClientCert != "" {
		_, err := clientCertificate(loaded)
		errs = append(errs, err)
	}
	return control.KindOf(errConfig, errors.Join(errs...))
}

// listenSettings are the settings that the ports of the listeners come from, for control.ListenHints.
func listenSettings(cfg config.Config) map[string]string {
	settings, l := map[string]string{}, cfg.Listeners
	for _, at := range []struct {
		enabled      bool
		address, key string
	}{
		{l.TCP.Enabled, l.TCP.Address, "listeners.tcp.address"},
		{l.TLS.Enabled, l.TLS.Address, "listeners.tls.address"},
		{l.WebSocket.Enabled, l.WebSocket.Address, "listeners.websocket.address"},
		{true, cfg.HTTP.ListenAddress(), "http.address"},
		{true, cfg.HTTP.RegistersAt(), "http.registration_address"},
	} {
		if _, port, err := net.SplitHostPort(at.address); err == nil && at.enabled {
			settings[port] = at.key
		}
	}
	return settings
}

// boundPort is the port of a listener; 0 when it is off.
func boundPort(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
