package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// This file sees to it that the devices of a database keep the certificate authority that they trust: the database
// remembers it, and one that is lost is not replaced without a person's word.

// errLost: the authority that the devices trust is gone.
var errLost = errors.New("the certificate authority is lost")

// openAuthority opens the certificates, and creates them on the first start. While the clock shows a time at which nothing can be
// signed it waits.
func openAuthority(ctx context.Context, o certs.Options, db *store.Store) (*certs.Authority, error) {
	var authority *certs.Authority
	err := untilClock(ctx, o.Now, o.Log, func() (err error) {
		authority, err = certs.Open(o)
		if !errors.Is(err, certs.ErrNoAuthority) {
			return err
		}
		if err := recallAuthority(ctx, o, db); err != nil {
			return err
		}
		if authority, err = certs.Open(o); errors.Is(err, certs.ErrNoAuthority) {
			authority, err = certs.Create(o, false)
		}
		return err
	})
	if err != nil {
		return nil, certificateError(err)
	}
	return authority, rememberAuthority(ctx, authority, db, o.Log)
}

// recallAuthority returns nil when an authority may be made, or when ca.crt could be restored.
func recallAuthority(ctx context.Context, o certs.Options, db *store.Store) error {
	known, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil || known == "" {
		return err
	}
	remembered, err := db.Setting(ctx, store.SettingAuthorityPEM)
	if err != nil {
		return err
	}
	if err := certs.Restore(o, []byte(remembered)); !errors.Is(err, certs.ErrNoAuthority) {
		return err
	}
	return lostAuthority(o.Dir, known)
}

func lostAuthority(dir, known string) error {
	return control.KindOf(errConfig, control.WithHint(
		fmt.Errorf("%w: the devices of this database trust %s, and it is not in %s", errLost, known, dir),
		"restore "+dir+" from a backup: then everything is as it was",
		"to make a new one: plantops certs init --force; every device then needs the new ca.crt"))
}

// rememberAuthority writes down which authority the devices are given, and says loudly when it is another one than before or
// when its key is gone.
func rememberAuthority(ctx context.Context, authority *certs.Authority, db *store.Store, log *slog.Logger) error {
	text, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil {
		return err
	}
	known, now := strings.Fields(text), authority.Fingerprints()
	same := slices.ContainsFunc(now, func(f string) bool { return slices.Contains(known, f) })
	if !authority.Own() {
		if same && !authority.Outside() {
			log.Error("the key of the certificate authority is lost: nothing can be renewed or issued. Restore ca.key from a backup; "+
				`or make a new authority with "plantops certs init --force": every device then needs the new ca.crt`,
				"path", authority.Certificates()[0].Path, "server_certificate_ends", serverEnds(authority))
		}
		return nil
	}
	if text != "" && !same {
		log.Warn("another certificate authority than before is in use: devices that have only the old ca.crt stay away until they get the new one",
			"old", text, "new", strings.Join(now, " "))
	}
	if strings.Join(now, " ") == text {
		return nil
	}
	if err := db.SetSetting(ctx, store.SettingAuthorityPEM, string(authority.AuthoritiesPEM())); err != nil {
		return err
	}
	return db.SetSetting(ctx, store.SettingAuthorities, strings.Join(now, " "))
}

func serverEnds(authority *certs.Authority) time.Time {
	list := authority.Certificates()
	i := slices.IndexFunc(list, func(c certs.Info) bool { return c.Role == "server" })
	return list[i].NotAfter
}

// mayInit refuses to make an authority beside a database whose devices trust another one.
func (a *app) mayInit(ctx context.Context, cfg config.Config) error {
	if exists(authorityPath(cfg)) || !exists(cfg.StorePath()) {
		return nil
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return nil // not ours or not readable: "serve" will say so. One of an older version remembers nothing
	}
	defer db.Close() // read only: nothing that could get lost
	known, err := db.Setting(ctx, store.SettingAuthorities)
	if err != nil || known == "" {
		return err
	}
	return lostAuthority(cfg.CertsDir(), known)
}

// stillStarting keeps the service manager from ending a start that waits for the clock: TimeoutStartSec counts from the last of
// these on (sd_notify(3)). It comes every clockPoll.
const stillStarting = "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Waiting for the clock to be set"

// untilClock calls try until its error is none of a clock that is not set, which takes a Pi without a battery clock as long as
// the network takes.
func untilClock(ctx context.Context, now func() time.Time, log *slog.Logger, try func() error) error {
	err := try()
	if !errors.Is(err, certs.ErrClock) {
		return err
	}
	log.Warn("the clock is not set: waiting for time before certificates are created", "clock", now().UTC().Format(time.RFC3339), "err", err)
	tick := time.NewTicker(clockPoll)
	defer tick.Stop()
	for errors.Is(err, certs.ErrClock) {
		notify(log, stillStarting)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		err = try()
	}
	log.Info("the clock is set", "clock", now().UTC().Format(time.RFC3339))
	return err
}

func newCertsRevoke(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "revoke NAME | --cert FILE",
		Short: "Revoke client certificates and end the connections that were made with them",
		Long: `Revoke every certificate that was issued for NAME, or the one in FILE. Listeners with require_certificate refuse
it from now on, and a running server ends the connections that were made with it. The account stays:
with another certificate of the same name and its password it comes back. To take the account away as well:
plantops device remove NAME, plantops user remove NAME.

A revocation is for ever. The list is ca.crl in the certificate directory, for every program that reads such lists.`,
		Example: `  plantops certs revoke bed-1              all that were issued for bed-1
  plantops certs revoke --cert bed-1.crt   this one, whoever issued it with our authority`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (file != "") {
				return usageError(cmd, errors.New("give a NAME or --cert FILE"))
			}
			authority, cfg, err := a.openAuthority()
			if err != nil {
				return err
			}
			var revoked []certs.Issued
			if file != "" {
				var one certs.Issued
				one, err = authority.RevokeFile(file)
				revoked = append(revoked, one)
			} else {
				revoked, err = authority.Revoke(args[0])
			}
			if err != nil {
				return revokeHint(err, file)
			}
			ended, running, err := a.reloadServer(cmd, cfg)
			if err != nil {
				return fmt.Errorf("on the revocation list now, but the running server does not obey it yet: %w", err)
			}
			a.printRevoked(revoked, ended, running)
			a.warnRevoked(authority, cfg)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "cert", "", "revoke the certificate in this PEM file")
	return cmd
}

func revokeHint(err error, file string) error {
	if !errors.Is(err, certs.ErrNotIssued) || file != "" {
		return err
	}
	return control.WithHint(err, "what was issued: plantops certs list",
		"one that was made elsewhere, or before there was a list: plantops certs revoke --cert FILE")
}

// printRevoked says what does not work any more.
func (a *app) printRevoked(revoked []certs.Issued, ended int64, running bool) {
	for _, c := range revoked {
		fmt.Fprintf(a.stdout, "Revoked the certificate of %s, serial %s, valid until %s.\n", quoted(c.Name), c.Serial, c.NotAfter.Format(time.DateOnly))
	}
	if running {
		fmt.Fprintf(a.stdout, "The server refuses it from now on; connections ended: %d.\n", ended)
	} else {
		fmt.Fprintln(a.stdout, "No server answers here. One that runs all the same refuses it within a minute, the next one from its start on.")
	}
	fmt.Fprintf(a.stdout, "The account stays. Another certificate for it: plantops certs issue %s\n", quoted(revoked[0].Name))
}

// warnRevoked tells where a revocation has no effect, or one that was hardly meant.
func (a *app) warnRevoked(authority *certs.Authority, cfg config.Config) {
	if !cfg.Listeners.TLS.Enabled || !cfg.Listeners.TLS.RequireCertificate {
		a.warn("warning: listeners.tls.require_certificate is off: clients are not asked for certificates")
	}
	if cfg.MQTT.ClientCert == "" {
		return
	}
	pair, err := clientCertificate(config.Loaded{Config: cfg})
	if err == nil && authority.Revoked([][]*x509.Certificate{{pair.Leaf}}) {
		a.warn("warning: that is mqtt.client_cert, with which the server's own subscriber connects: nothing is stored until it has another one and the server was restarted")
	}
}

func newCertsList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the client certificates that were issued, and whether they are revoked",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			authority, err := a.lookAtAuthority()
			if err != nil {
				return err
			}
			issued, err := authority.Issued()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, append([]certs.Issued{}, issued...))
			}
			rows := [][]string{{"NAME", "STATE", "UNTIL", "SERIAL"}}
			for _, c := range issued {
				rows = append(rows, []string{quoted(c.Name), string(c.State), c.NotAfter.Format(time.DateOnly), c.Serial})
			}
			return table(a.stdout, rows)
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// quoted is a name that somebody else may have chosen, fit for a line: quoted unless it is one plain word.
func quoted(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
		return strconv.Quote(name)
	}
	return name
}
