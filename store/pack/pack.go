// Package pack is the form of the values of one reading, in rows of table reading and in memory: few bytes, found fast, exact.
package pack

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/history"
)

// The form is one version byte, then per metric an unsigned varint of id<<3 | form and the value in that form.
// Sensors send short decimals, so forms 0 to 6 are a signed varint of value * 10^form, exact to the bit; it takes 2 or
// 3 bytes where the float takes 8. Form 7 is the float itself, 8 bytes, little endian.
const (
	version   = 1
	formFloat = 7
)

// maxMantissa keeps a decimal within what a float64 counts exactly.
const maxMantissa = 1 << 53

var powersOfTen = [formFloat]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6}

// ErrDamaged says that bytes are not what Append writes.
var ErrDamaged = fmt.Errorf("%w row body", history.ErrDamaged)

// Same tells whether two values of one metric are the same reading; the two zeros are.
func Same(a, b float64) bool {
	return a == b || math.Float64bits(a) == math.Float64bits(b)
}

// Append appends the encoding of pairs to dst.
func Append(dst []byte, pairs []block.Value) []byte {
	dst = append(dst, version)
	for _, p := range pairs {
		mantissa, form := decimal(p.Value)
		dst = binary.AppendUvarint(dst, uint64(p.Metric)<<3|uint64(form))
		if form == formFloat {
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(p.Value))
		} else {
			dst = binary.AppendVarint(dst, mantissa)
		}
	}
	return dst
}

// decimal finds the smallest power of ten that makes v a whole number and gives v back exactly, or formFloat.
func decimal(v float64) (mantissa int64, form int) {
	for form, power := range powersOfTen {
		scaled := math.RoundToEven(v * power)
		if !(math.Abs(scaled) <= maxMantissa) { // NaN ends here too
			break
		}
		mantissa := int64(scaled)
		if math.Float64bits(float64(mantissa)/power) == math.Float64bits(v) { // not so for -0
			return mantissa, form
		}
	}
	return 0, formFloat
}

// Decode appends the metrics of body to dst. It accepts any bytes and returns ErrDamaged for what Append never writes.
func Decode(dst []block.Value, body []byte) ([]block.Value, error) {
	if len(body) == 0 || body[0] != version {
		return dst, ErrDamaged
	}
	body = body[1:]
	for len(body) > 0 {
		head, n := binary.Uvarint(body)
		if n <= 0 || head>>3 > math.MaxUint32 {
			return dst, ErrDamaged
		}
		body = body[n:]
		p := block.Value{Metric: uint32(head >> 3)}
		if form := head & 7; form == formFloat {
			if len(body) < 8 {
				return dst, ErrDamaged
			}
			p.Value = math.Float64frombits(binary.LittleEndian.Uint64(body))
			body = body[8:]
		} else {
			mantissa, n := binary.Varint(body)
			if n <= 0 {
				return dst, ErrDamaged
			}
			p.Value = float64(mantissa) / powersOfTen[form]
			body = body[n:]
		}
		dst = append(dst, p)
	}
	return dst, nil
}
