package gate

import (
	"fmt"
	"sync"
	"time"
)

// How long a pairing window may be open.
const (
	minWindow = 10 * time.Second
	maxWindow = time.Hour
)

// Window is when devices may register without a token. It is closed until somebody opens it, and after a restart. The zero value is
// ready; it is safe for concurrent use. Its time is the monotonic one: a clock that is set does not hold it open.
type Window struct {
	// Opening is called before a closed window opens, Closed after it has closed; an error keeps it closed. They must not call the
	// window. May be nil; they are set before the first call.
	Opening func() error
	Closed  func()

	mu    sync.Mutex
	until time.Time // zero: closed
	timer *time.Timer
}

// Open opens the window for a time from now, 10 seconds to an hour, also when it is open already.
func (w *Window) Open(d time.Duration) (until time.Time, err error) {
	if d < minWindow || d > maxWindow {
		return time.Time{}, fmt.Errorf("open pairing for %s: use a time from %s to %s", d, minWindow, maxWindow)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until.IsZero() && w.Opening != nil {
		if err := w.Opening(); err != nil {
			return time.Time{}, fmt.Errorf("open pairing: %w", err)
		}
	}
	w.until = time.Now().Add(d)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.expire)
	} else {
		w.timer.Reset(d)
	}
	return w.until, nil
}

// Until returns when the window closes; false: it is closed.
func (w *Window) Until() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.until, time.Now().Before(w.until)
}

// IsOpen reports whether devices may register now.
func (w *Window) IsOpen() bool {
	_, open := w.Until()
	return open
}

// Close closes the window, if it is open.
func (w *Window) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
}

// expire closes the window when its time is over: not when it was opened again meanwhile.
func (w *Window) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !time.Now().Before(w.until) {
		w.close()
	}
}

func (w *Window) close() {
	if w.until.IsZero() {
		return
	}
	w.until = time.Time{}
	w.timer.Stop()
	if w.Closed != nil {
		w.Closed()
	}
}
