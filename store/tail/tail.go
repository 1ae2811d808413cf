// Package tail holds the newest readings in memory: those that the journal has and no block yet, of each device in order of
// time, some 30 bytes each. It knows nothing of SQLite; who writes the store fills it and empties it.
package tail

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
)

// Tail is the readings of all devices. One goroutine writes, any number read; the zero value is not ready, New is.
type Tail struct {
	mu       sync.RWMutex
	devices  map[int64]*list
	readings int
	bytes    int
}

// New returns an empty tail.
func New() *Tail { return &Tail{devices: map[int64]*list{}} }

// list is the readings of one device. What is in data and in a run is never changed, only added to, so that a Slice may be read
// while more comes.
type list struct {
	data  []byte
	runs  []run // the longest first
	first int64 // the number of the journal's record with the oldest of them
	since time.Duration

	latest []block.Reading // of each metric, with one value; replaced when it changes, as long as a frozen has it
	shared atomic.Bool     // one has
}

// run is readings in order of time, each later than the one before.
type run []item

type item struct {
	time int64
	at   uint32 // in data: a larger one came later
}

const itemBytes = 16

// hasGiven is in the flags that are kept; those of a reading of the journal are below.
const hasGiven = 1 << 8

// Add takes in a reading of record seq of the journal, and returns how many the device has now. since is when that was, by a
// clock that never jumps.
func (t *Tail) Add(seq int64, since time.Duration, e *block.Entry) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.devices[e.Device]
	if l == nil {
		l = &list{first: seq, since: since}
		t.devices[e.Device] = l
	}
	before := len(l.data)
	l.data = appendReading(l.data, &e.Reading)
	l.insert(item{e.Time, uint32(before)})
	l.remember(&e.Reading)
	t.readings++
	t.bytes += len(l.data) - before + itemBytes
	return l.len()
}

func (l *list) len() (n int) {
	for _, r := range l.runs {
		n += len(r)
	}
	return n
}

// remember keeps the latest value of each metric. Of several of one time the first counts.
func (l *list) remember(r *block.Reading) {
	as := r // what the device said first of that time
	for i := range l.latest {
		if l.latest[i].Time == r.Time {
			as = &l.latest[i]
			break
		}
	}
	received, flags, given := as.Received, as.Flags, as.Given
	for _, v := range r.Values {
		at := slices.IndexFunc(l.latest, func(k block.Reading) bool { return k.Values[0].Metric == v.Metric })
		if at >= 0 && l.latest[at].Time >= r.Time {
			continue
		}
		if l.shared.Swap(false) {
			l.latest = slices.Clone(l.latest)
			for i := range l.latest {
				l.latest[i].Values = slices.Clone(l.latest[i].Values)
			}
		}
		if at < 0 {
			at = len(l.latest)
			l.latest = append(l.latest, block.Reading{Values: make([]block.Value, 1)})
		}
		k := &l.latest[at]
		k.Time, k.Received, k.Flags, k.Given, k.Values[0] = r.Time, received, flags, given, v
	}
}

// insert puts an item behind a run that ends before it, or begins a run. Runs get shorter by half at least from one to the next,
// so that what comes in any order costs little and finds few of them.
func (l *list) insert(it item) {
	for i, r := range l.runs {
		if r[len(r)-1].time < it.time {
			l.runs[i] = append(r, it)
			return
		}
	}
	runs := append(slices.Clone(l.runs), run{it}) // who reads has the old ones
	for n := len(runs); n > 1 && len(runs[n-2]) <= 2*len(runs[n-1]); n = len(runs) {
		merged, ok := merge(runs[n-2], runs[n-1])
		if !ok {
			break
		}
		runs = append(runs[:n-2], merged)
	}
	l.runs = runs
}

// merge is false where both have a reading of the same time: a run has it once.
func merge(a, b run) (run, bool) {
	out := make(run, 0, len(a)+len(b)+8)
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].time == b[0].time:
			return nil, false
		case a[0].time < b[0].time:
			out, a = append(out, a[0]), a[1:]
		default:
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...), true
}

func appendReading(b []byte, r *block.Reading) []byte {
	b = binary.AppendVarint(b, r.Received-r.Time)
	flags := uint64(r.Flags)
	if r.Given != "" {
		flags |= hasGiven
	}
	b = binary.AppendUvarint(b, flags)
	if r.Given != "" {
		b = binary.AppendUvarint(b, uint64(len(r.Given)))
		b = append(b, r.Given...)
	}
	from := len(b) // of the length, of two bytes: there are at most block.MaxMetrics values, of 19 bytes at most
	b = pack.Append(append(b, 0, 0), r.Values)
	binary.LittleEndian.PutUint16(b[from:], uint16(len(b)-from-2))
	return b
}

// readingAt is the reverse of appendReading; the values are appended to those that r has room for.
func readingAt(b []byte, r *block.Reading) {
	lag, n := binary.Varint(b)
	b = b[n:]
	flags, n := binary.Uvarint(b)
	b = b[n:]
	r.Received, r.Flags, r.Given = r.Time+lag, uint32(flags&^hasGiven), ""
	if flags&hasGiven != 0 {
		length, n := binary.Uvarint(b)
		r.Given, b = string(b[n:n+int(length)]), b[n+int(length):]
	}
	r.Values, _ = pack.Decode(r.Values, b[2:2+binary.LittleEndian.Uint16(b)]) // it is what Append made
}

// Has tells whether a device has a reading of a time.
func (t *Tail) Has(device, time int64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := t.devices[device]
	if l == nil {
		return false
	}
	for _, r := range l.runs {
		if _, there := r.find(time); there {
			return true
		}
	}
	return false
}

// find returns the place of the first item that is not before a time, and whether it is of that time.
func (r run) find(time int64) (int, bool) {
	if n := len(r); r[n-1].time < time { // the usual case
		return n, false
	}
	return slices.BinarySearchFunc(r, time, func(it item, time int64) int {
		switch {
		case it.time < time:
			return -1
		case it.time > time:
			return 1
		}
		return 0
	})
}

// Drop forgets a device: its readings are in blocks.
func (t *Tail) Drop(device int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.devices[device]; l != nil {
		n := l.len()
		t.readings -= n
		t.bytes -= len(l.data) + n*itemBytes
		delete(t.devices, device)
	}
}

// Size is how many readings there are, and how many bytes they take.
func (t *Tail) Size() (readings, bytes int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.readings, t.bytes
}

// About is what there is of one device.
type About struct {
	Device         int64
	Readings       int
	First          int64         // the record of the journal with the oldest
	Since          time.Duration // when that was
	Oldest, Newest int64         // UTC ms, by the time of the readings
}

// All returns what there is of each device, in no order.
func (t *Tail) All() []About {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]About, 0, len(t.devices))
	for id, l := range t.devices {
		all = append(all, l.about(id))
	}
	return all
}

// Of returns what there is of one device; false: nothing.
func (t *Tail) Of(device int64) (About, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := t.devices[device]
	if l == nil {
		return About{}, false
	}
	return l.about(device), true
}

func (l *list) about(id int64) About {
	a := About{Device: id, First: l.first, Since: l.since, Oldest: l.runs[0][0].time}
	a.Newest = a.Oldest
	for _, r := range l.runs {
		a.Readings += len(r)
		a.Oldest, a.Newest = min(a.Oldest, r[0].time), max(a.Newest, r[len(r)-1].time)
	}
	return a
}

// Slice is readings of one device in order of time; of one time in the order in which they came. What comes later is not in it.
type Slice struct {
	data  []byte
	items []item
}

// Slice returns what a device has from a time on, which is included, to another, which is not.
func (t *Tail) Slice(device, from, to int64) Slice {
	t.mu.RLock()
	l := t.devices[device]
	if l == nil {
		t.mu.RUnlock()
		return Slice{}
	}
	f := frozen{data: l.data, runs: slices.Clone(l.runs)}
	t.mu.RUnlock()
	return f.slice(from, to)
}

// Frozen is readings of devices as they were at one moment.
type Frozen struct {
	devices map[int64]frozen
}

type frozen struct {
	data   []byte
	runs   []run
	latest []block.Reading
}

// Freeze returns what devices have, none: all of them.
func (t *Tail) Freeze(devices ...int64) Frozen {
	t.mu.RLock()
	defer t.mu.RUnlock()
	f := Frozen{make(map[int64]frozen, len(devices))}
	for _, id := range devices {
		if l := t.devices[id]; l != nil {
			f.devices[id] = l.freeze()
		}
	}
	if len(devices) == 0 {
		for id, l := range t.devices {
			f.devices[id] = l.freeze()
		}
	}
	return f
}

// freeze keeps the lengths as they are now.
func (l *list) freeze() frozen {
	l.shared.Store(true)
	return frozen{l.data, slices.Clone(l.runs), l.latest}
}

// Latest returns the latest reading of each metric of a device, with one value each, in order of time. It is the caller's to
// keep, the values are not to be changed.
func (f Frozen) Latest(device int64) []block.Reading {
	list := slices.Clone(f.devices[device].latest)
	slices.SortStableFunc(list, func(a, b block.Reading) int { return compare(item{time: a.Time}, item{time: b.Time}) })
	return list
}

// Slice is that of the Tail at that moment.
func (f Frozen) Slice(device, from, to int64) Slice { return f.devices[device].slice(from, to) }

func (f frozen) slice(from, to int64) Slice {
	var items []item
	for _, r := range f.runs {
		first, _ := r.find(from)
		if r = r[first:]; len(r) == 0 {
			continue
		}
		last, _ := r.find(to)
		if r = r[:last]; len(items) == 0 {
			items = r[:len(r):len(r)]
		} else if len(r) > 0 {
			items = append(items, r...)
		}
	}
	if len(f.runs) > 1 && !slices.IsSortedFunc(items, compare) {
		items = slices.Clone(items)
		slices.SortFunc(items, compare)
	}
	return Slice{f.data, items}
}

func compare(a, b item) int {
	switch {
	case a.time < b.time:
		return -1
	case a.time > b.time:
		return 1
	}
	return int(a.at) - int(b.at)
}

// Len is how many readings a slice has.
func (s Slice) Len() int { return len(s.items) }

// Time is when reading i was taken, in UTC ms.
func (s Slice) Time(i int) int64 { return s.items[i].time }

// Read puts reading i into r, with its values appended to r.Values.
func (s Slice) Read(i int, r *block.Reading) {
	r.Time = s.items[i].time
	readingAt(s.data[s.items[i].at:], r)
}
