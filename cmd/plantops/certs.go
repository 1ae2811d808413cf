package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
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
