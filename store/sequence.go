package store

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Bounds on what is remembered of a device's numbered messages. Beyond them the oldest is forgotten: a message of it that
// comes again is stored a second time, which is better than to take a new one for a repeat.
const (
	maxBoots  = 8  // starts of a device, those heard last
	maxRanges = 32 // without a gap, in one start; a gap is what the device gave up or has not sent yet
	maxRecent = 32 // messages of one start of which it is known what they said
)

// Numbering is what a device that numbers its messages says about one of them. (Device, Boot, Sequence) is the message:
// what comes again under it is a duplicate, whatever its time says, or a conflict when its values are others.
type Numbering struct {
	Boot     string // names the start of the device, 1 to 32 bytes; empty: the message has no number
	Sequence int64  // from 0, counted from the device's start
	Dropped  int64  // readings that the device had to give up since it last said so
}

// boot is one start of a device.
type boot struct {
	device int64
	name   string
}

// seen is which messages of one start have come.
type seen struct {
	ranges []span   // of sequence numbers: in order, with gaps between
	recent []recent // those that came last, the oldest first

	stored bool // it has a row
}

// recent is what a message said.
type recent struct {
	sequence int64
	print    uint32
}

// standing is what a numbered message is to those that came before.
type standing uint8

const (
	seenNew standing = iota
	seenAgain
	seenOther // its number is taken by a message with other values
)

// look tells what a message is.
func (s *seen) look(sequence int64, print uint32) standing {
	for _, r := range s.recent {
		if r.sequence != sequence {
			continue
		}
		if r.print != print {
			return seenOther
		}
		return seenAgain
	}
	for _, r := range s.ranges {
		if r.first <= sequence && sequence <= r.last {
			return seenAgain
		}
	}
	return seenNew
}

// add takes a new message in.
func (s *seen) add(sequence int64, print uint32) {
	at, _ := slices.BinarySearchFunc(s.ranges, sequence, func(r span, n int64) int {
		if r.last < n {
			return -1
		}
		return 1
	})
	before := at > 0 && s.ranges[at-1].last == sequence-1
	after := at < len(s.ranges) && sequence+1 == s.ranges[at].first // a range above: sequence is no MaxInt64
	switch {
	case before && after:
		s.ranges[at-1].last = s.ranges[at].last
		s.ranges = slices.Delete(s.ranges, at, at+1)
	case before:
		s.ranges[at-1].last = sequence
	case after:
		s.ranges[at].first = sequence
	default:
		s.ranges = slices.Insert(s.ranges, at, span{sequence, sequence})
	}
	if len(s.ranges) > maxRanges {
		s.ranges = slices.Delete(s.ranges, 0, 1)
	}
	if len(s.recent) == maxRecent {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	s.recent = append(s.recent, recent{sequence, print})
}

// The form of column boot.seen: a version byte; the number of ranges, and of each how far it begins after the end of the
// one before (the first: after 0) and how far it goes on; per recent message its number and four bytes of print. Numbers are
// unsigned varints.
const seenVersion = 1

var errSeen = errors.New("damaged list of numbered messages")

func (s *seen) encode() []byte {
	out := make([]byte, 0, 16+8*len(s.ranges)+8*len(s.recent))
	out = append(out, seenVersion)
	out = binary.AppendUvarint(out, uint64(len(s.ranges)))
	end := int64(0)
	for _, r := range s.ranges {
		out = binary.AppendUvarint(out, uint64(r.first-end))
		out = binary.AppendUvarint(out, uint64(r.last-r.first))
		end = r.last
	}
	for _, r := range s.recent {
		out = binary.AppendUvarint(out, uint64(r.sequence))
		out = binary.LittleEndian.AppendUint32(out, r.print)
	}
	return out
}

// decodeSeen accepts any bytes and returns errSeen for what encode never writes.
func decodeSeen(in []byte) (s seen, err error) {
	if len(in) == 0 || in[0] != seenVersion {
		return seen{}, errSeen
	}
	in = in[1:]
	number := func() (n int64) {
		value, size := binary.Uvarint(in)
		if size <= 0 || value > math.MaxInt64 {
			err = errSeen
			return 0
		}
		in = in[size:]
		return int64(value)
	}
	count, end := number(), int64(0)
	if count > maxRanges {
		return seen{}, errSeen
	}
	for i := range count {
		skip, length := number(), number()
		switch {
		case err != nil:
			return seen{}, err
		case i > 0 && skip < 2, skip > math.MaxInt64-end, length > math.MaxInt64-end-skip:
			return seen{}, errSeen
		}
		r := span{first: end + skip}
		r.last = r.first + length
		s.ranges, end = append(s.ranges, r), r.last
	}
	for err == nil && len(in) > 0 {
		sequence := number()
		if err != nil || len(in) < 4 || len(s.recent) == maxRecent {
			return seen{}, errSeen
		}
		s.recent = append(s.recent, recent{sequence, binary.LittleEndian.Uint32(in)})
		in = in[4:]
	}
	return s, err
}

// print is a fingerprint of values.
func print(values []Value) uint32 {
	sum := uint32(2166136261) // FNV-1a
	for i := range values {
		v := &values[i]
		for j := range len(v.Metric) {
			sum = (sum ^ uint32(v.Metric[j])) * 16777619
		}
		bits := math.Float64bits(v.Value + 0) // the two zeros are one
		for shift := 0; shift < 64; shift += 8 {
			sum = (sum ^ uint32(bits>>shift&0xff)) * 16777619
		}
	}
	return sum
}

type sequenceStatements struct {
	selectBoot, writeBoot, forgetBoots *statement
}

func (q *sequenceStatements) all() []compile {
	return []compile{
		{&q.selectBoot, `SELECT seen FROM boot WHERE device = ? AND boot = ?`},
		{&q.writeBoot, `INSERT INTO boot (device, boot, used, seen)
			VALUES (?1, ?2, (SELECT coalesce(max(used), 0) + 1 FROM boot WHERE device = ?1), ?3)
			ON CONFLICT (device, boot) DO UPDATE SET used = excluded.used, seen = excluded.seen`},
		{&q.forgetBoots, `DELETE FROM boot WHERE device = ?1 AND used <=
			(SELECT used FROM boot WHERE device = ?1 ORDER BY used DESC LIMIT 1 OFFSET ?2)`},
	}
}

// recognise tells what a part is to those of its device that came before, and takes a new one in. What has no number is
// new.
func (s *Store) recognise(d *device, p *Part) (standing, error) {
	n := &p.Numbering
	if n.Boot == "" || d.name == "" {
		return seenNew, nil
	}
	of, err := s.seenOf(boot{d.id, n.Boot})
	if err != nil {
		return seenNew, fmt.Errorf("numbered messages of device %q: %w", d.name, err)
	}
	says := print(p.Values)
	standing := of.look(n.Sequence, says)
	if standing == seenNew {
		of.add(n.Sequence, says)
	}
	return standing, nil
}

// seenOf returns what has come of a start, for this transaction.
func (s *Store) seenOf(b boot) (*seen, error) {
	if known, there := s.tx.seen[b]; there {
		if last := len(s.tx.boots) - 1; s.tx.boots[last] != b {
			s.tx.boots = append(slices.DeleteFunc(s.tx.boots, func(other boot) bool { return other == b }), b)
		}
		return known, nil
	}
	of := &seen{}
	err := s.w.selectBoot.query(func(row []driver.Value) error {
		blob, _ := row[0].([]byte)
		var err error
		if *of, err = decodeSeen(blob); err != nil { // that is no reason to refuse the device's readings
			s.log.Warn("forgot which numbered messages came", "device", s.state.byID[b.device].name, "boot", b.name, "err", err)
		}
		of.stored = true
		return nil
	}, b.device, b.name)
	if err != nil {
		return nil, err
	}
	if s.tx.seen == nil {
		s.tx.seen = make(map[boot]*seen)
	}
	s.tx.seen[b] = of
	s.tx.boots = append(s.tx.boots, b)
	return of, nil
}

// writeSeen writes one row per start, and forgets the oldest starts of devices that have too many.
func (s *Store) writeSeen() error {
	for _, b := range s.tx.boots {
		of := s.tx.seen[b]
		if err := s.w.writeBoot.run(b.device, b.name, of.encode()); err != nil {
			return fmt.Errorf("write numbered messages: %w", err)
		}
		if of.stored {
			continue
		}
		if err := s.w.forgetBoots.run(b.device, int64(maxBoots)); err != nil {
			return fmt.Errorf("forget numbered messages: %w", err)
		}
	}
	return nil
}
