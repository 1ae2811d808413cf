// Package clock is the one authority on time: it says what time it is and whether to believe it.
//
// A Raspberry Pi has no battery clock. It starts in 1970, or where it was when it stopped; the network sets it later, and
// sometimes wrongly. Time is unsure
//
//   - before a floor: the program's build date, our authority's not-before, the newest arrival that was stored while the
//     time was sure (NotBefore), and after the end of our authority (NotAfter);
//   - at a start more than maxGap after the newest stored arrival;
//   - for bootPatience after the machine was started, unless the kernel says that it is synchronised: a Pi begins with the
//     time at which it was stopped, and looks for a time server;
//   - after a jump against the monotonic clock.
//
// It becomes sure again when it is back where the monotonic clock expects it, when a clock that was known to be wrong is set
// to a time that can be right, when the kernel says that it is synchronised, or when nothing has moved for settleAfter.
//
// Between two jumps wall clock and monotonic clock keep their distance: such a stretch is a Line, and has a number. What
// arrives while the time is unsure is kept with the number of its line; once the time is sure, Shift says by how much the
// line was wrong. The rules are in rules.go and take values; this file is the shell around them, sources_linux.go the sources.
package clock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// settleAfter is how long a time that jumped must stand before it is believed without any other sign.
	settleAfter = 24 * time.Hour
	// maxGap is how long after the newest stored arrival a start is believed without any other sign. A longer pause is
	// rarer than a clock that is months ahead.
	maxGap = 90 * 24 * time.Hour
	// bootPatience is how long a machine that has just been started gets to find a time server.
	bootPatience = 10 * time.Minute
	// jumpSlack is how far the wall clock may move against the monotonic one before it counts as a jump, beside
	// slewPerMille of the time between two looks: NTP slews by at most half a thousandth (adjtime(3)), a leap second is one.
	jumpSlack    = 5 * time.Second
	slewPerMille = 1

	lookEvery = time.Second

	// maxLines bounds what is remembered of a clock that jumps all the time. What came on older lines stays marked.
	maxLines = 256
)

// Options are where the time comes from. Read must be set.
type Options struct {
	// Read returns the wall clock and, of the same moment, the time since this machine started, which never jumps.
	Read func() (wall time.Time, elapsed time.Duration)
	// Synchronised reports whether the kernel says that its clock follows a time server. May be nil.
	Synchronised func() bool
	// Known are the lines of this boot that an earlier process has seen, and FirstLine the first number that is free.
	Known     []Line
	FirstLine int64
	// NewestArrival is the newest arrival that was stored while the time was sure; zero: none.
	NewestArrival time.Time
	Log           *slog.Logger // nil discards
}

// Moment is one look at the clock.
type Moment struct {
	Wall   time.Time
	Unsure bool
	Line   int64
}

// Clock is safe for concurrent use. Its methods take no longer than a look at two clocks.
type Clock struct {
	o Options

	mu     sync.Mutex
	rules  rules
	synced bool
}

// New starts nothing; Run keeps looking.
func New(o Options) *Clock {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Synchronised == nil {
		o.Synchronised = func() bool { return false }
	}
	c := &Clock{o: o, synced: o.Synchronised()}
	c.rules = newRules(o.Known, o.FirstLine, o.NewestArrival)
	return c
}

// NotBefore says that it cannot be earlier than at, and why. A later call with the same reason replaces the earlier.
func (c *Clock) NotBefore(at time.Time, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules.floors = setBound(c.rules.floors, at, why)
}

// NotAfter says that it is unlikely to be later than at, and why. A later call with the same reason replaces the earlier.
func (c *Clock) NotAfter(at time.Time, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules.ceilings = setBound(c.rules.ceilings, at, why)
}

// Unsure reports whether the time is not to be trusted at this moment.
func (c *Clock) Unsure() bool { return c.Look().Unsure }

// Look says what time it is and whether to believe it.
func (c *Clock) Look() Moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look()
}

func (c *Clock) look() Moment {
	wall, elapsed := c.o.Read()
	if !c.rules.fits(wall, elapsed) {
		c.synced = c.o.Synchronised() // what it said before the jump says nothing about it
	}
	before := c.rules.doubt
	line := c.rules.observe(wall, elapsed, c.synced)
	if after := c.rules.doubt; after != before {
		if after != "" {
			c.o.Log.Warn("the clock is not to be trusted: nothing is deleted and nothing expires until it is", "time", wall.UTC().Format(time.RFC3339), "reason", after)
		} else {
			c.o.Log.Info("the clock is to be trusted", "time", wall.UTC().Format(time.RFC3339), "before", before)
		}
	}
	return Moment{Wall: wall, Unsure: c.rules.doubt != "", Line: line}
}

// Doubt says in words why the time is unsure; "" when it is sure.
func (c *Clock) Doubt() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.rules.doubt
}

// Estimate is the wall clock while it is sure, else the best guess at a time that has certainly passed: by the line that was
// trusted last, or the newest of what is known to be past.
func (c *Clock) Estimate() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.look()
	if !m.Unsure {
		return m.Wall
	}
	_, elapsed := c.o.Read()
	return c.rules.past(elapsed)
}

// Lines returns the lines of this boot, the one that is running last.
func (c *Clock) Lines() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return append([]Line(nil), c.rules.lines...)
}

// Shift returns how much must be added to a time that was taken on a line of this boot while the time was unsure. False
// while the time is unsure, and for a line of another boot.
func (c *Clock) Shift(line int64) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.rules.shift(line)
}

// Run looks every second, so that a jump is seen when it happens, and calls changed after each time that the time became
// sure or unsure or a new line began, with the lines as they are. An error of changed is tried again at the next look.
func (c *Clock) Run(ctx context.Context, changed func(context.Context, []Line) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var told string
	failing := false
	for {
		c.mu.Lock()
		c.synced = c.o.Synchronised()
		c.look()
		state := fmt.Sprint(len(c.rules.lines), c.rules.doubt != "")
		lines := append([]Line(nil), c.rules.lines...)
		c.mu.Unlock()
		if state != told {
			err := changed(ctx, lines)
			if err == nil {
				told = state
			} else if ctx.Err() == nil && !failing {
				c.o.Log.Warn("cannot keep what is known of the clock; trying again", "err", err)
			}
			failing = err != nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
