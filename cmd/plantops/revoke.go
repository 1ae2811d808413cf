package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

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
