package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

// This file decides which certificates are shown and trusted, and by which clock they are judged.

// needsAuthority reports whether this process shows certificates.
func needsAuthority(cfg config.Config) bool { return cfg.Listeners.TLS.Enabled }

// usesOwnCA reports whether the subscriber trusts the certificate authority that serve creates.
func usesOwnCA(cfg config.Config) bool {
	return cfg.MQTT.UseTLS && needsAuthority(cfg) && samePath(authorityPath(cfg), cfg.CACertPath())
}

// authorityPath is where the certificate is that signs those of clients.
func authorityPath(cfg config.Config) string {
	if cfg.Certs.CACert != "" {
		return cfg.Certs.CACert
	}
	return filepath.Join(cfg.CertsDir(), "ca.crt")
}

// checkRevocationList judges the list that was configured.
func checkRevocationList(loaded config.Loaded) error {
	err := certs.CheckRevocationList(loaded.Config.Certs.CRL, authorityPath(loaded.Config))
	if err == nil {
		return nil
	}
	return control.KindOf(errConfig, control.WithHint(loaded.Problem("certs.crl", err.Error()),
		"copy the list of the authority that signed the clients' certificates there, in PEM form, or remove the setting to use our own"))
}

func samePath(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
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
	problem := loaded.Problem("mqtt.ca_cert", err.Error())
	if errors.Is(err, certs.ErrDates) {
		problem = control.KindOf(certs.ErrDates, problem)
	}
	if errors.Is(err, certs.ErrKeyInside) {
		return nil, control.KindOf(errConfig, control.KindOf(certs.ErrKeyInside, problem))
	}
	remedy := "copy the CA certificate of the broker there, or name the file where it is"
	if loaded.Config.Embedded() {
		remedy = "name the CA that signed the server certificate, or remove the setting to trust the one that PlantOps makes"
	}
	if loaded.Config.MQTT.CACert == "" {
		remedy = `restore it from a backup, or make a new authority with "plantops certs init --force"`
	}
	return nil, control.KindOf(errConfig, control.WithHint(problem, remedy,
		"for a connection without TLS set mqtt.use_tls (MQTT_USE_TLS) to false"))
}

// clientCertificate reads the certificate that the subscriber was told to show.
func clientCertificate(loaded config.Loaded) (tls.Certificate, error) {
	m := loaded.Config.MQTT
	pair, err := certs.LoadClient(m.ClientCert, m.ClientKey)
	if err != nil {
		return pair, control.KindOf(errConfig, loaded.Problem("mqtt.client_cert", err.Error()))
	}
	return pair, nil
}

// certificateError tells wrong certificates, which need a person, from a disk that does not work.
func certificateError(err error) error {
	for _, fault := range []error{fs.ErrPermission, syscall.EROFS, syscall.ENOSPC, syscall.EIO, certs.ErrClock, certs.ErrExists} {
		if errors.Is(err, fault) {
			return err
		}
	}
	return control.KindOf(errConfig, err)
}

// clockPoll is how often a clock that is not set yet is looked at.
const clockPoll = time.Second

// subscriberTLS returns how the subscriber connects: nil without TLS. With the embedded broker it has
// checked that the connection will verify, so that a wrong CA is found at start. Dates are no reason to stop.
func subscriberTLS(w wiring) (*tls.Config, error) {
	loaded, cfg, authority := w.loaded, w.loaded.Config, w.authority
	if !cfg.MQTT.UseTLS {
		return nil, nil
	}
	roots, err := rootsForNow(w)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: roots, ServerName: cfg.MQTT.Host, MinVersion: tls.VersionTLS12, Time: tlsClock(w.now, w.built, authority)}
	if cfg.Embedded() {
		if err := certs.VerifyServer(roots, authority.ServerPEM(), cfg.MQTT.Host, time.Time{}); err != nil {
			return nil, ownServerError(loaded, err)
		}
	}
	switch {
	case cfg.MQTT.ClientCert != "":
		pair, err := clientCertificate(loaded)
		if err != nil {
			return nil, err
		}
		if authority != nil && cfg.Listeners.TLS.RequireCertificate && authority.Revoked([][]*x509.Certificate{{pair.Leaf}}) {
			return nil, control.KindOf(errConfig, control.WithHint(loaded.Problem("mqtt.client_cert", "is revoked"),
				"issue another one, or remove mqtt.client_cert and mqtt.client_key: the server then makes one for itself"))
		}
		conf.Certificates = []tls.Certificate{pair}
	case cfg.Embedded() && cfg.Listeners.TLS.RequireCertificate:
		pair, err := pairInMemory(authority.IssueForProcess(cfg.MQTT.BackendUsername))
		if err != nil {
			return nil, control.KindOf(errConfig, loaded.Problem("mqtt.client_cert", fmt.Sprintf("needed with listeners.tls.require_certificate: %v", err)))
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// rootsForNow is trustedRoots, in which a CA certificate that is not valid today is only said: the clock may be wrong. One that
// did not sign the embedded broker's certificate either is refused for its date.
func rootsForNow(w wiring) (*x509.CertPool, error) {
	roots, err := trustedRoots(w.loaded, certificateDate(w.now(), w.built))
	if !errors.Is(err, certs.ErrDates) {
		return roots, err
	}
	later, laterErr := trustedRoots(w.loaded, time.Time{})
	cfg := w.loaded.Config
	if laterErr != nil || cfg.Embedded() && certs.VerifyServer(later, w.authority.ServerPEM(), cfg.MQTT.Host, time.Time{}) != nil {
		return nil, err
	}
	w.log.Error("the CA certificate is not valid at the time that the clock shows", "path", cfg.CACertPath(), "clock", w.now(), "err", err)
	return later, nil
}

// ownServerError says which setting is to blame when the subscriber would refuse the embedded broker.
func ownServerError(loaded config.Loaded, err error) error {
	cfg := loaded.Config
	if !errors.Is(err, certs.ErrNames) {
		return control.KindOf(errConfig, control.WithHint(loaded.Problem("mqtt.ca_cert", err.Error()),
			"name the CA that signed the server certificate, or remove the setting to trust the one that PlantOps makes"))
	}
	if cfg.Certs.ServerCert == "" {
		return control.KindOf(errConfig, control.WithHint(loaded.Problem("mqtt.host", err.Error()),
			"add the name to certs.extra_names (PLANTOPS_CERTS_EXTRA_NAMES)"))
	}
	return control.KindOf(errConfig, control.WithHint(loaded.Problem("certs.server_cert", err.Error()),
		fmt.Sprintf("have it issued with subjectAltName=DNS:%s and every other name and address by which devices connect; "+
			"or set mqtt.host to a name that it covers", cfg.MQTT.Host)))
}

// issueInMemory makes a client certificate that is never written anywhere.
func issueInMemory(authority *certs.Authority, name string) (tls.Certificate, error) {
	return pairInMemory(authority.Issue(name))
}

func pairInMemory(pair certs.Pair, err error) (tls.Certificate, error) {
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
}

// tlsClock is the time by which the subscriber judges certificates. A clock that is not set is replaced
// by a time that has certainly passed: otherwise a Pi that starts without network could not even
// talk to itself. So is one by which this process's own certificate is not valid: that is for the devices to judge.
func tlsClock(now func() time.Time, built time.Time, authority *certs.Authority) func() time.Time {
	return func() time.Time {
		t := now()
		if authority != nil {
			return authority.TimeWithin(t)
		}
		if certs.ClockUnsure(t, built) {
			return built
		}
		return t
	}
}

// certificateDate is the time at which to judge certificates: none, which skips the dates, while the
// clock is not set.
func certificateDate(now, built time.Time) time.Time {
	if certs.ClockUnsure(now, built) {
		return time.Time{}
	}
	return now
}
