package clock

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Line is a stretch of time in which wall clock and monotonic clock kept their distance.
type Line struct {
	Number int64
	// Start is when this machine started, as the wall clock of this line has it.
	Start time.Time
	// Sure says that the time was believed at some moment of this line.
	Sure bool
}

// bound is a time, and what is known to have happened then or to happen then.
type bound struct {
	why string
	at  time.Time
}

// setBound puts a bound in, in place of one with the same reason.
func setBound(all []bound, at time.Time, why string) []bound {
	i, known := slices.BinarySearchFunc(all, why, func(b bound, why string) int { return strings.Compare(b.why, why) })
	if known {
		all[i].at = at
		return all
	}
	return slices.Insert(all, i, bound{why, at})
}

// rules decide whether to believe the time. They hold no clock and no lock.
type rules struct {
	floors, ceilings []bound   // in order of the reasons
	newest           time.Time // newest arrival stored while sure, before this process

	lines   []Line
	next    int64
	looked  time.Duration // when the clocks were last looked at
	began   time.Duration // when the running line began, or was first looked at by this process
	trusted int           // index of the last line that was believed; -1: none
	doubt   string        // "" while the time is sure
	wrong   bool          // the time was known to be wrong (below a floor), not only doubted, and was not believed since
	wrongOn int64         // the line on which it was wrong last
}

func newRules(known []Line, next int64, newest time.Time) rules {
	r := rules{newest: newest, lines: slices.Clone(known), next: next, trusted: -1}
	for i, l := range known {
		if l.Sure {
			r.trusted = i
		}
	}
	return r
}

// observe takes one look and returns the number of the line that is running. doubt says afterwards what it came to.
func (r *rules) observe(wall time.Time, elapsed time.Duration, synced bool) int64 {
	start := wall.Add(-elapsed).Round(0)
	fresh := r.looked == 0
	jumped := r.follow(start, elapsed)
	r.looked = max(elapsed, 1)
	r.judge(wall, elapsed, synced, fresh, jumped)
	line := &r.lines[len(r.lines)-1]
	if r.doubt == "" {
		line.Sure, r.trusted = true, len(r.lines)-1
	}
	return line.Number
}

// follow puts a look on the line that is running, or begins another. A process that finds lines of an earlier one goes on
// with the last of them if it fits.
func (r *rules) follow(start time.Time, elapsed time.Duration) (jumped bool) {
	if n := len(r.lines); n > 0 {
		if r.onRunningLine(start, elapsed) {
			r.lines[n-1].Start = start
			if r.looked == 0 {
				r.began = elapsed
			}
			return false
		}
		jumped = true
	}
	if len(r.lines) >= maxLines {
		r.forget()
	}
	r.lines = append(r.lines, Line{Number: r.next, Start: start})
	r.next++
	r.began = elapsed
	return jumped
}

// forget drops the oldest line, but not the one that is trusted.
func (r *rules) forget() {
	oldest := 0
	if r.trusted == 0 {
		oldest = 1
	}
	r.lines = slices.Delete(r.lines, oldest, oldest+1)
	if r.trusted > oldest {
		r.trusted--
	}
}

// fits reports whether a look is on the line that is running.
func (r *rules) fits(wall time.Time, elapsed time.Duration) bool {
	return len(r.lines) > 0 && r.onRunningLine(wall.Add(-elapsed).Round(0), elapsed)
}

func (r *rules) onRunningLine(start time.Time, elapsed time.Duration) bool {
	off := start.Sub(r.lines[len(r.lines)-1].Start)
	return off.Abs() <= jumpSlack+(elapsed-r.looked)*slewPerMille/1000
}

const justStarted = "this machine has just been started, and no time server has confirmed its clock"

// judge sets doubt.
func (r *rules) judge(wall time.Time, elapsed time.Duration, synced, fresh, jumped bool) {
	if why := r.impossible(wall, synced); why != "" {
		r.doubt, r.wrong, r.wrongOn = why, true, r.lines[len(r.lines)-1].Number
		return
	}
	line := r.lines[len(r.lines)-1]
	switch {
	case synced, r.onTrustedLine(elapsed), elapsed-r.began >= settleAfter:
		r.doubt, r.wrong = "", false
	case r.wrong && r.wrongOn == line.Number && elapsed < bootPatience: // nobody has set it, it only went on
		r.doubt = justStarted
	case r.wrong: // somebody has set it
		r.doubt = r.gap(wall)
		r.wrong = r.doubt != ""
	case r.trusted < 0: // so far this boot knows nothing better
		if r.doubt = r.gap(wall); r.doubt == "" && elapsed < bootPatience && r.newest.Before(line.Start) && !r.newest.IsZero() {
			r.doubt = justStarted
		}
	case jumped:
		was := r.lines[len(r.lines)-2].Start
		r.doubt = fmt.Sprintf("it jumped by %s", line.Start.Sub(was).Round(time.Second))
	case fresh && !line.Sure:
		r.doubt = "it was not trusted when this program was started again"
	}
}

// gap doubts a time that is too long after the newest message.
func (r *rules) gap(wall time.Time) string {
	gap := wall.Sub(r.newest)
	if r.newest.IsZero() || gap <= maxGap {
		return ""
	}
	return fmt.Sprintf("the newest stored message came %d days before it, and no time server has confirmed it", int(gap.Hours()/24))
}

// impossible says why a time cannot be right. What the kernel has confirmed can be before the newest stored message: that
// one came while the clock was ahead.
func (r *rules) impossible(wall time.Time, synced bool) string {
	for _, b := range r.floors {
		if wall.Before(b.at) {
			return fmt.Sprintf("it is before %s (%s)", b.why, b.at.UTC().Format(time.RFC3339))
		}
	}
	for _, b := range r.ceilings {
		if wall.After(b.at) && !synced {
			return fmt.Sprintf("it is after %s (%s)", b.why, b.at.UTC().Format(time.RFC3339))
		}
	}
	if !synced && wall.Before(r.newest) {
		return fmt.Sprintf("it is before the newest stored message (%s)", r.newest.UTC().Format(time.RFC3339))
	}
	return ""
}

// past is the latest time that has certainly passed.
func (r *rules) past(elapsed time.Duration) time.Time {
	t := r.newest
	for _, b := range r.floors {
		if b.at.After(t) {
			t = b.at
		}
	}
	if r.trusted >= 0 {
		if at := r.lines[r.trusted].Start.Add(elapsed); at.After(t) {
			t = at
		}
	}
	return t
}

// onTrustedLine reports whether the running line is one that was believed, or has come back to it.
func (r *rules) onTrustedLine(elapsed time.Duration) bool {
	if r.trusted < 0 {
		return false
	}
	off := r.lines[len(r.lines)-1].Start.Sub(r.lines[r.trusted].Start)
	return off.Abs() <= jumpSlack+(elapsed-r.began)*slewPerMille/1000
}

// shift returns what must be added to a time of a line to be on the line that is running.
func (r *rules) shift(number int64) (time.Duration, bool) {
	if r.doubt != "" {
		return 0, false
	}
	for _, l := range r.lines {
		if l.Number == number {
			return r.lines[len(r.lines)-1].Start.Sub(l.Start), true
		}
	}
	return 0, false
}
