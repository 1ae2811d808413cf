// Package salvage reads what can be read of a damaged SQLite file, without SQLite: a damaged page costs the rows on it
// and nothing else. It knows the file format (https://sqlite.org/fileformat2.html) and nothing of ours: which row belongs
// to what is for the caller to say.
//
// file.go finds pages, in the file and in its write-ahead log; record.go reads rows; page.go the cells of one page; walk.go
// goes from a root to every row that can be reached, and afterwards to those pages that nobody points to any more.
//
// SQLite has no checksums in the file: a page counts as damaged when it does not keep the rules of its format. Bytes changed
// inside a value are not seen here.
package salvage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrUnreadable wraps everything that is wrong with a page.
var ErrUnreadable = errors.New("unreadable page")

const magic = "SQLite format 3\x00"

const (
	headerBytes    = 100
	minPageBytes   = 512
	maxPageBytes   = 65536
	minUsableBytes = 480 // the format's own bound
)

// File is an open database file. It is not safe for concurrent use.
type File struct {
	db, log   *os.File
	pageSize  int
	usable    int // bytes of a page that are in use
	pages     uint32
	free      uint32           // first trunk page of the free list
	freeCount uint32           // pages that it has
	inLog     map[uint32]int64 // page to its newest committed copy in the log, as an offset
}

// Open reads the header and the write-ahead log of the file, which nobody may be writing. pageBytes is the size of a page
// where the header cannot be read.
func Open(path string, pageBytes int) (*File, error) {
	f := &File{pageSize: pageBytes, inLog: map[uint32]int64{}}
	var err error
	if f.db, err = os.Open(path); err != nil {
		return nil, err
	}
	if err := f.readHeader(); err != nil {
		return nil, errors.Join(fmt.Errorf("salvage %s: %w", path, err), f.db.Close())
	}
	if f.log, err = os.Open(path + "-wal"); err == nil {
		err = f.readLog()
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("salvage %s-wal: %w", path, err), f.Close())
	}
	return f, nil
}

// Close closes the file.
func (f *File) Close() error {
	if f.log == nil {
		return f.db.Close()
	}
	return errors.Join(f.log.Close(), f.db.Close())
}

// hasHeader tells whether the first page can be read as one.
func (f *File) hasHeader() bool {
	first, err := f.page(1)
	return err == nil && string(first[:16]) == magic
}

// ApplicationID returns what the header says whose file this is; zero where it cannot be read.
func (f *File) ApplicationID() uint32 {
	first, err := f.page(1)
	if err != nil || string(first[:16]) != magic {
		return 0
	}
	return binary.BigEndian.Uint32(first[68:])
}

// Pages returns how many pages there are, those that are only in the log included.
func (f *File) Pages() uint32 { return f.pages }

func (f *File) readHeader() error {
	info, err := f.db.Stat()
	if err != nil {
		return err
	}
	var h [headerBytes]byte
	if _, err := f.db.ReadAt(h[:], 0); err != nil && err != io.EOF {
		return fmt.Errorf("read the header: %w", err)
	}
	reserved := 0
	if string(h[:16]) == magic {
		if size := int(binary.BigEndian.Uint16(h[16:])); validPageSize(size) {
			f.pageSize = size
		} else if size == 1 {
			f.pageSize = maxPageBytes
		}
		reserved = int(h[20])
		f.free, f.freeCount = binary.BigEndian.Uint32(h[32:]), binary.BigEndian.Uint32(h[36:])
	}
	if !validPageSize(f.pageSize) && f.pageSize != maxPageBytes {
		return fmt.Errorf("%d is no size of a page", f.pageSize)
	}
	if f.usable = f.pageSize - reserved; f.usable < minUsableBytes {
		f.usable = f.pageSize
	}
	f.pages = uint32(min((info.Size()+int64(f.pageSize)-1)/int64(f.pageSize), 1<<31))
	return nil
}

func validPageSize(n int) bool { return n >= minPageBytes && n <= maxPageBytes && n&(n-1) == 0 }

const (
	logHeaderBytes   = 32
	frameHeaderBytes = 24
	logMagic         = 0x377f0682 // the last bit says how checksums are made
)

// readLog finds the newest copy of each page that was committed. A frame whose checksum is wrong ends the log, as it does
// for SQLite: what follows is of an earlier round, or torn.
func (f *File) readLog() error {
	r := io.NewSectionReader(f.log, 0, 1<<62)
	header := make([]byte, logHeaderBytes)
	if _, err := io.ReadFull(r, header); err != nil {
		return ignoreEnd(err) // empty: everything is in the file
	}
	magic := binary.BigEndian.Uint32(header)
	if magic&^1 != logMagic || int(binary.BigEndian.Uint32(header[8:])) != f.pageSize {
		return nil // not a log of this file: nothing of it was ever committed
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	sum := checksum(order, [2]uint32{}, header[:24])
	if sum[0] != binary.BigEndian.Uint32(header[24:]) || sum[1] != binary.BigEndian.Uint32(header[28:]) {
		return nil
	}
	frame := make([]byte, frameHeaderBytes+f.pageSize)
	pending := map[uint32]int64{}
	for at := int64(logHeaderBytes); ; at += int64(len(frame)) {
		if _, err := io.ReadFull(r, frame); err != nil {
			return ignoreEnd(err)
		}
		sum = checksum(order, checksum(order, sum, frame[:8]), frame[frameHeaderBytes:])
		if string(frame[8:16]) != string(header[16:24]) ||
			sum[0] != binary.BigEndian.Uint32(frame[16:]) || sum[1] != binary.BigEndian.Uint32(frame[20:]) {
			return nil
		}
		pending[binary.BigEndian.Uint32(frame)] = at + frameHeaderBytes
		size := binary.BigEndian.Uint32(frame[4:])
		if size == 0 {
			continue
		}
		for page, offset := range pending {
			f.inLog[page] = offset
		}
		clear(pending)
		f.pages = size
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// checksum is the log's own (section 4.2 of the format).
func checksum(order binary.ByteOrder, sum [2]uint32, data []byte) [2]uint32 {
	for ; len(data) >= 8; data = data[8:] {
		sum[0] += order.Uint32(data) + sum[1]
		sum[1] += order.Uint32(data[4:]) + sum[0]
	}
	return sum
}

// page returns a page's bytes, which are the caller's.
func (f *File) page(n uint32) ([]byte, error) {
	if n == 0 || n > f.pages {
		return nil, fmt.Errorf("%w %d: the file has %d", ErrUnreadable, n, f.pages)
	}
	content := make([]byte, f.pageSize)
	from, offset := f.db, int64(n-1)*int64(f.pageSize)
	if at, ok := f.inLog[n]; ok {
		from, offset = f.log, at
	}
	if _, err := from.ReadAt(content, offset); err != nil {
		return nil, fmt.Errorf("%w %d: %w", ErrUnreadable, n, err)
	}
	return content, nil
}

// bits is a set of pages: a file may have millions that are free.
type bits []uint64

func (b bits) has(n uint32) bool { return b[n/64]&(1<<(n%64)) != 0 }
func (b bits) set(n uint32)      { b[n/64] |= 1 << (n % 64) }

// FreeListDamaged reports whether it is not known of all free pages that they are.
func (f *File) FreeListDamaged() bool {
	_, whole := f.freePages()
	return !whole
}

// freePages returns the pages that hold nothing: what is on them was deleted. A free list that is damaged ends where it is;
// whole tells that it was not.
func (f *File) freePages() (free bits, whole bool) {
	free = make(bits, f.pages/64+1)
	header, expected := f.free, f.freeCount
	if first, err := f.page(1); err == nil && string(first[:16]) == magic { // the log may know better than the file
		header, expected = binary.BigEndian.Uint32(first[32:]), binary.BigEndian.Uint32(first[36:])
	}
	found := uint32(0)
	take := func(n uint32) bool {
		if n == 0 || n > f.pages || free.has(n) {
			return false
		}
		free.set(n)
		found++
		return true
	}
	for trunk := header; trunk != 0; {
		content, err := f.page(trunk)
		if err != nil {
			return free, false
		}
		count := binary.BigEndian.Uint32(content[4:8])
		if count > uint32(f.usable/4-2) || !take(trunk) {
			return free, false
		}
		for i := range count {
			if !take(binary.BigEndian.Uint32(content[8+4*i:])) {
				return free, false
			}
		}
		trunk = binary.BigEndian.Uint32(content)
	}
	return free, found == expected && f.hasHeader()
}
