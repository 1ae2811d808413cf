// Package logtest collects what is logged in a test, by the code under test or by another process. It knows none of our
// packages, so that the tests of each of them may use it.
package logtest

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// Log collects what is written to it, as text. The zero value is ready, keeps everything, and is safe for concurrent use.
type Log struct {
	Keep int // bytes that are enough: above them the oldest lines go. 0 means everything

	mu   sync.Mutex
	text []byte
}

var _ io.Writer = (*Log)(nil)

// Write adds p and never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	for l.Keep > 0 && len(l.text) > l.Keep {
		end := bytes.IndexByte(l.text, '\n')
		if end < 0 {
			break
		}
		l.text = l.text[end+1:]
	}
	return len(p), nil
}

// String is everything that is kept.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// Lines returns the lines that hold all the words, without the white space around them.
func (l *Log) Lines(words ...string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		fits := true
		for _, word := range words {
			fits = fits && strings.Contains(line, word)
		}
		if fits {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
