// Package intake brings histories from files into the store: it opens the file, finds out what it is, reads it step by step, judges
// the times, and stores in batches, remembering up to where. What it did is in a Report. It knows the store only through a Target,
// and no command line.
package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/cmd/plantops/progress"
	"github.com/plantops/plantops/control"
)

// Target is where readings are stored: a control.Operator.
type Target interface {
	ImportHistory(ctx context.Context, h control.History) (control.HistoryOutcome, error)
	HistoryPlace(ctx context.Context, key string) (string, error)
}

// Options say what is imported and how.
type Options struct {
	Path      string
	Format    histories.Format // "": finds out
	Read      histories.Options
	Target    Target // nil: a dry run
	FromStart bool   // not from where an earlier import of the file stopped

	Now       time.Time
	Keep      func(device string) time.Duration // what is older is refused; 0: nothing is too old. nil: nothing ever is
	Known     map[string]struct{}               // the devices that there are
	OnlyKnown bool                              // leaves out those of other devices

	Rejects  io.Writer     // gets every line that was rejected, as CSV; nil: nobody does
	Progress *progress.Bar // may be nil

	window int // how many values; 0: usualWindow
}

var (
	// firstTime is the earliest that is believed. Before it stand the mistakes: zero, and times in a unit that is not theirs.
	firstTime = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

	// ahead is how much faster another clock may run.
	ahead = time.Minute
)

const (
	// usualWindow is how many values are put in order of device and time before they are stored. Exports of InfluxDB have one field of a
	// series after the other, for as long as a file of its store lasts; here they become one message again.
	usualWindow = 1 << 17

	// lookAt is how many steps pass between two looks at the context and the progress.
	lookAt = 512
)

// Run imports the file, or says what would become of it. The report is there after an error too, for what was done until then.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.window == 0 {
		o.window = usualWindow
	}
	src, err := openSource(ctx, o.Path, o.Format, o.Read)
	if err != nil {
		return nil, err
	}
	defer src.close()
	run := &run{o: o, source: src, report: newReport(o, src.format), seen: map[*histories.Series]*SeriesReport{}, rejects: newRejects(o.Rejects)}
	run.oldest, run.newest = firstTime, o.Now.Add(ahead).UnixMilli()
	err = run.all(ctx)
	if run.reader != nil {
		run.report.Lines = run.reader.Place().Line
	}
	run.report.finish(o.Known)
	return run.report, errors.Join(err, run.rejects.flush())
}

// run is an import while it goes on.
type run struct {
	o      Options
	source *source
	reader histories.Reader
	report *Report

	oldest, newest int64 // UTC ms

	keepOf string
	keeps  time.Duration

	seen    map[*histories.Series]*SeriesReport
	values  []histories.Value
	rejects *rejects
	storer  *storer // nil: a dry run
}

// keep is Options.Keep of a device; most values are of the same one as the one before.
func (r *run) keep(device string) time.Duration {
	if r.o.Keep == nil {
		return 0
	}
	if device != r.keepOf || device == "" {
		r.keepOf, r.keeps = device, r.o.Keep(device)
	}
	return r.keeps
}

// mark is what is remembered of an import that is not finished.
type mark struct {
	File  string          `json:"file"` // what tells this file, read this way, from another
	Place histories.Place `json:"place"`
}

func (r *run) all(ctx context.Context) error {
	place, err := r.begin(ctx)
	if err != nil {
		return err
	}
	if r.reader, err = r.source.read(place); err != nil {
		return err
	}
	if r.o.Target == nil {
		return r.look(ctx)
	}
	r.storer = newStorer(ctx, r.o.Target, r.source.key)
	err = r.look(ctx)
	if err == nil {
		err = r.hand()
	}
	done, storeErr := r.storer.close()
	r.report.add(done)
	for _, bad := range done.rejected {
		r.reject(bad.value.Line, bad.text(), bad.why)
	}
	if err = errors.Join(storeErr, err); err == nil && done.marked {
		_, err = r.o.Target.ImportHistory(ctx, control.History{Place: control.HistoryPlace{Key: r.source.key}})
	}
	return err
}

// begin finds out where an earlier import stopped.
func (r *run) begin(ctx context.Context) (histories.Place, error) {
	if r.o.Target == nil || r.o.FromStart {
		return histories.Place{}, nil
	}
	text, err := r.o.Target.HistoryPlace(ctx, r.source.key)
	if err != nil {
		return histories.Place{}, err
	}
	var m mark
	if text == "" || json.Unmarshal([]byte(text), &m) != nil || m.File != r.source.identity {
		return histories.Place{}, nil
	}
	r.report.Continued = m.Place.Line
	return m.Place, nil
}

// look reads the file to its end.
func (r *run) look(ctx context.Context) error {
	for step := 0; ; step++ {
		if step%lookAt == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.o.Progress.Set(r.source.done(r.reader), fmt.Sprintf("%d readings", r.report.Readings))
		}
		err := r.reader.Next(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.o.Path, err)
		}
		if len(r.values) >= r.o.window {
			if err := r.hand(); err != nil {
				return err
			}
		}
	}
}

// hand gives what was read to be stored, with the place behind it.
func (r *run) hand() error {
	text, err := json.Marshal(mark{r.source.identity, r.reader.Place()})
	if err != nil {
		return err
	}
	r.values, err = r.storer.take(r.values, string(text))
	return err
}

// Value implements histories.Sink.
func (r *run) Value(v histories.Value) {
	switch {
	case v.Time < r.oldest:
		r.rejectValue(v, "before 1990: is the time in another unit?")
		return
	case v.Time > r.newest:
		r.rejectValue(v, "in the future")
		return
	}
	if keep := r.keep(v.Series.Device); keep > 0 && v.Time < r.o.Now.Add(-keep).UnixMilli() {
		r.rejectValue(v, "older than store.retention keeps ("+control.Span(keep)+")")
		return
	}
	s := r.seen[v.Series]
	if s == nil {
		s = r.report.series(v.Series)
		r.seen[v.Series] = s
	}
	if _, known := r.o.Known[v.Series.Device]; !known && r.o.OnlyKnown {
		r.Leave(v.Series.Source, "there is no device "+v.Series.Device)
		return
	}
	r.report.Readings++
	s.add(v.Time)
	if r.storer != nil {
		r.values = append(r.values, v)
	}
}

func (r *run) rejectValue(v histories.Value, why string) {
	r.reject(v.Line, rejected{value: v}.text(), why)
}

// Leave implements histories.Sink.
func (r *run) Leave(source, why string) { r.report.leave(source, why) }

// Reject implements histories.Sink.
func (r *run) Reject(line int64, text []byte, why string) { r.reject(line, string(text), why) }

func (r *run) reject(line int64, text, why string) {
	one := RejectedLine{Line: line, Text: clean(text), Reason: why}
	r.report.reject(one)
	r.rejects.write(one)
}
