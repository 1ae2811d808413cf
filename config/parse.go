package config

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// decimal is how whole numbers are written. Others mean one thing to YAML and
// another to people: 0123 is 83, 0x10 is 16, 1_000 is 1000.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// parse turns text from a variable, a flag or a scalar of the file into a value
// of the setting's type. The error says what would be accepted, and never
// repeats the text.
func (s setting) parse(text string) (any, error) {
	switch s.field(new(Config)).(type) {
	case *bool:
		return parseBool(strings.TrimSpace(text))
	case *int:
		return parseInt(strings.TrimSpace(text))
	case *time.Duration:
		return parseDuration(strings.TrimSpace(text))
	case *Size:
		return parseSize(strings.TrimSpace(text))
	case *[]string:
		return parseList(text)
	case *[]Source:
		return parseSources(text)
	case *[]Bridge, *[]RetentionRule, *[]AlertChannel:
		return nil, errors.New("can be written in the file only")
	}
	return text, nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, errors.New("must be true or false (yes or no, on or off, 1 or 0)")
}

func parseInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || !decimal.MatchString(text) {
		return 0, errors.New("must be a whole number, written with the digits 0 to 9 only")
	}
	return n, nil
}

// parseDuration accepts what time.ParseDuration does, and whole days. Zero
// needs no unit; whether zero makes sense is for Validate.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok && decimal.MatchString(days) {
		n, err := strconv.ParseInt(days, 10, 64)
		if d := time.Duration(n) * day; err == nil && d/day == time.Duration(n) {
			return d, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	if decimal.MatchString(text) {
		return 0, errors.New("a duration needs a unit, for example 10s, 3m, 12h or 365d")
	}
	return 0, errors.New("must be a duration, for example 10s, 3m, 12h or 365d")
}

// formatDuration writes what parseDuration reads, without the zeros that
// time.Duration.String appends.
func formatDuration(d time.Duration) string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes.
type Size int64

// sizeUnits are those of the makers of disks and cards: a thousand, not 1024.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}

// String writes what parseSize reads, with the largest unit that leaves a whole number.
func (n Size) String() string {
	for _, unit := range sizeUnits {
		if n != 0 && int64(n)%unit.bytes == 0 {
			return strconv.FormatInt(int64(n)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(n), 10)
}

// parseSize accepts a whole number of bytes, or one with a unit.
func parseSize(text string) (Size, error) {
	wrong := errors.New("must be a size, for example 500MB, 20GB or 1TB")
	times := int64(1)
	for _, unit := range sizeUnits {
		if digits, ok := strings.CutSuffix(strings.ToLower(text), strings.ToLower(unit.name)); ok {
			text, times = strings.TrimSpace(digits), unit.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || !decimal.MatchString(text) || n > math.MaxInt64/times || n < 0 {
		return 0, wrong
	}
	return Size(n * times), nil
}

func parseList(text string) ([]string, error) {
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
		if items[i] == "" {
			return nil, errors.New("has an empty item; write the items with one comma between them")
		}
	}
	return items, nil
}
