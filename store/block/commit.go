package block

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A record is: version, stamp, number of readings, number of changes, the readings, the changes, checksum. A reading is one byte
// of shape and flags, the distance of its device from that of the reading before, that of its time of arrival likewise, how long
// before that it was measured, flags and given time when there are any, and its values. Most readings of a commit have the
// same few sets of metrics, so the metrics, and in how many decimals each is written, are a shape that is named once and then
// referred to. A change is how its mask differs from that of the change before, the distance of its reading from the one behind that of
// the change before, its device when it has no reading, and its values: of a commit in which each device sent once, two bytes and the
// values. Version 1, which is read too, has the number of changes behind the readings, and of each change the device, the mask, the
// number of values, the values, and a text that was always empty.
const (
	commitVersion = 2

	shapes    = 32 // that are remembered; the next one takes the place of the oldest
	shapeMask = shapes - 1
	shapeNew  = 1 << 5 // the shape follows, and gets the next place
	hasFlags  = 1 << 6 // flags and given time follow

	formFloat = 15 // of a value in a shape: its 8 bytes; else it is the power of ten of a decimal
)

// Commit is what one commit adds: a record of the journal.
type Commit struct {
	Stamp    int64
	Readings []Entry
	Changes  []Change
}

// Entry is a reading and the device that it is of.
type Entry struct {
	Device int64
	Reading
}

// Change is what a commit changes in the counters of a device: numbers, whose meaning is the caller's, by their place in a mask.
type Change struct {
	Device int64
	Of     int     // the reading of the device to which it belongs, counted from one; 0: none
	Mask   uint32  // bits from ValueBits on have no value
	Values []int64 // one for each other bit of Mask, lowest first
}

// ValueBits is how many bits of a mask have a value.
const ValueBits = 16

func valuesOf(mask uint32) int { return bits.OnesCount32(mask & (1<<ValueBits - 1)) }

// AppendCommit appends the record of a commit to dst. The row's number is part of its checksum. Values must be finite, at most
// MaxMetrics in a reading, and in order of metric; those of a change as many as its mask says.
func AppendCommit(dst []byte, seq int64, c *Commit) []byte {
	from := len(dst)
	w := commitWriter{b: append(dst, commitVersion)}
	w.b = binary.AppendVarint(w.b, c.Stamp)
	w.b = binary.AppendUvarint(w.b, uint64(len(c.Readings)))
	w.b = binary.AppendUvarint(w.b, uint64(len(c.Changes)))
	for i := range c.Readings {
		w.reading(&c.Readings[i])
	}
	b, mask, of := w.b, uint32(0), 0
	for i := range c.Changes {
		ch := &c.Changes[i]
		b = binary.AppendUvarint(b, uint64(ch.Mask^mask))
		b = binary.AppendVarint(b, int64(ch.Of-of-1))
		if mask = ch.Mask; ch.Of == 0 {
			b = binary.AppendVarint(b, ch.Device)
		} else {
			of = ch.Of
		}
		for _, v := range ch.Values {
			b = binary.AppendVarint(b, v)
		}
	}
	return seal(b, from, seq)
}

// commitWriter writes the readings of a record.
type commitWriter struct {
	b                []byte
	device, received int64 // of the reading before
	shapes           [shapes]writtenShape
	used             int // shapes that were ever defined
}

// writtenShape is where in the record a shape stands.
type writtenShape struct {
	hash uint32 // of its metrics
	at   int
}

func (w *commitWriter) reading(r *Entry) {
	at := len(w.b)
	w.b = append(w.b, 0)
	if r.Flags != 0 || r.Given != "" {
		w.b[at] = hasFlags
	}
	w.b = binary.AppendVarint(w.b, r.Device-w.device)
	w.b = binary.AppendVarint(w.b, r.Received-w.received)
	w.b = binary.AppendVarint(w.b, r.Received-r.Time)
	w.device, w.received = r.Device, r.Received
	if w.b[at] != 0 {
		w.b = binary.AppendUvarint(w.b, uint64(r.Flags))
		w.b = binary.AppendUvarint(w.b, uint64(len(r.Given)))
		w.b = append(w.b, r.Given...)
	}
	hash := uint32(len(r.Values))
	for i := range r.Values {
		hash = (hash ^ r.Values[i].Metric) * 0x9e3779b1
	}
	like := -1 // a shape of the same metrics that is too narrow
	for i := range w.shapes[:min(w.used, shapes)] {
		if w.shapes[i].hash != hash {
			continue
		}
		same, fits := w.values(w.shapes[i].at, r.Values)
		if fits {
			w.b[at] |= byte(i)
			return
		}
		if same {
			like = w.shapes[i].at
		}
	}
	w.b[at] |= shapeNew
	shape := len(w.b)
	w.define(r.Values, like)
	w.shapes[w.used&shapeMask] = writtenShape{hash, shape}
	if w.used++; w.used == 2*shapes {
		w.used = shapes
	}
	w.values(shape, r.Values)
}

// values appends values in the shape that stands at an offset. It appends nothing when they are not of its metrics, or need
// more decimals than it gives them.
func (w *commitWriter) values(shape int, values []Value) (same, fits bool) {
	b := w.b
	n, width := binary.Uvarint(b[shape:])
	shape += width
	if n != uint64(len(values)) {
		return false, false
	}
	metric, narrow := uint32(0), false
	for i := range values {
		distance := uint64(b[shape])
		if shape++; distance >= 0x80 {
			distance, width = binary.Uvarint(b[shape-1:])
			shape += width - 1
		}
		metric += uint32(distance)
		form := b[shape]
		shape++
		if metric != values[i].Metric {
			return false, false
		}
		if form == formFloat {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(values[i].Value))
			continue
		}
		mantissa, ok := decimal(values[i].Value, powersOfTen[form])
		narrow = narrow || !ok
		b = binary.AppendVarint(b, mantissa)
	}
	if narrow {
		return true, false
	}
	w.b = b
	return true, true
}

// define appends a shape that has enough decimals for values, and as many as another one of the same metrics, so that a few
// shapes are enough for all.
func (w *commitWriter) define(values []Value, like int) {
	w.b = binary.AppendUvarint(w.b, uint64(len(values)))
	if like >= 0 {
		_, width := binary.Uvarint(w.b[like:])
		like += width
	}
	metric := uint32(0)
	for i := range values {
		w.b = binary.AppendUvarint(w.b, uint64(values[i].Metric-metric))
		metric = values[i].Metric
		least := 0
		if like >= 0 {
			_, width := binary.Uvarint(w.b[like:])
			if like += width; w.b[like] != formFloat {
				least = int(w.b[like])
			}
			like++
		}
		w.b = append(w.b, formOf(values[i].Value, least))
	}
}

// formOf is the smallest power of ten, from one on, that gives a value back, or formFloat.
func formOf(v float64, least int) byte {
	for power := least; power <= maxPower; power++ {
		if _, ok := decimal(v, powersOfTen[power]); ok {
			return byte(power)
		}
	}
	return formFloat
}

// CommitReader reads a record of the journal: all readings, then all changes. Its zero value is ready for Reset; it keeps its
// memory. The record must not change while it is read.
//
//	if err := r.Reset(seq, body); err != nil { … }
//	for r.Next() { use(r.Entry()) }
//	for r.NextChange() { use(r.Change()) }
//	if err := r.Err(); err != nil { … }
type CommitReader struct {
	in       scanner
	body     []byte
	stamp    int64
	readings int // total
	left     int
	changes  int // left; -1: their number is not read yet
	entry    Entry
	change   Change
	of       int         // that of the change before which had one
	passed   []passed    // readings, when changes may belong to them
	shapes   [shapes]int // where in body each stands
	used     int
}

// passed is what is remembered of a reading.
type passed struct{ device, received, time int64 }

// Reset begins to read the record of row seq, or says ErrDamaged.
func (r *CommitReader) Reset(seq int64, body []byte) error {
	r.entry = Entry{Reading: Reading{Values: r.entry.Values[:0]}}
	r.change = Change{Values: r.change.Values[:0]}
	r.stamp, r.readings, r.left, r.changes, r.used, r.of, r.passed = 0, 0, 0, -1, 0, 0, r.passed[:0]
	b, ok := unseal(body, seq)
	if !ok || len(b) == 0 || b[0] == 0 || b[0] > commitVersion {
		r.in = scanner{bad: true}
		return ErrDamaged
	}
	r.body, r.in = b, scanner{b: b[1:]}
	r.stamp = r.in.signed()
	r.readings = int(r.in.atMost(uint64(len(b))))
	if r.left = r.readings; b[0] > 1 {
		r.changes = int(r.in.atMost(uint64(len(b))))
	}
	return r.Err()
}

// Stamp is that of the commit.
func (r *CommitReader) Stamp() int64 { return r.stamp }

// Len is the number of readings.
func (r *CommitReader) Len() int { return r.readings }

// Next goes to the next reading.
func (r *CommitReader) Next() bool {
	if r.left == 0 || r.in.bad {
		return false
	}
	r.left--
	head := r.in.byte()
	e := &r.entry
	e.Device += r.in.signed()
	e.Received += r.in.signed()
	e.Time = e.Received - r.in.signed()
	e.Flags, e.Given = 0, ""
	if head&hasFlags != 0 {
		e.Flags = uint32(r.in.atMost(math.MaxUint32))
		e.Given = string(r.in.section())
	}
	slot := int(head & shapeMask)
	if head >= hasFlags<<1 || head&shapeNew != 0 && slot != 0 || head&shapeNew == 0 && slot >= min(r.used, shapes) {
		r.in.bad = true
		return false
	}
	if head&shapeNew != 0 {
		slot = r.used & shapeMask
		r.shapes[slot] = len(r.body) - len(r.in.b)
		if r.used++; r.used == 2*shapes {
			r.used = shapes
		}
		r.checkShape()
	}
	if r.in.bad {
		return false
	}
	if r.values(r.shapes[slot]); r.changes > 0 {
		r.passed = append(r.passed, passed{e.Device, e.Received, e.Time})
	}
	return !r.in.bad
}

// checkShape goes past a shape.
func (r *CommitReader) checkShape() {
	metric := uint64(0)
	for i := range r.in.atMost(MaxMetrics) {
		distance := r.in.atMost(math.MaxUint32 - metric)
		metric += distance
		if form := r.in.byte(); form > maxPower && form != formFloat || distance == 0 && i > 0 {
			r.in.bad = true
		}
		if r.in.bad {
			return
		}
	}
}

// values reads values in a shape that was checked.
func (r *CommitReader) values(shape int) {
	s := scanner{b: r.body[shape:]}
	list := r.entry.Values[:0]
	metric := uint32(0)
	for range s.unsigned() {
		metric += uint32(s.unsigned())
		v := Value{Metric: metric}
		if form := s.byte(); form == formFloat {
			v.Value = math.Float64frombits(r.in.word())
			r.in.bad = r.in.bad || v.Value-v.Value != 0
		} else {
			v.Value = float64(r.in.signed()) / powersOfTen[form]
		}
		if r.in.bad {
			return
		}
		list = append(list, v)
	}
	r.entry.Values = list
}

// Entry is the reading that Next went to. It and its Values are valid until the next call of Next.
func (r *CommitReader) Entry() *Entry { return &r.entry }

// NextChange goes to the next change, past readings that were not asked for.
func (r *CommitReader) NextChange() bool {
	for r.Next() {
	}
	if r.changes < 0 && !r.in.bad {
		r.changes = int(r.in.atMost(uint64(len(r.in.b))))
	}
	if r.in.bad || r.changes == 0 {
		r.in.bad = r.in.bad || len(r.in.b) > 0
		return false
	}
	r.changes--
	c := &r.change
	if r.body[0] == 1 {
		r.oldChange()
		return !r.in.bad
	}
	c.Mask ^= uint32(r.in.atMost(math.MaxUint32))
	c.Of = r.of + 1 + int(r.in.signed())
	switch {
	case c.Of < 0 || c.Of > len(r.passed):
		r.in.bad, c.Of = true, 0
	case c.Of == 0:
		c.Device = r.in.signed()
	default:
		r.of, c.Device = c.Of, r.passed[c.Of-1].device
	}
	r.changeValues()
	return !r.in.bad
}

// oldChange reads a change of version 1.
func (r *CommitReader) oldChange() {
	c := &r.change
	c.Device = r.in.signed()
	c.Mask = uint32(r.in.atMost(1<<ValueBits - 1))
	r.in.bad = r.in.unsigned() != uint64(valuesOf(c.Mask)) || r.in.bad
	r.changeValues()
	_ = r.in.section()
}

func (r *CommitReader) changeValues() {
	c := &r.change
	c.Values = c.Values[:0]
	for range valuesOf(c.Mask) {
		c.Values = append(c.Values, r.in.signed())
	}
}

// Sent tells when the reading to which a change belongs was received, and when it was measured.
func (r *CommitReader) Sent(of int) (received, time int64) {
	p := &r.passed[of-1]
	return p.received, p.time
}

// Change is what NextChange went to, valid until the next call of it.
func (r *CommitReader) Change() *Change { return &r.change }

// Err is ErrDamaged when the record turned out not to be one. It is complete after the last change.
func (r *CommitReader) Err() error {
	if r.in.bad {
		return ErrDamaged
	}
	return nil
}
