package salvage

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Row is one row: nil, int64, float64, string or []byte for each column that is stored. Of a table with a rowid, RowID is
// it, and a column that is an alias for it is nil.
type Row struct {
	RowID  int64
	Values []any
}

// varint reads one, and returns how many bytes it took; 0 when it is cut off.
func varint(b []byte) (value uint64, n int) {
	for i := 0; i < len(b) && i < 8; i++ {
		value = value<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return value, i + 1
		}
	}
	if len(b) < 9 {
		return 0, 0
	}
	return value<<8 | uint64(b[8]), 9
}

// maxColumns is more than any table has that this program reads.
const maxColumns = 128

// readRecord reads a whole record: it must fill the payload to the last byte.
func readRecord(payload []byte) ([]any, error) {
	size, n := varint(payload)
	if n == 0 || size < uint64(n) || size > uint64(len(payload)) {
		return nil, fmt.Errorf("%w: header of a record", ErrUnreadable)
	}
	header, body := payload[n:size], payload[size:]
	var values []any
	for len(header) > 0 {
		kind, n := varint(header)
		if n == 0 || len(values) == maxColumns {
			return nil, fmt.Errorf("%w: columns of a record", ErrUnreadable)
		}
		header = header[n:]
		value, taken, ok := readValue(kind, body)
		if !ok {
			return nil, fmt.Errorf("%w: value of a record", ErrUnreadable)
		}
		values, body = append(values, value), body[taken:]
	}
	if len(body) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after a record", ErrUnreadable, len(body))
	}
	return values, nil
}

// readValue reads a value of a serial type (section 2.1 of the format).
func readValue(kind uint64, b []byte) (value any, taken int, ok bool) {
	switch {
	case kind == 0:
		return nil, 0, true
	case kind <= 6:
		n := [...]int{0, 1, 2, 3, 4, 6, 8}[kind]
		if len(b) < n {
			return nil, 0, false
		}
		number := int64(int8(b[0]))
		for _, next := range b[1:n] {
			number = number<<8 | int64(next)
		}
		return number, n, true
	case kind == 7:
		if len(b) < 8 {
			return nil, 0, false
		}
		return math.Float64frombits(binary.BigEndian.Uint64(b)), 8, true
	case kind == 8, kind == 9:
		return int64(kind - 8), 0, true
	case kind < 12:
		return nil, 0, false
	}
	n := (kind - 12) / 2
	if n > uint64(len(b)) {
		return nil, 0, false
	}
	if kind%2 == 0 {
		return b[:n:n], int(n), true
	}
	return string(b[:n]), int(n), true
}
