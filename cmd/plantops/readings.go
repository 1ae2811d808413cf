package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

type readingsFlags struct {
	since, until, metric, every, format string
	limit                               int
	asJSON                              bool
}

func newReadings(a *app) *cobra.Command {
	var f readingsFlags
	cmd := &cobra.Command{
		Use:   "readings [DEVICE...]",
		Short: "Print readings in order of time; without a device, of all devices",
		Example: `  plantops readings bed-1 --since 24h
  plantops readings --since 2026-03-01 --until 2026-04-01 --metric temperature --every 1h --format csv`,
		ValidArgsFunction: completeDevices(a),
		RunE: func(cmd *cobra.Command, devices []string) error {
			query, err := f.query(devices, a.now())
			if err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				return printReadings(cmd.Context(), a, db, query, f.format)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "from then on: a duration before now (24h, 7d), a date or an RFC 3339 time (default: everything)")
	flags.StringVar(&f.until, "until", "", "before then: as --since")
	flags.StringVar(&f.metric, "metric", "", "only this metric, for instance temperature")
	flags.StringVar(&f.every, "every", "", "mean per span of time, for instance 1h")
	flags.StringVar(&f.format, "format", "table", "table, csv or json")
	flags.IntVar(&f.limit, "limit", 0, "at most so many values (default: all)")
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
	if f.every != "" {
		if q.Every, err = parseSpan(f.every); err != nil || q.Every < time.Second {
			return q, fmt.Errorf("--every %s: use a span of at least a second, for instance 15m, 1h or 1d", f.every)
		}
	}
	return q, nil
}

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

func printReadings(ctx context.Context, a *app, db *store.Store, q store.Query, format string) error {
	width := len("DEVICE")
	for _, id := range q.Devices {
		if _, err := db.Device(ctx, id); err != nil {
			return deviceHint(err, id)
		}
		width = max(width, len(id))
	}
	if len(q.Devices) == 0 && format == "table" {
		devices, err := db.Devices(ctx)
		if err != nil {
			return err
		}
		for _, d := range devices {
			width = max(width, len(d.ID))
		}
	}
	buffered := bufio.NewWriter(a.stdout)
	out := newReadingWriter(format, buffered, width)
	if err := out.begin(); err != nil {
		return err
	}
	count := 0
	var damage error
	for r, err := range db.Readings(ctx, q) {
		if damaged, ok := errors.AsType[*store.DamagedError](err); ok {
			damage = errors.Join(damage, damaged) // the others can be read
			continue
		}
		if err == nil {
			err = out.write(r)
		}
		if err != nil {
			_ = buffered.Flush() // what was found until then; it fails as writing did
			return err
		}
		count++
	}
	if err := out.end(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if count == 0 {
		a.warn("no readings match")
	}
	if err := a.warnOfSalvage(ctx, db); err != nil {
		return err
	}
	if damage != nil {
		return control.WithHint(damage, "the server makes a damaged database anew at its next start, from what can be read")
	}
	return nil
}

// warnOfSalvage says that more may come back.
func (a *app) warnOfSalvage(ctx context.Context, db *store.Store) error {
	list, err := db.Salvages(ctx)
	for _, one := range list {
		if one.Finished == 0 {
			a.warn("readings are missing: the database was damaged, and %d %% of %s are searched for them", one.Done, one.Source)
		}
	}
	return err
}

// readingWriter prints readings in one format, as they come: there may be millions.
type readingWriter interface {
	begin() error
	write(store.Reading) error
	end() error
}

func newReadingWriter(format string, w io.Writer, deviceWidth int) readingWriter {
	switch format {
	case "csv":
		return csvReadings{csv.NewWriter(w)}
	case "json":
		return &jsonReadings{w: w}
	default:
		return tableReadings{w, deviceWidth}
	}
}

type tableReadings struct {
	w           io.Writer
	deviceWidth int
}

func (t tableReadings) begin() error {
	_, err := fmt.Fprintf(t.w, "%-19s  %-*s  %-13s  %s\n", "TIME", t.deviceWidth, "DEVICE", "METRIC", "VALUE")
	return err
}

func (t tableReadings) write(r store.Reading) error {
	_, err := fmt.Fprintf(t.w, "%s  %-*s  %-13s  %s%s\n", local(control.Moment(r.Time)), t.deviceWidth, r.Device, r.Metric, number(r.Value), doubt(r))
	return err
}

func (t tableReadings) end() error { return nil }

// doubt says why the time of a reading may be wrong.
func doubt(r store.Reading) string {
	switch {
	case r.ClockUnsure:
		return "  (clock of this machine was not set)"
	case r.TimeSource == store.FromArrivalImpossible && r.Given != "":
		return fmt.Sprintf("  (time of arrival: the device's was impossible: %q)", r.Given)
	case r.TimeSource == store.FromArrivalImpossible:
		return "  (time of arrival: the device's was impossible)"
	}
	return ""
}

type csvReadings struct{ w *csv.Writer }

func (c csvReadings) begin() error { return c.w.Write([]string{"time", "device", "metric", "value"}) }

func (c csvReadings) write(r store.Reading) error {
	return c.w.Write([]string{control.Moment(r.Time).String(), r.Device, r.Metric, number(r.Value)})
}

func (c csvReadings) end() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonReadings writes one array with an object a line.
type jsonReadings struct {
	w     io.Writer
	began bool
}

type jsonReading struct {
	Time        control.Moment `json:"time"`
	Device      string         `json:"device"`
	Metric      string         `json:"metric"`
	Value       float64        `json:"value"`
	Received    control.Moment `json:"received,omitzero"` // a mean has none
	TimeSource  string         `json:"time_source,omitempty"`
	Given       string         `json:"given_time,omitempty"` // by the device, and not used
	ClockUnsure bool           `json:"clock_unsure,omitempty"`
}

func (j *jsonReadings) begin() error {
	_, err := io.WriteString(j.w, "[")
	return err
}

func (j *jsonReadings) write(r store.Reading) error {
	text, err := json.Marshal(jsonReading{
		Time: control.Moment(r.Time), Device: r.Device, Metric: r.Metric, Value: r.Value,
		Received: control.Moment(r.Received), TimeSource: timeSource(r), Given: r.Given, ClockUnsure: r.ClockUnsure,
	})
	if err != nil {
		return err
	}
	separator := ",\n "
	if !j.began {
		separator, j.began = "\n ", true
	}
	_, err = fmt.Fprintf(j.w, "%s%s", separator, text)
	return err
}

func (j *jsonReadings) end() error {
	ending := "]\n"
	if j.began {
		ending = "\n]\n"
	}
	_, err := io.WriteString(j.w, ending)
	return err
}

// timeSource names where the time of a reading came from; a mean has none.
func timeSource(r store.Reading) string {
	switch {
	case r.Received == 0:
		return ""
	case r.TimeSource == store.FromDevice:
		return "device"
	case r.TimeSource == store.FromAge:
		return "arrival less the age that the device gave"
	case r.TimeSource == store.FromArrivalImpossible:
		return "arrival, the device's was impossible"
	default:
		return "arrival"
	}
}

// number prints a value with the digits that it has.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
