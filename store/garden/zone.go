package garden

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/plantops/plantops/store/history"
)

// Averages are the readings of the plants that are in a zone now, as one: each plant counts the same, however often its devices send.
type Averages struct {
	of   []*History
	zone string
}

// Averages returns those of a zone in a view. One that is not known has none.
func (p *Plan) Averages(v history.Reducible, zone string) *Averages {
	a := &Averages{zone: zone}
	if zone != "" {
		for _, plant := range p.PlantsIn(zone) {
			a.of = append(a.of, p.History(v, plant.ID))
		}
	}
	return a
}

// Scan implements history.Scanner: plant by plant, not in order.
func (a *Averages) Scan(ctx context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		for _, h := range a.of {
			for c, err := range h.Scan(ctx, q) {
				if !yield(c, err) {
					return
				}
			}
		}
	}
}

// Range implements history.Scanner.
func (a *Averages) Range(ctx context.Context, q history.Query) (first, last int64, err error) {
	first, last = forever, -forever
	for _, h := range a.of {
		from, to, err := h.Range(ctx, q)
		if err != nil {
			return 0, 0, err
		}
		first, last = min(first, from), max(last, to)
	}
	return first, last, nil
}

// Reduce yields a series for each metric, which bears the id of the zone. Of a bucket, Count is how many plants have values in it, the
// mean is that of their means, First and Last are the mean too, Min and Max those of all values.
func (a *Averages) Reduce(ctx context.Context, q history.Query, r history.Reduction) iter.Seq2[history.Series, error] {
	return func(yield func(history.Series, error) bool) {
		if err := a.reduce(ctx, q, r, yield); err != nil {
			yield(history.Series{}, err)
		}
	}
}

func (a *Averages) reduce(ctx context.Context, q history.Query, r history.Reduction, yield func(history.Series, error) bool) (err error) {
	if r.Every, err = r.SpanOf(ctx, a, q); err != nil {
		return err
	}
	all := map[string]map[int64]*history.Bucket{}
	for _, h := range a.of {
		for s, err := range h.Reduce(ctx, q, r) {
			if errors.As(err, new(*history.DamagedError)) {
				if !yield(history.Series{}, err) {
					return nil
				}
				continue
			}
			if err != nil {
				return err
			}
			if all[s.Metric] == nil {
				all[s.Metric] = map[int64]*history.Bucket{}
			}
			for i := range s.Buckets {
				addPlant(all[s.Metric], &s.Buckets[i])
			}
		}
	}
	var list []history.Series
	for metric, buckets := range all {
		s := history.Series{Device: a.zone, Metric: metric}
		for _, b := range buckets {
			b.First, b.Last = b.Mean(), b.Mean()
			s.Buckets = append(s.Buckets, *b)
		}
		slices.SortFunc(s.Buckets, func(x, y history.Bucket) int { return cmp.Compare(x.Start, y.Start) })
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y history.Series) int { return strings.Compare(x.Metric, y.Metric) })
	for _, s := range list {
		if !yield(s, nil) {
			return nil
		}
	}
	return nil
}

// addPlant puts a bucket of one plant in.
func addPlant(buckets map[int64]*history.Bucket, of *history.Bucket) {
	one := *of
	one.Count, one.ScaledSum = 1, of.ScaledSum/float64(of.Count)
	b := buckets[one.Start]
	if b == nil {
		buckets[one.Start] = &one
		return
	}
	join(b, &one)
}
