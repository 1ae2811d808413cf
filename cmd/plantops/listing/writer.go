// Package listing prints readings: in which order and form, the newest of them, and what comes while one looks. It reads the
// database and knows no command line.
package listing

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// Writer prints readings in one format, as they come: there may be millions. Begin is called first; End after the last one, or
// when what was written so far is to be seen: more may follow.
type Writer interface {
	Begin() error
	Write(store.Reading) error
	End() error
}

// NewWriter returns one for "csv", "json" or, with any other word, a table for people. endless makes JSON one object a line
// instead of an array.
func NewWriter(format string, endless bool, w io.Writer) Writer {
	switch format {
	case "csv":
		return csvReadings{csv.NewWriter(w)}
	case "json":
		return &jsonReadings{w: w, lines: endless}
	default:
		return &tableReadings{w: w, widths: [3]int{len("2006-01-02 15:04:05"), len("DEVICE"), len("METRIC")}}
	}
}

// tableReadings takes the widths of its columns from the first readings. Longer names that come later widen them from there on.
type tableReadings struct {
	w      io.Writer
	widths [3]int
	first  []store.Reading // not written yet
	begun  bool            // the heading is written
}

// widthsFrom is how many readings wait for the widths.
const widthsFrom = 1000

func (t *tableReadings) Begin() error { return nil }

func (t *tableReadings) Write(r store.Reading) error {
	t.widths[1] = max(t.widths[1], utf8.RuneCountInString(r.Device))
	t.widths[2] = max(t.widths[2], utf8.RuneCountInString(r.Metric))
	if t.begun {
		return t.line(Local(control.Moment(r.Time)), r.Device, r.Metric, Number(r.Value)+doubt(r))
	}
	if t.first = append(t.first, r); len(t.first) < widthsFrom {
		return nil
	}
	return t.End()
}

func (t *tableReadings) line(cells ...string) error {
	_, err := fmt.Fprintf(t.w, "%-*s  %-*s  %-*s  %s\n", t.widths[0], cells[0], t.widths[1], cells[1], t.widths[2], cells[2], cells[3])
	return err
}

// end writes what waits.
func (t *tableReadings) End() error {
	if t.begun {
		return nil
	}
	t.begun = true
	if err := t.line("TIME", "DEVICE", "METRIC", "VALUE"); err != nil {
		return err
	}
	waiting := t.first
	t.first = nil
	for _, r := range waiting {
		if err := t.Write(r); err != nil {
			return err
		}
	}
	return nil
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

type csvReadings struct{ w *csv.Writer }

func (c csvReadings) Begin() error { return c.w.Write([]string{"time", "device", "metric", "value"}) }

func (c csvReadings) Write(r store.Reading) error {
	return c.w.Write([]string{control.Moment(r.Time).String(), r.Device, r.Metric, Number(r.Value)})
}

func (c csvReadings) End() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonReadings writes one array with an object a line or, when there is no end, only the lines.
type jsonReadings struct {
	w            io.Writer
	began, lines bool
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

func (j *jsonReadings) Begin() error {
	if j.lines {
		return nil
	}
	_, err := io.WriteString(j.w, "[")
	return err
}

func (j *jsonReadings) Write(r store.Reading) error {
	text, err := json.Marshal(jsonReading{
		Time: control.Moment(r.Time), Device: r.Device, Metric: r.Metric, Value: r.Value,
		Received: control.Moment(r.Received), TimeSource: timeSource(r), Given: r.Given, ClockUnsure: r.ClockUnsure,
	})
	if err != nil {
		return err
	}
	if j.lines {
		_, err = fmt.Fprintf(j.w, "%s\n", text)
		return err
	}
	separator := ",\n "
	if !j.began {
		separator, j.began = "\n ", true
	}
	_, err = fmt.Fprintf(j.w, "%s%s", separator, text)
	return err
}

func (j *jsonReadings) End() error {
	if j.lines {
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
	return m.Time().Format("2006-01-02 15:04:05")
}
