package payload

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// Why a number cannot be read.
const (
	notANumber  = "not a number"
	tooLarge    = "number too large"
	tooManyBits = "number not exact" // it has more digits than a float64 holds, and would be rounded in silence
)

// Number reads a number as JSON and people write it: a sign, digits with one point among them, and an exponent, with
// blanks around. That is unambiguous; a comma, a unit, hexadecimal digits, nan and inf are not, nor is a whole number that
// begins with a nought, which is a name. What is read is finite. A number too large for a float64, a whole one beyond 2^53
// that a float64 cannot hold, and one that would become 0 without being 0 are not read.
func Number(text []byte) (value float64, ok bool) {
	value, why := number(text)
	return value, why == ""
}

func number(text []byte) (value float64, why string) {
	text = bytes.Trim(text, " \t\r\n")
	whole, fraction, exponent, ok := digits(text)
	if !ok {
		return 0, notANumber
	}
	value, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil: // the one error of what digits accepts: range
		return 0, tooLarge
	case value == 0 && (bytes.ContainsAny(whole, "123456789") || bytes.ContainsAny(fraction, "123456789")):
		return 0, tooManyBits
	case math.Abs(value) >= 1<<53 && !exponent && (len(bytes.Trim(fraction, "0")) > 0 || !exact(value, whole)):
		return 0, tooManyBits
	}
	return value, ""
}

// digits takes a number apart; ok tells whether it is one.
func digits(text []byte) (whole, fraction []byte, exponent, ok bool) {
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		text = text[1:]
	}
	whole, text = run(text)
	point := len(text) > 0 && text[0] == '.'
	if point {
		fraction, text = run(text[1:])
	}
	if len(whole)+len(fraction) == 0 || !point && len(whole) > 1 && whole[0] == '0' {
		return nil, nil, false, false
	}
	if len(text) > 0 && (text[0] == 'e' || text[0] == 'E') {
		exponent, text = true, text[1:]
		if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		var power []byte
		if power, text = run(text); len(power) == 0 {
			return nil, nil, false, false
		}
	}
	return whole, fraction, exponent, len(text) == 0
}

// run splits text behind the digits that it begins with.
func run(text []byte) (digits, rest []byte) {
	for i, c := range text {
		if c < '0' || c > '9' {
			return text[:i], text[i:]
		}
	}
	return text, nil
}

// exact tells whether a float64 is the whole number with these digits.
func exact(value float64, digits []byte) bool {
	var buffer [400]byte
	written := strconv.AppendFloat(buffer[:0], math.Abs(value), 'f', 0, 64)
	return string(written) == strings.TrimLeft(string(digits), "0")
}
