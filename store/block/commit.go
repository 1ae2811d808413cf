package block

import (
	"encoding/binary"
	"math"
)

const commitVersion = 1

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
	Mask   uint32
	Values []int64 // one for each bit of Mask, lowest first
	Text   string  // any
}

// AppendCommit appends the record of a commit to dst. The row's number is part of its checksum.
func AppendCommit(dst []byte, seq int64, c *Commit) []byte {
	from := len(dst)
	b := append(dst, commitVersion)
	b = binary.AppendVarint(b, c.Stamp)
	b = binary.AppendUvarint(b, uint64(len(c.Readings)))
	for i := range c.Readings {
		r := &c.Readings[i]
		b = binary.AppendVarint(b, r.Device)
		b = binary.AppendVarint(b, r.Time)
		b = binary.AppendVarint(b, r.Received-r.Time)
		b = binary.AppendUvarint(b, uint64(r.Flags))
		b = binary.AppendUvarint(b, uint64(len(r.Given)))
		b = append(b, r.Given...)
		b = binary.AppendUvarint(b, uint64(len(r.Values)))
		for _, v := range r.Values {
			b = binary.AppendUvarint(b, uint64(v.Metric))
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Value))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.Changes)))
	for i := range c.Changes {
		ch := &c.Changes[i]
		b = binary.AppendVarint(b, ch.Device)
		b = binary.AppendUvarint(b, uint64(ch.Mask))
		b = binary.AppendUvarint(b, uint64(len(ch.Values)))
		for _, v := range ch.Values {
			b = binary.AppendVarint(b, v)
		}
		b = binary.AppendUvarint(b, uint64(len(ch.Text)))
		b = append(b, ch.Text...)
	}
	return seal(b, from, seq)
}

// CommitReader reads a record of the journal: all readings, then all changes. Its zero value is ready for Reset; it keeps its
// memory. The record must not change while it is read.
//
//	if err := r.Reset(seq, body); err != nil { … }
//	for r.Next() { use(r.Entry()) }
//	for r.NextChange() { use(r.Change()) }
//	if err := r.Err(); err != nil { … }
type CommitReader struct {
	b        []byte
	stamp    int64
	readings int // total
	left     int
	changes  int // left; -1: their number is not read yet
	entry    Entry
	change   Change
	bad      bool
}

// Reset begins to read the record of row seq, or says ErrDamaged.
func (r *CommitReader) Reset(seq int64, body []byte) error {
	*r = CommitReader{entry: Entry{Reading: Reading{Values: r.entry.Values[:0]}}, change: Change{Values: r.change.Values[:0]}, changes: -1}
	b, ok := unseal(body, seq)
	if !ok || len(b) == 0 || b[0] != commitVersion {
		r.bad = true
		return ErrDamaged
	}
	r.b = b[1:]
	r.stamp = r.signed()
	r.readings = r.count()
	r.left = r.readings
	return r.Err()
}

// Stamp is that of the commit.
func (r *CommitReader) Stamp() int64 { return r.stamp }

// Len is the number of readings.
func (r *CommitReader) Len() int { return r.readings }

// Next goes to the next reading.
func (r *CommitReader) Next() bool {
	if r.left == 0 || r.bad {
		return false
	}
	r.left--
	e := &r.entry
	e.Device = r.signed()
	e.Time = r.signed()
	e.Received = e.Time + r.signed()
	e.Flags = uint32(r.unsigned())
	e.Given = r.text()
	e.Values = e.Values[:0]
	for range r.count() {
		metric := uint32(r.unsigned())
		if len(r.b) < 8 {
			r.bad = true
			return false
		}
		e.Values = append(e.Values, Value{metric, math.Float64frombits(binary.LittleEndian.Uint64(r.b))})
		r.b = r.b[8:]
	}
	return !r.bad
}

// Entry is the reading that Next went to. It and its Values are valid until the next call of Next.
func (r *CommitReader) Entry() *Entry { return &r.entry }

// NextChange goes to the next change, past readings that were not asked for.
func (r *CommitReader) NextChange() bool {
	for r.Next() {
	}
	if r.changes < 0 && !r.bad {
		r.changes = r.count()
	}
	if r.bad || r.changes == 0 {
		r.bad = r.bad || len(r.b) > 0
		return false
	}
	r.changes--
	c := &r.change
	c.Device = r.signed()
	c.Mask = uint32(r.unsigned())
	c.Values = c.Values[:0]
	for range r.count() {
		c.Values = append(c.Values, r.signed())
	}
	c.Text = r.text()
	return !r.bad
}

// Change is what NextChange went to, valid until the next call of it.
func (r *CommitReader) Change() *Change { return &r.change }

// Err is ErrDamaged when the record turned out not to be one. It is complete after the last change.
func (r *CommitReader) Err() error {
	if r.bad {
		return ErrDamaged
	}
	return nil
}

func (r *CommitReader) unsigned() uint64 {
	u, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return u
}

func (r *CommitReader) signed() int64 {
	u := r.unsigned()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a number of things of at least one byte each.
func (r *CommitReader) count() int {
	n := r.unsigned()
	if n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *CommitReader) text() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
