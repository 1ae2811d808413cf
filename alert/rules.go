package alert

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/plantops/plantops/store/garden"
)

// Rules say what is a breach and when it is said.
type Rules struct {
	After        time.Duration // a threshold must be passed for so long, and be kept for so long when the breach is over
	Cooldown     time.Duration // after a breach began, the next one of the same key waits for so long
	Repeat       time.Duration // what nobody acknowledged is said again so often; 0: never
	Quiet        Hours         // in which nothing is said
	OfflineAfter time.Duration // the least time after which a device is offline

	NoOffline, NoSilent, NoStuck bool // of devices none is said
}

const (
	// lateBy is how many of its own intervals something may be away.
	lateBy = 2
	// slack is added: looks come every some seconds, and networks are slow at times.
	slack = 20 * time.Second
	// unlearned is how long a device may be away of which no interval is known: it may be one that sleeps for half an hour.
	unlearned = time.Hour
	// settle is how long after a start devices have to come back.
	settle = 5 * time.Minute
	// longestStep is how much time a look can be sure to have seen: after a pause nobody knows what was heard in it.
	longestStep = time.Minute

	// A reading is judged when it is no older at its arrival than this, or than the interval of its sensor.
	lateReading = 5 * time.Minute
	// A sensor whose newest reading is so old is not expected to come back.
	givenUp = 14 * 24 * time.Hour

	batteryLow, batteryGood = 15, 25 // %
	clockAfter              = 10 * time.Minute
	faultAfter              = time.Minute

	// leastRepeats is how often a value must have come again before its sensor is stuck.
	leastRepeats = 20
)

// stuckAfter is how long a metric has one value when its sensor is stuck. Others rest by nature: light at night, switches, counters.
var stuckAfter = map[string]time.Duration{
	"temperature": 24 * time.Hour, "humidity": 24 * time.Hour, "pressure": 24 * time.Hour, "co2": 24 * time.Hour,
	"soil_temperature": 48 * time.Hour, "soil_moisture": 7 * 24 * time.Hour,
}

// isBattery reports whether a metric is the charge of a battery in per cent.
func isBattery(metric string) bool {
	switch metric {
	case "battery", "battery_level", "battery_percent":
		return true
	}
	return false
}

// margins are how far within its bound a value must be before a breach is over.
var margins = map[string]float64{"soil_moisture": 2, "humidity": 2, "temperature": 0.5, "soil_temperature": 0.5}

// margin of a threshold: that of its metric or, without one, a fiftieth of the bound; never more than a quarter of the band.
func margin(t garden.Threshold, bound float64) float64 {
	m, known := margins[t.Metric]
	if !known {
		m = math.Abs(bound) / 50
	}
	if t.Min != nil && t.Max != nil {
		m = min(m, (*t.Max-*t.Min)/4)
	}
	return m
}

// Clears returns the bounds at which a breach of a threshold is over, where the threshold has the bound at which it begins.
func Clears(t garden.Threshold) garden.Threshold {
	c := garden.Threshold{Metric: t.Metric}
	if t.Min != nil {
		v := *t.Min + margin(t, *t.Min)
		c.Min = &v
	}
	if t.Max != nil {
		v := *t.Max - margin(t, *t.Max)
		c.Max = &v
	}
	return c
}

// Hours are a time of the day, such as the night; From equal to To is none.
type Hours struct{ From, To int } // minutes after midnight, of the clock on the wall

// ParseHours reads "22:00-07:00"; "" is none.
func ParseHours(text string) (h Hours, err error) {
	if text == "" {
		return h, nil
	}
	from, to, ok := strings.Cut(text, "-")
	if ok {
		var errs [2]error
		h.From, errs[0] = minuteOfDay(from)
		h.To, errs[1] = minuteOfDay(to)
		err = errors.Join(errs[:]...)
	}
	if !ok || err != nil || h.From == h.To {
		return Hours{}, errors.New("must be two times of the day such as 22:00-07:00")
	}
	return h, nil
}

func minuteOfDay(text string) (int, error) {
	t, err := time.Parse("15:04", strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("%.20q is no time of the day", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// Has reports whether a moment is in them, by the clock on the wall of its zone.
func (h Hours) Has(t time.Time) bool {
	minute := t.Hour()*60 + t.Minute()
	if h.From <= h.To {
		return h.From <= minute && minute < h.To
	}
	return minute >= h.From || minute < h.To
}
