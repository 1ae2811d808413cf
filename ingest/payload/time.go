package payload

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/plantops/plantops/store"
)

// Devices whose clock was never set are before earliest; latest is no limit but a guard while our own clock is not set.
var (
	earliest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)

const (
	maxAhead = 24 * 3600 * 1000            // ms that a device's clock may be ahead of ours
	maxAge   = 10 * 365 * 24 * 3600 * 1000 // ms: the greatest age while our own clock is no measure of it
)

// Arrival is when a message came.
type Arrival struct {
	Time   int64 // UTC ms
	Unsure bool  // our own clock was not to be trusted then
}

// Possible tells whether a device's time, UTC ms, can be right: from 2020 on, and at most a day after the arrival. While our
// own clock is not to be trusted, it is no measure of the future.
func (a Arrival) Possible(at int64) bool {
	until := a.Time + maxAhead
	if a.Unsure {
		until = latest
	}
	return earliest <= at && at <= until
}

// Before dates what happened age milliseconds before the message was sent; ok is false when that cannot be. While our own
// clock is not to be trusted the answer is as wrong as the arrival is, and can be put right together with it.
func (a Arrival) Before(age int64) (at int64, ok bool) {
	if age < 0 || a.Unsure && age > maxAge || !a.Unsure && age > a.Time-earliest {
		return 0, false
	}
	return a.Time - age, true
}

// date is what a part says about its time.
type date struct {
	known bool // at is a possible time
	rank  int  // of its key; the lowest counts, of two equal ones the later
	at    int64

	rejected     bool // text is a time that is not possible
	rejectedRank int
	key, text    string
}

// loser says which of two rejected times is to be forgotten.
type loser uint8

const (
	nothing loser = iota
	older
	newer
)

// take notes a time that stands under a key of that rank. A rejected one has no key afterwards: the caller knows its path.
func (d *date) take(rank int, text []byte, a Arrival) loser {
	if at, ok := Time(string(text)); ok && a.Possible(at) {
		if !d.known || rank <= d.rank {
			d.known, d.rank, d.at = true, rank, at
		}
		return nothing
	}
	lost := nothing
	if d.rejected {
		if rank > d.rejectedRank {
			return newer
		}
		lost = older
	}
	d.rejected, d.rejectedRank, d.key, d.text = true, rank, "", cut(text, maxTextBytes)
	return lost
}

// of decides on the time of a part: the device's own, the arrival less the age, or the arrival.
func (d *date) of(a Arrival, t *told) (at int64, source store.TimeSource, given string) {
	if d.known {
		return d.at, store.FromDevice, ""
	}
	if t.aged {
		if at, ok := a.Before(t.age); ok {
			return at, store.FromAge, d.text
		}
		if !d.rejected {
			return a.Time, store.FromArrivalImpossible, "age_ms " + strconv.FormatInt(t.age, 10)
		}
	}
	if d.rejected {
		return a.Time, store.FromArrivalImpossible, d.text
	}
	return a.Time, store.FromArrival, ""
}

// timeKeys are the names of fields that are times, in lower case, the one that counts most first.
var timeKeys = [...]string{"timestamp", "ts", "time", "datetime", "epoch"}

// insideRank is the rank of a time further inside.
const insideRank = len(timeKeys)

// timeKey returns the rank of a key that names a time, in whatever case.
func timeKey(key []byte) (rank int, ok bool) {
	for rank, name := range timeKeys {
		if len(key) == len(name) && strings.EqualFold(string(key), name) {
			return rank, true
		}
	}
	return 0, false
}

// Time reads a time, in UTC milliseconds. It takes RFC 3339 and what is written for it: a blank or a small t for T, a small
// z, UTC or GMT for Z, +01 and +0100 for +01:00, no seconds, a leap second, 20261130T023000Z; and Unix time: seconds from
// 1e9 on, milliseconds from 1e12, microseconds from 1e15, nanoseconds from 1e18, each a hundredfold upwards. What is
// smaller is a device's uptime, and a text without a zone says no time.
func Time(text string) (at int64, ok bool) {
	text = strings.Trim(text, " \t\r\n")
	if strings.IndexByte(text, ':') < 0 { // a number, or 20261130T023000Z
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return fromWhole(n)
		}
		if value, ok := Number([]byte(text)); ok {
			return fromFloat(value)
		}
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UnixMilli(), true
	}
	strict, leap, ok := strictly(text)
	if !ok {
		return 0, false
	}
	t, err := time.Parse(time.RFC3339, strict)
	if err != nil {
		return 0, false
	}
	return t.Add(leap).UnixMilli(), true
}

func fromWhole(n int64) (at int64, ok bool) {
	switch {
	case n < 1e9:
		return 0, false
	case n < 1e11:
		return n * 1000, true
	case n >= 1e12 && n < 1e14:
		return n, true
	case n >= 1e15 && n < 1e17:
		return n / 1e3, true
	case n >= 1e18:
		return n / 1e6, true
	}
	return 0, false
}

func fromFloat(n float64) (at int64, ok bool) {
	switch {
	case n >= 1e9 && n < 1e11:
		return int64(math.Round(n * 1000)), true
	case n >= 1e12 && n < 1e18:
		return fromWhole(int64(math.Round(n)))
	case n >= 1e18 && n < 1e20:
		return int64(n / 1e6), true
	}
	return 0, false
}

// strictly rewrites a time as RFC 3339 has it. leap is a second that no clock face shows.
func strictly(text string) (strict string, leap time.Duration, ok bool) {
	if len(text) > maxTextBytes {
		return "", 0, false
	}
	date, rest, ok := splitDate(text)
	if !ok {
		return "", 0, false
	}
	clock, zone, ok := splitZone(rest)
	if !ok {
		return "", 0, false
	}
	if len(clock) == len("02:30") {
		clock += ":00"
	}
	if len(clock) >= len("02:30:60") && clock[6:8] == "60" {
		clock, leap = clock[:6]+"59"+clock[8:], time.Second
	}
	return date + "T" + clock + zone, leap, true
}

// splitDate returns 2026-11-30 and what follows the letter or blank behind it, of the form with hyphens and colons or of the
// one without.
func splitDate(text string) (date, rest string, ok bool) {
	const long, short = len("2026-11-30T"), len("20261130T023000")
	switch {
	case len(text) > long && strings.ContainsRune("Tt ", rune(text[long-1])):
		return text[:long-1], text[long:], true
	case len(text) > short && strings.ContainsRune("Tt", rune(text[8])):
		return text[:4] + "-" + text[4:6] + "-" + text[6:8], text[9:11] + ":" + text[11:13] + ":" + text[13:], true
	}
	return "", "", false
}

// splitZone splits 02:30:00 from what follows it, which comes back as Z or +01:00.
func splitZone(text string) (clock, zone string, ok bool) {
	for _, word := range []string{"Z", "UTC", "GMT"} {
		if n := len(text) - len(word); n > 0 && strings.EqualFold(text[n:], word) {
			return strings.TrimSuffix(text[:n], " "), "Z", true
		}
	}
	sign := strings.LastIndexAny(text, "+-")
	if sign < 0 {
		return "", "", false
	}
	clock, zone = strings.TrimSuffix(text[:sign], " "), text[sign:]
	switch len(zone) {
	case len("+01"):
		zone += ":00"
	case len("+0100"):
		zone = zone[:3] + ":" + zone[3:]
	}
	return clock, zone, true
}
