package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// This file turns the configuration into the options of the other packages, and checks what none of
// them can see alone.

// ingestClientID is the MQTT client id of the subscriber. The embedded broker keeps it for that alone.
const ingestClientID = "plantops-ingest"

func storeOptions(cfg config.Config, now func() time.Time, log *slog.Logger) store.Options {
	return store.Options{Path: cfg.StorePath(), Now: now, Log: log}
}

func certsOptions(cfg config.Config, now func() time.Time, built time.Time, log *slog.Logger) certs.Options {
	return certs.Options{
		Dir:            cfg.CertsDir(),
		CACert:         cfg.Certs.CACert,
		ServerCert:     cfg.Certs.ServerCert,
		ServerKey:      cfg.Certs.ServerKey,
		ExtraNames:     cfg.Certs.ExtraNames,
		Now:            now,
		NotBeforeClock: built,
		Log:            log,
	}
}

func brokerOptions(cfg config.Config, password string, db *store.Store, authority *certs.Authority, now func() time.Time, log *slog.Logger) broker.Options {
	l := cfg.Listeners
	o := broker.Options{
		AllowedOrigins:     l.WebSocket.AllowedOrigins,
		RequireCertificate: l.TLS.RequireCertificate,
		Accounts:           accounts{db},
		Backend:            broker.Backend{Username: cfg.MQTT.BackendUsername, Password: password, ClientID: ingestClientID},
		IngestTopics:       cfg.Ingest.Topics,
		StallTimeout:       cfg.Ingest.StallTimeout,
		Limits:             broker.Limits(cfg.Limits),
		Refused:            func(device, reason string) { db.AddRefused(device, reason, 1) },
		Log:                log,
		Now:                now,
	}
	if l.TCP.Enabled {
		o.TCP = l.TCP.Address
	}
	if l.TLS.Enabled {
		o.TLS, o.TLSConfig = l.TLS.Address, authority.ServerTLS(l.TLS.RequireCertificate)
	}
	if l.WebSocket.Enabled {
		o.WebSocket = l.WebSocket.Address
	}
	return o
}

func ingestOptions(cfg config.Config, port int, password string, tlsConfig *tls.Config, unsure func() bool, now func() time.Time, log *slog.Logger) ingest.Options {
	return ingest.Options{
		Host:         cfg.MQTT.Host,
		Port:         port,
		TLS:          tlsConfig,
		Username:     cfg.MQTT.BackendUsername,
		Password:     password,
		ClientID:     ingestClientID,
		Topics:       cfg.Ingest.Topics,
		MaxBatch:     cfg.Ingest.MaxBatch,
		StallTimeout: cfg.Ingest.StallTimeout,
		Embedded:     cfg.Embedded(),
		ClockUnsure:  unsure,
		Now:          now,
		Log:          log,
	}
}

// accounts shows the accounts of the database to the broker.
type accounts struct{ store *store.Store }

func (a accounts) Authenticate(user string, password []byte) (broker.Account, bool) {
	account, ok := a.store.Authenticate(user, password)
	return brokerAccount(account), ok
}

func (a accounts) Lookup(name string) (broker.Account, bool) {
	account, ok := a.store.Account(name)
	return brokerAccount(account), ok
}

func brokerAccount(a store.Account) broker.Account {
	return broker.Account{Name: a.Name, Publish: a.Publish, Subscribe: a.Subscribe}
}

// backendPassword returns the password that the subscriber shows. With the embedded broker and none
// configured it is drawn now and never leaves the process.
func backendPassword(cfg config.Config) string {
	if password := cfg.MQTT.BackendPassword.Reveal(); password != "" || !cfg.Embedded() {
		return password
	}
	return rand.Text()
}

// needsAuthority reports whether this process shows certificates.
func needsAuthority(cfg config.Config) bool { return cfg.Listeners.TLS.Enabled }

// usesOwnCA reports whether the subscriber trusts the certificate authority that serve creates.
func usesOwnCA(cfg config.Config) bool {
	own := cfg.Certs.CACert
	if own == "" {
		own = filepath.Join(cfg.CertsDir(), "ca.crt")
	}
	return cfg.MQTT.UseTLS && needsAuthority(cfg) && samePath(own, cfg.CACertPath())
}

func samePath(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}

// maxSocketPathBytes is what fits into a unix socket's address on Linux, see unix(7).
const maxSocketPathBytes = 107

// certificateDate is the time at which to judge certificates: none, which skips the dates, while the
// clock is not set.
func certificateDate(now, built time.Time) time.Time {
	if certs.ClockUnsure(now, built) {
		return time.Time{}
	}
	return now
}

// checkWiring reports what is wrong with a valid configuration on this machine, before anything is made.
// A zero now skips the dates of certificates.
func checkWiring(loaded config.Loaded, now time.Time) error {
	cfg := loaded.Config
	var errs []error
	m := cfg.MQTT
	if len(cfg.SocketPath()) > maxSocketPathBytes {
		errs = append(errs, loaded.Problem("data_dir", fmt.Sprintf("is too long for a unix socket in it: use at most %d bytes, or a relative path",
			maxSocketPathBytes-len("/plantops.sock"))))
	}
	if !cfg.Embedded() && m.BackendUsername != "" && m.BackendPassword == "" && m.ClientCert == "" {
		errs = append(errs, loaded.Problem("mqtt.backend_password", fmt.Sprintf("must be set for the broker at %s (MQTT_BACKEND_PASSWORD); "+
			"for one that asks for none, set mqtt.backend_username to nothing in the file", m.Host)))
	}
	if m.UseTLS && !(usesOwnCA(cfg) && !exists(cfg.CACertPath())) {
		_, err := trustedRoots(loaded, now)
		errs = append(errs, err)
	}
	if m.ClientCert != "" {
		_, err := clientCertificate(loaded)
		errs = append(errs, err)
	}
	return kindOf(errConfig, errors.Join(errs...))
}

// trustedRoots reads the CA certificate that the broker's must be signed by; nil are the system's roots.
// A zero now skips the dates.
func trustedRoots(loaded config.Loaded, now time.Time) (*x509.CertPool, error) {
	path := loaded.Config.CACertPath()
	if path == "" {
		return nil, nil
	}
	roots, err := certs.LoadRoots(path, now)
	if err == nil {
		return roots, nil
	}
	remedy := "copy the CA certificate of the broker there, or name the file where it is"
	if loaded.Config.Embedded() {
		remedy = "name the CA that signed the server certificate, or remove the setting to trust the one that PlantOps makes"
	}
	if loaded.Config.MQTT.CACert == "" {
		remedy = `restore it from a backup, or make a new authority with "plantops certs init --force"`
	}
	return nil, kindOf(errConfig, withHint(loaded.Problem("mqtt.ca_cert", err.Error()), remedy,
		"for a connection without TLS set mqtt.use_tls (MQTT_USE_TLS) to false"))
}

// clientCertificate reads the certificate that the subscriber was told to show.
func clientCertificate(loaded config.Loaded) (tls.Certificate, error) {
	m := loaded.Config.MQTT
	pair, err := tls.LoadX509KeyPair(m.ClientCert, m.ClientKey)
	if err != nil {
		return pair, kindOf(errConfig, loaded.Problem("mqtt.client_cert", fmt.Sprintf("certificate and key %s: %v", m.ClientKey, err)))
	}
	return pair, nil
}

// openAuthority opens the certificates, and creates them on the first start.
func openAuthority(ctx context.Context, o certs.Options, built time.Time) (*certs.Authority, error) {
	authority, err := certs.Open(o)
	if errors.Is(err, certs.ErrNoAuthority) || errors.Is(err, certs.ErrClock) {
		if err := awaitClock(ctx, o.Now, built, o.Log); err != nil {
			return nil, err
		}
		authority, err = certs.Open(o)
	}
	if errors.Is(err, certs.ErrNoAuthority) {
		authority, err = certs.Create(o, false)
	}
	return authority, certificateError(err)
}

// certificateError tells wrong certificates, which need a person, from a disk that does not work.
func certificateError(err error) error {
	for _, fault := range []error{fs.ErrPermission, syscall.EROFS, syscall.ENOSPC, syscall.EIO, certs.ErrClock, certs.ErrExists} {
		if errors.Is(err, fault) {
			return err
		}
	}
	return kindOf(errConfig, err)
}

// clockPoll is how often a clock that is not set yet is looked at.
const clockPoll = time.Second

// awaitClock waits until the clock shows a time that can be, which takes a Pi without a battery clock as
// long as the network takes.
func awaitClock(ctx context.Context, now func() time.Time, built time.Time, log *slog.Logger) error {
	if !certs.ClockUnsure(now(), built) {
		return nil
	}
	log.Warn("the clock is not set: waiting for time before certificates are created",
		"clock", now().UTC().Format(time.RFC3339), "build_date", built.Format(time.RFC3339))
	tick := time.NewTicker(clockPoll)
	defer tick.Stop()
	for certs.ClockUnsure(now(), built) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	log.Info("the clock is set", "clock", now().UTC().Format(time.RFC3339))
	return nil
}

// subscriberTLS returns how the subscriber connects: nil without TLS. With the embedded broker it has
// checked that the connection will verify, so that a wrong CA is found at start.
func subscriberTLS(ctx context.Context, loaded config.Loaded, authority *certs.Authority, built time.Time, now func() time.Time, log *slog.Logger) (*tls.Config, error) {
	cfg := loaded.Config
	if !cfg.MQTT.UseTLS {
		return nil, nil
	}
	date := certificateDate(now(), built)
	roots, err := trustedRoots(loaded, date)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: roots, ServerName: cfg.MQTT.Host, MinVersion: tls.VersionTLS12, Time: tlsClock(now, built, authority)}
	if cfg.Embedded() {
		if err := certs.VerifyServer(roots, authority.ServerPEM(), cfg.MQTT.Host, date); err != nil {
			return nil, kindOf(errConfig, withHint(loaded.Problem("mqtt.ca_cert", err.Error()),
				"name the CA that signed the server certificate, or remove the setting to trust the one that PlantOps makes"))
		}
	}
	switch {
	case cfg.MQTT.ClientCert != "":
		pair, err := clientCertificate(loaded)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	case cfg.Embedded() && cfg.Listeners.TLS.RequireCertificate:
		if err := awaitClock(ctx, now, built, log); err != nil {
			return nil, err
		}
		pair, err := issueInMemory(authority, cfg.MQTT.BackendUsername)
		if err != nil {
			return nil, kindOf(errConfig, loaded.Problem("mqtt.client_cert", fmt.Sprintf("needed with listeners.tls.require_certificate: %v", err)))
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// issueInMemory makes a client certificate that is never written anywhere.
func issueInMemory(authority *certs.Authority, name string) (tls.Certificate, error) {
	pair, err := authority.Issue(name)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
}

// tlsClock is the time by which the subscriber judges certificates. A clock that is not set is replaced
// by the latest time that has certainly passed: otherwise a Pi that starts without network could not even
// talk to itself.
func tlsClock(now func() time.Time, built time.Time, authority *certs.Authority) func() time.Time {
	return func() time.Time {
		t := now()
		if !certs.ClockUnsure(t, built) {
			return t
		}
		t = built
		if authority != nil {
			for _, c := range authority.Certificates() {
				if c.NotBefore.After(t) {
					t = c.NotBefore
				}
			}
		}
		return t
	}
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// boundPort is the port of a listener; 0 when it is off.
func boundPort(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}
