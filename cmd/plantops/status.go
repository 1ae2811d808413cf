package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/certs"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

// statusTimeout bounds the whole command: service managers ask often.
const statusTimeout = 10 * time.Second

func newStatus(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show health, messages, devices, storage and certificates",
		Long: `Show how the running server is. Exit code 0: healthy; 1: running, with the problems named; 4: no server
runs here (what the database holds is printed all the same).`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			loaded, err := a.load()
			if err != nil {
				return err
			}
			s, err := a.status(ctx, loaded.Config)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.stdout, s)
			} else {
				err = printStatus(a, s)
			}
			switch {
			case err != nil:
				return err
			case !s.Running:
				return control.KindOf(control.ErrUnreachable, control.WithHint(fmt.Errorf("no server is running in %s", loaded.Config.DataDir), `start it with "plantops serve"`))
			case len(s.Problems) > 0:
				return errors.New(strings.Join(s.Problems, "\n"))
			}
			return nil
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// status asks the server or, when there is none, reads what it left.
func (a *app) status(ctx context.Context, cfg config.Config) (control.Status, error) {
	server, err := control.Dial(ctx, cfg.SocketPath())
	switch {
	case err == nil:
		return server.Status(ctx)
	case errors.Is(err, control.ErrUnauthorized):
		return control.Status{}, err
	}
	if !exists(cfg.StorePath()) {
		return control.Status{}, control.KindOf(control.ErrUnreachable, control.WithHint(
			fmt.Errorf("no server is running in %s, and there is no database", cfg.DataDir), `start it with "plantops serve"`))
	}
	db, err := a.openReadOnly(ctx, cfg)
	if err != nil {
		return control.Status{}, err
	}
	defer db.Close()
	left := a.controlOptions(cfg, db)
	if needsAuthority(cfg) {
		o := certsOptions(cfg, a.now, a.build.earliest(), nil)
		o.ReadOnly = true
		authority, err := certs.Open(o)
		if err != nil && !errors.Is(err, certs.ErrNoAuthority) {
			a.warn("%v", err)
		}
		left.Authority = authority
	}
	return control.New(left).Status(ctx)
}

func printStatus(a *app, s control.Status) error {
	now := a.now()
	state := "not running"
	if s.Running {
		state = fmt.Sprintf("running, version %s, pid %d, for %s", s.Version, s.PID, span(time.Duration(s.UptimeSeconds)*time.Second))
	}
	m := s.Messages
	rows := [][]string{
		{"server", state},
		{"messages", fmt.Sprintf("%d received = %d stored + %d duplicate + %d quarantined + %d refused + %d pending",
			m.Received, m.Stored, m.Duplicate, m.Quarantined, m.Refused, m.Pending)},
		{"devices", fmt.Sprintf("%d, %d online", len(s.Devices), online(s.Devices))},
		{"storage", fmt.Sprintf("%s, %s with %d telemetry messages; %s of %s free",
			s.Storage.Path, control.Bytes(s.Storage.SizeBytes), s.Storage.Rows, control.Bytes(s.Storage.FreeBytes), control.Bytes(s.Storage.TotalBytes))},
	}
	if q := s.Quarantine; q.Entries > 0 || len(q.Summarised) > 0 {
		made := int64(0)
		for _, g := range q.Summarised {
			made += g.Count
		}
		rows = append(rows, []string{"quarantine", fmt.Sprintf("%d messages, %d in the last day, the newest %s; %d more are only counted",
			q.Entries, q.LastDay, ago(q.Newest, now), made)})
	}
	for _, one := range s.Storage.Salvages {
		rows = append(rows, []string{"made anew", fmt.Sprintf("%s, the damaged file is %s", local(one.Time), one.OldFile)})
	}
	if sub := s.Subscriber; sub != nil {
		how := "not connected to " + sub.Broker
		if sub.Connected {
			how = "connected to " + sub.Broker
		}
		if sub.TLS {
			how += " with TLS"
		}
		rows = append(rows, []string{"subscriber", how})
	}
	if l := s.Listeners; l != nil {
		var bound []string
		for _, listener := range [][2]string{{"tcp", l.TCP}, {"tls", l.TLS}, {"websocket", l.WebSocket}} {
			if listener[1] != "" {
				bound = append(bound, listener[0]+" "+listener[1])
			}
		}
		rows = append(rows, []string{"listeners", strings.Join(bound, ", ")})
	}
	if c := s.Connections; c != nil {
		rows = append(rows, []string{"connections", fmt.Sprintf("%d now, %d since the start", c.Now, c.Total)})
		for _, reason := range slices.Sorted(maps.Keys(c.Refused)) {
			rows = append(rows, []string{"refused", fmt.Sprintf("%d: %s", c.Refused[reason], reason)})
		}
	}
	for _, c := range s.Certificates {
		rows = append(rows, []string{c.Role + " certificate", fmt.Sprintf("until %s, %s", c.NotAfter.Format(time.DateOnly), c.Path)})
	}
	if s.Rollover != nil {
		rows = append(rows, []string{"CA roll-over", s.Rollover.Text()})
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if len(s.Devices) > 0 {
		fmt.Fprintln(a.stdout)
		if err := table(a.stdout, deviceRows(s.Devices, now)); err != nil {
			return err
		}
	}
	if err := printUnread(a, s, now); err != nil {
		return err
	}
	return printRefusals(a, s.Refusals, now)
}

func online(devices []control.DeviceStatus) int {
	n := 0
	for _, d := range devices {
		if d.Online {
			n++
		}
	}
	return n
}

// refusals asks the server. Without one there are none: they are kept in memory.
func (a *app) refusals(ctx context.Context, cfg config.Config) control.Refusals {
	server, err := control.Dial(ctx, cfg.SocketPath())
	if err != nil {
		return nil
	}
	all, err := server.Refusals(ctx)
	if err != nil {
		a.warn("%v", err)
	}
	return all
}

// refusalText is for people: "wrong password, 14 times, last 2m ago from 192.168.1.7".
func refusalText(r control.AccountRefusal, now time.Time) string {
	times := "once"
	if r.Count > 1 {
		times = fmt.Sprintf("%d times, last", r.Count)
	}
	text := fmt.Sprintf("%s, %s %s", r.Reason, times, ago(r.Last, now))
	if r.Remote != "" {
		text += " from " + r.Remote
	}
	return text
}

// printRefusals writes a table of them all, after an empty line, or nothing.
func printRefusals(a *app, all control.Refusals, now time.Time) error {
	if len(all) == 0 {
		return nil
	}
	rows := [][]string{{"ACCOUNT", "REFUSED SINCE THE START", "TIMES", "LAST", "FROM"}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, one := range all[name] {
			rows = append(rows, []string{name, one.Reason, fmt.Sprint(one.Count), ago(one.Last, now), orDash(one.Remote)})
		}
	}
	fmt.Fprintln(a.stdout)
	return table(a.stdout, rows)
}
