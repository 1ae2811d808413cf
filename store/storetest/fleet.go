package storetest

import (
	"container/heap"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/block/blocktest"
)

// metricNames are those of what package blocktest measures, by its numbers.
var metricNames = map[uint32]string{blocktest.Temperature: "temperature", blocktest.Humidity: "humidity", blocktest.Soil: "soil_moisture",
	blocktest.Light: "light", blocktest.Battery: "battery", blocktest.CO2: "co2"}

// FleetSeed is that of the devices of every Fleet.
const FleetSeed = 11

// Fleet is devices of package blocktest that send to a store, message by message in the order in which they arrive: of 4.3 metrics on
// average. It has the clock that a store which takes them must have. The same numbers make the same messages.
type Fleet struct {
	from    int64
	now     atomic.Int64 // UTC ms
	waiting arrivals
	batch   []store.Message
}

// NewFleet is n devices, bed-0 and so on, that send every so often from a time on.
func NewFleet(n int, from time.Time, every time.Duration) *Fleet {
	f := &Fleet{from: from.UnixMilli(), waiting: make(arrivals, 0, n)}
	f.now.Store(f.from)
	for i := range n {
		f.send(&sender{blocktest.New(FleetSeed, i, f.from, every.Milliseconds()), DeviceName(i), every.Milliseconds()})
	}
	return f
}

// DeviceName is that of device number i of a fleet.
func DeviceName(i int) string { return fmt.Sprint("bed-", i) }

// Options are those of a store at a path that lives by the clock of the fleet.
func (f *Fleet) Options(path string) store.Options {
	return store.Options{
		Path:    path,
		Now:     func() time.Time { return time.UnixMilli(f.now.Load()) },
		Elapsed: func() time.Duration { return time.Duration(f.now.Load()-f.from) * time.Millisecond },
	}
}

// Next is the next n messages. They are valid until the next call.
func (f *Fleet) Next(n int) []store.Message {
	if cap(f.batch) < n {
		f.batch = make([]store.Message, n)
	}
	f.batch = f.batch[:n]
	for i := range f.batch {
		a := f.waiting[0]
		m := &f.batch[i]
		*m = store.Message{Device: a.of.name, Topic: a.of.name, Time: a.Time, Received: a.Received, Values: append(m.Values[:0], a.Values...)}
		heap.Pop(&f.waiting)
		if !a.late {
			f.send(a.of)
		}
		f.now.Store(a.Received)
	}
	return f.batch
}

// Fill stores n messages, so many in a commit.
func (f *Fleet) Fill(ctx context.Context, s *store.Store, n, commit int) error {
	var outcomes []store.Outcome
	for left := n; left > 0; left -= commit {
		var err error
		if outcomes, err = s.Append(ctx, f.Next(min(left, commit)), outcomes[:0]); err != nil {
			return err
		}
	}
	return nil
}

// send puts the next message of a device among those that are to arrive, and before it those that come late.
func (f *Fleet) send(d *sender) {
	for late := true; late; {
		r := d.Next()
		late = r.Received-r.Time > d.interval/2
		m := arrival{Time: r.Time, Received: r.Received, of: d, late: late}
		for _, v := range r.Values {
			m.Values = append(m.Values, store.Value{Metric: metricNames[v.Metric], Value: v.Value})
		}
		heap.Push(&f.waiting, m)
	}
}

type sender struct {
	*blocktest.Device
	name     string
	interval int64
}

// arrival is a message that is to arrive. A late one stands beside the next that is not.
type arrival struct {
	Time, Received int64
	Values         []store.Value
	of             *sender
	late           bool
}

// arrivals are a heap, the first on top.
type arrivals []arrival

func (a arrivals) Len() int           { return len(a) }
func (a arrivals) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a arrivals) Less(i, j int) bool { return a[i].Received < a[j].Received }
func (a *arrivals) Push(m any)        { *a = append(*a, m.(arrival)) }

func (a *arrivals) Pop() any {
	last := len(*a) - 1
	m := (*a)[last]
	*a = (*a)[:last]
	return m
}
