package pace

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// waits is how long a call takes by the clock of a bubble.
func waits(call func()) time.Duration {
	began := time.Now()
	call()
	return time.Since(began)
}

// commit is one that takes some time.
func commit(p *Pace, took time.Duration) {
	p.Begin()
	time.Sleep(took)
	p.End()
}

func TestWithoutASettingWhoIsBusyGathersForAsLongAsTheLastCommitTook(t *testing.T) {
	for name, c := range map[string]struct {
		took time.Duration
		busy bool
		want time.Duration
	}{
		"idle: a single reading waits for nothing": {20 * time.Millisecond, false, 0},
		"busy": {20 * time.Millisecond, true, 20 * time.Millisecond},
		"one slow commit does not make the next one late": {9 * time.Second, true, longest},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New(0)
				assert.Zero(t, waits(func() { p.Gather(t.Context(), true, nil, nil) }), "the first commit")
				commit(p, c.took)
				assert.Equal(t, c.want, waits(func() { p.Gather(t.Context(), c.busy, nil, nil) }))
				assert.True(t, p.May(false))
				left, _ := p.Left()
				assert.Zero(t, left, "who does not gather does not wait")
			})
		})
	}
}

func TestWithoutASettingWhatIsUsualIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, usual := New(0), make(chan struct{}, 1)
		commit(p, 50*time.Millisecond)
		time.AfterFunc(time.Millisecond, func() { usual <- struct{}{} })
		assert.Equal(t, time.Millisecond, waits(func() { p.Gather(t.Context(), true, usual, nil) }))
	})
}

func TestWithALeastTimeNoCommitBeginsSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(time.Second)
		assert.True(t, p.May(false), "the first one")
		for range 3 {
			commit(p, 300*time.Millisecond)
			assert.False(t, p.May(false))
			assert.True(t, p.May(true), "a full batch")
			assert.Equal(t, 700*time.Millisecond, waits(func() { p.Gather(t.Context(), false, nil, nil) }))
			assert.True(t, p.May(false))
		}
		commit(p, 2*time.Second)
		assert.Zero(t, waits(func() { p.Gather(t.Context(), true, nil, nil) }), "it took longer than that")
		p.Begin()
		assert.Equal(t, time.Second, waits(func() { p.Wait(t.Context(), nil) }))
	})
}

func TestAWaitEndsWhenNothingMoreWillCome(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(p *Pace, enough chan struct{}, cancel func())
		later bool // for the commits after the next one too
		all   bool // whoever commits may begin
	}{
		"enough":  {end: func(_ *Pace, enough chan struct{}, _ func()) { enough <- struct{}{} }},
		"the end": {end: func(_ *Pace, _ chan struct{}, cancel func()) { cancel() }},
		"hasten":  {end: func(p *Pace, _ chan struct{}, _ func()) { p.Hasten(); p.Hasten() }, all: true},
		"hurry":   {end: func(p *Pace, _ chan struct{}, _ func()) { p.Hurry() }, all: true, later: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, enough := New(time.Minute), make(chan struct{}, 1)
				closed := make(chan struct{}) // what is usual is no reason
				close(closed)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				p.Begin()
				p.End()
				gathered := make(chan time.Duration)
				go func() { gathered <- waits(func() { p.Gather(ctx, false, closed, enough) }) }()
				time.Sleep(time.Second)
				c.end(p, enough, cancel)
				assert.Equal(t, time.Second, <-gathered)
				assert.True(t, p.May(false), "who gathered")
				left, _ := p.Left()
				assert.Equal(t, c.all, left <= 0, "whoever else commits")

				p.Begin()
				p.End()
				assert.Equal(t, c.later, p.May(false), "the commit after that")
			})
		})
	}
}

func TestWhoGathersIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(400 * time.Millisecond)
		p.Begin()
		left, _ := p.Left()
		assert.Equal(t, 400*time.Millisecond, left)
		go p.Gather(t.Context(), false, nil, nil)
		synctest.Wait()
		left, _ = p.Left()
		assert.Equal(t, 500*time.Millisecond, left)
		time.Sleep(left)
		left, _ = p.Left()
		assert.Zero(t, left, "it did not begin")
		p.Begin()
		left, _ = p.Left()
		assert.Equal(t, 400*time.Millisecond, left, "it has")
	})
}
