package derive

import (
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store/history"
)

// View is v with the rules applied, except to queries that are Raw. Days of which light is added up are those of a place (nil: UTC), and
// those of a reduction where that names one. Summaries do where they give the same as readings (Lines); everything else is
// read. v must not be used as long as the view is.
func (r *Rules) View(v history.View, place *time.Location) history.View {
	if r.Empty() {
		return v
	}
	return &view{v, r, place}
}

// Empty tells that there are no rules.
func (r *Rules) Empty() bool { return len(r.devices)+len(r.derived) == 0 }

// view passes Range and Close on: what is voided still has a time.
type view struct {
	history.View
	rules *Rules
	place *time.Location
}

// Scan implements history.View.
func (v *view) Scan(ctx context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	if q.Raw {
		return v.View.Scan(ctx, q)
	}
	stored := q
	stored.Metrics = v.rules.Stored(q.Metrics)
	if q.From != 0 {
		stored.From = v.rules.Start(q.Metrics, q.From, v.place)
	}
	return func(yield func(*history.Chunk, error) bool) {
		a := v.rules.Applier(Options{Metrics: q.Metrics, From: q.From, Location: v.place})
		device, begun := "", false
		for c, err := range v.View.Scan(ctx, stored) {
			if err != nil {
				if damaged, ok := errors.AsType[*history.DamagedError](err); ok && damaged.To <= q.From {
					continue // nobody asked for it
				}
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !begun || c.Device != device {
				device, begun = c.Device, true
				a.Begin(device)
			}
			if c = a.Apply(c); c != nil && !yield(c, nil) {
				return
			}
		}
	}
}

// Readings implements history.View.
func (v *view) Readings(ctx context.Context, q history.Query) iter.Seq2[history.Reading, error] {
	if q.Raw {
		return v.View.Readings(ctx, q)
	}
	return history.Readings(ctx, v, q)
}

// Reduce implements history.View.
func (v *view) Reduce(ctx context.Context, q history.Query, r history.Reduction) iter.Seq2[history.Series, error] {
	if q.Raw {
		return v.View.Reduce(ctx, q, r)
	}
	return func(yield func(history.Series, error) bool) {
		if err := v.reduce(ctx, q, r, yield); err != nil {
			yield(history.Series{}, err)
		}
	}
}

func (v *view) reduce(ctx context.Context, q history.Query, r history.Reduction, yield func(history.Series, error) bool) (err error) {
	if r.Every, err = r.SpanOf(ctx, v.View, q); err != nil {
		return err
	}
	here := *v
	if r.Location != nil {
		here.place = r.Location
	}
	devices := slices.Compact(slices.Sorted(slices.Values(q.Devices)))
	if len(devices) == 0 {
		for one, err := range v.View.LatestAll(ctx) {
			if err == nil && (len(devices) == 0 || devices[len(devices)-1] != one.Device) {
				devices = append(devices, one.Device)
			} else if err != nil && !errors.As(err, new(*history.DamagedError)) {
				return err
			}
		}
	}
	for _, device := range devices {
		q.Devices = []string{device}
		list, damaged, err := here.reduceOne(ctx, q, r)
		if err != nil {
			return err
		}
		for _, d := range damaged {
			if !yield(history.Series{}, d) {
				return nil
			}
		}
		for _, s := range list {
			if !yield(s, nil) {
				return nil
			}
		}
	}
	return nil
}

// summarized is a metric whose buckets are those of a stored one, but for lines.
type summarized struct {
	metric, source string
	lines          []Line
}

// reduceOne reduces the readings of one device.
func (v *view) reduceOne(ctx context.Context, q history.Query, r history.Reduction) (list []history.Series, damaged []error, err error) {
	device := q.Devices[0]
	newest, err := v.View.Latest(ctx, device)
	if err != nil && !errors.As(err, new(*history.DamagedError)) {
		return nil, nil, err
	}
	first, last, err := v.View.Range(ctx, q)
	if err != nil || last < first {
		return nil, nil, err
	}
	first, last = max(first, q.From), min(last, q.End()-1)
	var summaries []summarized
	var sources, readings []string
	for _, metric := range v.rules.metrics(newest, q) {
		if source, lines, ok := v.rules.Lines(device, metric, first, last); ok {
			summaries = append(summaries, summarized{metric, source, lines})
			if !slices.Contains(sources, source) {
				sources = append(sources, source)
			}
		} else {
			readings = append(readings, metric)
		}
	}
	collect := func(seq iter.Seq2[history.Series, error]) (found []history.Series, err error) {
		for s, err := range seq {
			if d, ok := errors.AsType[*history.DamagedError](err); ok {
				if !slices.ContainsFunc(damaged, func(e error) bool { return e.Error() == d.Error() }) {
					damaged = append(damaged, d)
				}
			} else if err != nil {
				return nil, err
			} else {
				found = append(found, s)
			}
		}
		return found, nil
	}
	if len(sources) > 0 {
		q.Metrics = sources
		stored, err := collect(v.View.Reduce(ctx, q, r))
		if err != nil {
			return nil, nil, err
		}
		for _, s := range summaries {
			if series, ok := s.of(stored); ok && len(series.Buckets) > 0 {
				list = append(list, series)
			} else if !ok {
				readings = append(readings, s.metric)
			}
		}
	}
	if len(readings) > 0 {
		q.Metrics = readings
		computed, err := collect(history.Reduce(ctx, v, q, r))
		if err != nil {
			return nil, nil, err
		}
		list = append(list, computed...)
	}
	slices.SortFunc(list, func(a, b history.Series) int { return strings.Compare(a.Metric, b.Metric) })
	return list, damaged, nil
}

// of makes the series of a metric of that of its source. It is false where a line leads beyond the largest number: then some of the
// values are not there.
func (s *summarized) of(stored []history.Series) (out history.Series, ok bool) {
	for _, series := range stored {
		if series.Metric != s.source {
			continue
		}
		out = history.Series{Device: series.Device, Metric: s.metric, Buckets: slices.Clone(series.Buckets)}
		for i := range out.Buckets {
			b := &out.Buckets[i]
			for _, line := range s.lines {
				b.Linear(line.Factor, line.Offset)
				if !finite(b.Min) || !finite(b.Max) {
					return out, false
				}
			}
		}
	}
	return out, true
}

// metrics are those of a device that a query asks for, stored or derived. newest is of what the device sends.
func (r *Rules) metrics(newest []history.Reading, q history.Query) (list []string) {
	there := map[string]bool{}
	for _, one := range newest {
		if r.derivedOf(one.Metric) == nil {
			there[one.Metric] = true
			list = append(list, one.Metric)
		}
	}
	for i := range r.derived {
		d := &r.derived[i]
		if !slices.ContainsFunc(d.Terms, func(t Term) bool { return !there[t.Metric] }) {
			there[d.Name] = true
			list = append(list, d.Name)
		}
	}
	return slices.DeleteFunc(list, func(metric string) bool { return !q.Wants(metric) })
}

// lookBack bounds how far before the newest reading of a device Latest looks for what is not there: a derived metric whose sources are
// never sent together, or whose newest readings are voided.
const lookBack = 31 * 24 * int64(time.Hour/time.Millisecond)

// Latest implements history.View. It looks at most 31 days back from the newest reading of the device.
func (v *view) Latest(ctx context.Context, device string) ([]history.Reading, error) {
	newest, err := v.View.Latest(ctx, device)
	if err != nil {
		return nil, err
	}
	return v.latest(ctx, device, newest)
}

// LatestAll implements history.View.
func (v *view) LatestAll(ctx context.Context) iter.Seq2[history.Reading, error] {
	return func(yield func(history.Reading, error) bool) {
		var all []history.Reading // before anything else is asked
		for one, err := range v.View.LatestAll(ctx) {
			if err != nil {
				if !yield(one, err) {
					return
				}
				continue
			}
			all = append(all, one)
		}
		for len(all) > 0 {
			device := all[0].Device
			n := 1
			for n < len(all) && all[n].Device == device {
				n++
			}
			list, err := v.latest(ctx, device, all[:n])
			if err != nil && !yield(history.Reading{}, err) {
				return
			}
			for _, one := range list {
				if !yield(one, nil) {
					return
				}
			}
			all = all[n:]
		}
	}
}

// latest makes the newest readings of a device of those that are stored.
func (v *view) latest(ctx context.Context, device string, newest []history.Reading) (list []history.Reading, err error) {
	wanted := v.rules.metrics(newest, history.Query{})
	to := int64(math.MinInt64)
	for _, one := range newest {
		to = max(to, one.Time)
	}
	var missing []string
	for _, metric := range wanted {
		one, ok := v.direct(device, metric, newest)
		if ok {
			list = append(list, one)
		} else {
			missing = append(missing, metric)
		}
	}
	oldest := to - lookBack
	for end, width := to, int64(time.Hour/time.Millisecond); len(missing) > 0 && end >= oldest; width *= 4 {
		from := max(end-width, oldest)
		found := map[string]history.Reading{}
		for c, err := range v.Scan(ctx, history.Query{Devices: []string{device}, Metrics: missing, From: from, To: end + 1}) {
			if err != nil {
				if !errors.As(err, new(*history.DamagedError)) {
					return nil, err
				}
				continue // what is damaged further back is not the newest
			}
			for k := range c.Columns {
				column := &c.Columns[k]
				for i := len(c.Times) - 1; i >= 0; i-- {
					if column.Has(i) {
						found[column.Metric] = c.Reading(i, column)
						break
					}
				}
			}
		}
		for _, one := range found {
			list = append(list, one)
		}
		missing = slices.DeleteFunc(missing, func(metric string) bool { _, there := found[metric]; return there })
		end = from - 1
	}
	slices.SortFunc(list, func(a, b history.Reading) int { return strings.Compare(a.Metric, b.Metric) })
	return list, nil
}

// direct is the newest reading of a metric where it follows from the newest ones of what is stored, all at one time.
func (v *view) direct(device, metric string, newest []history.Reading) (one history.Reading, ok bool) {
	c := &history.Chunk{Device: device, Times: []int64{0}, Received: []int64{0}, Flags: []uint8{0}}
	for _, stored := range v.rules.Stored([]string{metric}) {
		if d := v.rules.derivedOf(stored); d != nil {
			if d.Kind == LightIntegral {
				return one, false
			}
			continue
		}
		at := slices.IndexFunc(newest, func(r history.Reading) bool { return r.Metric == stored })
		if at < 0 || len(c.Columns) > 0 && newest[at].Time != one.Time {
			return one, false
		}
		one = newest[at]
		c.Columns = append(c.Columns, history.Column{Metric: stored, Values: []float64{one.Value}})
	}
	c.Times[0] = one.Time
	a := v.rules.Applier(Options{Metrics: []string{metric}, From: one.Time})
	a.Begin(device)
	if c = a.Apply(c); c == nil {
		return one, false
	}
	one.Metric, one.Value = metric, c.Columns[0].Values[0]
	return one, true
}
