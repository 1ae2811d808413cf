package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

type simulateFlags struct {
	devices        int
	count          int64
	every          time.Duration
	rate, listener string
	asJSON         bool
}

// maxSimulated bounds the connections of one simulation.
const maxSimulated = 10_000

func newSimulate(a *app) *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Send readings as devices would, through the real door of the running server",
		Long: `Register devices with names of their own (sim-ABC123-1 …) with the running server, send plausible readings, and remove the
devices and their readings at the end. With --count, and after Ctrl-C, it ends with what was sent, acknowledged
and stored, and fails unless everything acknowledged is stored.`,
		Example: `  plantops simulate --devices 6 --every 10s
  plantops simulate --devices 100 --count 100000`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			interval, err := f.interval(cmd.Flags().Changed("every"))
			if err != nil {
				return usageError(cmd, err)
			}
			loaded, err := a.load()
			if err != nil {
				return err
			}
			return a.simulate(cmd.Context(), loaded.Config, f, interval)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.devices, "devices", 6, "how many devices")
	flags.DurationVar(&f.every, "every", 10*time.Second, "time between two messages of one device")
	flags.StringVar(&f.rate, "rate", "", `messages a second of all devices together, or "max" (default with --count)`)
	flags.Int64Var(&f.count, "count", 0, "stop after so many messages of all devices together (default: go on until Ctrl-C)")
	flags.StringVar(&f.listener, "listener", "", "tls or tcp (default: tls where there is one)")
	addJSONFlag(cmd, &f.asJSON)
	return cmd
}

// interval returns the time between two messages of one device; 0 is as fast as they are acknowledged.
func (f simulateFlags) interval(everyGiven bool) (time.Duration, error) {
	switch {
	case f.devices < 1 || f.devices > maxSimulated:
		return 0, fmt.Errorf("--devices %d: use 1 to %d", f.devices, maxSimulated)
	case f.count < 0:
		return 0, fmt.Errorf("--count %d: use a positive number", f.count)
	case f.listener != "" && f.listener != "tls" && f.listener != "tcp":
		return 0, fmt.Errorf("--listener %s: use tls or tcp", f.listener)
	case everyGiven && f.rate != "":
		return 0, errors.New("use --every or --rate, not both")
	case everyGiven && f.every <= 0:
		return 0, fmt.Errorf("--every %s: use a positive duration", f.every)
	case f.rate == "max", f.rate == "" && f.count > 0 && !everyGiven:
		return 0, nil
	case f.rate == "":
		return f.every, nil
	}
	perSecond, err := strconv.ParseFloat(f.rate, 64)
	if err != nil || !(perSecond > 0) {
		return 0, fmt.Errorf(`--rate %s: use a positive number or "max"`, f.rate)
	}
	interval := float64(f.devices) / perSecond * float64(time.Second)
	if interval >= math.MaxInt64 {
		return 0, fmt.Errorf("--rate %s: too low", f.rate)
	}
	return time.Duration(interval), nil
}

// simulate registers the devices, lets them send, and accounts for what they sent.
func (a *app) simulate(ctx context.Context, cfg config.Config, f simulateFlags, interval time.Duration) (err error) {
	server, err := control.Dial(ctx, cfg.SocketPath())
	if errors.Is(err, control.ErrUnauthorized) {
		return err
	}
	if err != nil {
		return control.KindOf(control.ErrUnreachable, control.WithHint(fmt.Errorf("no server is running in %s", cfg.DataDir), `start it with "plantops serve"`))
	}
	reach, err := server.Contact(ctx)
	if err != nil {
		return err
	}
	address, useTLS, err := simulatedListener(reach, f.listener)
	if err != nil {
		return err
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()

	sim := simulation{interval: interval, left: f.count, endless: f.count == 0, now: a.now}
	defer func() {
		// Also after Ctrl-C, which has ended ctx.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operateWait)
		defer cancel()
		for _, d := range sim.devices {
			removeErr := server.RemoveDevice(ctx, d.options.Username)
			if removeErr == nil {
				_, removeErr = server.PurgeDevice(ctx, d.options.Username)
			}
			err = errors.Join(err, removeErr)
			if errors.Is(removeErr, control.ErrUnreachable) {
				return // so it is for the others
			}
		}
	}()
	run := "sim-" + rand.Text()[:6] // names of its own: sim-1 may be a real device
	for i := range f.devices {
		id := fmt.Sprintf("%s-%d", run, i+1)
		secret, err := server.AddDevice(ctx, id) // a name that is taken is somebody's, however unlikely
		if err != nil {
			return err
		}
		o := ingest.PublisherOptions{Address: address, Username: id, Password: secret}
		sim.devices = append(sim.devices, &simulated{index: i, options: o})
		if useTLS {
			if sim.devices[i].options.TLS, err = a.simulatedTLS(cfg, reach, id); err != nil {
				return err
			}
		}
	}
	a.warn("playing %s at %s; Ctrl-C ends it", count(f.devices, "device"), address)
	return a.runSimulation(ctx, &sim, db, f.asJSON)
}

func (a *app) runSimulation(ctx context.Context, sim *simulation, db *store.Store, asJSON bool) error {
	runErr := sim.run(ctx)
	result, err := sim.account(context.WithoutCancel(ctx), db)
	if err != nil {
		return errors.Join(runErr, err)
	}
	if asJSON {
		err = printJSON(a.stdout, result)
	} else {
		_, err = fmt.Fprintf(a.stdout, "sent %d, acknowledged %d, stored %d\n", result.Sent, result.Acknowledged, result.Stored)
	}
	if result.Stored < result.Acknowledged {
		err = errors.Join(err, fmt.Errorf("%d acknowledged messages are not stored", result.Acknowledged-result.Stored))
	}
	return errors.Join(runErr, err)
}

// simulatedListener chooses the listener, and the address at which this machine reaches it.
func simulatedListener(reach control.Contact, want string) (address string, useTLS bool, err error) {
	switch {
	case reach.TLS != "" && want != "tcp":
		address, useTLS = reach.TLS, true
	case reach.TCP != "" && want != "tls":
		address = reach.TCP
	default:
		if want == "" {
			want = "tls or tcp"
		}
		return "", false, fmt.Errorf("the server has no %s listener", want)
	}
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		address = net.JoinHostPort("localhost", port)
	}
	return address, useTLS, err
}

// simulatedTLS trusts the CA of the server. Where certificates are required it has one issued, in memory.
func (a *app) simulatedTLS(cfg config.Config, reach control.Contact, id string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(reach.CA)) {
		return nil, errors.New("the server has no CA certificate")
	}
	conf := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if len(cfg.Certs.ExtraNames) > 0 && cfg.Certs.ServerCert != "" {
		conf.ServerName = cfg.Certs.ExtraNames[0] // certificates from outside hardly cover localhost
	}
	if cfg.Listeners.TLS.RequireCertificate {
		authority, err := certs.Open(a.certsOptions(cfg))
		if err != nil {
			return nil, certificateError(err)
		}
		pair, err := issueInMemory(authority, id)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
