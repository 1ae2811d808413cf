// Package listing prints readings: in which order and form, the newest of them, and what comes while one looks. It reads the
// database and knows no command line.
package listing

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
)

// Writer prints readings, or what they come to, in one format, as they come: there may be millions. Begin is called first; End
// after the last one, or when what was written so far is to be seen: more may follow, and then there is another End.
type Writer interface {
	Begin() error
	Write(store.Reading) error
	WritePoint(history.Point) error
	End() error
}

// Options say how readings are printed.
type Options struct {
	Format     string              // csv, json or, with any other word, a table for people
	Endless    bool                // there is no end: JSON is one object a line instead of an array, and a table has no summary
	Aggregates []history.Aggregate // of points, a column each; with one at most, it is called value
	Location   *time.Location      // of the times; nil: that of this process for people, else UTC
	ASCII      bool                // what is drawn is drawn with letters
}

// NewWriter returns a writer; its output is for w.
func NewWriter(o Options, w io.Writer) Writer {
	var columns []string
	if len(o.Aggregates) > 1 {
		for _, a := range o.Aggregates {
			columns = append(columns, a.String())
		}
	}
	switch o.Format {
	case "csv":
		return &csvReadings{o, columns, csv.NewWriter(w)}
	case "json":
		return &jsonReadings{Options: o, columns: columns, w: w}
	default:
		if len(columns) == 0 {
			columns = []string{"value"}
		}
		t := &tableReadings{Options: o, w: w, columns: columns, widths: []int{len(timeLayout), len("DEVICE"), len("METRIC")}}
		for _, c := range columns {
			t.widths = append(t.widths, len(c))
		}
		return t
	}
}

// asReading is a point with one aggregate.
func (o *Options) asReading(p *history.Point) store.Reading {
	of := history.Average
	if len(o.Aggregates) > 0 {
		of = o.Aggregates[0]
	}
	return store.Reading{Device: p.Device, Metric: p.Metric, Time: p.Start, Value: p.Value(of)}
}

// moment is a time for other programs, as control.Moment has it.
func (o *Options) moment(ms int64) string {
	if o.Location == nil || o.Location == time.UTC {
		return control.Moment(ms).String()
	}
	return time.UnixMilli(ms).In(o.Location).Format("2006-01-02T15:04:05.000Z07:00")
}

// tableReadings takes the widths of its columns from the first readings. Longer names that come later widen them from there on.
type tableReadings struct {
	Options
	w       io.Writer
	columns []string
	widths  []int
	first   [][]string // not written yet
	begun   bool       // the heading is written
	lines   sparklines
}

// widthsFrom is how many readings wait for the widths.
const widthsFrom = 1000

const timeLayout = "2006-01-02 15:04:05"

func (t *tableReadings) Begin() error { return nil }

func (t *tableReadings) Write(r store.Reading) error {
	t.draw(r.Device, r.Metric, r.Time, r.Value, r.Value, r.Value)
	return t.row(r.Time, r.Device, r.Metric, Number(r.Value)+doubt(r))
}

func (t *tableReadings) WritePoint(p history.Point) error {
	t.draw(p.Device, p.Metric, p.Start, p.Min, p.Mean(), p.Max)
	if len(t.columns) == 1 {
		r := t.asReading(&p)
		return t.row(r.Time, r.Device, r.Metric, Number(r.Value))
	}
	cells := make([]string, 0, len(t.columns))
	for _, a := range t.Aggregates {
		cells = append(cells, Number(p.Value(a)))
	}
	return t.row(p.Start, p.Device, p.Metric, cells...)
}

// draw remembers what is drawn at the end, which is in order of time.
func (t *tableReadings) draw(device, metric string, at int64, low, middle, high float64) {
	if !t.Endless {
		t.lines.add(device, metric, at, low, middle, high)
	}
}

func (t *tableReadings) row(at int64, device, metric string, values ...string) error {
	place := t.Location
	if place == nil {
		place = time.Local
	}
	cells := append([]string{time.UnixMilli(at).In(place).Format(timeLayout), device, metric}, values...)
	for i, c := range cells[:len(cells)-1] { // nothing comes behind the last
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
	}
	if t.begun {
		return t.line(cells...)
	}
	if t.first = append(t.first, cells); len(t.first) < widthsFrom {
		return nil
	}
	return t.begin()
}

func (t *tableReadings) line(cells ...string) error {
	var b strings.Builder
	for i, c := range cells[:len(cells)-1] {
		fmt.Fprintf(&b, "%-*s  ", t.widths[i], c)
	}
	_, err := fmt.Fprintf(t.w, "%s%s\n", b.String(), cells[len(cells)-1])
	return err
}

// begin writes the heading, and what waits.
func (t *tableReadings) begin() error {
	if t.begun {
		return nil
	}
	t.begun = true
	heading := []string{"TIME", "DEVICE", "METRIC"}
	for _, c := range t.columns {
		heading = append(heading, strings.ToUpper(c))
	}
	if err := t.line(heading...); err != nil {
		return err
	}
	waiting := t.first
	t.first = nil
	for _, cells := range waiting {
		if err := t.line(cells...); err != nil {
			return err
		}
	}
	return nil
}

// End writes what waits, and below it how each metric went.
func (t *tableReadings) End() error {
	if err := t.begin(); err != nil || t.Endless {
		return err
	}
	return t.lines.write(t.w, t.ASCII)
}

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

type csvReadings struct {
	Options
	columns []string // of points with several aggregates
	w       *csv.Writer
}

func (c *csvReadings) Begin() error {
	heading := []string{"time", "device", "metric"}
	if len(c.columns) == 0 {
		return c.w.Write(append(heading, "value"))
	}
	return c.w.Write(append(heading, c.columns...))
}

func (c *csvReadings) Write(r store.Reading) error {
	return c.w.Write([]string{c.moment(r.Time), r.Device, r.Metric, Number(r.Value)})
}

func (c *csvReadings) WritePoint(p history.Point) error {
	if len(c.columns) == 0 {
		return c.Write(c.asReading(&p))
	}
	cells := []string{c.moment(p.Start), p.Device, p.Metric}
	for _, a := range c.Aggregates {
		cells = append(cells, Number(p.Value(a)))
	}
	return c.w.Write(cells)
}

func (c *csvReadings) End() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonReadings writes one array with an object a line or, when there is no end, only the lines.
type jsonReadings struct {
	Options
	columns []string // of points with several aggregates
	w       io.Writer
	began   bool
}

type jsonReading struct {
	Time        string         `json:"time"`
	Device      string         `json:"device"`
	Metric      string         `json:"metric"`
	Value       *float64       `json:"value"`
	Received    control.Moment `json:"received,omitzero"` // a mean has none
	TimeSource  string         `json:"time_source,omitempty"`
	Given       string         `json:"given_time,omitempty"` // by the device, and not used
	ClockUnsure bool           `json:"clock_unsure,omitempty"`
}

func (j *jsonReadings) Begin() error {
	if j.Endless {
		return nil
	}
	_, err := io.WriteString(j.w, "[")
	return err
}

func (j *jsonReadings) Write(r store.Reading) error {
	text, err := json.Marshal(jsonReading{
		Time: j.moment(r.Time), Device: r.Device, Metric: r.Metric, Value: finite(r.Value),
		Received: control.Moment(r.Received), TimeSource: timeSource(r), Given: r.Given, ClockUnsure: r.ClockUnsure,
	})
	if err != nil {
		return err
	}
	return j.object(text)
}

func (j *jsonReadings) WritePoint(p history.Point) error {
	if len(j.columns) == 0 {
		return j.Write(j.asReading(&p))
	}
	text, err := json.Marshal(struct {
		Time   string `json:"time"`
		Device string `json:"device"`
		Metric string `json:"metric"`
	}{j.moment(p.Start), p.Device, p.Metric})
	if err != nil {
		return err
	}
	text = text[:len(text)-1]
	for i, a := range j.Aggregates { // in the order that was asked for
		value, err := json.Marshal(finite(p.Value(a)))
		if err != nil {
			return err
		}
		text = fmt.Appendf(text, ",%q:%s", j.columns[i], value)
	}
	return j.object(append(text, '}'))
}

// finite is nil, and null in JSON, for a sum that is no number any more.
func finite(v float64) *float64 {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil
	}
	return &v
}

func (j *jsonReadings) object(text []byte) error {
	if j.Endless {
		_, err := fmt.Fprintf(j.w, "%s\n", text)
		return err
	}
	separator := ",\n "
	if !j.began {
		separator, j.began = "\n ", true
	}
	_, err := fmt.Fprintf(j.w, "%s%s", separator, text)
	return err
}

func (j *jsonReadings) End() error {
	if j.Endless {
		return nil
	}
	ending := "]\n"
	if j.began {
		ending = "\n]\n"
	}
	_, err := io.WriteString(j.w, ending)
	return err
}

// timeSource names where the time of a reading came from; a mean has none.
func timeSource(r store.Reading) string {
	if r.Received == 0 {
		return ""
	}
	return SourceText(r.TimeSource)
}

// SourceText names where a time came from, in JSON and for people.
func SourceText(from store.TimeSource) string {
	switch from {
	case store.FromDevice:
		return "device"
	case store.FromAge:
		return "arrival less the age that the device gave"
	case store.FromArrivalImpossible:
		return "arrival, the device's was impossible"
	default:
		return "arrival"
	}
}

// Number prints a value with the digits that it has.
func Number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// Local is a time for people, in the time zone of this process; "-" for none.
func Local(m control.Moment) string {
	if m == 0 {
		return "-"
	}
	return m.Time().Format(timeLayout)
}
