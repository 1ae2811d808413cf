package api

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for tz: the machine need not have them

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/people"
)

const (
	shownByDefault = day
	maxPoints      = 100_000
	shortestBucket = time.Second

	// writeTime is how long who asked may take for the next piece of an answer, of streamBytes.
	writeTime   = 30 * time.Second
	streamBytes = 16 << 10
)

// reading is one value, or with every or points what a bucket comes to: then the figures that agg names are there, one alone as the value.
type reading struct {
	Time        control.Moment `json:"time"`
	Device      string         `json:"device" doc:"of a plant's or a zone's buckets: its id"`
	Metric      string         `json:"metric"`
	Value       *float64       `json:"value" required:"false"`
	Received    control.Moment `json:"received,omitzero"`
	ClockUnsure bool           `json:"clock_unsure,omitempty"`
}

func readingOperations() []operation {
	how := []*huma.Param{
		query("metric", "only these; may be given several times", texts()),
		query("from", "from then on: an RFC 3339 time, a date, or a span before now such as 24h or 7d; without from and to, 24h", text()),
		query("to", "before then: as from", text()),
		query("every", "put them into buckets of a span, for instance 15m, 1h, 1d, 1w, 1mo", text()),
		query("points", "put them into at most so many buckets", integer(1, maxPoints, 0)),
		query("agg", "what is told of a bucket: some of avg,min,max,count,sum,first,last; avg, if nothing is said", text()),
		query("tz", "whose days buckets and dates follow, for instance Europe/Berlin; UTC, if nothing is said. Times bear it", text()),
		query("raw", "as stored: without calibration, with what is voided", flag()),
		query("format", "json or csv; else Accept says: text/csv", text()),
	}
	with := func(first ...*huma.Param) []*huma.Param { return append(first, how...) }
	about := "In order of time, as a stream: what cannot be answered whole breaks off. The columns of CSV are time, device, metric and value, or the figures of a bucket."
	missing := []int{http.StatusNotFound}
	return []operation{
		{method: http.MethodGet, path: Prefix + "/readings", tag: tagReadings, needs: people.Viewer, summary: "Readings, or what they come to", about: about,
			params: with(query("device", "only these; may be given several times", texts()), query("plant", "those of a plant, whatever device they came from", text()),
				query("zone", "of a zone, the averages of its plants; takes every or points", text())),
			answer: []reading{}, stream: "text/csv", errors: missing, do: func(c *call) (any, error) { return c.readings(c.text("plant"), c.text("zone")) }},
		{method: http.MethodGet, path: Prefix + "/plants/{id}/readings", tag: tagReadings, needs: people.Viewer, summary: "Readings of a plant, or what they come to",
			about: about, params: with(path("id", "of a plant")), answer: []reading{}, stream: "text/csv", errors: missing,
			do: func(c *call) (any, error) { return c.readings(c.text("id"), "") }},
		{method: http.MethodGet, path: Prefix + "/zones/{id}/readings", tag: tagReadings, needs: people.Viewer, summary: "Averages of the plants of a zone",
			about: about + " It takes every or points.", params: with(path("id", "of a zone")), answer: []reading{}, stream: "text/csv", errors: missing,
			do: func(c *call) (any, error) { return c.readings("", c.text("id")) }},
	}
}

// wanted is what is asked of readings.
type wanted struct {
	query      history.Query
	reduction  history.Reduction
	aggregates []history.Aggregate // nil: readings themselves
	place      *time.Location
	csv        bool
}

// unfit says which parameter is not as it may be.
func unfit(name, why string) error {
	return refuse(http.StatusUnprocessableEntity, "query."+name+": "+why)
}

func (c *call) wanted() (w wanted, err error) {
	w.query = history.Query{Devices: c.texts("device"), Metrics: c.texts("metric"), Raw: c.flag("raw")}
	w.place = time.UTC
	if tz := c.text("tz"); tz != "" {
		if w.place, err = time.LoadLocation(tz); err != nil || tz == "Local" {
			return w, unfit("tz", "use UTC or the name of a time zone, for instance Europe/Berlin")
		}
	}
	if w.query.From, err = c.instant("from", w.place); err != nil {
		return w, err
	}
	if w.query.To, err = c.instant("to", w.place); err != nil {
		return w, err
	}
	if w.query.To != 0 && w.query.From >= w.query.To {
		return w, unfit("from", "it is not before to")
	}
	if w.query.From == 0 && w.query.To == 0 {
		w.query.From = c.now() - shownByDefault
	}
	switch format := c.text("format"); format {
	case "":
		w.csv = strings.Contains(c.r.Header.Get("Accept"), "text/csv")
	case "csv", "json":
		w.csv = format == "csv"
	default:
		return w, unfit("format", "use json or csv")
	}
	return w, w.reduce(c)
}

// reduce reads into which buckets readings are put.
func (w *wanted) reduce(c *call) (err error) {
	every, points, agg := c.text("every"), c.number("points"), c.text("agg")
	switch {
	case every != "" && points != 0:
		return unfit("every", "points says how long a bucket is too: leave one out")
	case every == "" && points == 0 && agg != "":
		return unfit("agg", "add every=1h or points=500")
	case every == "" && points == 0:
		return nil
	}
	w.reduction = history.Reduction{Points: points, Location: w.place}
	if every != "" {
		w.reduction.Every, err = history.ParseSpan(every)
		if err != nil || w.reduction.Every.Length != 0 && w.reduction.Every.Length < shortestBucket {
			return unfit("every", "use a span of at least a second, for instance 15m, 1h, 1d, 1w or 1mo")
		}
	}
	w.aggregates = []history.Aggregate{history.Average}
	if agg != "" {
		if w.aggregates, err = history.ParseAggregates(agg); err != nil {
			return unfit("agg", err.Error())
		}
	}
	for _, a := range w.aggregates {
		w.reduction.Aggregates |= a
	}
	return nil
}

// instant reads a time, UTC ms; 0 without one.
func (c *call) instant(name string, place *time.Location) (int64, error) {
	given := c.text(name)
	if given == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(given, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return c.now() - int64(n)*day, nil
		}
	}
	if span, err := time.ParseDuration(given); err == nil && span >= 0 {
		return c.now() - span.Milliseconds(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, given, place); err == nil && t.UnixMilli() > 0 {
			return t.UnixMilli(), nil
		}
	}
	return 0, unfit(name, "use an RFC 3339 time (2026-03-01T12:00:00Z), a date (2026-03-01) or a span before now (24h, 7d)")
}

func (c *call) readings(plant, zone string) (any, error) {
	w, err := c.wanted()
	if err != nil {
		return nil, err
	}
	if plant != "" && zone != "" {
		return nil, unfit("zone", "plant says whose readings too: leave one out")
	}
	if zone != "" && w.aggregates == nil {
		return nil, unfit("zone", "averages are of buckets: add every=1h or points=500")
	}
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	from := history.Fresh(c.Store.View)
	if from, err = c.source(plan, from, plant, zone); err != nil {
		return nil, err
	}
	for _, id := range w.query.Devices {
		if _, err := c.Store.Device(c, id); err != nil || id == "" {
			return nil, errors.Join(err, refuse(http.StatusNotFound, fmt.Sprintf("there is no device %.80q", id)))
		}
	}
	return streamed{}, c.read(c, c.streams, func() error { return c.stream(w, from) })
}

// source is whose readings they are.
func (c *call) source(plan *garden.Plan, all history.Reducible, plant, zone string) (history.Reducible, error) {
	if plant != "" {
		if _, known := plan.Plant(plant); !known { // a deleted one has readings too
			return nil, refuse(http.StatusNotFound, "there is no such plant")
		}
		return plan.History(all, plant), nil
	}
	if zone != "" {
		if _, known := plan.Zone(zone); !known {
			return nil, refuse(http.StatusNotFound, "there is no such zone")
		}
		return plan.Averages(all, zone), nil
	}
	return all, nil
}

// stream writes them as they are read. An error before the first piece has gone is answered; one behind it ends the connection, so that
// nobody takes a part for the whole.
func (c *call) stream(w wanted, from history.Reducible) error {
	out := &pieces{w: c.w, control: http.NewResponseController(c.w)}
	buffer := bufio.NewWriterSize(out, streamBytes)
	rows := newRows(&w, buffer)
	c.w.Header().Set("Content-Type", rows.contentType())
	err := c.rows(w, from, rows)
	if err == nil {
		err = errors.Join(rows.end(), buffer.Flush())
	}
	if err == nil || !out.begun {
		return err
	}
	if c.Err() == nil && out.err == nil {
		c.Log.Error("readings broke off", "path", c.r.URL.Path, "correlation", c.w.Header().Get(correlationHeader), "err", err)
	}
	panic(http.ErrAbortHandler)
}

func (c *call) rows(w wanted, from history.Reducible, rows rows) error {
	var damage error
	if w.aggregates != nil {
		for p, err := range history.Points(c, from, w.query, w.reduction) {
			if errors.Is(err, history.ErrDamaged) {
				damage = err
				continue
			}
			if err == nil {
				err = rows.point(&p)
			}
			if err != nil {
				return err
			}
		}
		c.sayDamage(damage)
		return nil
	}
	for r, err := range history.Readings(c, from, w.query) {
		if errors.Is(err, history.ErrDamaged) {
			damage = err
			continue
		}
		if err == nil {
			err = rows.reading(&r)
		}
		if err != nil {
			return err
		}
	}
	c.sayDamage(damage)
	return nil
}

// sayDamage logs that not all can be read. The rest is answered.
func (c *call) sayDamage(err error) {
	if err != nil {
		c.Log.Warn("readings are missing in an answer", "path", c.r.URL.Path, "err", err)
	}
}

// pieces sends what is written, each piece within a time.
type pieces struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	err     error
}

func (p *pieces) Write(b []byte) (n int, err error) {
	p.begun = true
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTime)) // what cannot have one has none
	n, p.err = p.w.Write(b)
	return n, p.err
}

// rows writes readings, or points, in one format.
type rows interface {
	contentType() string
	reading(*history.Reading) error
	point(*history.Point) error
	end() error
}

func newRows(w *wanted, to *bufio.Writer) rows {
	if w.csv {
		return &csvRows{wanted: w, w: csv.NewWriter(to)}
	}
	return &jsonRows{wanted: w, w: to}
}

// moment is a time for programs. With a zone it bears that.
func (w *wanted) moment(ms int64) string {
	if w.place == time.UTC {
		return control.Moment(ms).String()
	}
	return time.UnixMilli(ms).In(w.place).Format("2006-01-02T15:04:05.000Z07:00")
}

type csvRows struct {
	*wanted
	w     *csv.Writer
	begun bool
}

func (c *csvRows) contentType() string { return "text/csv; charset=utf-8; header=present" }

func (c *csvRows) row(cells ...string) error {
	if !c.begun {
		c.begun = true
		heading := []string{"time", "device", "metric"}
		if len(c.aggregates) < 2 {
			heading = append(heading, "value")
		} else {
			for _, a := range c.aggregates {
				heading = append(heading, a.String())
			}
		}
		if err := c.w.Write(heading); err != nil {
			return err
		}
	}
	if len(cells) == 0 {
		return nil
	}
	return c.w.Write(cells)
}

func (c *csvRows) reading(r *history.Reading) error {
	return c.row(c.moment(r.Time), r.Device, r.Metric, shortest(r.Value))
}

func (c *csvRows) point(p *history.Point) error {
	cells := []string{c.moment(p.Start), p.Device, p.Metric}
	for _, a := range c.aggregates {
		cells = append(cells, shortest(p.Value(a)))
	}
	return c.row(cells...)
}

func (c *csvRows) end() error {
	if err := c.row(); err != nil { // of nothing there is a heading too
		return err
	}
	c.w.Flush()
	return c.w.Error()
}

func shortest(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// jsonRows writes one array with an object a line.
type jsonRows struct {
	*wanted
	w     *bufio.Writer
	begun bool
	line  []byte
}

func (j *jsonRows) contentType() string { return "application/json" }

func (j *jsonRows) begin(ms int64, device, metric string) {
	j.line = append(j.line[:0], ",\n "...)
	if !j.begun {
		j.begun = true
		j.line = append(j.line[:0], "[\n "...)
	}
	j.line = append(j.line, `{"time":"`...)
	j.line = append(j.line, j.moment(ms)...)
	j.line = append(append(j.line, `","device":`...), quoted(device)...)
	j.line = append(append(j.line, `,"metric":`...), quoted(metric)...)
}

func quoted(s string) []byte {
	b, _ := json.Marshal(s) // of a text it never fails
	return b
}

func (j *jsonRows) value(name string, v float64) {
	j.line = append(append(append(j.line, `,"`...), name...), `":`...)
	if math.IsInf(v, 0) { // a sum may be, and JSON has no word for it
		j.line = append(j.line, "null"...)
		return
	}
	j.line = strconv.AppendFloat(j.line, v, 'f', -1, 64)
}

func (j *jsonRows) finish() error {
	_, err := j.w.Write(append(j.line, '}'))
	return err
}

func (j *jsonRows) reading(r *history.Reading) error {
	j.begin(r.Time, r.Device, r.Metric)
	j.value("value", r.Value)
	j.line = append(append(append(j.line, `,"received":"`...), control.Moment(r.Received).String()...), '"')
	if r.ClockUnsure {
		j.line = append(j.line, `,"clock_unsure":true`...)
	}
	return j.finish()
}

func (j *jsonRows) point(p *history.Point) error {
	j.begin(p.Start, p.Device, p.Metric)
	for _, a := range j.aggregates {
		name := "value"
		if len(j.aggregates) > 1 {
			name = a.String()
		}
		j.value(name, p.Value(a))
	}
	return j.finish()
}

func (j *jsonRows) end() error {
	closing := "\n]\n"
	if !j.begun {
		closing = "[]\n"
	}
	_, err := j.w.WriteString(closing)
	return err
}
