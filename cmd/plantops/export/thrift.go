package export

import "encoding/binary"

// Types of Thrift's compact protocol (thrift/doc/specs/thrift-compact-protocol.md).
const (
	thriftTrue   = 1
	thriftI32    = 5
	thriftI64    = 6
	thriftBinary = 8
	thriftList   = 9
	thriftStruct = 12
)

// thrift writes structures in the compact protocol, as Parquet has them. Fields of a structure come in order of their numbers.
type thrift struct {
	buffer []byte
	last   []int // number of the last field, of each structure that is open
}

// begin opens a structure, that of a field of the one before or the first of all.
func (t *thrift) begin() { t.last = append(t.last, 0) }

// end closes it.
func (t *thrift) end() {
	t.buffer = append(t.buffer, 0)
	t.last = t.last[:len(t.last)-1]
}

// field begins field n.
func (t *thrift) field(n, kind int) {
	last := &t.last[len(t.last)-1]
	t.buffer = append(t.buffer, byte((n-*last)<<4|kind)) // numbers are close together here
	*last = n
}

func (t *thrift) int(n, kind int, v int64) {
	t.field(n, kind)
	t.buffer = binary.AppendVarint(t.buffer, v) // zigzag
}

func (t *thrift) i32(n int, v int64) { t.int(n, thriftI32, v) }

func (t *thrift) i64(n int, v int64) { t.int(n, thriftI64, v) }

func (t *thrift) text(n int, v []byte) {
	t.field(n, thriftBinary)
	t.buffer = append(binary.AppendUvarint(t.buffer, uint64(len(v))), v...)
}

// list begins field n with so many elements, which follow.
func (t *thrift) list(n, kind, length int) {
	t.field(n, thriftList)
	t.elements(kind, length)
}

func (t *thrift) elements(kind, length int) {
	if length < 15 {
		t.buffer = append(t.buffer, byte(length<<4|kind))
		return
	}
	t.buffer = binary.AppendUvarint(append(t.buffer, byte(15<<4|kind)), uint64(length))
}

// structure is field n, with what inside writes.
func (t *thrift) structure(n int, inside func()) {
	t.field(n, thriftStruct)
	t.element(inside)
}

// element is a structure of a list.
func (t *thrift) element(inside func()) {
	t.begin()
	inside()
	t.end()
}
