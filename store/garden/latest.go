package garden

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store/history"
)

const (
	hourMS = int64(time.Hour / time.Millisecond)

	// lookBack is how far before an assignment Latest looks for what came late, and ahead is how far behind it: what a device says to be
	// a day ahead of its arrival is not believed (ingest), and clocks may have been moved.
	lookBack = 31 * 24 * hourMS
	ahead    = 25 * hourMS

	// latestPoints is into how many buckets a time is reduced to find the last value in it.
	latestPoints = 500
)

// newest is the newest reading of each metric of a plant, so far.
type newest map[string]history.Reading

func (n newest) take(r history.Reading) {
	if have, there := n[r.Metric]; !there || r.Time > have.Time || r.Time == have.Time && r.Device < have.Device {
		n[r.Metric] = r
	}
}

func (n newest) list() []history.Reading {
	list := make([]history.Reading, 0, len(n))
	for _, r := range n {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b history.Reading) int { return strings.Compare(a.Metric, b.Metric) })
	return list
}

// Latest returns the newest reading of each metric of a plant, in order of metric, whichever device it came from. What came late is
// looked for at most 31 days back from the assignment in which it came.
func (p *Plan) Latest(ctx context.Context, v history.View, plant string) ([]history.Reading, error) {
	devices := map[string][]history.Reading{}
	for _, device := range p.devices(plant) {
		list, err := v.Latest(ctx, device)
		if err != nil && !gone(err) && !errors.As(err, new(*history.DamagedError)) {
			return nil, err
		}
		devices[device] = list
	}
	return p.latest(ctx, v, plant, devices)
}

// LatestAll is Latest of every plant that is there and has readings, by plant.
func (p *Plan) LatestAll(ctx context.Context, v history.View) (map[string][]history.Reading, error) {
	devices := map[string][]history.Reading{}
	for r, err := range v.LatestAll(ctx) {
		if err != nil && !errors.As(err, new(*history.DamagedError)) {
			return nil, err
		}
		if err == nil && p.byDevice[r.Device] != nil {
			devices[r.Device] = append(devices[r.Device], r)
		}
	}
	all := map[string][]history.Reading{}
	for i := range p.plants {
		if p.plants[i].Deleted != 0 {
			continue
		}
		list, err := p.latest(ctx, v, p.plants[i].ID, devices)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 {
			all[p.plants[i].ID] = list
		}
	}
	return all, nil
}

// latest completes what the devices of a plant sent last. Where that is another plant's, what is before it is looked for.
func (p *Plan) latest(ctx context.Context, v history.View, plant string, devices map[string][]history.Reading) ([]history.Reading, error) {
	found := newest{}
	var missing []history.Reading
	for _, device := range p.devices(plant) {
		for _, r := range devices[device] {
			if p.Owner(device, r.Metric, r.Time, r.Received) == plant {
				found.take(r)
			} else {
				missing = append(missing, r)
			}
		}
	}
	slices.SortStableFunc(missing, func(a, b history.Reading) int { return cmp.Compare(b.Time, a.Time) })
	h := p.History(v, plant)
	for _, r := range missing {
		if err := h.before(ctx, r, found); err != nil {
			return nil, err
		}
	}
	return found.list(), nil
}

// before looks for the newest reading of the plant from the device and metric of a reading that is not the plant's, unless there is a
// newer one.
func (h *History) before(ctx context.Context, r history.Reading, found newest) error {
	class := h.plan.byDevice[r.Device].class(r.Metric)
	for i := len(class) - 1; i >= 0; i-- {
		s := class[i]
		s.to = min(s.to, r.Time+1)
		if have, there := found[r.Metric]; s.from >= s.to || there && have.Time >= s.to {
			continue
		}
		times := []stretch{s}
		switch s.plant {
		case h.plant:
			var err error
			if times[0], err = h.lastOf(ctx, r, s); err != nil {
				return err
			}
		case "":
			times = h.lateTimes(class, i, s)
		default:
			continue
		}
		for _, part := range times {
			if err := h.newestIn(ctx, r, part, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// lateTimes are when there may be readings of nobody's time s, which is number i, that came while the device was the plant's.
func (h *History) lateTimes(class []stretch, i int, s stretch) (times []stretch) {
	isMine := func(s stretch) bool { return s.plant == h.plant }
	if slices.ContainsFunc(class[i+1:], isMine) {
		times = append(times, stretch{from: max(s.from, s.to-lookBack), to: s.to})
	}
	for _, before := range class[:i] {
		if end := min(before.to+ahead, s.to); isMine(before) && end > s.from {
			times = append(times, stretch{from: s.from, to: end})
		}
	}
	return times
}

// lastOf is a short time at the end of what a stretch has of a metric. It is found by summaries.
func (h *History) lastOf(ctx context.Context, r history.Reading, s stretch) (last stretch, err error) {
	q := history.Query{Devices: []string{r.Device}, Metrics: []string{r.Metric}, From: max(s.from, 0), To: s.to}
	first, end, err := h.v.Range(ctx, q)
	if err != nil || end < first {
		if gone(err) {
			err = nil
		}
		return last, err
	}
	q.From, q.To = first, end+1
	for series, err := range h.v.Reduce(ctx, q, history.Reduction{Points: latestPoints, Aggregates: history.Last}) {
		if err != nil && !errors.As(err, new(*history.DamagedError)) {
			return last, err
		}
		if n := len(series.Buckets); err == nil && n > 0 {
			b := &series.Buckets[n-1]
			last = stretch{from: max(b.Start, q.From), to: min(b.End, q.To)}
		}
	}
	return last, nil
}

// newestIn reads a short time.
func (h *History) newestIn(ctx context.Context, r history.Reading, s stretch, found newest) error {
	if s.from >= s.to {
		return nil
	}
	q := history.Query{Devices: []string{r.Device}, Metrics: []string{r.Metric}, From: max(s.from, 0), To: s.to}
	for c, err := range h.Scan(ctx, q) {
		if errors.As(err, new(*history.DamagedError)) {
			continue
		}
		if err != nil {
			return err
		}
		for k := range c.Columns {
			for i := len(c.Times) - 1; i >= 0; i-- {
				if c.Columns[k].Has(i) {
					found.take(c.Reading(i, &c.Columns[k]))
					break
				}
			}
		}
	}
	return nil
}
