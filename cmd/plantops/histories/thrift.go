package histories

import "encoding/binary"

// node is a value of Thrift's compact protocol, whatever its type.
type node struct {
	number int64
	text   []byte
	list   []node
	fields map[int64]*node
}

// none is what stands for a field that is not there.
var none = &node{}

func (n *node) field(id int64) *node {
	if f := n.fields[id]; f != nil {
		return f
	}
	return none
}

// Types of the compact protocol.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI64    = 6 // and the integers before it
	thriftDouble = 7
	thriftText   = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12
)

const (
	maxThriftDepth = 16
	maxThriftNodes = 4 << 20
)

// thriftReader reads from the front of its bytes. Bad means that they are not what was expected; it stays.
type thriftReader struct {
	bytes []byte
	nodes int
	bad   bool
}

func (r *thriftReader) byte() byte {
	if len(r.bytes) == 0 {
		r.bad = true
		return 0
	}
	b := r.bytes[0]
	r.bytes = r.bytes[1:]
	return b
}

func (r *thriftReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.bytes)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.bytes = r.bytes[n:]
	return v
}

func (r *thriftReader) varint() int64 {
	v, n := binary.Varint(r.bytes)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.bytes = r.bytes[n:]
	return v
}

func (r *thriftReader) take(n uint64) []byte {
	if n > uint64(len(r.bytes)) {
		r.bad = true
		return nil
	}
	b := r.bytes[:n]
	r.bytes = r.bytes[n:]
	return b
}

// structure reads fields up to the end of a structure.
func (r *thriftReader) structure(depth int) (n node) {
	n.fields = map[int64]*node{}
	last := int64(0)
	for !r.bad {
		head := r.byte()
		if head == 0 {
			return n
		}
		if delta := int64(head >> 4); delta != 0 {
			last += delta
		} else {
			last = r.varint()
		}
		value := node{}
		switch kind := head & 15; kind {
		case thriftTrue:
			value.number = 1
		case thriftFalse:
		default:
			value = r.value(kind, depth)
		}
		n.fields[last] = &value
	}
	return n
}

// value reads one that is not a boolean of a structure.
func (r *thriftReader) value(kind byte, depth int) (n node) {
	if r.nodes++; depth > maxThriftDepth || r.nodes > maxThriftNodes {
		r.bad = true
		return n
	}
	switch {
	case kind <= thriftByte:
		n.number = int64(r.byte())
	case kind <= thriftI64:
		n.number = r.varint()
	case kind == thriftDouble:
		r.take(8)
	case kind == thriftText:
		n.text = r.take(r.uvarint())
	case kind == thriftList, kind == thriftSet:
		head := r.byte()
		length := uint64(head >> 4)
		if length == 15 {
			length = r.uvarint()
		}
		for i := uint64(0); i < length && !r.bad; i++ {
			n.list = append(n.list, r.value(head&15, depth+1))
		}
	case kind == thriftStruct:
		return r.structure(depth + 1)
	default:
		r.bad = true
	}
	return n
}
