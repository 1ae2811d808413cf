package block

import (
	"math"
	"math/bits"
	"slices"
)

// A column of values is a sequence of integers of one of three kinds, with exceptions for the values that the kind does not give
// back bit for bit:
//
//   - decimal: value = integer / 10^power, which is the float nearest to the decimal that the sensor sent
//   - single: the same, rounded to float32 on the way, which is what a program sends that keeps a float32 and prints a float64
//   - bits: the float's own bits, shifted right by the zeros that all have at the end; there are no exceptions
type kind struct {
	form  uint8
	power uint8 // of ten, or bits of shift
}

const (
	formDecimal = iota
	formSingle
	formBits

	// maxPower is the largest power of ten: more digits behind the point than that is noise of arithmetic, which the bits hold better.
	maxPower = 12
	// maxMantissa keeps a decimal within what a float64 counts exactly.
	maxMantissa = 1 << 53
	// maxSingle is the same for what is rounded to a float32: ten digits, where nine name each float32.
	maxSingle = 1 << 34
)

var powersOfTen = [maxPower + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}

// nearest rounds to an integer below 2^53; which way a half goes does not matter, as the result is tried.
func nearest(v float64) int64 {
	return int64(v + math.Copysign(0.5, v))
}

// decimal is the integer that gives v back exactly when it is divided by a power of ten. There is none for -0.
func decimal(v, power float64) (int64, bool) {
	scaled := v * power
	if !(scaled <= maxMantissa && scaled >= -maxMantissa) {
		return 0, false
	}
	n := nearest(scaled)
	return n, math.Float64bits(float64(n)/power) == math.Float64bits(v)
}

// single is decimal for what was rounded to a float32.
func single(v, power float64) (int64, bool) {
	scaled := v * power
	if !(scaled <= maxSingle && scaled >= -maxSingle) {
		return 0, false
	}
	n := nearest(scaled)
	return n, math.Float64bits(float64(float32(float64(n)/power))) == math.Float64bits(v)
}

// exceptionBits is what an exception takes, and digitBits what a decimal digit more takes of each value.
const (
	exceptionBits = 72
	digitBits     = 4
)

// intColumn is a column of values as integers.
type intColumn struct {
	kind
	ints       []int64
	exceptions []int32 // places in the column; the integer there is that of the value before
}

// set finds the kind of a column.
func (c *intColumn) set(values []float64) {
	for _, form := range [...]uint8{formDecimal, formSingle} {
		if form == formSingle && !c.manySingles(values) {
			break
		}
		for power := range powersOfTen {
			if c.try(values, kind{form, uint8(power)}, len(values)/16) {
				c.refine(values)
				return
			}
		}
	}
	all := uint64(0)
	for _, v := range values {
		all |= math.Float64bits(v)
	}
	shift := min(bits.TrailingZeros64(all), 63)
	c.kind, c.exceptions, c.ints = kind{formBits, uint8(shift)}, c.exceptions[:0], c.ints[:0]
	for _, v := range values {
		c.ints = append(c.ints, int64(math.Float64bits(v)>>shift))
	}
}

// try fills in the integers of a decimal kind, unless there would be more than so many exceptions.
func (c *intColumn) try(values []float64, k kind, few int) bool {
	c.kind, c.exceptions = k, c.exceptions[:0]
	ints := slices.Grow(c.ints[:0], len(values))[:len(values)]
	c.ints = ints
	power, before := powersOfTen[k.power], int64(0)
	for i, v := range values {
		var n int64
		var ok bool
		if k.form == formDecimal {
			n, ok = decimal(v, power)
		} else {
			n, ok = single(v, power)
		}
		if !ok {
			if few == len(c.exceptions) {
				return false
			}
			c.exceptions = append(c.exceptions, int32(i))
			n = before
		}
		ints[i] = n
		before = n
	}
	return true
}

// refine takes a digit more, or two, where that costs less than the exceptions do.
func (c *intColumn) refine(values []float64) {
	for digits := 1; digits <= 2; digits++ {
		k := c.kind
		left := len(c.exceptions) - 1 - digits*digitBits*len(values)/exceptionBits // what may be left to be worth it
		if left < 0 || int(k.power)+digits > maxPower {
			return
		}
		if c.try(values, kind{k.form, k.power + uint8(digits)}, left) {
			return
		}
		c.try(values, k, len(values)) // as it was
	}
}

// manySingles tells whether all but a few values are float32s.
func (c *intColumn) manySingles(values []float64) bool {
	few := len(values) / 16
	for _, v := range values {
		if float64(float32(v)) != v {
			if few--; few < 0 {
				return false
			}
		}
	}
	return true
}
