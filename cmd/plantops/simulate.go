package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
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
	server, err := runningServer(ctx, cfg)
	if err != nil {
		return err
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

const (
	simulatedMetric = "temperature" // in every message, so that counting it counts messages
	reconnectWait   = time.Second
	// Without an acknowledgement for so long a device gives up.
	simulatedPatience = 30 * time.Second
	// How long acknowledged messages may take to show in the database.
	accountPatience = 10 * time.Second
	accountPoll     = 50 * time.Millisecond
)

// simulation is a number of devices that share one budget of messages.
type simulation struct {
	devices  []*simulated
	interval time.Duration
	endless  bool
	now      func() time.Time

	mu   sync.Mutex
	left int64
}

// simulated is one device. Its fields belong to its goroutine until run has returned.
type simulated struct {
	index       int
	options     ingest.PublisherOptions
	publisher   *ingest.Publisher
	first, last int64 // times of its messages, UTC milliseconds

	sent, acknowledged int64
}

// result is what became of a simulation's messages.
type result struct {
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Stored       int64 `json:"stored"`
}

// run returns when the budget is used up, ctx ends, or no device gets through any more. Then it returns
// why they gave up.
func (s *simulation) run(ctx context.Context) error {
	var working sync.WaitGroup
	var firstErr atomic.Pointer[error]
	for _, d := range s.devices {
		working.Go(func() {
			if err := d.send(ctx, s); err != nil {
				firstErr.CompareAndSwap(nil, &err)
			}
		})
	}
	working.Wait()
	if err := firstErr.Load(); err != nil && ctx.Err() == nil {
		return *err
	}
	return nil
}

// take takes one message out of the budget.
func (s *simulation) take() bool {
	if s.endless {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}

// send sends messages until the budget is used up or ctx ends.
func (d *simulated) send(ctx context.Context, s *simulation) error {
	defer d.disconnect()
	for n := 0; s.take(); n++ {
		if n > 0 && !pause(ctx, s.interval) {
			return nil
		}
		// Each message has a time of its own: that is its identity in the database.
		at := max(s.now().UnixMilli(), d.last+1)
		if d.first == 0 {
			d.first = at
		}
		d.last = at
		payload, err := json.Marshal(sample(d.index, time.UnixMilli(at)))
		if err != nil {
			return err
		}
		d.sent++
		if err := d.deliver(ctx, payload); err != nil {
			return err
		}
		d.acknowledged++
	}
	return nil
}

// deliver publishes until it is acknowledged, connecting again as often as it takes.
func (d *simulated) deliver(ctx context.Context, payload []byte) error {
	topic := "devices/" + d.options.Username + "/telemetry"
	began := time.Now()
	for {
		err := d.connect(ctx)
		if err == nil {
			err = d.publisher.Publish(ctx, topic, payload, 1)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(began) > simulatedPatience:
			return fmt.Errorf("device %s gives up: %w", d.options.Username, err)
		}
		d.disconnect()
		if !pause(ctx, reconnectWait) {
			return ctx.Err()
		}
	}
}

func (d *simulated) connect(ctx context.Context) (err error) {
	if d.publisher == nil {
		d.publisher, err = ingest.Connect(ctx, d.options)
	}
	return err
}

func (d *simulated) disconnect() {
	if d.publisher != nil {
		_ = d.publisher.Close() // whatever was not acknowledged is sent again
		d.publisher = nil
	}
}

// pause waits and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// account compares what the devices sent with what the database holds.
func (s *simulation) account(ctx context.Context, db *store.Store) (result, error) {
	var r result
	for _, d := range s.devices {
		r.Sent += d.sent
		r.Acknowledged += d.acknowledged
	}
	deadline := time.Now().Add(accountPatience)
	for {
		r.Stored = 0
		for _, d := range s.devices {
			n, err := d.stored(ctx, db)
			if err != nil {
				return r, fmt.Errorf("count what is stored of %s: %w", d.options.Username, err)
			}
			r.Stored += n
		}
		if r.Stored >= r.Acknowledged || time.Now().After(deadline) {
			return r, nil
		}
		pause(ctx, accountPoll)
	}
}

func (d *simulated) stored(ctx context.Context, db *store.Store) (n int64, err error) {
	if d.sent == 0 {
		return 0, nil
	}
	q := store.Query{Devices: []string{d.options.Username}, Metrics: []string{simulatedMetric}, From: d.first, To: d.last + 1}
	for _, err := range db.Readings(ctx, q) {
		if errors.Is(err, store.ErrNotFound) {
			return 0, nil // nothing yet
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// telemetry is a message as a greenhouse sensor sends it.
type telemetry struct {
	Timestamp    string  `json:"timestamp"`
	SoilMoisture float64 `json:"soil_moisture"`
	Temperature  float64 `json:"temperature"`
	Humidity     float64 `json:"humidity"`
	LightLevel   float64 `json:"light_level"`
	Battery      float64 `json:"battery"`
}

// sample returns plausible values for a device at a time: the sun rises and sets, warmth follows it, the
// soil dries between waterings every third day.
func sample(device int, at time.Time) telemetry {
	hour := float64(at.UTC().Hour()) + float64(at.UTC().Minute())/60
	sun := max(0, math.Sin((hour-6)/12*math.Pi))
	warmth := math.Sin((hour - 9) / 24 * 2 * math.Pi)
	dry := math.Mod(float64(at.Unix())/86400+float64(device)*0.37, 3) / 3
	noise := func(width float64) float64 { return (mathrand.Float64() - 0.5) * width }
	return telemetry{
		Timestamp:    control.Moment(at.UnixMilli()).String(),
		SoilMoisture: tenth(62 - 30*dry + noise(0.6)),
		Temperature:  tenth(20 + 5*warmth + float64(device%5)*0.4 + noise(0.4)),
		Humidity:     tenth(62 - 12*warmth + noise(2)),
		LightLevel:   math.Round(900*sun + 3 + noise(6)*sun),
		Battery:      tenth(3.9 - 0.1*dry + noise(0.02)),
	}
}

func tenth(v float64) float64 { return math.Round(v*10) / 10 }
