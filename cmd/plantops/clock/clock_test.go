package clock

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hands are the clocks of a machine.
type hands struct {
	mu     sync.Mutex
	began  time.Time
	off    time.Duration
	synced bool
}

func (h *hands) options() Options {
	return Options{FirstLine: 1, NewestArrival: truth.Add(-hour), Synchronised: func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.synced },
		Read: func() (time.Time, time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			elapsed := hour + time.Since(h.began)
			return truth.Add(elapsed + h.off), elapsed
		}}
}

// Somebody sets the clock of a machine that follows a time server: the kernel then says that it does not.
func TestWhatTheKernelSaidBeforeAJumpSaysNothingAboutIt(t *testing.T) {
	h := &hands{began: time.Now(), synced: true}
	c := New(h.options())
	require.False(t, c.Unsure())
	h.off, h.synced = 2*year, false
	m := c.Look()
	assert.True(t, m.Unsure)
	assert.Equal(t, int64(2), m.Line)
	assert.Contains(t, c.Doubt(), "jumped by 17520h0m0s")
}

func TestRunSeesAJumpByItselfAndTellsOfEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hands{began: time.Now()}
		c := New(h.options())
		ctx, cancel := context.WithCancel(t.Context())
		var told [][]Line
		failing := false
		go func() {
			_ = c.Run(ctx, func(_ context.Context, lines []Line) error { // it returns nil, always
				h.mu.Lock()
				defer h.mu.Unlock()
				if failing {
					return context.DeadlineExceeded
				}
				told = append(told, lines)
				return nil
			})
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h.mu.Lock()
		require.Len(t, told, 1)
		h.mu.Unlock()
		set := func(fails bool, off time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			failing, h.off = fails, off
		}
		set(true, 9*day)
		time.Sleep(5 * time.Second)
		set(false, 9*day)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		h.mu.Lock()
		require.Len(t, told, 2, "an error is tried again")
		require.Len(t, told[1], 2)
		assert.False(t, told[1][1].Sure)
		h.mu.Unlock()
		set(false, 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		h.mu.Lock()
		require.Len(t, told, 3)
		h.mu.Unlock()
		shift, known := c.Shift(2)
		require.True(t, known)
		assert.Equal(t, -9*day, shift)
		cancel()
		synctest.Wait()
	})
}

func TestThisMachinesClocks(t *testing.T) {
	before := Elapsed()
	assert.Positive(t, before)
	assert.GreaterOrEqual(t, Elapsed(), before)
	boot, err := Boot()
	require.NoError(t, err)
	again, err := Boot()
	require.NoError(t, err)
	assert.Equal(t, boot, again)
	assert.False(t, Synchronised(func() time.Time { return time.Now().Add(hour) })(), "a clock that is not the kernel's")
}
