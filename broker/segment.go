package broker

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

// join copies p to the end of the queue.
func (w *writer) join(p []byte) {
	if last := len(w.queue) - 1; last >= 0 {
		if own := w.queue[last].own; own != nil && len(*own)+len(p) <= chunkBytes {
			*own = append(*own, p...)
			return
		}
	}
	own := buffers.Get().(*[]byte)
	*own = append(*own, p...)
	w.queue = append(w.queue, segment{own: own})
}
