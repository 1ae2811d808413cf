package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// shownByDefault is how far back readings go when nothing says otherwise.
const shownByDefault = 24 * time.Hour

type readingsFlags struct {
	since, until, metric, every, format string
	limit                               int
	asJSON, follow                      bool
}

func newReadings(a *app) *cobra.Command {
	var f readingsFlags
	cmd := &cobra.Command{
		Use:   "readings [DEVICE...]",
		Short: "Print readings in order of time, the newest last; without a device, of all devices",
		Long: `Print readings in order of time, the newest last. Without a device they are those of all devices; without --since,
--until and --limit those of the last 24 hours.`,
		Example: `  plantops readings bed-1 --since 7d
  plantops readings bed-1 --limit 5              the newest five values
  plantops readings --follow                     and then what comes, until Ctrl-C
  plantops readings --since 2026-03-01 --until 2026-04-01 --metric temperature --every 1h --format csv`,
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, devices []string) error {
			query, err := f.query(devices, a.now())
			if err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				return a.printReadings(cmd.Context(), cfg, db, query, f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "from then on: a duration before now (24h, 7d), a date or an RFC 3339 time (default: 24h, with --limit everything)")
	flags.StringVar(&f.until, "until", "", "before then: as --since")
	flags.StringVar(&f.metric, "metric", "", "only this metric, for instance temperature")
	flags.StringVar(&f.every, "every", "", "mean per span of time, for instance 1h")
	flags.StringVar(&f.format, "format", "table", "table, csv or json")
	flags.IntVar(&f.limit, "limit", 0, "only the newest so many values (default: all)")
	flags.BoolVar(&f.follow, "follow", false, "go on with what comes, until Ctrl-C; as JSON one object a line")
	flags.BoolVar(&f.asJSON, "json", false, "the same as --format json")
	return cmd
}

// query makes a query of the flags, and settles the format.
func (f *readingsFlags) query(devices []string, now time.Time) (store.Query, error) {
	q := store.Query{Devices: devices, Metric: f.metric, Limit: f.limit}
	if f.asJSON {
		f.format = "json"
	}
	var err error
	switch {
	case f.format != "table" && f.format != "csv" && f.format != "json":
		return q, fmt.Errorf("--format %s: use table, csv or json", f.format)
	case f.limit < 0:
		return q, fmt.Errorf("--limit %d: use a positive number, or leave it out for all", f.limit)
	case f.follow && f.until != "":
		return q, errors.New("--follow has no end: leave --until out")
	case f.follow && f.every != "":
		return q, errors.New("--follow shows readings as they come: leave --every out")
	}
	if q.From, err = parseInstant("--since", f.since, now); err != nil {
		return q, err
	}
	if q.To, err = parseInstant("--until", f.until, now); err != nil {
		return q, err
	}
	if q.From != 0 && q.To != 0 && q.From >= q.To {
		return q, fmt.Errorf("--since %s is not before --until %s", f.since, f.until)
	}
	if f.byDefault() {
		q.From = now.Add(-shownByDefault).UnixMilli()
	}
	if f.every != "" {
		if q.Every, err = parseSpan(f.every); err != nil || q.Every < time.Second {
			return q, fmt.Errorf("--every %s: use a span of at least a second, for instance 15m, 1h or 1d", f.every)
		}
	}
	return q, nil
}

// byDefault reports whether nobody said how far back.
func (f *readingsFlags) byDefault() bool { return f.since == "" && f.until == "" && f.limit == 0 }

// parseInstant reads a span before now, a date (local midnight) or an RFC 3339 time, as UTC
// milliseconds; "" is 0, which is no bound.
func parseInstant(flag, text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if span, err := parseSpan(text); err == nil {
		return now.Add(-span).UnixMilli(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%s %s: use a span (24h, 7d), a date (2026-03-01) or a time (2026-03-01T12:00:00Z)", flag, text)
}

// parseSpan reads a duration; days are allowed, as in 7d.
func parseSpan(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	return d, err
}

func (a *app) printReadings(ctx context.Context, cfg config.Config, db *store.Store, q store.Query, f readingsFlags) error {
	known, err := db.Devices(ctx)
	if err != nil {
		return err
	}
	var newest int64
	for _, id := range q.Devices {
		if _, err := db.Device(ctx, id); err != nil {
			return a.deviceHint(ctx, cfg, err, id)
		}
	}
	for _, d := range known {
		if len(q.Devices) == 0 || slices.Contains(q.Devices, d.ID) {
			newest = max(newest, d.LastReading)
		}
	}
	window := func() {
		if f.byDefault() {
			a.warn("readings of the last 24 h; further back: --since 7d, --since 2026-01-31")
		}
	}
	buffered := bufio.NewWriter(a.stdout)
	out := listing.NewWriter(f.format, f.follow, buffered)
	if err := out.Begin(); err != nil {
		return err
	}
	note, follower := func(store.Reading) {}, (*listing.Follower)(nil)
	if f.follow {
		if follower, err = listing.NewFollower(ctx, db, known, a.now()); err != nil {
			return err
		}
		note = follower.Note
	}
	count, err := listing.Each(ctx, db, q, newest, func(r store.Reading) error {
		note(r)
		return out.Write(r)
	})
	if endErr := out.End(); err == nil { // also what was found until then
		err = endErr
	}
	if flushErr := buffered.Flush(); flushErr != nil {
		err = flushErr
	}
	a.warnOfSalvage(ctx, db)
	var damaged *store.DamagedError
	switch {
	case errors.As(err, &damaged):
		return control.WithHint(err, "the server makes a damaged database anew at its next start, from what can be read")
	case err != nil:
		return err
	case f.follow:
		window()
		return follower.Run(ctx, db, q, out, buffered)
	case count == 0:
		a.warnOfNothing(ctx, db, known, q, newest)
	}
	window() // at the end, where it is seen
	return nil
}

// warnOfSalvage says that more may come back. Where even that cannot be read, the readings are there all the same.
func (a *app) warnOfSalvage(ctx context.Context, db *store.Store) {
	list, _ := db.Salvages(ctx)
	for _, one := range list {
		if one.Finished == 0 {
			a.warn("readings are missing: the database was damaged, and %d %% of %s are searched for them", one.Done, one.Source)
		}
	}
}

// warnOfNothing says that nothing matches, and why that may be.
func (a *app) warnOfNothing(ctx context.Context, db *store.Store, known []store.Device, q store.Query, newest int64) {
	if q.Metric != "" {
		var metrics []string
		for _, d := range known {
			if len(q.Devices) > 0 && !slices.Contains(q.Devices, d.ID) {
				continue
			}
			latest, _ := db.Latest(ctx, d.ID) // only for a hint
			for _, r := range latest {
				if !slices.Contains(metrics, r.Metric) {
					metrics = append(metrics, r.Metric)
				}
			}
		}
		near, found := nearest(q.Metric, metrics)
		switch slices.Sort(metrics); {
		case slices.Contains(metrics, q.Metric):
		case found:
			a.warn("no readings match: there is no metric %q; did you mean %q?", q.Metric, near)
			return
		case len(metrics) > 0:
			a.warn("no readings match: there is no metric %q, only %s", q.Metric, strings.Join(metrics[:min(len(metrics), 12)], ", "))
			return
		}
	}
	a.warn("no readings match")
	if newest != 0 && newest < q.From {
		a.warn("the newest reading is of %s", local(control.Moment(newest)))
	}
}

// number prints a value with the digits that it has.
func number(v float64) string { return listing.Number(v) }
