package export

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"math"
	"math/bits"

	"github.com/plantops/plantops/store/history"
)

// parquet writes Parquet (github.com/apache/parquet-format), of which it needs little: five required columns, a dictionary for names, one
// page for each column of a row group, packed with gzip. A library for it would make the program half as large again.
type parquet struct {
	w      io.Writer
	offset int64
	rows   int64 // in all
	groups []rowGroup

	device, metric dictionary // of the row group that is being filled
	time, received []int64
	value          []float64
	packer         *gzip.Writer
	compressed     bytes.Buffer
}

// groupRows is how many rows are in memory.
const groupRows = 1 << 17

const parquetMagic = "PAR1"

// Physical types, encodings, and the rest of what is a number in parquet.thrift.
const (
	typeInt64     = 2
	typeDouble    = 5
	typeByteArray = 6

	encodingPlain      = 0
	encodingRLE        = 3
	encodingDictionary = 8 // RLE_DICTIONARY

	pageData       = 0
	pageDictionary = 2

	codecGzip = 2

	convertedUTF8            = 0
	convertedTimestampMillis = 9
)

// parquetColumns are the columns of the file, in order.
var parquetColumns = [...]struct {
	name string
	kind int64
	time bool // milliseconds since 1970, UTC
}{
	{"device", typeByteArray, false}, {"time", typeInt64, true}, {"metric", typeByteArray, false}, {"value", typeDouble, false}, {"received", typeInt64, true},
}

type rowGroup struct {
	columns [len(parquetColumns)]columnChunk
	rows    int64
}

// columnChunk is where a column of a row group is in the file.
type columnChunk struct {
	dictionary, data  int64 // offsets; dictionary 0: none
	unpacked, packed  int64 // bytes, with the heads of the pages
	encoding          int64
	smallest, largest []byte // nil: not told
}

// dictionary numbers names.
type dictionary struct {
	numbers map[string]uint32
	names   []string
	rows    []uint32
}

func (d *dictionary) add(name string) uint32 {
	n, known := d.numbers[name]
	if !known {
		if d.numbers == nil {
			d.numbers = map[string]uint32{}
		}
		n = uint32(len(d.names))
		d.numbers[name], d.names = n, append(d.names, name)
	}
	return n
}

func (d *dictionary) clear() {
	clear(d.numbers)
	d.names, d.rows = d.names[:0], d.rows[:0]
}

func newParquet(w io.Writer) (encoder, error) {
	packer, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	p := &parquet{w: w, packer: packer}
	return p, p.write([]byte(parquetMagic))
}

func (p *parquet) write(b []byte) error {
	n, err := p.w.Write(b)
	p.offset += int64(n)
	return err
}

func (p *parquet) chunk(c *history.Chunk) (n int64, err error) {
	for i, at := range c.Times {
		for k := range c.Columns {
			column := &c.Columns[k]
			if !column.Has(i) {
				continue
			}
			p.device.rows = append(p.device.rows, p.device.add(c.Device))
			p.metric.rows = append(p.metric.rows, p.metric.add(column.Metric))
			p.time, p.received, p.value = append(p.time, at), append(p.received, c.Received[i]), append(p.value, column.Values[i])
			n++
		}
		if len(p.time) >= groupRows {
			if err := p.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// flush writes a row group.
func (p *parquet) flush() (err error) {
	g := rowGroup{rows: int64(len(p.time))}
	for i, values := range [len(parquetColumns)]any{&p.device, p.time, &p.metric, p.value, p.received} {
		if g.columns[i], err = p.column(values); err != nil {
			return err
		}
	}
	p.groups, p.rows = append(p.groups, g), p.rows+g.rows
	p.device.clear()
	p.metric.clear()
	p.time, p.received, p.value = p.time[:0], p.received[:0], p.value[:0]
	return nil
}

// column writes the pages of a column.
func (p *parquet) column(values any) (c columnChunk, err error) {
	var b []byte
	switch values := values.(type) {
	case *dictionary:
		for _, name := range values.names {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
		}
		c.dictionary, c.encoding = p.offset, encodingDictionary
		if err := p.writePage(&c, pageDictionary, len(values.names), b); err != nil {
			return c, err
		}
		b = appendNumbers(nil, values.rows, len(values.names))
		c.data = p.offset
		return c, p.writePage(&c, pageData, len(values.rows), b)
	case []int64:
		smallest, largest := int64(math.MaxInt64), int64(math.MinInt64)
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
			smallest, largest = min(smallest, v), max(largest, v)
		}
		c.smallest, c.largest = binary.LittleEndian.AppendUint64(nil, uint64(smallest)), binary.LittleEndian.AppendUint64(nil, uint64(largest))
	case []float64:
		for _, v := range values {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	c.data, c.encoding = p.offset, encodingPlain
	return c, p.writePage(&c, pageData, len(b)/8, b)
}

// appendNumbers packs numbers of a dictionary of that size: their width in bits, then one run of groups of eight.
func appendNumbers(b []byte, numbers []uint32, size int) []byte {
	width := max(bits.Len(uint(size-1)), 1)
	groups := (len(numbers) + 7) / 8
	b = binary.AppendUvarint(append(b, byte(width)), uint64(groups)<<1|1)
	var word uint64
	have := 0
	for i := range groups * 8 {
		if i < len(numbers) {
			word |= uint64(numbers[i]) << have
		}
		for have += width; have >= 8; have -= 8 {
			b = append(b, byte(word))
			word >>= 8
		}
	}
	return b
}

// writePage writes a page with its head.
func (p *parquet) writePage(c *columnChunk, kind int64, values int, content []byte) error {
	p.compressed.Reset()
	p.packer.Reset(&p.compressed)
	if _, err := p.packer.Write(content); err != nil {
		return err
	}
	if err := p.packer.Close(); err != nil {
		return err
	}
	t := &thrift{}
	t.element(func() {
		t.i32(1, kind)
		t.i32(2, int64(len(content)))
		t.i32(3, int64(p.compressed.Len()))
		if kind == pageDictionary {
			t.structure(7, func() {
				t.i32(1, int64(values))
				t.i32(2, encodingPlain)
			})
			return
		}
		t.structure(5, func() {
			t.i32(1, int64(values))
			t.i32(2, c.encoding)
			t.i32(3, encodingRLE) // of levels, of which required columns have none
			t.i32(4, encodingRLE)
		})
	})
	c.unpacked += int64(len(t.buffer) + len(content))
	c.packed += int64(len(t.buffer) + p.compressed.Len())
	if err := p.write(t.buffer); err != nil {
		return err
	}
	return p.write(p.compressed.Bytes())
}

func (p *parquet) end() error {
	if len(p.time) > 0 {
		if err := p.flush(); err != nil {
			return err
		}
	}
	foot := p.footer()
	foot = binary.LittleEndian.AppendUint32(foot, uint32(len(foot)))
	return p.write(append(foot, parquetMagic...))
}

// footer is the FileMetaData.
func (p *parquet) footer() []byte {
	t := &thrift{}
	t.element(func() {
		t.i32(1, 1)
		t.list(2, thriftStruct, 1+len(parquetColumns))
		t.element(func() {
			t.text(4, []byte("readings"))
			t.i32(5, int64(len(parquetColumns)))
		})
		for i := range parquetColumns {
			t.element(func() { schemaOf(t, i) })
		}
		t.i64(3, p.rows)
		t.list(4, thriftStruct, len(p.groups))
		for i := range p.groups {
			t.element(func() { p.groups[i].describe(t) })
		}
		t.text(6, []byte("plantops"))
		t.list(7, thriftStruct, len(parquetColumns))
		for range parquetColumns {
			t.element(func() { t.structure(1, func() {}) }) // the order of the type
		}
	})
	return t.buffer
}

func schemaOf(t *thrift, i int) {
	c := parquetColumns[i]
	t.i32(1, c.kind)
	t.i32(3, 0) // required
	t.text(4, []byte(c.name))
	switch {
	case c.time:
		t.i32(6, convertedTimestampMillis)
		t.structure(10, func() {
			t.structure(8, func() {
				t.field(1, thriftTrue) // UTC
				t.structure(2, func() { t.structure(1, func() {}) })
			})
		})
	case c.kind == typeByteArray:
		t.i32(6, convertedUTF8)
		t.structure(10, func() { t.structure(1, func() {}) })
	}
}

func (g *rowGroup) describe(t *thrift) {
	var unpacked int64
	t.list(1, thriftStruct, len(g.columns))
	for i := range g.columns {
		c := &g.columns[i]
		unpacked += c.unpacked
		t.element(func() {
			t.i64(2, 0)
			t.structure(3, func() { c.describe(t, i, g.rows) })
		})
	}
	t.i64(2, unpacked)
	t.i64(3, g.rows)
}

func (c *columnChunk) describe(t *thrift, i int, rows int64) {
	t.i32(1, parquetColumns[i].kind)
	encodings := []int64{encodingRLE, c.encoding}
	if c.dictionary != 0 {
		encodings = append(encodings, encodingPlain)
	}
	t.list(2, thriftI32, len(encodings))
	for _, e := range encodings {
		t.buffer = binary.AppendVarint(t.buffer, e)
	}
	t.list(3, thriftBinary, 1)
	name := parquetColumns[i].name
	t.buffer = append(binary.AppendUvarint(t.buffer, uint64(len(name))), name...)
	t.i32(4, codecGzip)
	t.i64(5, rows)
	t.i64(6, c.unpacked)
	t.i64(7, c.packed)
	t.i64(9, c.data)
	if c.dictionary != 0 {
		t.i64(11, c.dictionary)
	}
	if c.largest != nil {
		t.structure(12, func() {
			t.text(5, c.largest)
			t.text(6, c.smallest)
		})
	}
}
