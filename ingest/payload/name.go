package payload

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxNameBytes = 64   // of a metric
	maxNames     = 1024 // metric names kept for reuse
	maxTextBytes = 64   // of what could not be read
	maxPathBytes = 128  // of a field that could not be read
)

// origin says how a field came to its metric's name. Of two fields that mean one metric the higher one counts.
type origin uint8

const (
	old   origin = iota // "light", the old system's name for light_level
	other               // the name in another case
	exactly
)

// names is what the four metrics of the old system are called; they are known in any case.
var names = [...]string{"soil_moisture", "temperature", "humidity", "light_level"}

// known returns the name of one of the four metrics for a key that means it, and otherwise the key.
func known(key []byte) ([]byte, origin) {
	switch len(key) {
	case len("light"), len("humidity"), len("temperature"), len("soil_moisture"):
	default:
		return key, exactly
	}
	if strings.EqualFold(string(key), "light") {
		return []byte("light_level"), old
	}
	for _, name := range names {
		if string(key) == name {
			return key, exactly
		}
		if strings.EqualFold(string(key), name) {
			return []byte(name), other
		}
	}
	return key, exactly
}

// printable tells whether a name is text that a person can read: not empty, valid UTF-8, no control characters. The
// backslash and the replacement character are what is left of broken escapes.
func printable(name string) bool {
	for _, r := range name {
		if r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return name != ""
}

// cut returns text, or the beginning of it, as a string.
func cut(text []byte, limit int) string {
	if len(text) <= limit {
		return string(text)
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return string(text[:limit])
}
