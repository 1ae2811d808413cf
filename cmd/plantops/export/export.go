// Package export writes readings for other programs: as text in several forms, as an SQLite file. It takes them as they are, chunk
// by chunk, so that it needs no more memory for years than for a day.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/plantops/plantops/cmd/plantops/progress"
	"github.com/plantops/plantops/store/foreign"
	"github.com/plantops/plantops/store/history"
)

// Format is a kind of file.
type Format string

// The formats.
const (
	CSV     Format = "csv"     // time,device,metric,value
	JSON    Format = "jsonl"   // an object a line, as "readings --json" prints them
	Influx  Format = "influx"  // line protocol, with times in nanoseconds
	Parquet Format = "parquet" // the columns device, time, metric, value, received
	SQLite  Format = "sqlite"  // a file with the table reading(device, time, metric, value, received)
)

// From is where readings come from: a history.View or one that is always new.
type From interface {
	Scan(ctx context.Context, q history.Query) iter.Seq2[*history.Chunk, error]
	Range(ctx context.Context, q history.Query) (first, last int64, err error)
}

// Options say what is exported, and where to.
type Options struct {
	From     From
	Query    history.Query // its devices are gone through one after the other; none: no readings
	Format   Format
	To       io.Writer // of text
	Path     string    // of a file that is no text, and not there yet
	Progress *progress.Bar
}

// Result is what was written, and what could not be.
type Result struct {
	Readings int64
	Devices  int
	Damaged  []*history.DamagedError // of which there may be readings that cannot be read
	Unnamed  []string                // what the format has no way to write: names of devices and metrics
}

// encoder writes chunks.
type encoder interface {
	// chunk returns how many readings it wrote.
	chunk(c *history.Chunk) (int64, error)
	end() error
}

// Run exports. What cannot be read is in the result and no error.
func Run(ctx context.Context, o Options) (Result, error) {
	r := &Result{}
	out, err := newEncoder(ctx, o, r)
	if err != nil {
		return *r, err
	}
	err = all(ctx, o, out, r)
	if endErr := out.end(); err == nil {
		err = endErr
	}
	return *r, err
}

func newEncoder(ctx context.Context, o Options, r *Result) (encoder, error) {
	switch o.Format {
	case CSV, JSON, Influx:
		return newText(o.Format, o.To, r)
	case Parquet:
		return newParquet(o.To)
	case SQLite:
		file, err := foreign.CreateReadings(ctx, o.Path)
		return table{file}, err
	}
	return nil, fmt.Errorf("there is no format %q", o.Format)
}

func all(ctx context.Context, o Options, out encoder, r *Result) error {
	first, last, err := o.From.Range(ctx, o.Query)
	if err != nil {
		return err
	}
	for i, device := range o.Query.Devices {
		q, before := o.Query, r.Readings
		q.Devices = []string{device}
		for c, err := range o.From.Scan(ctx, q) {
			if damaged := (*history.DamagedError)(nil); errors.As(err, &damaged) {
				r.Damaged = append(r.Damaged, damaged)
				continue
			}
			if err != nil {
				return err
			}
			n, err := out.chunk(c)
			if err != nil {
				return err
			}
			r.Readings += n
			within := float64(c.Times[len(c.Times)-1]-first) / float64(max(last-first, 1))
			o.Progress.Set((float64(i)+min(max(within, 0), 1))/float64(len(o.Query.Devices)), fmt.Sprintf("%d readings", r.Readings))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.Readings > before {
			r.Devices++
		}
	}
	return nil
}

// table writes an SQLite file.
type table struct{ file *foreign.Readings }

func (t table) chunk(c *history.Chunk) (n int64, err error) {
	for i, at := range c.Times {
		for k := range c.Columns {
			column := &c.Columns[k]
			if !column.Has(i) {
				continue
			}
			if err := t.file.Add(c.Device, at, column.Metric, column.Values[i], c.Received[i]); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func (t table) end() error { return t.file.Close() }
