package derive

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// maxPoints of a calibration.
const maxPoints = 256

// Point is a value as the sensor sent it and what it should have been.
type Point struct{ Raw, True float64 }

// Calibration corrects a metric of a device from a time on, until the next one of it. What was measured before the first is as
// the sensor sent it.
type Calibration struct {
	Device, Metric string
	Version        int    // of those of this device and metric; of two from the same time the higher one counts
	From           int64  // UTC ms
	Points         Points // 0: as the sensor sent it; 1: shifted; 2: a line; more: a table
	Created        int64  // UTC ms
	Note           string
}

// Points are in order of Raw, each once. Between two of a table lies a line; beyond the outermost, the line of the last two goes
// on. They are JSON as [[raw, true], …].
type Points []Point

// The kinds of a calibration.
const (
	KindNone   = "none"
	KindOffset = "offset"
	KindLine   = "line"
	KindTable  = "table"
)

// Kind is one word for what the points make.
func (p Points) Kind() string {
	return []string{KindNone, KindOffset, KindLine, KindTable}[min(len(p), 3)]
}

// ParsePoints reads RAW=TRUE, in any order.
func ParsePoints(words []string) (p Points, err error) {
	for _, word := range words {
		raw, is, found := strings.Cut(word, "=")
		r, rawErr := strconv.ParseFloat(strings.TrimSpace(raw), 64)
		t, trueErr := strconv.ParseFloat(strings.TrimSpace(is), 64)
		if !found || rawErr != nil || trueErr != nil {
			return nil, fmt.Errorf("point %q: use RAW=TRUE, what the sensor sends and what is right, for instance 512=40", word)
		}
		p = append(p, Point{r, t})
	}
	slices.SortFunc(p, func(a, b Point) int { return cmp.Compare(a.Raw, b.Raw) })
	return p, p.check()
}

// String is what ParsePoints reads, with spaces between.
func (p Points) String() string {
	words := make([]string, len(p))
	for i, at := range p {
		words[i] = number(at.Raw) + "=" + number(at.True)
	}
	return strings.Join(words, " ")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (p Points) check() error {
	if len(p) > maxPoints {
		return fmt.Errorf("%d points, at most %d", len(p), maxPoints)
	}
	for i, at := range p {
		if !finite(at.Raw) || !finite(at.True) {
			return fmt.Errorf("point %v=%v: use finite numbers", at.Raw, at.True)
		}
		if i > 0 && at.Raw <= p[i-1].Raw {
			return fmt.Errorf("points %v=%v and %v=%v: each raw value once, in order", p[i-1].Raw, p[i-1].True, at.Raw, at.True)
		}
		if i > 0 {
			if line := through(p[i-1], at); !finite(line.Factor) || !finite(line.Offset) {
				return fmt.Errorf("points %v=%v and %v=%v are too close together or too far apart", p[i-1].Raw, p[i-1].True, at.Raw, at.True)
			}
		}
	}
	return nil
}

// MarshalJSON writes pairs.
func (p Points) MarshalJSON() ([]byte, error) {
	pairs := make([][2]float64, len(p))
	for i, at := range p {
		pairs[i] = [2]float64{at.Raw, at.True}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON reads pairs and checks them.
func (p *Points) UnmarshalJSON(b []byte) error {
	var pairs [][]float64
	if err := json.Unmarshal(b, &pairs); err != nil {
		return fmt.Errorf("points of a calibration: %w", err)
	}
	list := make(Points, 0, len(pairs))
	for _, pair := range pairs {
		if len(pair) != 2 {
			return fmt.Errorf("points of a calibration: %d numbers, want 2", len(pair))
		}
		list = append(list, Point{pair[0], pair[1]})
	}
	*p = list
	return list.check()
}

// Check says what a calibration lacks.
func (c *Calibration) Check() error {
	err := c.Points.check()
	if c.Device == "" || c.Metric == "" {
		err = errors.New("needs a device and a metric")
	}
	if err != nil {
		return fmt.Errorf("calibration %d of %s, %s: %w", c.Version, c.Device, c.Metric, err)
	}
	return nil
}

// Line is Factor * value + Offset. It keeps the order of values, or turns it round: so it gives the extremes from the extremes.
type Line struct{ Factor, Offset float64 }

// At is the line at a value. The conversion keeps a processor from making one rounding of the two.
func (l Line) At(v float64) float64 { return float64(v*l.Factor) + l.Offset }

func through(a, b Point) Line {
	factor := (b.True - a.True) / (b.Raw - a.Raw)
	return Line{factor, a.True - a.Raw*factor}
}

// Line is that of a calibration that is one.
func (c *Calibration) Line() (Line, bool) {
	switch p := c.Points; len(p) {
	case 1:
		return Line{1, p[0].True - p[0].Raw}, true
	case 2:
		return through(p[0], p[1]), true
	}
	return Line{}, false
}

// At is what a value that the sensor sent should have been. It may be infinite, if it is far outside of the points.
func (c *Calibration) At(v float64) float64 {
	if len(c.Points) == 0 {
		return v
	}
	if line, ok := c.Line(); ok {
		return line.At(v)
	}
	p := c.Points
	i := sort.Search(len(p)-2, func(i int) bool { return v < p[i+1].Raw }) // the line from point i to the next
	a, b := p[i], p[i+1]
	if v == b.Raw {
		return b.True
	}
	return a.True + float64((v-a.Raw)*((b.True-a.True)/(b.Raw-a.Raw)))
}

// periodAt is the calibration that is valid at a time, or -1.
func periodAt(list []Calibration, at int64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].From > at }) - 1
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
