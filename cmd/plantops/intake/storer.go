package intake

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

// perRequest is how many messages go to the server at a time; they are in memory on both sides.
const perRequest = 4096

// storer stores windows of values while the next one is read.
type storer struct {
	ctx    context.Context
	target Target
	key    string
	work   chan batch
	spare  chan []histories.Value
	ended  chan struct{} // closed when done and err are there
	done   stored
	err    error

	devices        map[string]int
	deviceOfSeries []int
}

type batch struct {
	values []histories.Value
	mark   string
}

// stored is what became of values.
type stored struct {
	fresh, known int64
	rejected     []rejected // at most maxRejected; the rest is counted
	more         int64
	marked       bool // a place is remembered
}

// maxRejected bounds how many conflicts are kept in memory.
const maxRejected = 100_000

type rejected struct {
	value histories.Value
	why   string
}

func (r rejected) text() string {
	v := r.value
	return fmt.Sprintf("%s %s %s = %v", control.Moment(v.Time), v.Series.Device, v.Series.Metric, v.Value)
}

func newStorer(ctx context.Context, target Target, key string) *storer {
	s := &storer{ctx: ctx, target: target, key: key, work: make(chan batch), spare: make(chan []histories.Value, 2), ended: make(chan struct{}),
		devices: map[string]int{}}
	s.spare <- nil
	go func() {
		defer close(s.ended)
		for b := range s.work {
			if s.err == nil {
				s.err = s.store(b)
			}
			s.spare <- b.values[:0]
			if s.err != nil {
				return
			}
		}
	}()
	return s
}

// take hands over values and returns room for others. It waits until the window before is stored.
func (s *storer) take(values []histories.Value, mark string) ([]histories.Value, error) {
	select {
	case s.work <- batch{values, mark}:
		return <-s.spare, nil
	case <-s.ended:
		return nil, s.err
	}
}

// close waits until all is stored, and returns what became of it.
func (s *storer) close() (stored, error) {
	close(s.work)
	<-s.ended
	return s.done, s.err
}

// store stores one window, and then remembers the place behind it.
func (s *storer) store(b batch) error {
	slices.SortFunc(b.values, s.order)
	var partly, refused []histories.Value // of messages of which something was not stored, to find out what
	if err := s.send(b.values, false, func(values []histories.Value, o store.Outcome) {
		switch {
		case o == store.Stored:
			s.done.fresh += int64(len(values))
		case o == store.Duplicate:
			s.done.known += int64(len(values))
		case len(values) == 1:
			s.done.reject(rejected{values[0], reasonOf(o)})
		case o == store.Partly:
			partly = append(partly, values...)
		default:
			refused = append(refused, values...)
		}
	}); err != nil {
		return err
	}
	for _, again := range [][]histories.Value{partly, refused} {
		if err := s.send(again, true, func(values []histories.Value, o store.Outcome) {
			switch {
			case o == store.Stored, o == store.Duplicate && len(partly) > 0: // what was stored with its message comes back as known
				s.done.fresh++
			case o == store.Duplicate:
				s.done.known++
			default:
				s.done.reject(rejected{values[0], reasonOf(o)})
			}
		}); err != nil {
			return err
		}
		partly = nil
	}
	s.done.marked = true
	_, err := s.target.ImportHistory(s.ctx, control.History{Place: control.HistoryPlace{Key: s.key, Text: b.mark}})
	return err
}

// order is that of device and time, and within that of the file.
func (s *storer) order(a, b histories.Value) int {
	return cmp.Or(cmp.Compare(s.deviceOf(a.Series), s.deviceOf(b.Series)), cmp.Compare(a.Time, b.Time), cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Series.ID, b.Series.ID))
}

// deviceOf numbers the devices, which compares faster than their names.
func (s *storer) deviceOf(of *histories.Series) int {
	for of.ID >= len(s.deviceOfSeries) {
		s.deviceOfSeries = append(s.deviceOfSeries, -1)
	}
	if s.deviceOfSeries[of.ID] < 0 {
		n, known := s.devices[of.Device]
		if !known {
			n = len(s.devices)
			s.devices[of.Device] = n
		}
		s.deviceOfSeries[of.ID] = n
	}
	return s.deviceOfSeries[of.ID]
}

// send stores values and tells became what became of each message.
func (s *storer) send(values []histories.Value, single bool, became func([]histories.Value, store.Outcome)) error {
	for len(values) > 0 {
		h, ends := messages(values, single)
		outcome, err := s.target.ImportHistory(s.ctx, h)
		if err == nil && len(outcome.Outcomes) != len(ends) {
			err = fmt.Errorf("the server told of %d messages, not %d", len(outcome.Outcomes), len(ends))
		}
		if err != nil {
			return err
		}
		start := 0
		for i, end := range ends {
			became(values[start:end], outcome.Outcomes[i])
			start = end
		}
		values = values[start:]
	}
	return nil
}

// messages puts values of one device and time together, or with single each for itself. Ends are where each message ends.
func messages(values []histories.Value, single bool) (h control.History, ends []int) {
	devices, metrics := map[string]int{}, map[string]int{}
	number := func(numbers map[string]int, names *[]string, name string) int {
		n, known := numbers[name]
		if !known {
			n = len(*names)
			numbers[name], *names = n, append(*names, name)
		}
		return n
	}
	received := false
	for i, v := range values {
		metric := number(metrics, &h.Metrics, v.Series.Metric)
		last := len(h.Time) - 1
		if last < 0 || single || !belongs(values[i-1], v) || slices.Contains(h.Metric[len(h.Metric)-h.Count[last]:], metric) {
			if last+1 == perRequest {
				break
			}
			h.Device = append(h.Device, number(devices, &h.Devices, v.Series.Device))
			h.Time, h.Received, h.Count = append(h.Time, v.Time), append(h.Received, v.Received), append(h.Count, 0)
			received = received || v.Received != 0
			ends = append(ends, i)
			last++
		}
		h.Count[last]++
		ends[last] = i + 1
		h.Metric, h.Value = append(h.Metric, metric), append(h.Value, v.Value)
	}
	if !received {
		h.Received = nil
	}
	return h, ends
}

// belongs tells whether two values can be of one message.
func belongs(a, b histories.Value) bool {
	return a.Time == b.Time && a.Series.Device == b.Series.Device
}

func (d *stored) reject(r rejected) {
	if len(d.rejected) == maxRejected {
		d.more++
		return
	}
	d.rejected = append(d.rejected, r)
}

// reasonOf says for people why a value was not stored.
func reasonOf(o store.Outcome) string {
	switch o {
	case store.Conflicting:
		return "another value is there for this device, metric and time"
	case store.NoRoom:
		return "the device has as many metrics as it can have, or there are as many devices as there can be"
	}
	return "the store cannot take it"
}
