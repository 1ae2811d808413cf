package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for --tz: the image is empty, and a small box need not have them

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/export"
	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
)

// shownByDefault is how far back readings go when nothing says otherwise.
const shownByDefault = 24 * time.Hour

type readingsFlags struct {
	since, until, metric, every, format, agg, tz string
	limit, points                                int
	asJSON, follow                               bool

	query      history.Query
	reduction  history.Reduction // zero: none
	aggregates []history.Aggregate
	place      *time.Location // nil: that of the format
}

func newReadings(a *app) *cobra.Command {
	var f readingsFlags
	cmd := &cobra.Command{
		Use:   "readings [DEVICE...]",
		Short: "Print readings in order of time, the newest last; without a device, of all devices",
		Long: `Print readings in order of time, the newest last. Without a device they are those of all devices; without --since,
--until and --limit those of the last 24 hours.

With --every or --points they are put into buckets of time, and --agg says which figures of each are printed: the mean, if
it says nothing. Where nothing was measured there is no bucket. Buckets follow the clock and the calendar of --tz: a day is from
midnight to midnight, also where it has 23 or 25 hours, a week begins on Monday.

Below a table of few devices and metrics there is a line for each that shows how it went.`,
		Example: `  plantops readings bed-1 --since 7d
  plantops readings bed-1 --limit 5              the newest five values
  plantops readings --follow                     and then what comes, until Ctrl-C
  plantops readings --since 2026-03-01 --until 2026-04-01 --metric temperature --every 1h --format csv
  plantops readings bed-1 --since 365d --every 1d --agg min,avg,max --tz Europe/Berlin
  plantops readings bed-1 --since 365d --points 500 --agg min,max --json`,
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, devices []string) error {
			if err := f.settle(devices, a.now()); err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				return a.printReadings(cmd.Context(), cfg, db, f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "from then on: a duration before now (24h, 7d), a date or an RFC 3339 time (default: 24h, with --limit everything)")
	flags.StringVar(&f.until, "until", "", "before then: as --since")
	flags.StringVar(&f.metric, "metric", "", "only this metric, for instance temperature")
	flags.StringVar(&f.every, "every", "", "put them into buckets of a span of time, for instance 15m, 1h, 1d, 1w or 1mo")
	flags.IntVar(&f.points, "points", 0, "put them into at most so many buckets, of a usual span that fits")
	flags.StringVar(&f.agg, "agg", "", "what is printed of a bucket: some of avg,min,max,count,sum,first,last (default: avg)")
	flags.StringVar(&f.tz, "tz", "", "time zone of times, dates and buckets: local, UTC or for instance Europe/Berlin (default: local in a table, UTC in CSV and JSON)")
	flags.StringVar(&f.format, "format", "table", "table, csv or json")
	flags.IntVar(&f.limit, "limit", 0, "only the newest so many values (default: all)")
	flags.BoolVar(&f.follow, "follow", false, "go on with what comes, until Ctrl-C; as JSON one object a line")
	flags.BoolVar(&f.asJSON, "json", false, "the same as --format json")
	return cmd
}

// settle makes a query of the flags, and settles the format.
func (f *readingsFlags) settle(devices []string, now time.Time) (err error) {
	q := history.Query{Devices: devices}
	if f.metric != "" {
		q.Metrics = []string{f.metric}
	}
	if f.asJSON {
		f.format = "json"
	}
	switch {
	case f.format != "table" && f.format != "csv" && f.format != "json":
		return fmt.Errorf("--format %s: use table, csv or json", f.format)
	case f.limit < 0:
		return fmt.Errorf("--limit %d: use a positive number, or leave it out for all", f.limit)
	case f.follow && f.until != "":
		return errors.New("--follow has no end: leave --until out")
	case f.follow && (f.every != "" || f.points != 0):
		return errors.New("--follow shows readings as they come: leave --every and --points out")
	}
	if err := f.reduce(); err != nil {
		return err
	}
	dates := time.Local
	if f.place != nil {
		dates = f.place
	}
	if q.From, err = parseInstant("--since", f.since, now, dates); err != nil {
		return err
	}
	if q.To, err = parseInstant("--until", f.until, now, dates); err != nil {
		return err
	}
	if q.From != 0 && q.To != 0 && q.From >= q.To {
		return fmt.Errorf("--since %s is not before --until %s", f.since, f.until)
	}
	if f.byDefault() {
		q.From = now.Add(-shownByDefault).UnixMilli()
	}
	f.query = q
	return nil
}

// maxPoints is more than anybody draws.
const maxPoints = 1_000_000

// reduce reads what says into which buckets readings are put, and where their days begin.
func (f *readingsFlags) reduce() (err error) {
	switch f.tz {
	case "":
	case "local":
		f.place = time.Local
	default:
		if f.place, err = time.LoadLocation(f.tz); err != nil {
			return fmt.Errorf("--tz %s: use local, UTC or the name of a time zone, for instance Europe/Berlin", f.tz)
		}
	}
	r := history.Reduction{Points: f.points, Location: f.place}
	if r.Location == nil && f.format == "table" {
		r.Location = time.Local
	}
	switch {
	case f.every != "" && f.points != 0:
		return errors.New("--every and --points both say how long a bucket is: leave one out")
	case f.points < 0 || f.points > maxPoints:
		return fmt.Errorf("--points %d: use 1 to %d", f.points, maxPoints)
	case f.every == "" && f.points == 0 && f.agg != "":
		return errors.New("--agg says what is printed of a bucket: add --every 1h or --points 500")
	case f.every == "" && f.points == 0:
		return nil
	case f.every != "":
		if r.Every, err = history.ParseSpan(f.every); err != nil || r.Every.Length != 0 && r.Every.Length < time.Second {
			return fmt.Errorf("--every %s: use a span of at least a second, for instance 15m, 1h, 1d, 1w or 1mo", f.every)
		}
	}
	f.aggregates = []history.Aggregate{history.Average}
	if f.agg != "" {
		if f.aggregates, err = history.ParseAggregates(f.agg); err != nil {
			return fmt.Errorf("--agg %w", err)
		}
	}
	for _, a := range f.aggregates {
		r.Aggregates |= a
	}
	f.reduction = r
	return nil
}

// reduced reports whether readings are put into buckets.
func (f *readingsFlags) reduced() bool { return f.aggregates != nil }

// byDefault reports whether nobody said how far back.
func (f *readingsFlags) byDefault() bool { return f.since == "" && f.until == "" && f.limit == 0 }

// parseInstant reads a span before now, a date (its midnight in a place) or an RFC 3339 time, as UTC
// milliseconds; "" is 0, which is no bound.
func parseInstant(flag, text string, now time.Time, place *time.Location) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if span, err := parseSpan(text); err == nil {
		return now.Add(-span).UnixMilli(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, place); err == nil {
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

func (a *app) printReadings(ctx context.Context, cfg config.Config, db *store.Store, f readingsFlags) error {
	known, err := db.Devices(ctx)
	if err != nil {
		return err
	}
	for _, id := range f.query.Devices {
		if _, err := db.Device(ctx, id); err != nil {
			return a.deviceHint(ctx, cfg, err, id)
		}
	}
	window := func() {
		if f.byDefault() {
			a.warn("readings of the last 24 h; further back: --since 7d, --since 2026-01-31")
		}
	}
	buffered := bufio.NewWriter(a.stdout)
	out := listing.NewWriter(listing.Options{Format: f.format, Endless: f.follow, Aggregates: f.aggregates, Location: f.place, ASCII: !isUTF8()}, buffered)
	if err := out.Begin(); err != nil {
		return err
	}
	var note func(store.Reading)
	var follower *listing.Follower
	if f.follow {
		if follower, err = listing.NewFollower(ctx, db, known, a.now()); err != nil {
			return err
		}
		note = follower.Note
	}
	view, count := history.Fresh(db.View), 0
	if f.reduced() {
		count, err = listing.Points(ctx, view, f.query, f.reduction, f.limit, out)
	} else {
		count, err = listing.Readings(ctx, view, f.query, f.limit, out, note)
	}
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
		return follower.Run(ctx, db, f.query, out, buffered)
	case count == 0:
		a.warnOfNothing(ctx, db, known, f.query, view)
	}
	window() // at the end, where it is seen
	return nil
}

// isUTF8 reports whether the terminal shows more than ASCII, by what POSIX says of the locale.
func isUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(os.Getenv(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return false
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
func (a *app) warnOfNothing(ctx context.Context, db *store.Store, known []store.Device, q history.Query, view history.Scanner) {
	if len(q.Metrics) > 0 {
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
		asked := q.Metrics[0]
		near, found := nearest(asked, metrics)
		switch slices.Sort(metrics); {
		case slices.Contains(metrics, asked):
		case found:
			a.warn("no readings match: there is no metric %q; did you mean %q?", asked, near)
			return
		case len(metrics) > 0:
			a.warn("no readings match: there is no metric %q, only %s", asked, strings.Join(metrics[:min(len(metrics), 12)], ", "))
			return
		}
	}
	a.warn("no readings match")
	_, newest, err := view.Range(ctx, history.Query{Devices: q.Devices}) // only for a hint
	if err == nil && newest > 0 && newest < q.From {
		a.warn("the newest reading is of %s", local(control.Moment(newest)))
	}
}

// number prints a value with the digits that it has.
func number(v float64) string { return listing.Number(v) }

type exportFlags struct {
	csv, jsonl, influx, parquet, raw, force bool
	sqlite, output, since, until            string
	metrics                                 []string
}

func newExport(a *app) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export [DEVICE...]",
		Short: "Write readings for other programs: CSV, JSON lines, line protocol of InfluxDB, Parquet, an SQLite file",
		Long: `Write readings for other programs, device by device and in order of time; without a device those of all, without --since and
--until all that there are. The server may run meanwhile. "plantops import readings" reads each of the forms.

--sqlite makes a file with the table reading(device, time, metric, value, received), times in milliseconds since 1970. The others are
on standard output or in the file of --output, which has its name only when it is whole.

Exit code 1: also when some readings cannot be read or written; the others are there.`,
		Example: `  plantops export --csv | gzip > readings.csv.gz
  plantops export bed-1 bed-2 --since 2026-01-01 --sqlite 2026.db
  plantops export --influx --output readings.lp`,
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, devices []string) error {
			o, err := f.options(a.now())
			if err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				return a.export(cmd.Context(), db, devices, o, f)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.csv, "csv", false, "CSV with the columns time, device, metric, value (the default)")
	flags.BoolVar(&f.jsonl, "jsonl", false, "a JSON object a line, with all that is known of a reading")
	flags.BoolVar(&f.influx, "influx", false, "line protocol")
	flags.BoolVar(&f.parquet, "parquet", false, "a Parquet file")
	flags.StringVar(&f.sqlite, "sqlite", "", "an SQLite `FILE`")
	flags.StringVarP(&f.output, "output", "o", "", "write to `FILE`")
	flags.BoolVar(&f.force, "force", false, "let it replace a file")
	flags.StringVar(&f.since, "since", "", "from then on: a duration before now (24h, 7d), a date or an RFC 3339 time")
	flags.StringVar(&f.until, "until", "", "before then: as --since")
	flags.StringArrayVar(&f.metrics, "metric", nil, "only this metric; may be given several times")
	flags.BoolVar(&f.raw, "raw", false, "as stored: without calibration, with what is voided")
	return cmd
}

func (f exportFlags) options(now time.Time) (o export.Options, err error) {
	o.Format = export.CSV
	given := 0
	for format, is := range map[export.Format]bool{export.CSV: f.csv, export.JSON: f.jsonl, export.Influx: f.influx, export.Parquet: f.parquet, export.SQLite: f.sqlite != ""} {
		if is {
			o.Format = format
			given++
		}
	}
	if given > 1 {
		return o, errors.New("--csv, --jsonl, --influx, --parquet, --sqlite: use one of them")
	}
	if f.sqlite != "" && f.output != "" {
		return o, errors.New("--sqlite names its file itself: leave --output out")
	}
	o.Query = history.Query{Metrics: f.metrics, Raw: f.raw}
	if o.Query.From, err = parseInstant("--since", f.since, now, time.Local); err != nil {
		return o, err
	}
	if o.Query.To, err = parseInstant("--until", f.until, now, time.Local); err != nil {
		return o, err
	}
	return o, nil
}

// export writes readings to standard output, or to a file that gets its name when it is whole.
func (a *app) export(ctx context.Context, db *store.Store, devices []string, o export.Options, f exportFlags) (err error) {
	if o.Query.Devices = devices; len(devices) == 0 {
		all, err := db.Devices(ctx)
		if err != nil {
			return err
		}
		for _, d := range all {
			o.Query.Devices = append(o.Query.Devices, d.ID)
		}
	}
	o.From, o.To = history.Fresh(db.View), a.stdout
	path := f.output + f.sqlite
	if path != "" {
		part, file, err := export.Begin(path, f.force, o.Format)
		if err != nil {
			return err
		}
		defer part.Drop()
		o.To, o.Path = file, part.Path
		o.Progress = newProgress(a)
		result, err := export.Run(ctx, o)
		o.Progress.End()
		if err == nil {
			err = part.Finish()
		}
		return a.exported(result, path, err)
	}
	result, err := export.Run(ctx, o)
	return a.exported(result, "standard output", err)
}

// exported says what an export has written, and what not.
func (a *app) exported(r export.Result, to string, err error) error {
	if err != nil {
		return fmt.Errorf("export to %s: %w", to, err)
	}
	a.warn("%s of %s in %s", count(r.Readings, "reading"), count(r.Devices, "device"), to)
	for _, name := range r.Unnamed {
		a.warn("left out %q: this format has no way to write that name", name)
	}
	var missing []error
	for _, damaged := range r.Damaged {
		missing = append(missing, damaged)
	}
	if len(r.Unnamed) > 0 {
		missing = append(missing, fmt.Errorf("%s could not be written", count(len(r.Unnamed), "name")))
	}
	return errors.Join(missing...)
}
