package ingest

import (
	"math"
	"strconv"
	"time"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

var (
	earliest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)

// timestamp reads a device's time, in UTC milliseconds: an RFC 3339 text, or a number (also as a string) of Unix
// milliseconds from 1e12 on and of Unix seconds from 1e9 on. What is smaller is a device's uptime. That, a text without
// a zone, and a time before 2020 or more than a day after received are impossible: the time of arrival takes their
// place. While our own clock is not to be trusted, it is no measure of the future either.
func timestamp(v *fastjson.Value, received int64, clockUnsure bool) (int64, store.TimeSource) {
	var at int64
	switch v.Type() {
	case fastjson.TypeNull:
		return received, store.FromArrival
	case fastjson.TypeNumber:
		at = fromNumber(v.GetFloat64()) // a float64 counts milliseconds exactly for longer than anybody lives
	case fastjson.TypeString:
		at = fromText(string(v.GetStringBytes()))
	}
	until := received + (24 * time.Hour).Milliseconds()
	if clockUnsure {
		until = latest
	}
	if at < earliest || at > until {
		return received, store.FromArrivalImpossible
	}
	return at, store.FromDevice
}

// fromNumber returns 0 for a number that is no time.
func fromNumber(n float64) int64 {
	if n < 1e12 {
		n *= 1000
	}
	if !(n >= 1e12 && n < 1e14) { // NaN ends here too
		return 0
	}
	return int64(math.Round(n))
}

// fromText returns 0 for a text that is no time.
func fromText(s string) int64 {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at.UnixMilli()
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return fromNumber(n)
}
