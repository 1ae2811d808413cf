package control

import (
	"encoding/json"
	"fmt"
	"time"
)

// Moment is a time of the database: UTC milliseconds, 0 for none. In JSON it is RFC 3339 with milliseconds, or null.
type Moment int64

const momentFormat = "2006-01-02T15:04:05.000Z"

// String is for programs: RFC 3339 with milliseconds, in UTC.
func (m Moment) String() string { return m.Time().UTC().Format(momentFormat) }

// Time is the same as a time.Time; do not ask it of 0.
func (m Moment) Time() time.Time { return time.UnixMilli(int64(m)) }

// MarshalJSON implements json.Marshaler.
func (m Moment) MarshalJSON() ([]byte, error) {
	if m == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(m.String())
}

// UnmarshalJSON implements json.Unmarshaler; null leaves m as it is.
func (m *Moment) UnmarshalJSON(text []byte) error {
	var t time.Time
	if err := json.Unmarshal(text, &t); err != nil || t.IsZero() {
		return err
	}
	*m = Moment(t.UnixMilli())
	return nil
}

// Bytes is a size. In JSON it is the plain number.
type Bytes int64

// String is for people: the size in its largest sensible unit, "1.5 MiB".
func (n Bytes) String() string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", int64(n))
	}
	value, exp := float64(n)/unit, 0
	for value >= unit && exp < 3 {
		value /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[exp])
}

// Span is a duration in its largest sensible unit.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
