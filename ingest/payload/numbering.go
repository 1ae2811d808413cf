package payload

import (
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

// told is what a device says about a message beside its readings. A device that has no time says how old a reading is
// (age_ms, when it is sent), and it numbers its messages (sequence, from each start on, which boot_id names), so that one
// that it sends again is known. dropped is how many readings it had to give up since it last said so.
type told struct {
	numbering store.Numbering
	age       int64 // ms
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

// tell reads what the device says. ok is false for a message with neither boot_id nor age_ms, which says nothing: its
// sequence and dropped, if it has them, are readings. unread is told of each field that is there and makes no sense.
func tell(o *fastjson.Object, unread func(key string, v *fastjson.Value)) (t told, ok bool) {
	id, age := o.Get("boot_id"), o.Get("age_ms")
	if id == nil && age == nil {
		return told{}, false
	}
	number := func(key string) (n int64, ok bool) {
		v := o.Get(key)
		if n, ok = whole(v); !ok && v != nil && v.Type() != fastjson.TypeNull {
			unread(key, v)
		}
		return n, ok
	}
	boot, named := bootID(id)
	if !named && id != nil && id.Type() != fastjson.TypeNull {
		unread("boot_id", id)
	}
	if sequence, numbered := number("sequence"); named && numbered {
		t.numbering.Boot, t.numbering.Sequence = boot, sequence
	}
	t.numbering.Dropped, _ = number("dropped")
	t.age, t.aged = number("age_ms")
	return t, true
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
	text := scalar(v)
	if n, err := strconv.ParseUint(string(text), 10, 63); err == nil {
		return int64(n), true
	}
	if n, ok := Number(text); ok && n >= 0 && n <= 1<<53 && n == math.Trunc(n) {
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
