package histories

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLineBytes bounds a line. What is longer is no line of readings.
const maxLineBytes = 1 << 20

const whyLong = "the line is longer than 1 MiB"

var utf8BOM = []byte("\xef\xbb\xbf")

// lines reads lines of any length in bounded memory.
type lines struct {
	in     *bufio.Reader
	buffer []byte
	offset int64 // behind the line that was read last
	number int64 // of it, from 1
}

func newLines(from io.Reader, place Place) *lines {
	return &lines{in: bufio.NewReaderSize(from, 1<<16), offset: place.Offset, number: place.Line}
}

// next returns the next line without its end; it is valid until the call after. Long means that it is too long, and cut.
// io.EOF comes alone, after the last line.
func (l *lines) next() (line []byte, long bool, err error) {
	l.buffer = l.buffer[:0]
	first := l.offset == 0
	var total int64
	for {
		part, err := l.in.ReadSlice('\n')
		total += int64(len(part))
		if err == nil && total == int64(len(part)) {
			line = part // whole, and not copied
			break
		}
		if room := maxLineBytes - len(l.buffer); room > 0 {
			l.buffer = append(l.buffer, part[:min(len(part), room)]...)
		}
		line = l.buffer
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && (total == 0 || !errors.Is(err, io.EOF)) {
			return nil, false, err
		}
		break
	}
	l.offset += total
	l.number++
	if first {
		line = bytes.TrimPrefix(line, utf8BOM)
	}
	return bytes.TrimRight(line, "\r\n"), total > maxLineBytes, nil
}

func (l *lines) place(context string) Place { return Place{l.offset, l.number, context} }
