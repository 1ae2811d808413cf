package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
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
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show health, messages, devices, storage and certificates",
		Long: `Show how the running server is. It begins with one word: healthy; degraded, when readings are stored but something needs
a person; unhealthy, when they are not stored or no server runs. The reasons follow.

Exit code 0: healthy; 1: running, with the problems named; 4: no server runs here (what the database holds is printed all the
same).`,
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
				err = printStatus(a, s, all)
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
	cmd.Flags().BoolVar(&all, "all", false, "list all devices and refusals, not only ten of each")
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

// mostListed is how many devices and refusals status lists without --all.
const mostListed = 10

func printStatus(a *app, s control.Status, all bool) error {
	now := a.now()
	fmt.Fprintln(a.stdout, s.Health)
	if !s.Running {
		fmt.Fprintln(a.stdout, "  no server is running")
	}
	for _, problem := range s.Problems {
		for _, line := range fold(problem, statusWidth-4) {
			fmt.Fprintln(a.stdout, "  "+line)
		}
	}
	fmt.Fprintln(a.stdout)
	if err := table(a.stdout, foldRows(statusRows(s, now))); err != nil {
		return err
	}
	if len(s.Devices) > 0 {
		fmt.Fprintln(a.stdout)
		if err := printStatusDevices(a, s.Devices, now, all); err != nil {
			return err
		}
	}
	if err := printUnread(a, s, now, all); err != nil {
		return err
	}
	return printRefusals(a, s.Refusals, now, all)
}

// statusRows are the facts besides devices and refusals.
func statusRows(s control.Status, now time.Time) [][]string {
	state := "not running"
	if s.Running {
		state = fmt.Sprintf("running, version %s, pid %d, for %s", s.Version, s.PID, control.Span(time.Duration(s.UptimeSeconds)*time.Second))
	}
	m := s.Messages
	rows := [][]string{
		{"server", state},
		{"messages", fmt.Sprintf("%d received = %d stored + %d duplicate + %d quarantined + %d refused + %d pending",
			m.Received, m.Stored, m.Duplicate, m.Quarantined, m.Refused, m.Pending)},
		{"devices", fmt.Sprintf("%d, %d online", len(s.Devices), online(s.Devices))},
		{"storage", fmt.Sprintf("%s with %s; %s of %s free; %s", control.Bytes(s.Storage.SizeBytes),
			count(s.Storage.Rows, "telemetry message"), control.Bytes(s.Storage.FreeBytes), control.Bytes(s.Storage.TotalBytes), s.Storage.Path)},
	}
	rows = append(rows, reachRows(s.Storage)...)
	rows = append(rows, []string{"backup", backupText(s.Backups, now)})
	if q := s.Quarantine; q.Entries > 0 || len(q.Summarised) > 0 {
		made := int64(0)
		for _, g := range q.Summarised {
			made += g.Count
		}
		rows = append(rows, []string{"quarantine", fmt.Sprintf("%s, %d in the last day, the newest %s; %d more only counted",
			count(q.Entries, "message"), q.LastDay, ago(q.Newest, now), made)})
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
	for _, b := range s.Bridges {
		rows = append(rows, []string{"bridge " + b.Name, bridgeText(b, now)})
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
	if s.Web != "" {
		rows = append(rows, []string{"web page", s.Web + "; plantops open makes a link"})
	}
	if c := s.Connections; c != nil {
		rows = append(rows, []string{"connections", fmt.Sprintf("%d now, %d since the start", c.Now, c.Total)})
		for _, reason := range slices.Sorted(maps.Keys(c.Refused)) {
			rows = append(rows, []string{"refused", fmt.Sprintf("%d: %s", c.Refused[reason], reason)})
		}
	}
	for _, c := range s.Certificates {
		rows = append(rows, []string{c.Role + " cert", fmt.Sprintf("until %s, %s", c.NotAfter.Format(time.DateOnly), c.Path)})
	}
	if s.Rollover != nil {
		rows = append(rows, []string{"CA roll-over", s.Rollover.Text()})
	}
	waits := func(of string, r control.LaneRetention) {
		if r.Waits {
			rows = append(rows, []string{"retention", fmt.Sprintf("readings%s from %s to %s wait to be deleted, a day of them per day; see plantops retention show",
				of, local(r.Oldest), local(r.Due))})
		}
	}
	for _, r := range s.Retention.Rules {
		waits(" of "+r.Device, r.LaneRetention)
	}
	waits("", s.Retention.LaneRetention)
	if al := s.Alerts; al != nil {
		rows = append(rows, []string{"alerts", alertsText(*al)})
	}
	if s.ClockDoubt != "" {
		rows = append(rows, []string{"clock", "not to be trusted: " + s.ClockDoubt})
	}
	return rows
}

func alertsText(s control.AlertStatus) string {
	text := "none"
	if s.Open > 0 {
		text = fmt.Sprintf("%d, %d of them acknowledged; see plantops alert list", s.Open, s.Acknowledged)
	}
	if len(s.Channels) == 0 {
		return text + "; no channel"
	}
	names := make([]string, len(s.Channels))
	for i, c := range s.Channels {
		names[i] = c.Name
	}
	return text + "; to " + strings.Join(names, ", ")
}

// reachRows say how far back readings go and how long the disk lasts.
func reachRows(s control.Storage) (rows [][]string) {
	if s.Oldest != 0 {
		rows = append(rows, []string{"readings", "from " + local(s.Oldest) + " on"})
	}
	if s.MaxBytes > 0 {
		rows = append(rows, []string{"kept", fmt.Sprintf("up to %s, of which %s are used", control.Bytes(s.MaxBytes), control.Bytes(s.UsedBytes))})
	}
	switch {
	case s.GrowthPerDay == nil:
	case *s.GrowthPerDay <= 0:
		rows = append(rows, []string{"growth", "none in the last days"})
	case s.LastsSeconds == nil:
		rows = append(rows, []string{"growth", fmt.Sprintf("%s a day; the disk lasts for ever at that rate", control.Bytes(*s.GrowthPerDay))})
	default:
		rows = append(rows, []string{"growth", fmt.Sprintf("%s a day; the disk lasts %s at that rate", control.Bytes(*s.GrowthPerDay),
			control.Span(time.Duration(min(*s.LastsSeconds, int64(math.MaxInt64/time.Second)))*time.Second))})
	}
	return rows
}

// backupText is for people: "2h ago, 14.2 MiB, /mnt/usb/plantops-20260107T120000Z.db; the next in 22h".
func backupText(b control.Backups, now time.Time) string {
	text := "none is known"
	if b.Last != 0 {
		text = fmt.Sprintf("%s, %s, %s", ago(b.Last, now), control.Bytes(b.SizeBytes), b.Path)
	}
	switch {
	case b.EverySeconds == 0:
		text += "; none are made by themselves"
	case b.Error != "":
		text += fmt.Sprintf("; failed %s", ago(b.Failed, now))
	case b.Next.Time().After(now):
		text += "; the next in " + control.Span(b.Next.Time().Sub(now))
	default:
		text += "; the next is due"
	}
	return text
}

// bridgeText is for people: "connected to mqtt.example.org:8883 since 2h ago; 14 messages out, 3 in, 0 waiting".
func bridgeText(b control.BridgeStatus, now time.Time) string {
	text := "connected to "
	if !b.Connected {
		text = "away from "
	}
	text += fmt.Sprintf("%s, since %s; %s out, %d in, %d waiting", b.Broker, ago(b.Since, now), count(b.Out.Carried, "message"),
		b.In.Carried, b.Waiting)
	for _, lost := range []struct {
		n    int64
		what string
	}{
		{b.Out.Refused + b.In.Refused, "refused"},
		{b.Out.Dropped + b.In.Dropped, "of QoS 0 dropped"},
		{b.Out.Looped + b.In.Looped, "left that had been here before"},
	} {
		if lost.n > 0 {
			text += fmt.Sprintf(", %d %s", lost.n, lost.what)
		}
	}
	return text
}

// printStatusDevices lists those first that something is wrong with, then those that were heard of last.
func printStatusDevices(a *app, devices []control.DeviceStatus, now time.Time, all bool) error {
	list := slices.Clone(devices)
	if !all && len(list) > mostListed {
		slices.SortStableFunc(list, func(x, y control.DeviceStatus) int {
			return cmp.Or(cmp.Compare(attention(y), attention(x)), cmp.Compare(y.LastSeen, x.LastSeen))
		})
		list = list[:mostListed]
	}
	rows := [][]string{{"DEVICE", "STATE", "LAST SEEN", "STORED", "QUARANTINED", "REFUSED"}}
	for _, d := range list {
		rows = append(rows, []string{clip(d.ID, 24), clip(deviceState(d), 23), ago(d.LastSeen, now), fmt.Sprint(d.Messages.Stored),
			fmt.Sprint(d.Messages.Quarantined), fmt.Sprint(d.Messages.Refused)})
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if more := len(devices) - len(list); more > 0 {
		fmt.Fprintf(a.stdout, "… and %d more: plantops status --all, plantops device list\n", more)
	}
	return nil
}

// attention is how much a device needs a person.
func attention(d control.DeviceStatus) int {
	switch {
	case d.Messages.Difference != 0:
		return 3
	case d.Registered && !d.Online && d.LastSeen != 0:
		return 2
	case len(d.Refusals) > 0:
		return 1
	}
	return 0
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

// inMemory asks the server for what it keeps in memory only. Without one there is nothing of it.
func inMemory[T any](ctx context.Context, a *app, cfg config.Config, ask func(*control.Client, context.Context) (T, error)) (all T) {
	server, err := control.Dial(ctx, cfg.SocketPath())
	if err != nil {
		return all
	}
	if all, err = ask(server, ctx); err != nil {
		a.warn("%v", err)
	}
	return all
}

// howOften is for people: "once 2m ago", "14 times, last 2m ago".
func howOften(n int64, last control.Moment, now time.Time) string {
	if n > 1 {
		return fmt.Sprintf("%d times, last %s", n, ago(last, now))
	}
	return "once " + ago(last, now)
}

// refusalText is for people: "wrong password, 14 times, last 2m ago from 192.168.1.7".
func refusalText(r control.AccountRefusal, now time.Time) string {
	text := r.Reason + ", " + howOften(r.Count, r.Last, now)
	if r.Remote != "" {
		text += " from " + r.Remote
	}
	return text
}

// printRefusals writes a table of them, the latest accounts first and without all at most ten lines, after an empty line; or nothing.
func printRefusals(a *app, refusals control.Refusals, now time.Time, all bool) error {
	type line struct {
		account string
		control.AccountRefusal
	}
	var lines []line
	for _, name := range slices.Sorted(maps.Keys(refusals)) {
		for _, one := range refusals[name] {
			lines = append(lines, line{name, one})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	more := 0
	if !all && len(lines) > mostListed {
		slices.SortStableFunc(lines, func(x, y line) int { return cmp.Compare(y.Last, x.Last) })
		more = len(lines) - mostListed
		lines = lines[:mostListed]
	}
	rows := [][]string{{"ACCOUNT", "REFUSED SINCE THE START", "TIMES", "LAST", "FROM"}}
	for _, l := range lines {
		rows = append(rows, []string{clip(l.account, 16), clip(l.Reason, 30), fmt.Sprint(l.Count), ago(l.Last, now), clip(orDash(l.Remote), 15)})
	}
	fmt.Fprintln(a.stdout)
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(a.stdout, "… and %d more: plantops status --all\n", more)
	}
	return nil
}

// skippedText is for people: `temperature "21,5", 14 times, last 2m ago`.
func skippedText(f control.SkippedField, now time.Time) string {
	return fmt.Sprintf("%s %q, %s", f.Field, f.Text, howOften(f.Count, f.Last, now))
}

// unreadText is for people: "devices/bed-1/Telemetry, did it mean devices/bed-1/telemetry? 14 messages, last 2m ago".
func unreadText(u control.UnreadTopic, now time.Time) string {
	text := u.Topic + ","
	if u.Meant != "" {
		text += " did it mean " + u.Meant + "?"
	}
	return fmt.Sprintf("%s %s, last %s", text, count(u.Count, "message"), ago(u.Last, now))
}

// printUnread writes what could not be read of which device, and which topics nobody reads; or nothing.
func printUnread(a *app, s control.Status, now time.Time, all bool) error {
	skipped := [][]string{{"DEVICE", "NOT READ", "LAST FIELD", "LAST TEXT", "LAST", "GIVEN UP"}}
	for _, d := range s.Devices {
		if last := d.LastSkipped; last != nil {
			skipped = append(skipped, []string{clip(d.ID, 20), fmt.Sprint(d.Skipped), clip(last.Field, 16), clip(fmt.Sprintf("%q", last.Text), 16), ago(last.Last, now), fmt.Sprint(d.Dropped)})
		} else if d.Dropped > 0 {
			skipped = append(skipped, []string{clip(d.ID, 20), "0", "-", "-", "-", fmt.Sprint(d.Dropped)})
		}
	}
	topics := [][]string{{"ACCOUNT", "TOPIC THAT NOBODY READS", "MEANT", "TIMES", "LAST"}}
	for _, name := range slices.Sorted(maps.Keys(s.Unread)) {
		u := s.Unread[name]
		topics = append(topics, []string{clip(name, 10), clip(u.Topic, 25), clip(orDash(u.Meant), 23), fmt.Sprint(u.Count), ago(u.Last, now)})
	}
	for _, rows := range [][][]string{skipped, topics} {
		if len(rows) == 1 {
			continue
		}
		more := 0
		if !all && len(rows) > mostListed+1 {
			more = len(rows) - mostListed - 1
			rows = rows[:mostListed+1]
		}
		fmt.Fprintln(a.stdout)
		if err := table(a.stdout, rows); err != nil {
			return err
		}
		if more > 0 {
			fmt.Fprintf(a.stdout, "… and %d more: plantops status --all\n", more)
		}
	}
	return nil
}
