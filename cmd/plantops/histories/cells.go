package histories

import (
	"encoding/binary"
	"math"
)

// cells are the values of a column in a row group, in the slice that fits its kind; times are in milliseconds.
type cells struct {
	kind     int64
	texts    [][]byte
	integers []int64
	floats   []float64
	missing  []bool
}

func (c *cells) text(i int) []byte {
	if c.kind != parquetText || c.missing[i] {
		return nil
	}
	return c.texts[i]
}

func (c *cells) integer(i int) (int64, bool) {
	if c.kind != parquetInt32 && c.kind != parquetInt64 || c.missing[i] {
		return 0, false
	}
	return c.integers[i], true
}

func (c *cells) number(i int) (float64, bool) {
	if n, ok := c.integer(i); ok {
		return float64(n), n <= 1<<53 && n >= -1<<53
	}
	if c.kind != parquetFloat && c.kind != parquetDouble || c.missing[i] {
		return 0, false
	}
	return c.floats[i], true
}

func (c *cells) count() int { return len(c.missing) }

// take adds value i of another column of the same kind.
func (c *cells) take(from *cells, i int) {
	c.missing = append(c.missing, false)
	switch c.kind {
	case parquetText:
		c.texts = append(c.texts, from.texts[i])
	case parquetInt32, parquetInt64:
		c.integers = append(c.integers, from.integers[i])
	default:
		c.floats = append(c.floats, from.floats[i])
	}
}

// skip adds a value that is missing.
func (c *cells) skip() {
	c.missing = append(c.missing, true)
	switch c.kind {
	case parquetText:
		c.texts = append(c.texts, nil)
	case parquetInt32, parquetInt64:
		c.integers = append(c.integers, 0)
	default:
		c.floats = append(c.floats, 0)
	}
}

// page adds the values of a data page.
func (c *cells) page(column parquetColumn, page []byte, n int, encoding int64, dictionary *cells) error {
	present := n
	levels := []uint32(nil)
	if column.optional {
		if len(page) < 4 || uint64(binary.LittleEndian.Uint32(page)) > uint64(len(page)-4) {
			return errParquet
		}
		length := int(binary.LittleEndian.Uint32(page))
		var ok bool
		if levels, ok = hybrid(page[4:4+length], 1, n); !ok {
			return errParquet
		}
		page, present = page[4+length:], 0
		for _, l := range levels {
			present += int(l)
		}
	}
	part := &cells{kind: column.kind}
	switch encoding {
	case parquetPlain:
		if !part.plain(column, page, present) {
			return errParquet
		}
	case parquetDictionary, parquetPlainDictionary:
		if dictionary == nil || len(page) == 0 || page[0] > 32 {
			return errParquet
		}
		numbers, ok := hybrid(page[1:], int(page[0]), present)
		if !ok {
			return errParquet
		}
		for _, n := range numbers {
			if uint64(n) >= uint64(dictionary.count()) {
				return errParquet
			}
			part.take(dictionary, int(n))
		}
	default:
		return parquetCannot("values in the encoding %d", encoding)
	}
	at := 0
	for i := range n {
		if levels != nil && levels[i] == 0 {
			c.skip()
			continue
		}
		c.take(part, at)
		at++
	}
	return nil
}

// plain adds n values in the plain encoding.
func (c *cells) plain(column parquetColumn, b []byte, n int) bool {
	size := map[int64]int{parquetInt32: 4, parquetFloat: 4, parquetInt64: 8, parquetDouble: 8, parquetText: 4}[column.kind]
	if size == 0 || n > len(b)/size {
		return false
	}
	for range n {
		if len(b) < size {
			return false
		}
		switch column.kind {
		case parquetInt32:
			c.integers = append(c.integers, int64(int32(binary.LittleEndian.Uint32(b))))
		case parquetInt64:
			c.integers = append(c.integers, floorDiv(int64(binary.LittleEndian.Uint64(b)), column.unit))
		case parquetFloat:
			c.floats = append(c.floats, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		case parquetDouble:
			c.floats = append(c.floats, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case parquetText:
			length := uint64(binary.LittleEndian.Uint32(b))
			if length > uint64(len(b)-4) {
				return false
			}
			c.texts = append(c.texts, b[4:4+length])
			b = b[length:]
		}
		b = b[size:]
		c.missing = append(c.missing, false)
	}
	return true
}

// hybrid reads n numbers of some bits in the encoding RLE: runs of one number, and groups of eight that are packed.
func hybrid(b []byte, width, n int) ([]uint32, bool) {
	numbers := make([]uint32, 0, n)
	in := &thriftReader{bytes: b}
	for len(numbers) < n {
		head := in.uvarint()
		if in.bad {
			return nil, false
		}
		if head&1 == 0 {
			var number uint32
			for i, c := range in.take(uint64(width+7) / 8) {
				number |= uint32(c) << (8 * i)
			}
			for run := head >> 1; run > 0 && len(numbers) < n; run-- {
				numbers = append(numbers, number)
			}
			continue
		}
		if head>>1 > maxGroupRows {
			return nil, false
		}
		packed := in.take(head >> 1 * uint64(width))
		if in.bad {
			return nil, false
		}
		var word uint64
		have := 0
		for left := head >> 1 * 8; left > 0 && len(numbers) < n; left-- {
			for ; have < width; have += 8 {
				word, packed = word|uint64(packed[0])<<have, packed[1:]
			}
			numbers = append(numbers, uint32(word&(1<<width-1)))
			word, have = word>>width, have-width
		}
	}
	return numbers, !in.bad
}
