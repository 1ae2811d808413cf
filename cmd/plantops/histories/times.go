package histories

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var (
	errNoTime   = errors.New("not a time")
	errNoZone   = errors.New("the time says no zone: name one with --tz, for instance --tz UTC or --tz Europe/Berlin")
	errNotThere = errors.New("no such time in this zone: clocks were put forward then")
	errOrder    = errors.New("is it the day or the month that comes first? say it with --time-format, for instance '%d/%m/%Y %H:%M'")
)

// Since 1973 a number of seconds has 9 digits or more, and until 5138 at most 11; so a number says what it counts.
const (
	maxSeconds = 1e11
	maxMillis  = 1e14
	maxMicros  = 1e17
)

// epoch are the milliseconds of a time since 1970 in seconds, milliseconds, microseconds or nanoseconds.
func epoch(n int64) int64 {
	switch size := math.Abs(float64(n)); {
	case size < maxSeconds:
		return n * 1000
	case size < maxMillis:
		return n
	case size < maxMicros:
		return floorDiv(n, 1000)
	}
	return floorDiv(n, 1_000_000)
}

// clock reads times as text.
type clock struct {
	layout string // of package time; "": finds out
	unix   bool   // seconds since 1970
	zone   *time.Location
}

// parse returns UTC milliseconds. Previous is the time before it in the file, by which the second of two equal hours in autumn is
// told from the first; 0: none.
func (c *clock) parse(text string, previous int64) (int64, error) {
	text = strings.TrimSpace(text)
	if ms, ok := number([]byte(text)); ok && text != "" && (c.layout == "" || c.unix) {
		if c.unix {
			return int64(math.Floor(ms * 1000)), nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return epoch(n), nil
		}
		if math.Abs(ms) < maxSeconds {
			return int64(math.Floor(ms*1000 + 1e-6)), nil
		}
		return int64(math.Floor(ms)), nil
	}
	if c.unix {
		return 0, errNoTime
	}
	if c.layout == "" {
		w, err := parseWall(text)
		if err != nil {
			return 0, err
		}
		return c.resolve(w, previous)
	}
	t, err := time.Parse(c.layout, text)
	if err != nil {
		return 0, errNoTime
	}
	return c.resolve(wall{t, strings.Contains(c.layout, "-07")}, previous)
}

// wall is what a clock showed. Without zone it is as if it had been in UTC.
type wall struct {
	time  time.Time
	zoned bool
}

// resolve finds the moment of a wall clock.
func (c *clock) resolve(w wall, previous int64) (int64, error) {
	if w.zoned {
		return w.time.UnixMilli(), nil
	}
	if c.zone == nil {
		return 0, errNoZone
	}
	shown := w.time.UnixMilli()
	var found []int64
	for _, day := range []time.Duration{-24 * time.Hour, 24 * time.Hour} { // the offsets before and after a change
		_, offset := w.time.Add(day).In(c.zone).Zone()
		at := shown - int64(offset)*1000
		if _, there := time.UnixMilli(at).In(c.zone).Zone(); there == offset && (len(found) == 0 || found[0] != at) {
			found = append(found, at)
		}
	}
	switch {
	case len(found) == 0:
		return 0, errNotThere
	case len(found) == 2 && min(found[0], found[1]) < previous:
		return max(found[0], found[1]), nil
	case len(found) == 2:
		return min(found[0], found[1]), nil
	}
	return found[0], nil
}

// parseWall reads 2024-01-31T12:30:05.123+01:00 and what is like it: a space for the T, / for -, no seconds, no zone, "UTC"; and
// 31.1.2024 12:30.
func parseWall(text string) (wall, error) {
	s := scanner{text: text}
	a := s.int()
	separator := s.byte()
	b := s.int()
	if s.byte() != separator || separator != '-' && separator != '/' && separator != '.' {
		return wall{}, errNoTime
	}
	c := s.int()
	switch {
	case s.bad:
		return wall{}, errNoTime
	case a > 31: // the year comes first
	case separator == '.':
		a, c = c, a
	default:
		return wall{}, errOrder
	}
	year, month, day := a, b, c
	var hour, minute, second, nanos int
	if strings.HasPrefix(s.text, "T") || strings.HasPrefix(s.text, " ") || strings.HasPrefix(s.text, ", ") {
		s.text = strings.TrimLeft(s.text, "T, ")
		hour = s.int()
		if s.byte() != ':' {
			return wall{}, errNoTime
		}
		if minute = s.int(); s.take(":") {
			if second = s.int(); s.take(".") || s.take(",") {
				nanos = s.fraction()
			}
		}
	}
	if s.bad || year < 1000 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return wall{}, errNoTime
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if t.Day() != day {
		return wall{}, errNoTime
	}
	return zoned(t, strings.TrimSpace(s.text))
}

// zoned adds what stands behind a time.
func zoned(t time.Time, rest string) (wall, error) {
	switch rest {
	case "":
		return wall{t, false}, nil
	case "Z", "z", "UTC", "GMT":
		return wall{t, true}, nil
	}
	s := scanner{text: rest[1:]}
	hours, minutes := s.int(), 0
	switch digits := len(rest) - 1 - len(s.text); {
	case digits == 4:
		hours, minutes = hours/100, hours%100
	case digits <= 2 && s.take(":"):
		minutes = s.int()
	}
	if rest[0] != '+' && rest[0] != '-' || s.bad || s.text != "" || hours > 15 || minutes > 59 {
		return wall{}, errNoTime
	}
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if rest[0] == '-' {
		offset = -offset
	}
	return wall{t.Add(-offset), true}, nil
}

// scanner takes numbers and characters from the front of a text. Bad means that something was not there.
type scanner struct {
	text string
	bad  bool
}

func (s *scanner) int() (n int) {
	i := 0
	for ; i < len(s.text) && i < 9 && s.text[i] >= '0' && s.text[i] <= '9'; i++ {
		n = n*10 + int(s.text[i]-'0')
	}
	s.bad = s.bad || i == 0
	s.text = s.text[i:]
	return n
}

// fraction reads the digits of a fraction as billionths.
func (s *scanner) fraction() (nanos int) {
	i := 0
	for unit := 100_000_000; i < len(s.text) && s.text[i] >= '0' && s.text[i] <= '9'; i++ {
		nanos += int(s.text[i]-'0') * unit
		unit /= 10
	}
	s.bad = s.bad || i == 0
	s.text = s.text[i:]
	return nanos
}

func (s *scanner) byte() (c byte) {
	if s.text == "" {
		s.bad = true
		return 0
	}
	c, s.text = s.text[0], s.text[1:]
	return c
}

func (s *scanner) take(prefix string) (found bool) {
	s.text, found = strings.CutPrefix(s.text, prefix)
	return found
}

// strftime are the directives of strftime(3) that --time-format takes, in the language of package time. A fraction behind the seconds
// is read without being named.
var strftime = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'z': "-0700", 'T': "15:04:05", 'F': "2006-01-02", '%': "%",
}

// newClock returns a clock for a --time-format: "" finds out, %s are seconds since 1970.
func newClock(format string, zone *time.Location) (clock, error) {
	c := clock{zone: zone}
	if format == "%s" {
		c.unix = true
		return c, nil
	}
	format = strings.ReplaceAll(strings.ReplaceAll(format, ".%f", ""), ",%f", "")
	var layout strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] >= '0' && format[i] <= '9' {
			return c, wrongOptions("--time-format %s: a digit can stand in a time, but not in its format", format)
		}
		if format[i] != '%' {
			layout.WriteByte(format[i])
			continue
		}
		i++
		if i == len(format) || strftime[format[i]] == "" {
			return c, wrongOptions("--time-format %s: use %%Y %%m %%d %%H %%M %%S and the like, or %%s", format)
		}
		layout.WriteString(strftime[format[i]])
	}
	c.layout = layout.String()
	return c, nil
}
