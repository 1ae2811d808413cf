package derive

import (
	"time"

	"github.com/plantops/plantops/store/history"
)

// maxGap is the longest time between two readings, in ms, in which light is taken to have gone from one to the other.
const maxGap = int64(time.Hour / time.Millisecond)

// lightStart is from when on readings are needed to know the light of the day of a time.
func lightStart(at int64, place *time.Location) int64 {
	start, _ := history.NewGrid(history.Span{Days: 1}, place).Bucket(at)
	return start - maxGap
}

// light adds up the light of a day.
type light struct {
	grid     *history.Grid // of days
	start    int64         // of the day, UTC ms
	known    bool          // time and flux are those of a reading
	time     int64
	flux     float64 // not negative
	micromol float64 // per m²
}

// at takes one more reading, later than those before, and returns the light of its day so far, in mol/m².
func (l *light) at(time int64, flux float64) float64 {
	flux = max(flux, 0) // what a sensor says in the dark, with an offset
	start, _ := l.grid.Bucket(time)
	if start != l.start {
		l.start, l.micromol = start, 0
	}
	if l.known && time-l.time <= maxGap {
		from, before := l.time, l.flux
		if from < start { // midnight was in between
			before += (flux - before) * float64(start-from) / float64(time-from)
			from = start
		}
		l.micromol += (before + flux) / 2 * float64(time-from) / 1000
	}
	l.known, l.time, l.flux = true, time, flux
	return l.micromol / 1e6
}
