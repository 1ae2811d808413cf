package ingest

import (
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

// maxAge bounds the age of a reading, in milliseconds, while our own clock is no measure of it.
const maxAge = 10 * 365 * 24 * 3600 * 1000

// told is what a device says about the message beside its readings. A device that has no time says how old a reading is,
// and numbers its messages so that one that it sends again is known.
type told struct {
	numbering store.Numbering
	age       int64 // ms from the reading to the moment of sending
	aged      bool  // there is an age
}

// isTold tells whether a field of a message from such a device is no reading.
func isTold(key []byte) bool {
	switch string(key) {
	case "boot_id", "sequence", "age_ms", "dropped":
		return true
	}
	return false
}

// tell reads what the device says. A message with neither boot_id nor age_ms says nothing: its sequence and dropped, if it
// has them, are readings.
func tell(o *fastjson.Object) (t told, ok bool) {
	id, age := o.Get("boot_id"), o.Get("age_ms")
	if id == nil && age == nil {
		return told{}, false
	}
	boot, named := bootID(id)
	sequence, numbered := whole(o.Get("sequence"))
	if named && numbered {
		t.numbering.Boot, t.numbering.Sequence = boot, sequence
	}
	t.numbering.Dropped, _ = whole(o.Get("dropped"))
	t.age, t.aged = whole(age)
	return t, true
}

// when dates a message that arrived at received and has no time of its own.
func (t *told) when(received int64, clockUnsure bool) (int64, store.TimeSource) {
	switch {
	case !t.aged:
		return received, store.FromArrival
	case clockUnsure && t.age <= maxAge, !clockUnsure && t.age <= received-earliest:
		return received - t.age, store.FromAge
	}
	return received, store.FromArrivalImpossible
}

const maxBootID = 32

// bootID reads 1 to 32 letters, digits, - and _.
func bootID(v *fastjson.Value) (string, bool) {
	text := scalar(v)
	if len(text) == 0 || len(text) > maxBootID {
		return "", false
	}
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '-', c == '_':
		default:
			return "", false
		}
	}
	return string(text), true
}

// whole reads a whole number from 0 to 2^63-1.
func whole(v *fastjson.Value) (int64, bool) {
	text := string(scalar(v))
	if n, err := strconv.ParseUint(text, 10, 63); err == nil {
		return int64(n), true
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n <= 1<<53 && n == math.Trunc(n) && isNumber([]byte(text)) {
		return int64(n), true
	}
	return 0, false
}

// scalar returns the text of a string or a number, nil for anything else.
func scalar(v *fastjson.Value) []byte {
	if v == nil {
		return nil
	}
	switch v.Type() {
	case fastjson.TypeString:
		return v.GetStringBytes()
	case fastjson.TypeNumber:
		return v.MarshalTo(nil)
	}
	return nil
}
