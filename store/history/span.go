package history

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Span is how long a bucket is: a length, or days or months of a calendar. At most one of them is set; zero is none.
type Span struct {
	Length time.Duration // whole milliseconds, less than a day or no whole number of days
	Days   int           // from midnight to midnight; whole weeks begin on Monday
	Months int
}

const day = 24 * time.Hour

// Every is the span of a duration: of days, where it is whole days. What is shorter than a millisecond is one.
func Every(d time.Duration) Span {
	if d > 0 && d%day == 0 {
		return Span{Days: int(d / day)}
	}
	return Span{Length: max(d.Truncate(time.Millisecond), time.Millisecond)}
}

// ParseSpan reads "15m", "1h30m", "1d", "2w", "1mo" or "1y".
func ParseSpan(text string) (Span, error) {
	for _, unit := range []struct {
		name string
		of   Span
	}{{"mo", Span{Months: 1}}, {"y", Span{Months: 12}}, {"w", Span{Days: 7}}, {"d", Span{Days: 1}}} {
		number, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return Span{}, fmt.Errorf("span %q: use a whole number of d, w, mo or y", text)
		}
		return Span{Days: unit.of.Days * int(n), Months: unit.of.Months * int(n)}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d%time.Millisecond != 0 {
		return Span{}, fmt.Errorf("span %q: use for instance 15m, 1h, 1d, 1w, 1mo or 1y", text)
	}
	return Every(d), nil
}

// IsZero reports whether there is none.
func (s Span) IsZero() bool { return s == Span{} }

// String is what ParseSpan reads.
func (s Span) String() string {
	switch {
	case s.Months > 0 && s.Months%12 == 0:
		return fmt.Sprintf("%dy", s.Months/12)
	case s.Months > 0:
		return fmt.Sprintf("%dmo", s.Months)
	case s.Days > 0 && s.Days%7 == 0:
		return fmt.Sprintf("%dw", s.Days/7)
	case s.Days > 0:
		return fmt.Sprintf("%dd", s.Days)
	}
	text := s.Length.String() // 1h0m0s
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
