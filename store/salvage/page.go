package salvage

import (
	"encoding/binary"
	"fmt"
)

// Kinds of pages that hold rows or point to such.
const (
	indexInterior = 2
	tableInterior = 5
	indexLeaf     = 10
	tableLeaf     = 13
)

// maxRowBytes is what SQLite lets a row have; a larger one is damaged.
const maxRowBytes = 1_000_000_000

// content is what stands on a page.
type content struct {
	kind     byte
	rows     []Row
	children []uint32
	overflow []uint32 // pages that rows of this page go on
	lost     int      // rows that cannot be read
}

// tree says which of the two kinds of trees a page belongs to.
func (c content) tree() byte {
	if c.kind == tableInterior || c.kind == tableLeaf {
		return tableLeaf
	}
	return indexLeaf
}

// read reads one page. The error says that it is no page of rows at all; single rows that cannot be read are counted.
func (f *File) read(n uint32) (content, error) {
	b, err := f.page(n)
	if err != nil {
		return content{}, err
	}
	from := 0
	if n == 1 {
		from = headerBytes
	}
	c := content{kind: b[from]}
	header := 8
	switch c.kind {
	case indexInterior, tableInterior:
		header = 12
	case indexLeaf, tableLeaf:
	default:
		return c, fmt.Errorf("%w %d: kind %d", ErrUnreadable, n, c.kind)
	}
	cells := int(binary.BigEndian.Uint16(b[from+3:]))
	first := from + header
	if first+2*cells > f.usable {
		return c, fmt.Errorf("%w %d: %d rows", ErrUnreadable, n, cells)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(b[first+2*i:]))
		if at < first+2*cells || at >= f.usable || !f.cell(&c, b[at:f.usable]) {
			c.lost++
		}
	}
	if cells > 0 && c.lost == cells {
		return c, fmt.Errorf("%w %d: none of its %d rows", ErrUnreadable, n, cells)
	}
	if header == 12 {
		c.children = append(c.children, binary.BigEndian.Uint32(b[from+8:]))
	}
	return c, nil
}

// cell reads one row, or one pointer to a page below, or both (section 1.6 of the format).
func (f *File) cell(c *content, b []byte) bool {
	if c.kind == indexInterior || c.kind == tableInterior {
		if len(b) < 4 {
			return false
		}
		c.children = append(c.children, binary.BigEndian.Uint32(b))
		b = b[4:]
		if c.kind == tableInterior {
			return true // the key says only where to look
		}
	}
	size, n := varint(b)
	if n == 0 || size > min(uint64(f.pages)*uint64(f.pageSize), maxRowBytes) {
		return false
	}
	b = b[n:]
	row := Row{}
	if c.kind == tableLeaf {
		id, n := varint(b)
		if n == 0 {
			return false
		}
		row.RowID, b = int64(id), b[n:]
	}
	payload, pages, ok := f.payload(b, int(size), c.kind == tableLeaf)
	if !ok {
		return false
	}
	var err error
	if row.Values, err = readRecord(payload); err != nil || len(row.Values) == 0 {
		return false
	}
	c.rows, c.overflow = append(c.rows, row), append(c.overflow, pages...)
	return true
}

// payload returns all of a row, with what did not fit on its page, and the pages that this was on.
func (f *File) payload(b []byte, size int, table bool) (all []byte, pages []uint32, ok bool) {
	most, least := (f.usable-12)*64/255-23, (f.usable-12)*32/255-23
	if table {
		most = f.usable - 35
	}
	local := size
	if size > most {
		if local = least + (size-least)%(f.usable-4); local > most {
			local = least
		}
	}
	if local == size {
		if size > len(b) {
			return nil, nil, false
		}
		return b[:size:size], nil, true
	}
	if local+4 > len(b) {
		return nil, nil, false
	}
	all = append(make([]byte, 0, min(size, 1<<20)), b[:local]...)
	next := binary.BigEndian.Uint32(b[local:])
	passed := map[uint32]bool{} // damage can make a chain a ring, which would fill the memory
	for len(all) < size {
		page, err := f.page(next)
		if err != nil || passed[next] {
			return nil, nil, false
		}
		passed[next] = true
		pages = append(pages, next)
		next = binary.BigEndian.Uint32(page)
		all = append(all, page[4:4+min(f.usable-4, size-len(all))]...)
	}
	return all, pages, next == 0 // the last one points nowhere
}
