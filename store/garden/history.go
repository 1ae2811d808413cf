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

// History is the readings of one plant, whatever devices they came from: history.Readings and history.Points take it as they take a
// view. Scan keeps the devices apart; Reduce puts them together, and its series bear the id of the plant. Devices of a query are those
// of the plant that are asked for; none: all.
//
// It is as safe for concurrent use as what it is made of.
type History struct {
	v     history.Reducible
	plan  *Plan
	plant string
}

// History returns the readings of a plant in a view. One that is not known has none.
func (p *Plan) History(v history.Reducible, plant string) *History { return &History{v, p, plant} }

// devices are those of the plant that a query asks for.
func (h *History) devices(q *history.Query) []string {
	list := h.plan.devices(h.plant)
	if len(q.Devices) > 0 {
		list = slices.DeleteFunc(list, func(device string) bool { return !slices.Contains(q.Devices, device) })
	}
	return list
}

// wish is a part of what is asked for of one device: metrics that belong together, and the times to look at.
type wish struct {
	query history.Query
	class []stretch
	named []string  // metrics that are another wish's; for one without metrics
	mine  []stretch // of the plant, as far as they are asked for
	gaps  []stretch // of nobody: what came while the device was the plant's is its
}

// wants reports whether a metric is this wish's.
func (w *wish) wants(metric string) bool {
	return w.query.Wants(metric) && (len(w.query.Metrics) > 0 || !slices.Contains(w.named, metric))
}

// wishes divides a query by how the metrics of a device are assigned.
func (h *History) wishes(device string, q history.Query) (list []wish) {
	d := h.plan.byDevice[device]
	q.Devices = []string{device}
	add := func(class []stretch, metrics, named []string) {
		if !slices.ContainsFunc(class, func(s stretch) bool { return s.plant == h.plant }) {
			return
		}
		w := wish{query: q, class: class, named: named}
		w.query.Metrics = metrics
		for _, s := range class {
			s.from, s.to = max(s.from, q.From), min(s.to, q.End())
			switch {
			case s.from >= s.to:
			case s.plant == h.plant:
				w.mine = append(w.mine, s)
			case s.plant == "":
				w.gaps = append(w.gaps, s)
			}
		}
		list = append(list, w)
	}
	var others []string
	for _, metric := range q.Metrics {
		if !slices.Contains(d.named, metric) {
			others = append(others, metric)
		}
	}
	if len(q.Metrics) == 0 || len(others) > 0 {
		add(d.classes[""], others, d.named)
	}
	for _, metric := range d.named {
		if q.Wants(metric) {
			add(d.classes[metric], []string{metric}, nil)
		}
	}
	return list
}

// in is the query of a wish for a part of its time.
func (w *wish) in(from, to int64) history.Query {
	q := w.query
	if q.From, q.To = from, to; to == forever {
		q.To = 0
	}
	return q
}

// gone reports whether an error says that there is no such device: it was purged after the plan was made, or came after the view was.
func gone(err error) bool { return errors.Is(err, history.ErrNotFound) }

// Scan implements history.Scanner.
func (h *History) Scan(ctx context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	return func(yield func(*history.Chunk, error) bool) {
		for _, device := range h.devices(&q) {
			if !h.scanDevice(ctx, device, q, yield) {
				return
			}
		}
	}
}

func (h *History) scanDevice(ctx context.Context, device string, q history.Query, yield func(*history.Chunk, error) bool) bool {
	s := sieve{device: h.plan.byDevice[device], plant: h.plant}
	q.Devices = []string{device}
	for _, part := range union(h.wishes(device, q)) {
		if q.From, q.To = part.from, part.to; q.To == forever {
			q.To = 0
		}
		for c, err := range h.v.Scan(ctx, q) {
			if gone(err) {
				return true
			}
			if err == nil {
				if c = s.sift(c); c == nil {
					continue
				}
			}
			if !yield(c, err) {
				return false
			}
		}
	}
	return true
}

// union is all times that wishes look at, in order.
func union(wishes []wish) (list []stretch) {
	var all []stretch
	for i := range wishes {
		all = append(append(all, wishes[i].mine...), wishes[i].gaps...)
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
	for _, s := range all {
		if n := len(list); n > 0 && s.from <= list[n-1].to {
			list[n-1].to = max(list[n-1].to, s.to)
		} else {
			list = append(list, s)
		}
	}
	return list
}

// sieve takes what belongs to a plant out of chunks of a device. What it returns is valid until the next one.
type sieve struct {
	device  *served
	plant   string
	chunk   history.Chunk
	present [][]uint64 // to be used again
}

// sift returns nil where nothing belongs to the plant.
func (s *sieve) sift(c *history.Chunk) *history.Chunk {
	if len(c.Times) == 0 {
		return nil
	}
	columns := s.chunk.Columns[:0]
	for k := range c.Columns {
		column := &c.Columns[k]
		class := s.device.class(column.Metric)
		if here := at(class, c.Times[0]); here.plant == s.plant && c.Times[len(c.Times)-1] < here.to {
			columns = append(columns, *column)
			continue
		}
		if present, n := s.of(k, class, c, column); n > 0 {
			columns = append(columns, history.Column{Metric: column.Metric, Values: column.Values, Present: present})
		}
	}
	s.chunk = *c
	if s.chunk.Columns = columns; len(columns) == 0 {
		return nil
	}
	return &s.chunk
}

// of says which values of column k belong to the plant.
func (s *sieve) of(k int, class []stretch, c *history.Chunk, column *history.Column) (present []uint64, n int) {
	for len(s.present) <= k {
		s.present = append(s.present, nil)
	}
	words := (len(c.Times) + 63) / 64
	present = slices.Grow(s.present[k][:0], words)[:words]
	clear(present)
	s.present[k] = present
	here := at(class, c.Times[0])
	for i, t := range c.Times {
		if t >= here.to {
			here = at(class, t)
		}
		plant := here.plant
		if plant == "" {
			plant = at(class, c.Received[i]).plant
		}
		if plant == s.plant && column.Has(i) {
			present[i/64] |= 1 << (i % 64)
			n++
		}
	}
	return present, n
}

// Range implements history.Scanner. It may be a little more than what belongs to the plant.
func (h *History) Range(ctx context.Context, q history.Query) (first, last int64, err error) {
	first, last = forever, -forever
	var all []wish
	for _, device := range h.devices(&q) {
		for _, w := range h.wishes(device, q) {
			all = append(all, w)
			for _, s := range w.mine {
				from, to, err := h.v.Range(ctx, w.in(s.from, s.to))
				if err != nil && !gone(err) {
					return 0, 0, err
				}
				if err == nil {
					first, last = min(first, from), max(last, to)
				}
			}
		}
	}
	for i := range all { // what came late is looked for where it would be first or last
		for _, s := range all[i].gaps {
			before, after := min(s.to, first), max(s.from, last)
			if first > last { // nothing yet
				before, after = s.to, s.to
			}
			for _, part := range [][2]int64{{s.from, before}, {after, s.to}} {
				if part[0] >= part[1] {
					continue
				}
				err := h.late(ctx, &all[i], part[0], part[1], func(c *history.Chunk) {
					first, last = min(first, c.Times[0]), max(last, c.Times[len(c.Times)-1])
				}, nil)
				if err != nil {
					return 0, 0, err
				}
			}
		}
	}
	return first, last, nil
}

// late gives what came while the device was the plant's, of times that are nobody's.
func (h *History) late(ctx context.Context, w *wish, from, to int64, give func(*history.Chunk), damaged func(*history.DamagedError)) error {
	s := sieve{device: h.plan.byDevice[w.query.Devices[0]], plant: h.plant}
	for c, err := range h.v.Scan(ctx, w.in(from, to)) {
		if gone(err) {
			return nil
		}
		if d, ok := errors.AsType[*history.DamagedError](err); ok {
			if damaged != nil {
				damaged(d)
			}
			continue
		}
		if err != nil {
			return err
		}
		if c = w.only(s.sift(c)); c != nil {
			give(c)
		}
	}
	return nil
}

// only takes out what is another wish's.
func (w *wish) only(c *history.Chunk) *history.Chunk {
	if c == nil {
		return nil
	}
	c.Columns = slices.DeleteFunc(c.Columns, func(column history.Column) bool { return !w.wants(column.Metric) })
	if len(c.Columns) == 0 {
		return nil
	}
	return c
}

// part is the buckets of one metric from one device in one time. Its values are in it.
type part struct {
	stretch
	device  string
	buckets []history.Bucket
}

// parts are the pieces that a reduction is put together from.
type parts struct {
	of      map[string][]part // by metric
	damaged []*history.DamagedError
	said    map[string]bool
}

func (p *parts) add(device string, s stretch, series history.Series) {
	if len(series.Buckets) > 0 {
		p.of[series.Metric] = append(p.of[series.Metric], part{s, device, series.Buckets})
	}
}

func (p *parts) damage(d *history.DamagedError) {
	if text := d.Error(); !p.said[text] {
		p.said[text] = true
		p.damaged = append(p.damaged, d)
	}
}

// Reduce implements history.Reducible: buckets of all devices of the plant together, in order of metric. Where two devices give one metric
// at a time, a bucket has the values of both. What is wholly the plant's is reduced from summaries, as View does it.
func (h *History) Reduce(ctx context.Context, q history.Query, r history.Reduction) iter.Seq2[history.Series, error] {
	return func(yield func(history.Series, error) bool) {
		list, damaged, err := h.reduce(ctx, q, r)
		if err != nil {
			yield(history.Series{}, err)
			return
		}
		for _, d := range damaged {
			if !yield(history.Series{}, d) {
				return
			}
		}
		for _, s := range list {
			if !yield(s, nil) {
				return
			}
		}
	}
}

func (h *History) reduce(ctx context.Context, q history.Query, r history.Reduction) (list []history.Series, damaged []*history.DamagedError, err error) {
	if r.Every, err = r.SpanOf(ctx, h, q); err != nil {
		return nil, nil, err
	}
	all := &parts{of: map[string][]part{}, said: map[string]bool{}}
	for _, device := range h.devices(&q) {
		for _, w := range h.wishes(device, q) {
			if err := h.reduceWish(ctx, &w, r, all); err != nil {
				return nil, nil, err
			}
		}
	}
	for metric, pieces := range all.of {
		s := history.Series{Device: h.plant, Metric: metric}
		if s.Buckets, err = h.together(ctx, q, r, metric, pieces); err != nil {
			return nil, nil, err
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b history.Series) int { return strings.Compare(a.Metric, b.Metric) })
	return list, all.damaged, nil
}

func (h *History) reduceWish(ctx context.Context, w *wish, r history.Reduction, all *parts) error {
	device := w.query.Devices[0]
	for _, s := range w.mine {
		for series, err := range h.v.Reduce(ctx, w.in(s.from, s.to), r) {
			if gone(err) {
				return nil
			}
			if d, ok := errors.AsType[*history.DamagedError](err); ok {
				all.damage(d)
			} else if err != nil {
				return err
			} else if w.wants(series.Metric) {
				all.add(device, s, series)
			}
		}
	}
	for _, s := range w.gaps {
		reducer := history.NewReducer(r.Every, r)
		if err := h.late(ctx, w, s.from, s.to, reducer.Add, all.damage); err != nil {
			return err
		}
		for _, series := range reducer.Series(device) {
			all.add(device, s, series)
		}
	}
	return nil
}

// together makes one row of buckets of pieces.
func (h *History) together(ctx context.Context, q history.Query, r history.Reduction, metric string, pieces []part) ([]history.Bucket, error) {
	slices.SortFunc(pieces, func(a, b part) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.device, b.device)) })
	type entry struct {
		history.Bucket
		to    int64 // of the pieces in it
		mixed bool  // of pieces from one time: which value was first is not known
	}
	at, list := map[int64]*entry{}, []*entry{}
	for i := range pieces {
		for k := range pieces[i].buckets {
			b := &pieces[i].buckets[k]
			e := at[b.Start]
			if e == nil {
				e = &entry{Bucket: *b, to: pieces[i].to}
				at[b.Start], list = e, append(list, e)
				continue
			}
			e.mixed = e.mixed || pieces[i].from < e.to
			e.to = max(e.to, pieces[i].to)
			join(&e.Bucket, b)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.Start, b.Start) })
	if ordered := history.First | history.Last; r.Aggregates == 0 || r.Aggregates&ordered != 0 {
		var mixed []*history.Bucket
		for _, e := range list {
			if e.mixed {
				mixed = append(mixed, &e.Bucket)
			}
		}
		if err := h.order(ctx, q, metric, mixed); err != nil {
			return nil, err
		}
	}
	buckets := make([]history.Bucket, len(list))
	for i, e := range list {
		buckets[i] = e.Bucket
	}
	return buckets, nil
}

// join puts a bucket into another whose values are earlier, where that can be told.
func join(b, o *history.Bucket) {
	if o.Min < b.Min || o.Min == b.Min && o.MinAt < b.MinAt {
		b.Min, b.MinAt = o.Min, o.MinAt
	}
	if o.Max > b.Max || o.Max == b.Max && o.MaxAt < b.MaxAt {
		b.Max, b.MaxAt = o.Max, o.MaxAt
	}
	b.Last = o.Last
	b.ScaledSum += o.ScaledSum
	b.Count += o.Count
}

// order finds the first and the last value of buckets, which are in order of time, by reading them. Of values of one time that of the
// device whose name comes first is the first.
func (h *History) order(ctx context.Context, q history.Query, metric string, buckets []*history.Bucket) error {
	if len(buckets) == 0 {
		return nil
	}
	type ends struct{ first, last int64 }
	found := make([]ends, len(buckets))
	for i := range found {
		found[i] = ends{forever, -forever}
	}
	q.Metrics = []string{metric}
	q.From, q.To = max(q.From, buckets[0].Start), min(q.End(), buckets[len(buckets)-1].End)
	for c, err := range h.Scan(ctx, q) { // devices in order of name
		if errors.As(err, new(*history.DamagedError)) {
			continue // it was said
		}
		if err != nil {
			return err
		}
		for k := range c.Columns {
			column, i := &c.Columns[k], 0
			for row, t := range c.Times {
				for i < len(buckets) && t >= buckets[i].End {
					i++
				}
				if i == len(buckets) {
					break
				}
				if t < buckets[i].Start || !column.Has(row) {
					continue
				}
				if t < found[i].first {
					found[i].first, buckets[i].First = t, column.Values[row]
				}
				if t >= found[i].last {
					found[i].last, buckets[i].Last = t, column.Values[row]
				}
			}
		}
	}
	return nil
}
