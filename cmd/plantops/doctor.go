package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/doctor"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
)

func newDoctor(a *app) *cobra.Command {
	var asJSON bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Prove the running box from end to end, and say how to repair what fails",
		Long: `Look at everything that a reading needs: each listener, with an account that is removed again; TLS with the names that devices use; the
way through to the database; clock, disk, memory, permissions, backup. Nothing of it becomes a reading.

Exit code 0: nothing failed; 1: something did, and below it stands how to repair it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if patience <= 0 {
				return usageError(cmd, fmt.Errorf("--wait %s: use a time such as 10s", patience))
			}
			report := a.examine(cmd.Context(), patience)
			if asJSON {
				if err := printJSON(a.stdout, report); err != nil {
					return err
				}
			} else if err := printReport(a, report); err != nil {
				return err
			}
			failed := 0
			for _, f := range report.Checks {
				if f.State == doctor.Fail {
					failed++
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d checks failed", failed, len(report.Checks))
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&patience, "wait", 10*time.Second, "how long each check may take")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// examine looks at the box that the configuration describes. A configuration that is wrong is all that it finds.
func (a *app) examine(ctx context.Context, patience time.Duration) doctor.Report {
	var report doctor.Report
	loaded, err := a.load()
	if err == nil {
		err = checkWiring(loaded, certificateDate(a.now(), a.build.Date))
	}
	if err != nil {
		report.Add(doctor.Finding{Name: "configuration", State: doctor.Fail, Found: oneLine(err), Repair: strings.Join(
			append(control.Hints(err), `"plantops config check" lists every mistake; -c FILE names another file`), "; ")})
		if loaded.Values == nil { // nothing more is known
			report.Close()
			return report
		}
	} else {
		from := loaded.Path
		if from == "" {
			from = "no file, the defaults"
		}
		report.Add(doctor.Finding{Name: "configuration", State: doctor.OK, Found: "good: " + from})
	}
	rest := doctor.Examine(ctx, a.patient(ctx, loaded.Config, patience))
	report.Checks = append(report.Checks, rest.Checks...)
	report.Close()
	return report
}

func (a *app) patient(ctx context.Context, cfg config.Config, patience time.Duration) doctor.Patient {
	p := doctor.Patient{
		DataDir: cfg.DataDir, StorePath: cfg.StorePath(), CertsDir: cfg.CertsDir(), BackendUsername: cfg.MQTT.BackendUsername,
		Listeners: map[string]string{}, Settings: map[string]string{}, Built: a.build.earliest(), Now: a.now,
		StallTimeout: cfg.Ingest.StallTimeout, Patience: patience, Root: "/",
		ClientTLS: func(reach control.Contact, account string) (*tls.Config, error) {
			return a.simulatedTLS(cfg, reach, account)
		},
		Send: sendOne,
	}
	l := cfg.Listeners
	for _, one := range []struct {
		enabled       bool
		name, address string
	}{{l.TCP.Enabled, "tcp", l.TCP.Address}, {l.TLS.Enabled, "tls", l.TLS.Address}, {l.WebSocket.Enabled, "websocket", l.WebSocket.Address}} {
		if one.enabled {
			p.Listeners[one.name], p.Settings[one.name] = one.address, "listeners."+one.name+".address"
		}
	}
	given := userCredentials("", "", cfg, control.Contact{TLS: l.TLS.Address})
	p.Names = append([]string{given.Host}, cfg.Certs.ExtraNames...)
	server, err := control.Dial(ctx, cfg.SocketPath())
	if err != nil {
		p.ServerErr = err
	} else {
		p.Server = server
	}
	return p
}

// sendOne is a client that connects, publishes and goes.
func sendOne(ctx context.Context, address string, secure *tls.Config, account, password, topic string) error {
	device, err := ingest.Connect(ctx, ingest.PublisherOptions{Address: address, TLS: secure, Username: account, Password: password})
	if err != nil {
		return err
	}
	return errors.Join(device.Publish(ctx, topic, []byte("{}"), 1), device.Close())
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func printReport(a *app, r doctor.Report) error {
	width := 0
	for _, f := range r.Checks {
		width = max(width, len(f.Name))
	}
	for _, f := range r.Checks {
		state := string(f.State)
		if f.State == doctor.Fail {
			state = "FAIL"
		}
		for i, line := range wrap(f.Found, max(statusWidth-8-width, 20)) {
			name := f.Name
			if i > 0 {
				state, name = "", ""
			}
			if _, err := fmt.Fprintf(a.stdout, "%-4s  %-*s  %s\n", state, width, name, line); err != nil {
				return err
			}
		}
		if f.Repair == "" {
			continue
		}
		// In one line, whatever the terminal makes of it: there are commands in it to copy.
		if _, err := fmt.Fprintf(a.stdout, "      repair: %s\n", f.Repair); err != nil {
			return err
		}
	}
	return nil
}
