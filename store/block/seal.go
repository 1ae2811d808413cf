package block

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum of b from an offset on and of the numbers of the row that it belongs to.
func seal(b []byte, from int, row ...int64) []byte {
	return binary.LittleEndian.AppendUint32(b, checksum(b[from:], row))
}

func (m *Meta) seal(b []byte) []byte {
	return seal(b, 0, m.Key, int64(m.N), m.First, m.Last)
}

// unseal checks a checksum of seal and returns what is in front of it.
func unseal(b []byte, row ...int64) ([]byte, bool) {
	if len(b) < 4 {
		return nil, false
	}
	inner := b[:len(b)-4]
	return inner, binary.LittleEndian.Uint32(b[len(inner):]) == checksum(inner, row)
}

func (m *Meta) unseal(b []byte) ([]byte, bool) {
	return unseal(b, m.Key, int64(m.N), m.First, m.Last)
}

// checksum begins with what the numbers of the row make of its start value. Two rows have the same one by a chance of 2^-32.
func checksum(b []byte, row []int64) uint32 {
	start := uint64(0)
	for _, n := range row {
		start = (start ^ uint64(n)) * 0x9e3779b97f4a7c15
		start ^= start >> 29
	}
	return crc32.Update(uint32(start>>32), castagnoli, b)
}

// scanner reads numbers from the front of a slice. What is not there is 0, and bad is set.
type scanner struct {
	b   []byte
	bad bool
}

func (s *scanner) unsigned() uint64 {
	if len(s.b) > 0 && s.b[0] < 0x80 {
		u := uint64(s.b[0])
		s.b = s.b[1:]
		return u
	}
	u, n := binary.Uvarint(s.b)
	if n <= 0 {
		s.bad, s.b = true, nil
		return 0
	}
	s.b = s.b[n:]
	return u
}

func (s *scanner) signed() int64 { return unzigzag(s.unsigned()) }

// atMost reads a number that must not be larger.
func (s *scanner) atMost(most uint64) uint64 {
	u := s.unsigned()
	if u > most {
		s.bad = true
		return 0
	}
	return u
}

// bytes takes so many.
func (s *scanner) bytes(n uint64) []byte {
	if n > uint64(len(s.b)) {
		s.bad, s.b = true, nil
		return nil
	}
	b := s.b[:n:n]
	s.b = s.b[n:]
	return b
}

// section takes the bytes whose number stands in front of them.
func (s *scanner) section() []byte { return s.bytes(s.unsigned()) }

func (s *scanner) byte() byte {
	if len(s.b) == 0 {
		s.bad = true
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *scanner) word() uint64 {
	b := s.bytes(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}
