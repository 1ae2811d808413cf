package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Trim takes off what is no part of a text: a byte order mark before it, noughts behind it (firmware that sends the whole of
// its buffer, or the end of a C string), and blanks.
func Trim(payload []byte) []byte {
	payload = bytes.TrimPrefix(payload, []byte("\xef\xbb\xbf"))
	return bytes.TrimRight(bytes.TrimLeft(payload, " \t\r\n"), " \t\r\n\x00")
}

// Repair puts quotes around the bare words that programs write for a number that is none: nan, inf and their like. JSON does
// not have them, and one broken sensor must not lose the others; as texts they are no numbers. changed is false, and the
// result the text itself, when there is none.
func Repair(text []byte) (repaired []byte, changed bool) {
	for i, last := 0, byte('['); i < len(text); {
		c := text[i]
		n := 1
		switch {
		case c == '"':
			n = quoted(text[i:])
		case last == ':' || last == ',' || last == '[':
			if word := bareWord(text[i:]); isNone(word) && endsValue(text[i+len(word):]) {
				if !changed {
					repaired, changed = append(repaired, text[:i]...), true
				}
				n = len(word)
				repaired = append(append(append(repaired, '"'), word...), '"')
				last, i = '"', i+n
				continue
			}
		}
		if changed {
			repaired = append(repaired, text[i:i+n]...)
		}
		if !isBlank(c) {
			last = c
		}
		i += n
	}
	if !changed {
		return text, false
	}
	return repaired, true
}

// quoted returns how many bytes a string takes, with its quotes.
func quoted(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// bareWord returns the word that text begins with.
func bareWord(text []byte) []byte {
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', strings.IndexByte("+-._#()", c) >= 0:
		default:
			return text[:i]
		}
	}
	return text
}

// endsValue tells whether a value may end where text begins.
func endsValue(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) == 0 || text[0] == ',' || text[0] == '}' || text[0] == ']'
}

// isNone tells whether a word stands for a number that is none: in C and what is built on it (nan, inf, nan(ind)), in
// Arduino's Print (ovf), in old Windows (1.#QNAN), in JavaScript (NaN, Infinity, undefined) and in Python (None).
func isNone(word []byte) bool {
	if len(word) == 0 || len(word) > 16 {
		return false
	}
	lower := strings.TrimLeft(strings.ToLower(string(word)), "+-")
	switch lower {
	case "nan", "inf", "infinity", "ovf", "undefined", "none":
		return len(word)-len(lower) <= 1
	}
	return strings.HasPrefix(lower, "nan(") || strings.HasPrefix(lower, "1.#")
}

// problem says why text is no JSON text, "" if it is. fastjson alone takes nan, 01, control characters, broken escapes and
// broken UTF-8.
func problem(text []byte) string {
	switch {
	case len(text) == 0:
		return "empty payload"
	case !utf8.Valid(text):
		return "not UTF-8"
	case json.Valid(text):
		return ""
	}
	return "not JSON: " + fault(text)
}

// fault says in words where text, which is no JSON text, goes wrong. It does not say at which byte: reasons are counted.
func fault(text []byte) string {
	var any json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, &any); !errors.As(err, &syntax) || strings.HasPrefix(err.Error(), "unexpected end") {
		return "it ends too early"
	}
	at := int(syntax.Offset) - 1
	if at < 0 || at >= len(text) {
		return "it ends too early"
	}
	if strings.Contains(syntax.Error(), "max depth") {
		return "nested too deeply"
	}
	r, _ := utf8.DecodeRune(text[at:])
	return fmt.Sprintf("unexpected %q", r)
}

// objectLines returns the lines of a text that has a JSON object in the first of several; nil for any other text.
func objectLines(text []byte) [][]byte {
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) < 2 || !isObject(lines[0]) {
		return nil
	}
	return lines
}

func isObject(line []byte) bool {
	line = bytes.Trim(line, " \t\r")
	return len(line) > 0 && line[0] == '{' && json.Valid(line)
}
