// Package numbered knows which numbered messages of one start of a device have come, in bounded space.
package numbered

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// Bounds on what is remembered of one start. Beyond them the oldest is forgotten: a message of it that comes again is new, which
// is better than to take a new one for a repeat.
const (
	maxRanges = 32 // without a gap; a gap is what the device gave up or has not sent yet
	maxRecent = 32 // messages of which it is known what they said
)

// span is every number from first to last.
type span struct{ first, last int64 }

// Seen is which messages of one start have come.
type Seen struct {
	ranges []span   // of sequence numbers: in order, with gaps between
	recent []recent // those that came last, the oldest first
}

// recent is what a message said.
type recent struct {
	sequence int64
	print    uint32
}

// Standing is what a numbered message is to those that came before.
type Standing uint8

// What a message is.
const (
	New   Standing = iota
	Again          // it came before
	Other          // its number is taken by a message with other values
)

// Look tells what a message is.
func (s *Seen) Look(sequence int64, print uint32) Standing {
	for _, r := range s.recent {
		if r.sequence != sequence {
			continue
		}
		if r.print != print {
			return Other
		}
		return Again
	}
	for _, r := range s.ranges {
		if r.first <= sequence && sequence <= r.last {
			return Again
		}
	}
	return New
}

// Add takes a new message in.
func (s *Seen) Add(sequence int64, print uint32) {
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

// The form: a version byte; the number of ranges, and of each how far it begins after the end of the
// one before (the first: after 0) and how far it goes on; per recent message its number and four bytes of print. Numbers are
// unsigned varints.
const version = 1

var errDamaged = errors.New("damaged list of numbered messages")

// Encode returns what Decode reads.
func (s *Seen) Encode() []byte {
	out := make([]byte, 0, 16+8*len(s.ranges)+8*len(s.recent))
	out = append(out, version)
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

// Decode accepts any bytes and returns an error for what Encode never writes.
func Decode(in []byte) (s Seen, err error) {
	if len(in) == 0 || in[0] != version {
		return Seen{}, errDamaged
	}
	in = in[1:]
	number := func() (n int64) {
		value, size := binary.Uvarint(in)
		if size <= 0 || value > math.MaxInt64 {
			err = errDamaged
			return 0
		}
		in = in[size:]
		return int64(value)
	}
	count, end := number(), int64(0)
	if count > maxRanges {
		return Seen{}, errDamaged
	}
	for i := range count {
		skip, length := number(), number()
		switch {
		case err != nil:
			return Seen{}, err
		case i > 0 && skip < 2, skip > math.MaxInt64-end, length > math.MaxInt64-end-skip:
			return Seen{}, errDamaged
		}
		r := span{first: end + skip}
		r.last = r.first + length
		s.ranges, end = append(s.ranges, r), r.last
	}
	for err == nil && len(in) > 0 {
		sequence := number()
		if err != nil || len(in) < 4 || len(s.recent) == maxRecent {
			return Seen{}, errDamaged
		}
		s.recent = append(s.recent, recent{sequence, binary.LittleEndian.Uint32(in)})
		in = in[4:]
	}
	return s, err
}
