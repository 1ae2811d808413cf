// Package progress shows on a terminal how far a long piece of work is.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// every is how often the line is drawn.
	every = 200 * time.Millisecond
	// settled is how long the work must run before an end can be told.
	settled = 3 * time.Second
	width   = 24 // of the bar
)

// Bar is one line that is drawn over and over. A nil Bar draws nothing. It is safe for concurrent use.
type Bar struct {
	mu           sync.Mutex
	w            io.Writer
	now          func() time.Time
	began, drawn time.Time
	start        float64 // what was done when it began
	length       int     // of what stands there
	ended        bool
}

// New returns a bar on w, which is a terminal. Now nil is time.Now.
func New(w io.Writer, now func() time.Time) *Bar {
	if now == nil {
		now = time.Now
	}
	return &Bar{w: w, now: now}
}

// Set says how much of the work is done, from 0 to 1, and what to show behind it.
func (b *Bar) Set(done float64, text string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.began.IsZero() {
		b.began, b.start = now, done
	}
	if b.ended || now.Sub(b.drawn) < every {
		return
	}
	b.drawn = now
	done = min(max(done, 0), 1)
	full := int(done * width)
	line := fmt.Sprintf("[%s%s] %3.0f %%  %s", strings.Repeat("=", full), strings.Repeat(" ", width-full), done*100, text)
	if took := now.Sub(b.began); took >= settled && done > b.start {
		left := time.Duration(float64(took) * (1 - done) / (done - b.start))
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	b.draw(line)
}

// Tell is Set for work that is counted: done of so many, of which 0 means that it is not known how many.
func (b *Bar) Tell(what string, done, of int64) {
	if of <= 0 {
		done, of = 0, 1
	}
	b.Set(float64(done)/float64(of), what)
}

// draw puts a line in place of the one that stands there.
func (b *Bar) draw(line string) {
	blank := strings.Repeat(" ", max(b.length-len(line), 0))
	fmt.Fprintf(b.w, "\r%s%s", line, blank) // a terminal that is gone is no failure of the work
	b.length = len(line)
}

// End takes the line away.
func (b *Bar) End() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended = true; b.length > 0 {
		b.draw("")
		fmt.Fprint(b.w, "\r")
	}
}
