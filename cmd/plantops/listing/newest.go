package listing

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
)

// Readings writes what q selects, in order of time, and returns how many there were. With a limit these are the newest. What
// is damaged is passed over: then the error, which wraps *store.DamagedError, comes at the end. note is told of each that is
// written; nil: nobody is.
func Readings(ctx context.Context, v history.Scanner, q history.Query, limit int, out Writer, note func(store.Reading)) (int, error) {
	return each(ctx, v, q, limit, ask[store.Reading]{
		sequence: func(q history.Query) iter.Seq2[store.Reading, error] { return history.Readings(ctx, v, q) },
		do: func(r store.Reading) error {
			if note != nil {
				note(r)
			}
			return out.Write(r)
		},
	})
}

// Points is Readings for what the readings come to.
func Points(ctx context.Context, v history.Reducible, q history.Query, r history.Reduction, limit int, out Writer) (int, error) {
	span, err := r.SpanOf(ctx, v, q)
	if err != nil {
		return 0, err
	}
	r.Every = span // also when it is less that is looked at
	grid := history.NewGrid(span, r.Location)
	return each(ctx, v, q, limit, ask[history.Point]{
		sequence: func(q history.Query) iter.Seq2[history.Point, error] { return history.Points(ctx, v, q, r) },
		do:       out.WritePoint,
		begin: func(from int64) int64 {
			start, _ := grid.Bucket(from)
			return start
		},
	})
}

// ask is how readings, or points, are asked for and what is done with them.
type ask[T any] struct {
	sequence func(history.Query) iter.Seq2[T, error]
	do       func(T) error
	begin    func(from int64) int64 // what is not to be cut begins; nil: nothing can be
}

func each[T any](ctx context.Context, v history.Scanner, q history.Query, limit int, a ask[T]) (int, error) {
	if limit > 0 {
		list, err := newest(ctx, v, q, limit, a)
		if err != nil && !isDamage(err) {
			return 0, err
		}
		for _, x := range list {
			if doErr := a.do(x); doErr != nil {
				return len(list), doErr
			}
		}
		return len(list), err
	}
	count := 0
	var damage error
	for x, err := range a.sequence(q) {
		if isDamage(err) {
			damage = errors.Join(damage, err)
			continue
		}
		if err == nil {
			err = a.do(x)
		}
		if err != nil {
			return count, err
		}
		count++
	}
	return count, damage
}

// newest returns the last of what q selects, limit of them. It looks back from the newest reading in steps that grow: a view
// goes through time forwards only, and there may be years of it.
func newest[T any](ctx context.Context, v history.Scanner, q history.Query, limit int, a ask[T]) ([]T, error) {
	first, last, err := v.Range(ctx, q)
	if err != nil || last < first {
		return nil, err
	}
	from := q.From
	for span := time.Hour.Milliseconds(); ; span *= 6 {
		q.From = last + 1 - span
		if a.begin != nil {
			q.From = a.begin(q.From)
		}
		everything := q.From <= max(from, first)
		if everything {
			q.From = from
		}
		var list []T
		var damage error
		for x, err := range a.sequence(q) {
			if isDamage(err) {
				damage = errors.Join(damage, err)
				continue
			}
			if err != nil {
				return nil, err
			}
			if list = append(list, x); len(list) >= 2*limit+1024 {
				list = append(list[:0], list[len(list)-limit:]...)
			}
		}
		if len(list) >= limit || everything {
			return list[max(0, len(list)-limit):], damage
		}
	}
}

func isDamage(err error) bool {
	var damaged *store.DamagedError
	return errors.As(err, &damaged)
}
