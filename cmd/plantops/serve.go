package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/cmd/plantops/alerting"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/web"
)

const (
	stopTimeout = 10 * time.Second
	// subscribeTimeout bounds the wait for the subscriber of the embedded broker; it takes milliseconds.
	subscribeTimeout = 30 * time.Second
	// lockWait outlasts a command that has the data directory for a moment.
	lockWait = time.Second
)

func newServe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the broker and the store until told to stop",
		Long: `Run everything. The first start creates the certificate authority, the certificates and the database in
the data directory. SIGTERM and SIGINT stop it in order, a second one at once; SIGHUP reloads what can change.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			a.configPath = loaded.Path // a reload reads the file that was found, and misses it when it is gone
			s := service{app: a, loaded: loaded, reload: make(chan os.Signal, 1)}
			if s.log, err = newLogger(a.stderr, loaded.Config.Log, &s.level, a.environ); err != nil {
				return control.KindOf(errConfig, err)
			}
			tuneMemory(a.environ)
			signal.Notify(s.reload, syscall.SIGHUP)
			defer signal.Stop(s.reload)
			return s.serve(cmd.Context())
		},
	}
}

// service is one run of everything.
type service struct {
	app    *app
	loaded config.Loaded
	log    *slog.Logger
	level  slog.LevelVar
	reload chan os.Signal

	authority *certs.Authority // nil without a TLS listener
	// These are set when everything is open.
	proof   *endToEnd
	running *control.Running
	server  *control.Server
	page    *page // nil: none is served
	// bridges changes the bridges, and bridgeStatus tells how they are; nil when the broker is another program.
	bridges      func(before, now config.Config) error
	bridgeStatus func() []bridge.Status
}

// serve runs until ctx ends or a part ends by itself. It reads as the order of starting; stopping is the
// mirror of it.
func (s *service) serve(ctx context.Context) (err error) {
	cfg, now, log := s.loaded.Config, s.app.now, s.log
	for _, warning := range s.loaded.Warnings {
		log.Warn(warning)
	}
	w := wiring{loaded: s.loaded, now: now, built: s.app.build.earliest(), log: log, password: backendPassword(cfg),
		box: rand.Text()}
	if err := checkWiring(s.loaded, time.Time{}); err != nil {
		return err
	}
	if w.sources, err = compileSources(s.loaded); err != nil {
		return err
	}
	life := newLifecycle(log)
	defer func() {
		notify(log, daemon.SdNotifyStopping)
		err = errors.Join(ignoreCancelled(ctx, err), life.stop(stopTimeout))
	}()

	if err := makeDataDir(cfg.DataDir); err != nil {
		return err
	}
	lock, err := control.AcquireLock(ctx, cfg.DataDir, lockWait)
	if err != nil {
		return err
	}
	life.onStop("lock", func(context.Context) error { return lock.Release() })
	database, err := control.AcquireDatabase(ctx, cfg.StorePath(), lockWait)
	if err != nil {
		return err
	}
	life.onStop("lock of the database", func(context.Context) error { return database.Release() })

	opening := storeOptions(cfg, now, log)
	opening.Unsure = func() bool { return w.clock != nil && w.clock.Unsure() }
	db, err := store.Open(ctx, opening)
	if err != nil {
		return err
	}
	life.onStop("store", func(context.Context) error { return db.Close() })
	w.store = db
	if w.clock, err = newTimekeeper(ctx, s.app, db, log); err != nil {
		return err
	}
	life.start("clock", w.clock.watch)
	before, err := control.TakeBaseline(ctx, db)
	if err != nil {
		return err
	}

	if needsAuthority(cfg) {
		shown := certsOptions(cfg, now, w.built, log)
		shown.Doubt, shown.Judge = w.clock.Doubt, w.clock.Estimate
		if s.authority, err = openAuthority(ctx, shown, db); err != nil {
			return err
		}
		w.authority = s.authority
		w.clock.learn(s.authority)
	}
	if w.tls, err = subscriberTLS(w); err != nil {
		return err
	}

	var br *broker.Broker // stays nil when the broker is another program
	var bound broker.Addrs
	if cfg.Embedded() {
		if br, err = broker.Listen(brokerOptions(w)); err != nil {
			return control.ListenHints(err, listenSettings(cfg))
		}
		life.onStop("broker", func(context.Context) error { return br.Close() })
		bound = br.Addrs()
		if err := br.Start(); err != nil {
			return err
		}
		life.watch("broker", br.Died())
	}

	if s.page, err = listenWeb(w); err != nil {
		return err
	}
	if s.page != nil {
		life.onStop("web listener", func(context.Context) error { return s.page.Close() })
	}

	if w.port, err = s.loaded.SubscriberPort(boundPort(bound.TCP), boundPort(bound.TLS)); err != nil {
		return control.KindOf(errConfig, err)
	}
	subscription := ingestOptions(w)
	if br != nil {
		subscription.Dialed = br.Expect
	}
	sink, err := newFirstReadings(ctx, db, log)
	if err != nil {
		return err
	}
	subscriber, err := ingest.New(subscription, sink)
	if err != nil {
		return err
	}
	life.start("ingest", subscriber.Run)

	if br != nil {
		if err := awaitSubscribed(ctx, subscriber, life); err != nil {
			return err
		}
		life.onStop("messages on their way", func(ctx context.Context) error { return drain(ctx, br) })
		life.onStop("devices", br.DisconnectDevices)
		life.onStop("gathering for commits", func(context.Context) error { db.Hurry(); return nil })
		br.AdmitDevices()
	}
	if br != nil {
		group := &bridge.Group{}
		s.bridges = func(before, now config.Config) error { return applyBridges(w, group, br, before, now) }
		s.bridgeStatus = group.Status
		life.start("bridges", group.Run)
		if err := s.bridges(config.Config{}, cfg); err != nil {
			return err
		}
	}
	life.start("salvage", db.Regain)
	life.start("check", db.CheckLater)
	life.start("memory", giveBackMemory)
	life.start("dating", w.clock.date)
	life.start("disk space", watchSpace(cfg.StorePath(), db.Space, log))
	s.proof = &endToEnd{probe: ingestProgress{subscriber.Stats}, stats: subscriber.Stats, bound: cfg.Ingest.StallTimeout, log: log}
	if br != nil {
		s.proof.probe = br
	}
	life.start("end to end", s.proof.run)
	s.running = &control.Running{Broker: br, Subscriber: subscriber, BrokerAddress: hostPort(cfg.MQTT.Host, w.port),
		UsesTLS: cfg.MQTT.UseTLS, Fault: s.proof.alive, Started: now(), Before: before, Bridges: s.bridgeStatus}
	told := s.app.controlOptions(cfg, db)
	told.Authority, told.Running, told.Doubt, told.Sources = s.authority, s.running, w.clock.Doubt, w.sources
	confirmed := make(chan struct{}, 1)
	s.running.Retain = func() {
		select {
		case confirmed <- struct{}{}:
		default:
		}
	}
	if s.authority != nil {
		s.running.CertificatesChanged = func() { w.clock.learn(s.authority) }
	}
	if s.page != nil {
		s.running.Web = s.page
	}
	s.server = control.New(told)
	alerts, err := s.openAlerts(ctx, w, br)
	if err != nil {
		return err
	}
	s.running.Alerts = alerts
	life.start("alerts", alerts.Run)
	if told.Keep > 0 || len(told.Rules) > 0 {
		life.start("retention", retain(s.server, confirmed, log))
	}
	life.start("size", keepSize(s.server, log))
	life.start("tables", func(ctx context.Context) error {
		return db.KeepTables(ctx, store.TableOptions{Hourly: cfg.Store.SQLHourly, Keep: cfg.Store.SQLHourlyKeep})
	})
	if cfg.Backup.Every > 0 {
		life.start("backups", s.app.backups(cfg, db, w.clock.Unsure, log).Run)
	}
	if s.authority != nil {
		life.start("certificates", func(ctx context.Context) error {
			return s.authority.Run(ctx, func() {
				w.clock.learn(s.authority)
				s.server.EndRevoked()
				if err := rememberAuthority(ctx, s.authority, db, log); err != nil && ctx.Err() == nil {
					log.Error("the certificate authority could not be written down in the database", "err", err)
				}
			})
		})
	}
	if s.page != nil {
		s.page.mountAPI(s, db)
		s.page.Mount(web.Mount{Prefix: alerting.ActPath, Handler: alerts})
		life.start("web page", s.page.Run)
		life.start("sessions of the web page", expireSessions(db, log))
	}
	socket, err := control.Listen(cfg.SocketPath(), s.server, log)
	if err != nil {
		return err
	}
	life.start("control socket", socket.Run)
	guard, err := watchdog(log, s.server.Alive)
	if err != nil {
		return err
	}
	if guard != nil {
		life.start("watchdog", guard)
	}

	s.ready(bound)
	s.sayWhatNext(sink.hasDevices(ctx))
	return s.wait(ctx, life)
}

// awaitSubscribed waits until what devices send has somewhere to go.
func awaitSubscribed(ctx context.Context, subscriber *ingest.Subscriber, life *lifecycle) error {
	late := time.NewTimer(subscribeTimeout)
	defer late.Stop()
	select {
	case <-subscriber.Ready():
		return nil
	case err := <-life.Died():
		return err
	case <-late.C:
		return fmt.Errorf("the subscriber could not subscribe within %s; the log says why", subscribeTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drainLimit is what a stop waits for messages that are on their way to the disk, of ten seconds in all.
const drainLimit = 4 * time.Second

// drain waits until everything that the broker took from devices is stored: QoS 0 messages, which nobody would
// send again, as much as those that wait for their acknowledgement.
func drain(ctx context.Context, br *broker.Broker) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	return br.Drain(ctx)
}

// ready tells everybody who waits.
func (s *service) ready(bound broker.Addrs) {
	attrs := []any{"version", s.app.build.Version}
	reach := control.Bound(bound)
	for _, l := range []struct{ name, address string }{{"tcp", reach.TCP}, {"tls", reach.TLS}, {"websocket", reach.WebSocket}} {
		if l.address != "" {
			attrs = append(attrs, l.name, l.address)
		}
	}
	if s.page != nil {
		attrs = append(attrs, "http", s.page.Addr().String())
	}
	if !s.loaded.Config.Embedded() {
		attrs = append(attrs, "broker", s.running.BrokerAddress)
	}
	if s.authority != nil {
		attrs = append(attrs, "ca_fingerprint", s.authority.Fingerprint())
	}
	database, err := filepath.Abs(s.loaded.Config.StorePath())
	if err != nil {
		database = s.loaded.Config.StorePath()
	}
	s.log.Info("PlantOps is ready", append(attrs, "database", database)...)
	notify(s.log, daemon.SdNotifyReady+"\nSTATUS=Ready")
}

// sayWhatNext ends the start with what a person may want to do now.
func (s *service) sayWhatNext(hasDevices bool) {
	say := func(what, command string) {
		s.log.Info("next: "+what, "command", "plantops "+command+s.app.sameData(s.loaded.Path))
	}
	switch {
	case !s.loaded.Config.Embedded():
		say("see what comes in", "readings --follow")
	case hasDevices:
		say("see how it is", "status")
	default:
		say("register a device, which prints what to paste into it", "device add bed-1")
	}
}

// wait returns when the program is to stop: nil when it was told to.
func (s *service) wait(ctx context.Context, life *lifecycle) error {
	for {
		select {
		case <-ctx.Done():
			s.log.Info("stopping")
			return nil
		case err := <-life.Died():
			s.log.Error("stopping because a part ended by itself", "err", err)
			return err
		case <-s.reload:
			s.reloadConfig()
		}
	}
}

// ignoreCancelled makes a start that was broken off on request no failure.
func ignoreCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
