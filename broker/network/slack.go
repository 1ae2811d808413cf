package network

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"sync"
	"unsafe"
)

// What crypto/tls keeps of a connection that is idle is mostly two empty buffers: of the last record, which is as large as the
// largest that ever came, 16 KiB, and of the handshake. It has no way to let go of them, so we look for them by name and type, and
// where they are not there, in some other version of Go, they stay.
var (
	recordBuffer    = bufferIn("rawInput")
	handshakeBuffer = bufferIn("hand")
)

// bufferIn returns where in a tls.Conn a bytes.Buffer of that name is; 0 where there is none: the first field is not one.
func bufferIn(name string) uintptr {
	field, there := reflect.TypeFor[tls.Conn]().FieldByName(name)
	if !there || field.Type != reflect.TypeFor[bytes.Buffer]() {
		return 0
	}
	return field.Offset
}

// records are buffers for records that were read, to be used by the next connection that has something to read.
var records = sync.Pool{New: func() any { return new([recordBytes]byte) }}

// recordBytes is a little more than what a record has at most.
const recordBytes = 17 << 10

// borrowRecord gives c a buffer to read a record into, if it has none. Only who reads from c may call these two.
func borrowRecord(c *tls.Conn) {
	if recordBuffer == 0 {
		return
	}
	if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), recordBuffer)); b.Cap() == 0 {
		*b = *bytes.NewBuffer(records.Get().(*[recordBytes]byte)[:0])
	}
}

// giveBackRecord takes the empty buffers of c. The last Read has returned an error, so nothing of a record is still to be read.
func giveBackRecord(c *tls.Conn) {
	if recordBuffer != 0 {
		if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), recordBuffer)); b.Len() == 0 && b.Cap() > 0 {
			if b.Reset(); b.Available() == recordBytes {
				records.Put((*[recordBytes]byte)(b.AvailableBuffer()[:recordBytes]))
			}
			*b = bytes.Buffer{}
		}
	}
	if handshakeBuffer != 0 {
		if b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), handshakeBuffer)); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
}
