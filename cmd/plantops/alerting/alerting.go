// Package alerting puts alerts together for a running server: what is looked at, the channels of the configuration, and their parts.
package alerting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"sync"
	"time"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/alert/notify"
	"github.com/plantops/plantops/alert/watch"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
)

// Options say what is watched and who is told.
type Options struct {
	Config    config.Config
	Store     *store.Store
	Faults    func(ctx context.Context) ([]alert.Fault, error)
	Well      func(ctx context.Context) error // nil: all is well, for the heartbeat
	Publisher notify.Publisher                // of channels that are MQTT topics
	Now       func() time.Time
	Doubt     func() string // why Now is not to be trusted; "": it is
	Log       *slog.Logger
}

// Alerting is a watcher with its sender. It implements control.Alerting.
type Alerting struct {
	*watch.Watcher
	*sender
	heartbeat *notify.Heartbeat // nil: none
}

// ActPath is where on the web page the buttons of messages go. Whoever has a key need not be logged in.
const ActPath = notify.ActPath

// sender is named so that Run of both can be in one.
type sender struct{ *notify.Sender }

// Channels returns how each channel is.
func (s *sender) Channels() []notify.State { return s.States() }

// Open goes on where another process ended.
func Open(ctx context.Context, o Options) (*Alerting, error) {
	local := func() time.Time { return o.Now().Local() }
	rules, err := Rules(o.Config)
	if err != nil {
		return nil, err
	}
	a := &Alerting{}
	var named []notify.Named
	var channels []watch.Channel
	for _, c := range o.Config.Alerts.AllChannels() {
		channel, err := open(c, o)
		if err != nil {
			return nil, fmt.Errorf("alerts.channels: %s: %w", c.Name, err)
		}
		named = append(named, notify.Named{Name: c.Name, Type: c.Type, Channel: channel})
		channels = append(channels, watch.Channel{Name: c.Name, Buttons: c.Type == "ntfy" && o.Config.Alerts.PageURL != ""})
	}
	a.sender = &sender{notify.NewSender(notify.Options{Channels: named, Outbox: o.Store.Outbox(), Now: o.Now, Log: o.Log})}
	a.Watcher = watch.Open(ctx, watch.Options{Rules: rules, Source: source{o}, Keeper: o.Store.Outbox(), Channels: channels, Waiting: a.Wake, Now: local,
		Doubt: o.Doubt, Log: o.Log})
	if address := o.Config.Alerts.HeartbeatURL; address != "" {
		a.heartbeat = &notify.Heartbeat{Address: address.Reveal(), Log: o.Log, Well: func(ctx context.Context) error {
			return errors.Join(o.Well(ctx), a.Watcher.Well(ctx))
		}}
	}
	return a, nil
}

// Rules are those of the configuration.
func Rules(cfg config.Config) (alert.Rules, error) {
	a := cfg.Alerts
	quiet, err := alert.ParseHours(a.QuietHours)
	if err != nil {
		err = fmt.Errorf("alerts.quiet_hours: %w", err)
	}
	return alert.Rules{After: a.After, Cooldown: a.Cooldown, Repeat: a.Repeat, Quiet: quiet, OfflineAfter: cfg.Ingest.OfflineAfter,
		NoOffline: !a.Offline, NoSilent: !a.Silent, NoStuck: !a.Stuck}, err
}

// open makes a channel of what the configuration says.
func open(c config.AlertChannel, o Options) (notify.Channel, error) {
	zone, address := time.Local, c.URL.Reveal()
	switch c.Type {
	case "ntfy":
		return notify.NewNtfy(address, c.Token.Reveal(), o.Config.Alerts.PageURL, zone)
	case "discord":
		return notify.NewDiscord(address, zone), nil
	case "telegram":
		return notify.NewTelegram(address, c.Token.Reveal(), c.Chat, zone), nil
	case "webhook":
		return notify.NewWebhook(address, c.Secret.Reveal(), zone, o.Now), nil
	case "mqtt":
		return notify.NewMQTT(c.Topic, o.Publisher, zone), nil
	case "email":
		to, err := mail.ParseAddressList(c.To)
		if err != nil {
			return nil, errors.New("to must be addresses with commas between them")
		}
		m := notify.EmailOptions{Server: c.Server, Encryption: notify.Encryption(c.Encryption), Username: c.Username, Password: c.Password.Reveal(), From: c.From,
			Zone: zone, Now: o.Now}
		if m.Encryption == "" {
			m.Encryption = notify.StartTLS
		}
		for _, one := range to {
			m.To = append(m.To, one.String())
		}
		return notify.NewEmail(m)
	}
	return nil, fmt.Errorf("there is no type %q", c.Type)
}

// Run watches and sends until ctx ends.
func (a *Alerting) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context) error{a.Watcher.Run, a.sender.Run}
	if a.heartbeat != nil {
		parts = append(parts, a.heartbeat.Run)
	}
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, run := range parts {
		all.Go(func() {
			defer cancel() // one that ends ends all
			errs[i] = run(ctx)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// source is what a store has for a look.
type source struct{ Options }

// Devices implements watch.Source. Those of a broker that is another program have no accounts here; of ours those are watched that have one, or
// are behind one that has.
func (s source) Devices(ctx context.Context) ([]alert.Device, error) {
	list, err := s.Store.Devices(ctx)
	if err != nil {
		return nil, err
	}
	watched := make([]alert.Device, 0, len(list))
	for i := range list {
		d := &list[i]
		if d.Registered || d.Behind.Source != "" || !s.Config.Embedded() {
			watched = append(watched, alert.Device{ID: d.ID, Seen: max(d.LastSeen, d.UnsureSeen)})
		}
	}
	return watched, nil
}

// Latest implements watch.Source.
func (s source) Latest(ctx context.Context) (list []history.Reading, err error) {
	view, err := s.Store.View(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = view.Close() }() // it only reads
	for r, err := range view.LatestAll(ctx) {
		var damaged *history.DamagedError
		if errors.As(err, &damaged) {
			continue // of one device
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// Plan implements watch.Source.
func (s source) Plan(ctx context.Context) (*garden.Plan, error) { return s.Store.Garden().Plan(ctx) }

// Faults implements watch.Source.
func (s source) Faults(ctx context.Context) ([]alert.Fault, error) { return s.Options.Faults(ctx) }
