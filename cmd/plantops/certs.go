package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

func newCerts(a *app) *cobra.Command {
	return group(&cobra.Command{Use: "certs", Short: "Create, show, renew and revoke certificates"},
		newCertsInit(a), newCertsShow(a), newCertsRenew(a), newCertsRollover(a), newCertsIssue(a), newCertsList(a), newCertsRevoke(a))
}

func newCertsInit(a *app) *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create the certificate authority and the server certificate",
		Long: `Create the certificate authority and the server certificate. "serve" does so too on its first start.
Every device that trusts the old authority must be given the new ca.crt after --force.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			cfg := loaded.Config
			if !force {
				if err := a.mayInit(cmd.Context(), cfg); err != nil {
					return err
				}
			}
			authority, err := certs.Create(a.certsOptions(cfg), force)
			if errors.Is(err, certs.ErrExists) {
				return control.WithHint(err, `see what is there: plantops certs show`,
					"to replace it: plantops certs init --force; every device then needs the new ca.crt")
			}
			if err != nil {
				return err
			}
			_, running, err := a.reloadServer(cmd, cfg)
			if err != nil {
				return err
			}
			if running && force {
				a.warn("restart the server: its own subscriber still trusts the old authority alone")
			}
			if !asJSON {
				fmt.Fprintln(a.stdout, "Created a certificate authority and a server certificate.")
			}
			return printCertificates(a.stdout, authority, asJSON)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace an authority that exists")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newCertsShow(a *app) *cobra.Command {
	var asPEM, asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show certificates: names, expiry, fingerprint",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			authority, err := a.lookAtAuthority()
			if err != nil {
				return err
			}
			if asPEM {
				_, err := a.stdout.Write(authority.RootPEM())
				return err
			}
			return printCertificates(a.stdout, authority, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the CA certificate itself, while the CA rolls over both")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newCertsRenew(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "renew",
		Short: "Issue a new server certificate now; a running server takes it over at once",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			authority, cfg, err := a.openAuthority()
			if err != nil {
				return err
			}
			info, err := authority.Renew()
			if err != nil {
				return err
			}
			if _, _, err := a.reloadServer(cmd, cfg); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, "Issued a new server certificate.")
			return printCertificate(a.stdout, info)
		},
	}
}

func newCertsRollover(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rollover",
		Short: "Make the certificate authority that follows the one in use, before its time",
		Long: `Make the certificate authority that follows the one in use. "serve" does so by itself three years before the old one
ends. From then on "certs show --pem" and "device add" give both certificates; the server's own is issued by the old one until
7 days before its end, so nothing happens to the devices that know the old one alone until then.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			authority, cfg, err := a.openAuthority()
			if err != nil {
				return err
			}
			if err := authority.RollOver(); err != nil {
				return err
			}
			if _, _, err := a.reloadServer(cmd, cfg); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, "Made the certificate authority that follows. Give every device both: plantops certs show --pem")
			return printCertificates(a.stdout, authority, false)
		},
	}
}

func newCertsIssue(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Issue a client certificate, for listeners that require one",
		Long: `Issue a client certificate and write NAME.crt and NAME.key. NAME must be the user name that the client
logs in with: for a device its id. It is valid for ten years, or until "plantops certs revoke NAME".`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, _, err := a.openAuthority()
			if err != nil {
				return err
			}
			name := args[0]
			certPath, keyPath := filepath.Join(out, name+".crt"), filepath.Join(out, name+".key")
			pair, err := authority.IssueFiles(name, certPath, keyPath)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "Issued a client certificate for %s, valid until %s.\ncertificate  %s\nkey          %s\n",
				name, pair.NotAfter.Format(time.DateOnly), certPath, keyPath)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", ".", "directory to write to")
	return cmd
}

func (a *app) certsOptions(cfg config.Config) certs.Options {
	return certsOptions(cfg, a.now, a.build.earliest(), nil)
}

// lookAtAuthority opens the certificates without writing anything, also when they are expired.
func (a *app) lookAtAuthority() (*certs.Authority, error) {
	loaded, err := a.load()
	if err != nil {
		return nil, err
	}
	o := a.certsOptions(loaded.Config)
	o.ReadOnly = true
	authority, err := certs.Open(o)
	return authority, certificateError(err)
}

func (a *app) openAuthority() (*certs.Authority, config.Config, error) {
	loaded, err := a.load()
	if err != nil {
		return nil, config.Config{}, err
	}
	authority, err := certs.Open(a.certsOptions(loaded.Config))
	return authority, loaded.Config, certificateError(err)
}

// reloadServer makes a running server take over changed certificates at once, and tells how many connections it ended
// because theirs is revoked, and whether there is a server.
func (a *app) reloadServer(cmd *cobra.Command, cfg config.Config) (ended int64, running bool, err error) {
	server, err := control.Dial(cmd.Context(), cfg.SocketPath())
	if errors.Is(err, control.ErrUnauthorized) {
		return 0, true, err
	}
	if err != nil {
		return 0, false, nil // none is running; it will read them when it starts
	}
	ended, err = server.ReloadCertificates(cmd.Context())
	return ended, true, err
}

func printCertificates(w io.Writer, authority *certs.Authority, asJSON bool) error {
	infos := authority.Certificates()
	if asJSON {
		return printJSON(w, infos)
	}
	for i, info := range infos {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := printCertificate(w, info); err != nil {
			return err
		}
	}
	return nil
}

func printCertificate(w io.Writer, info certs.Info) error {
	title := map[string]string{"ca": "CA certificate", "server": "server certificate"}[info.Role]
	rows := [][]string{{title, info.Path}, {"subject", info.Subject}}
	if len(info.Names) > 0 {
		rows = append(rows, []string{"names", strings.Join(info.Names, ", ")})
	}
	return table(w, append(rows,
		[]string{"valid", info.NotBefore.UTC().Format(time.RFC3339) + " to " + info.NotAfter.UTC().Format(time.RFC3339)},
		[]string{"fingerprint", info.Fingerprint}))
}

// This file decides which certificates are shown and trusted, and by which clock they are judged.

// needsAuthority reports whether this process shows certificates.
func needsAuthority(cfg config.Config) bool { return cfg.Listeners.TLS.Enabled || cfg.HTTP.Encrypted() }

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
