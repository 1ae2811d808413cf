package intake

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/store"
)

// ours reads a database of this program, in order of time. Its place is a time, whose readings are read again.
type ours struct {
	next  func() (store.Reading, error, bool)
	stop  func()
	place histories.Place
	first float64 // time of the first reading
	o     histories.Options
	known map[[2]string]*histories.Series
}

func newOurs(ctx context.Context, db *store.Store, place histories.Place, o histories.Options) *ours {
	r := &ours{place: place, o: o, known: map[[2]string]*histories.Series{}}
	r.next, r.stop = iter.Pull2(db.Readings(ctx, store.Query{From: place.Offset}))
	return r
}

// Place implements histories.Reader.
func (r *ours) Place() histories.Place { return r.place }

// Next implements histories.Reader.
func (r *ours) Next(sink histories.Sink) error {
	reading, err, more := r.next()
	if !more {
		return io.EOF
	}
	r.place.Line++
	if damaged := (*store.DamagedError)(nil); errors.As(err, &damaged) {
		sink.Reject(r.place.Line, nil, damaged.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if r.place.Offset = reading.Time; r.first == 0 {
		r.first = float64(reading.Time)
	}
	key := [2]string{reading.Device, reading.Metric}
	s := r.known[key]
	if s == nil {
		s = r.o.Series(len(r.known), reading.Device, reading.Metric)
		r.known[key] = s
	}
	if s.Device == "" {
		sink.Leave(s.Source, s.Note)
		return nil
	}
	sink.Value(histories.Value{Series: s, Line: r.place.Line, Time: reading.Time, Received: reading.Received, Value: reading.Value})
	return nil
}
