package listing

import (
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"
)

const (
	sparkCells  = 48 // at most; the span of one is doubled when they are full
	sparkSeries = 24 // with more devices and metrics there are no lines
	sparkLeast  = 4  // values of a series that is drawn
)

// Steps from low to high, without UTF-8 and with it.
var (
	asciiSteps   = []rune("_.-=+*#")
	unicodeSteps = []rune("▁▂▃▄▅▆▇█")
)

// sparklines draw how each metric of each device went, from readings in order of time. All have the same time axis.
type sparklines struct {
	from, width int64 // UTC ms, ms; of the first cell
	series      []spark
	tooMany     bool
}

type spark struct {
	device, metric string
	values         int64
	min, max       float64
	cells          []sparkCell
}

type sparkCell struct {
	mean   float64
	values int64
}

func (l *sparklines) add(device, metric string, at int64, low, middle, high float64) {
	if l.tooMany {
		return
	}
	if len(l.series) == 0 {
		l.from, l.width = at, 1
	}
	for (at-l.from)/l.width >= sparkCells {
		l.widen()
	}
	i := slices.IndexFunc(l.series, func(s spark) bool { return s.metric == metric && s.device == device })
	if i < 0 {
		if len(l.series) == sparkSeries {
			*l = sparklines{tooMany: true}
			return
		}
		i = len(l.series)
		l.series = append(l.series, spark{device: device, metric: metric, min: low, max: high})
	}
	s := &l.series[i]
	s.values++
	s.min, s.max = min(s.min, low), max(s.max, high)
	cell := int((at - l.from) / l.width)
	for len(s.cells) <= cell {
		s.cells = append(s.cells, sparkCell{})
	}
	s.cells[cell].add(middle, 1)
}

// add is for the largest floats too.
func (c *sparkCell) add(mean float64, values int64) {
	if values > 0 {
		c.values += values
		share := float64(values) / float64(c.values)
		c.mean = c.mean*(1-share) + mean*share
	}
}

// widen makes each cell twice as long.
func (l *sparklines) widen() {
	l.width *= 2
	for i := range l.series {
		cells := l.series[i].cells
		for k := range cells {
			if k%2 == 0 {
				cells[k/2] = cells[k]
			} else {
				cells[k/2].add(cells[k].mean, cells[k].values)
			}
		}
		l.series[i].cells = cells[:(len(cells)+1)/2]
	}
}

// write prints a line for each series of which there is enough, in order of name.
func (l *sparklines) write(w io.Writer, ascii bool) error {
	drawn := slices.DeleteFunc(slices.Clone(l.series), func(s spark) bool { return s.values < sparkLeast })
	if len(drawn) == 0 {
		return nil
	}
	slices.SortFunc(drawn, func(a, b spark) int {
		return slices.Compare([]string{a.device, a.metric}, []string{b.device, b.metric})
	})
	steps := unicodeSteps
	if ascii {
		steps = asciiSteps
	}
	rows := [][]string{{"DEVICE", "METRIC", "LOWEST", "HIGHEST", "COURSE"}}
	for _, s := range drawn {
		rows = append(rows, []string{s.device, s.metric, Number(s.min), Number(s.max), s.course(steps)})
	}
	var widths [4]int
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(w, "%-*s  %-*s  %-*s  %-*s  %s\n", widths[0], r[0], widths[1], r[1], widths[2], r[2], widths[3], r[3], r[4]); err != nil {
			return err
		}
	}
	return nil
}

// course draws the means of the cells between the lowest and the highest of them; where nothing was measured it is blank.
func (s *spark) course(steps []rune) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range s.cells {
		if c.values > 0 {
			low, high = min(low, c.mean), max(high, c.mean)
		}
	}
	text := make([]rune, len(s.cells))
	for i, c := range s.cells {
		switch {
		case c.values == 0:
			text[i] = ' '
		case low == high:
			text[i] = steps[len(steps)/2]
		default:
			part := (c.mean/2 - low/2) / (high/2 - low/2) // halves: the largest floats are far apart
			if !(part > 0) {                              // the smallest floats are too near
				part = 0
			}
			text[i] = steps[min(int(part*float64(len(steps))), len(steps)-1)]
		}
	}
	return string(text)
}
