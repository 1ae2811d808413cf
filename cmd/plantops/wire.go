package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
		CRL:            cfg.Certs.CRL,
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
		o.Revoked = authority.Revoked
	}
	if l.WebSocket.Enabled {
		o.WebSocket = l.WebSocket.Address
	}
	return o
}

func ingestOptions(cfg config.Config, port int, password string, tlsConfig *tls.Config, unsure func() bool, now func() time.Time, log *slog.Logger) ingest.Options {
	return ingest.Options{
		Host:       cfg.MQTT.Host,
		Port:       port,
		TLS:        tlsConfig,
		Username:   cfg.MQTT.BackendUsername,
		Password:   password,
		ClientID:   ingestClientID,
		Topics:     cfg.Ingest.Topics,
		ProbeTopic: probeTopic(cfg),
		MaxBatch:   cfg.Ingest.MaxBatch,
		// What the embedded broker takes from a device comes with a few bytes more.
		MaxPacketBytes: 2 * cfg.Limits.MaxPacketBytes,
		StallTimeout:   cfg.Ingest.StallTimeout,
		Embedded:       cfg.Embedded(),
		ClockUnsure:    unsure,
		Now:            now,
		Log:            log,
	}
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

// maxSocketPathBytes is what fits into a unix socket's address on Linux, see unix(7).
const maxSocketPathBytes = 107

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
	if cfg.Certs.CRL != "" && needsAuthority(cfg) {
		errs = append(errs, checkRevocationList(loaded))
	}
	if m.ClientCert != "" {
		_, err := clientCertificate(loaded)
		errs = append(errs, err)
	}
	return kindOf(errConfig, errors.Join(errs...))
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
