package histories

import (
	"context"
	"io"
	"slices"
)

// Rows is an SQLite file of another program, as package store/foreign opens it. A row has int64, float64, string, []byte or nil.
type Rows interface {
	Tables(ctx context.Context) (map[string][]string, error)
	Each(ctx context.Context, row func(values []any) error, query string, args ...any) error
}

// DatabaseFormat tells what an SQLite file is by its tables; "" when it is none of the formats.
func DatabaseFormat(tables map[string][]string) Format {
	has := func(table string, columns ...string) bool {
		return !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(tables[table], c) })
	}
	switch {
	case has("account", "name") && has("counter", "device") && has("metric", "id"):
		return Database
	case has("reading", "device", "time", "metric", "value"):
		return SQLite
	case has("states", "state_id", "state"):
		return HomeAssistant
	}
	return ""
}

// NewRows returns a Reader for a format that is an SQLite file, from place on. It reads in short queries, so that the program that
// the file belongs to is not held up. The context ends reading.
func NewRows(ctx context.Context, format Format, from Rows, place Place, o Options) (Reader, error) {
	tables, err := from.Tables(ctx)
	if err != nil {
		return nil, err
	}
	switch format {
	case SQLite:
		return newExported(ctx, from, place, o, slices.Contains(tables["reading"], "received")), nil
	case HomeAssistant:
		return newRecorder(ctx, from, place, o, tables)
	}
	return nil, wrongOptions("%s is no SQLite file with a table of readings", format)
}

// stepRows is how many rows one query reads.
const stepRows = 2000

// exported reads the table reading(device, time, metric, value, received).
type exported struct {
	ctx   context.Context
	from  Rows
	query string
	place Place
	objects
}

func newExported(ctx context.Context, from Rows, place Place, o Options, received bool) *exported {
	column := "0"
	if received {
		column = "+received"
	}
	return &exported{ctx: ctx, from: from, place: place, objects: objects{series: newSeriesTable(o), known: map[string]map[string]*Series{}},
		query: `SELECT rowid, +device, +time, +metric, +value, ` + column + ` FROM reading WHERE rowid > ? ORDER BY rowid LIMIT ?`}
}

func (r *exported) Place() Place { return r.place }

func (r *exported) Next(sink Sink) error {
	rows := 0
	err := r.from.Each(r.ctx, func(row []any) error {
		rows++
		r.place.Offset, _ = row[0].(int64)
		r.place.Line++
		if why := r.row(sink, row); why != "" {
			sink.Reject(r.place.Offset, rowText(row), why)
		}
		return nil
	}, r.query, r.place.Offset, stepRows)
	if err == nil && rows == 0 {
		return io.EOF
	}
	return err
}

func (r *exported) row(sink Sink, row []any) (why string) {
	device, isDevice := row[1].(string)
	at, isTime := row[2].(int64)
	metric, isMetric := row[3].(string)
	value, isNumber := asNumber(row[4])
	received, _ := row[5].(int64)
	switch {
	case !isDevice || device == "":
		return "no device"
	case !isMetric || metric == "":
		return "no metric"
	case !isTime:
		return "the time is not a number of milliseconds"
	case !isNumber:
		return "the value is not a number"
	}
	s := r.known[device][metric]
	if s == nil {
		if s = r.add(device, metric); s == nil {
			return whyTooMany
		}
	}
	if s.Device == "" {
		sink.Leave(s.Source, s.Note)
		return ""
	}
	sink.Value(Value{Series: s, Line: r.place.Offset, Time: at, Received: received, Value: value})
	return ""
}
