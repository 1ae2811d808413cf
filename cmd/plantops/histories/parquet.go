package histories

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// parquet reads Parquet (github.com/apache/parquet-format) with the columns device, time, metric and value, as "export --parquet" and the
// usual libraries write it: flat columns, pages of version 1, plain or with a dictionary, packed with Snappy, gzip or not at all. A row
// group is in memory at a time.
type parquet struct {
	from    io.ReaderAt
	series  objects // by device and metric
	columns []parquetColumn
	groups  []node
	group   int
	line    int64
}

type parquetColumn struct {
	name     string
	kind     int64
	optional bool
	unit     int64 // of times: how many are a millisecond; negative: so many milliseconds are one
}

const (
	maxFooterBytes = 8 << 20
	maxPageBytes   = 64 << 20
	maxGroupRows   = 1 << 20 // what the usual libraries write at most
)

// What of parquet.thrift is read.
const (
	parquetInt32, parquetInt64, parquetFloat, parquetDouble, parquetText = 1, 2, 4, 5, 6

	parquetPlain, parquetPlainDictionary, parquetDictionary = 0, 2, 8

	parquetUnpacked, parquetSnappy, parquetGzip = 0, 1, 2
)

var errParquet = errors.New("the Parquet file is damaged")

func parquetCannot(format string, args ...any) error {
	return wrongOptions("this Parquet file cannot be read (%s): write CSV from it", fmt.Sprintf(format, args...))
}

// IsParquet tells a Parquet file by its first bytes.
func IsParquet(head []byte) bool { return bytes.HasPrefix(head, magicParquet) }

// NewParquet returns a Reader for a Parquet file of that size.
func NewParquet(from io.ReaderAt, size int64, place Place, o Options) (Reader, error) {
	meta, err := parquetFooter(from, size)
	if err != nil {
		return nil, err
	}
	r := &parquet{from: from, series: objects{series: newSeriesTable(o), known: map[string]map[string]*Series{}}, groups: meta.field(4).list,
		group: int(min(max(place.Offset, 0), 1<<30)), line: place.Line}
	schema := meta.field(2).list
	if len(schema) < 2 {
		return nil, errParquet
	}
	for i := range schema[1:] {
		c, err := newParquetColumn(&schema[1+i])
		if err != nil {
			return nil, err
		}
		r.columns = append(r.columns, c)
	}
	for _, name := range []string{"device", "time", "metric", "value"} {
		if r.column(name) < 0 {
			return nil, parquetCannot("it has no column %s", name)
		}
	}
	return r, nil
}

func parquetFooter(from io.ReaderAt, size int64) (*node, error) {
	tail := make([]byte, 8)
	if size < 12 {
		return nil, errParquet
	}
	if _, err := from.ReadAt(tail, size-8); err != nil {
		return nil, err
	}
	length := int64(binary.LittleEndian.Uint32(tail))
	if !bytes.Equal(tail[4:], magicParquet) || length > size-12 {
		return nil, errParquet
	}
	if length > maxFooterBytes {
		return nil, parquetCannot("its index has %d bytes", length)
	}
	foot := make([]byte, length)
	if _, err := from.ReadAt(foot, size-8-length); err != nil {
		return nil, err
	}
	in := &thriftReader{bytes: foot}
	meta := in.structure(0)
	if in.bad {
		return nil, errParquet
	}
	return &meta, nil
}

func newParquetColumn(schema *node) (c parquetColumn, err error) {
	c = parquetColumn{name: strings.ToLower(string(schema.field(4).text)), kind: schema.field(1).number, optional: schema.field(3).number == 1, unit: 1}
	if schema.field(5).number > 0 || schema.field(3).number == 2 {
		return c, parquetCannot("its columns are not flat")
	}
	switch unit := schema.field(10).field(8).field(2); { // of a logical timestamp
	case unit.fields[2] != nil, schema.field(6).number == 10 && schema.fields[6] != nil:
		c.unit = 1000
	case unit.fields[3] != nil:
		c.unit = 1_000_000
	}
	return c, nil
}

func (r *parquet) column(name string) int {
	return slices.IndexFunc(r.columns, func(c parquetColumn) bool { return c.name == name })
}

func (r *parquet) Place() Place { return Place{Offset: int64(r.group), Line: r.line} }

// Share is how much of the file has been read, from 0 to 1.
func (r *parquet) Share() float64 { return float64(r.group) / float64(max(len(r.groups), 1)) }

func (r *parquet) Next(sink Sink) error {
	if r.group >= len(r.groups) {
		return io.EOF
	}
	group := &r.groups[r.group]
	rows := group.field(3).number
	if rows < 0 || rows > maxGroupRows {
		return parquetCannot("a row group of %d rows", rows)
	}
	chunks := group.field(1).list
	if len(chunks) != len(r.columns) {
		return errParquet
	}
	var read [5]*cells
	for i, name := range []string{"device", "time", "metric", "value", "received"} {
		at := r.column(name)
		if at < 0 {
			continue
		}
		var err error
		if read[i], err = r.read(r.columns[at], chunks[at].field(3), int(rows)); err != nil {
			return err
		}
	}
	for i := range int(rows) {
		r.line++
		r.row(sink, read, i)
	}
	r.group++
	return nil
}

func (r *parquet) row(sink Sink, read [5]*cells, i int) {
	device, metric := read[0].text(i), read[2].text(i)
	at, isTime := read[1].integer(i)
	value, isNumber := read[3].number(i)
	why := ""
	switch {
	case len(device) == 0:
		why = "no device"
	case len(metric) == 0:
		why = "no metric"
	case !isTime:
		why = "no time"
	case !isNumber || math.IsNaN(value) || math.IsInf(value, 0):
		why = "the value is not a number"
	}
	if why != "" {
		sink.Reject(r.line, fmt.Appendf(nil, "%.64q %v %.64q %v", device, at, metric, value), why)
		return
	}
	s := r.series.known[string(device)][string(metric)]
	if s == nil {
		if s = r.series.add(string(device), string(metric)); s == nil {
			sink.Reject(r.line, device, whyTooMany)
			return
		}
	}
	if s.Device == "" {
		sink.Leave(s.Source, s.Note)
		return
	}
	v := Value{Series: s, Line: r.line, Time: at, Value: value}
	if read[4] != nil {
		v.Received, _ = read[4].integer(i)
	}
	sink.Value(v)
}

// read reads the pages of a column.
func (r *parquet) read(column parquetColumn, chunk *node, rows int) (*cells, error) {
	offset := chunk.field(9).number
	if first := chunk.field(11).number; first > 0 && first < offset {
		offset = first
	}
	in := io.NewSectionReader(r.from, max(offset, 0), max(chunk.field(7).number, 0))
	out, dictionary := &cells{kind: column.kind}, (*cells)(nil)
	for out.count() < rows {
		head, page, err := parquetPage(in, chunk.field(4).number)
		if err != nil {
			return nil, err
		}
		switch head.field(1).number {
		case 2:
			dictionary = &cells{kind: column.kind}
			n := head.field(7).field(1).number
			if n < 0 || n > maxGroupRows || !dictionary.plain(column, page, int(n)) {
				return nil, errParquet
			}
		case 0:
			n := head.field(5).field(1).number
			if n <= 0 || n > int64(rows-out.count()) {
				return nil, errParquet
			}
			if err := out.page(column, page, int(n), head.field(5).field(2).number, dictionary); err != nil {
				return nil, err
			}
		default:
			return nil, parquetCannot("pages of another version")
		}
	}
	return out, nil
}

// What the head of a page has, and at most with the statistics that it may have.
const usualHeadBytes, maxHeadBytes = 256, 64 << 10

// parquetPage reads the next page and unpacks it.
func parquetPage(in *io.SectionReader, codec int64) (*node, []byte, error) {
	at, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil, err
	}
	var n node
	var text []byte
	head := &thriftReader{bad: true}
	for _, most := range []int64{usualHeadBytes, maxHeadBytes} {
		if !head.bad {
			break
		}
		text = make([]byte, min(most, max(in.Size()-at, 0)))
		if _, err := in.ReadAt(text, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		head = &thriftReader{bytes: text}
		n = head.structure(0)
	}
	unpacked, packed := n.field(2).number, n.field(3).number
	if head.bad || unpacked < 0 || unpacked > maxPageBytes || packed < 0 || packed > maxPageBytes {
		return nil, nil, errParquet
	}
	start := at + int64(len(text)-len(head.bytes))
	if packed > in.Size()-start {
		return nil, nil, errParquet
	}
	page := make([]byte, packed)
	if _, err := in.ReadAt(page, start); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if _, err := in.Seek(start+packed, io.SeekStart); err != nil {
		return nil, nil, err
	}
	switch codec {
	case parquetUnpacked:
	case parquetSnappy:
		page = unsnappy(page, int(unpacked))
	case parquetGzip:
		unzip, err := gzip.NewReader(bytes.NewReader(page))
		if err != nil {
			return nil, nil, errParquet
		}
		page = make([]byte, unpacked)
		if _, err := io.ReadFull(unzip, page); err != nil {
			return nil, nil, errParquet
		}
	default:
		return nil, nil, parquetCannot("packed by method %d", codec)
	}
	if int64(len(page)) != unpacked {
		return nil, nil, errParquet
	}
	return &n, page, nil
}

// unsnappy unpacks the block format of Snappy (github.com/google/snappy, format_description.txt); nil when it is damaged.
func unsnappy(b []byte, size int) []byte {
	in := &thriftReader{bytes: b}
	if in.uvarint() != uint64(size) {
		return nil
	}
	out := make([]byte, 0, size)
	for len(in.bytes) > 0 && !in.bad {
		head := in.byte()
		if head&3 == 0 {
			length := uint64(head >> 2)
			if length >= 60 {
				extra := in.take(length - 59)
				length = 0
				for i, c := range extra {
					length |= uint64(c) << (8 * i)
				}
			}
			out = append(out, in.take(length+1)...)
			if len(out) > size {
				return nil
			}
			continue
		}
		length, distance := int(head>>2)+1, 0
		switch head & 3 {
		case 1:
			length, distance = int(head>>2&7)+4, int(head>>5)<<8|int(in.byte())
		case 2:
			distance = int(in.byte()) | int(in.byte())<<8
		case 3:
			distance = int(in.byte()) | int(in.byte())<<8 | int(in.byte())<<16 | int(in.byte())<<24
		}
		if distance <= 0 || distance > len(out) || len(out)+length > size {
			return nil
		}
		for range length {
			out = append(out, out[len(out)-distance])
		}
	}
	if in.bad || len(out) != size {
		return nil
	}
	return out
}
