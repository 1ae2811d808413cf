package network

import "sync"

// segment is a piece of the queue: our own buffer, which takes more, or bytes shared with other connections.
type segment struct {
	own    *[]byte
	shared []byte
}

func (s segment) bytes() []byte {
	if s.own != nil {
		return *s.own
	}
	return s.shared
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

func (s segment) free() {
	if s.own != nil && cap(*s.own) <= chunkBytes {
		*s.own = (*s.own)[:0]
		buffers.Put(s.own)
	}
}
