package block

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// A sequence of integers is one byte of order and flags, the first number and the base as varints, and the differences as
// groups (bits.go). All arithmetic wraps, so that any integers can be written.
//
//   - order 0: number - base
//   - order 1: number - the one before - base. base is the interval of what is regular, 0 of what is noise.
//   - order 2: difference - the one before, where base is the first difference
const (
	orderMask = 3
	flagEmpty = 4 // all differences are 0, and nothing follows
)

// sampled is how many differences are looked at to choose an order, at each of two places.
const sampled = 64

// intEncoder writes sequences of integers.
type intEncoder struct {
	numbers []uint64
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// append appends a sequence to dst.
func (e *intEncoder) append(dst []byte, list []int64) []byte {
	if len(list) == 0 {
		return dst
	}
	order, base := chooseOrder(list)
	u := slices.Grow(e.numbers[:0], len(list))[:len(list)]
	e.numbers = u
	all := uint64(0)
	switch order {
	case 0:
		for i, v := range list {
			u[i] = zigzag(v - base)
			all |= u[i]
		}
	case 1:
		before := list[0]
		for i, v := range list[1:] {
			u[i] = zigzag(v - before - base)
			all |= u[i]
			before = v
		}
	case 2:
		before, step := list[0], base
		for i, v := range list[1:] {
			u[i] = zigzag(v - before - step)
			all |= u[i]
			before, step = v, v-before
		}
	}
	if order > 0 {
		u = u[:len(list)-1]
	}
	head := byte(order)
	if all == 0 {
		head |= flagEmpty
	}
	dst = append(dst, head)
	if order > 0 {
		dst = binary.AppendVarint(dst, list[0])
	}
	dst = binary.AppendVarint(dst, base)
	if all == 0 {
		return dst
	}
	return appendGroups(dst, u)
}

// chooseOrder looks at some of the numbers.
func chooseOrder(list []int64) (order int, base int64) {
	n := len(list)
	if n < 3 {
		if n == 2 {
			return 1, list[1] - list[0]
		}
		return 0, list[0]
	}
	var steps, levels [9]int64
	for i := range steps {
		at := 1 + (n-1)*i/len(steps)
		steps[i], levels[i] = list[at]-list[at-1], list[at]
	}
	slices.Sort(steps[:])
	slices.Sort(levels[:])
	step, level := steps[len(steps)/2], levels[len(levels)/2]
	var bits0, bits1, bitsStep, bits2 int
	look := func(from, to int) {
		before, difference := list[from], list[from+1]-list[from]
		for _, v := range list[from+1 : to] {
			d := v - before
			bits0 += bits.Len64(zigzag(v - level))
			bits1 += bits.Len64(zigzag(d))
			bitsStep += bits.Len64(zigzag(d - step))
			bits2 += bits.Len64(zigzag(d - difference))
			before, difference = v, d
		}
	}
	if n <= 2*sampled {
		look(0, n)
	} else {
		look(0, sampled)
		look(n/2, n/2+sampled)
	}
	least := min(bits0, bits1, bitsStep, bits2)
	switch {
	case bits1 == least:
		return 1, 0
	case bitsStep == least:
		return 1, step
	case bits0 == least:
		return 0, level
	}
	return 2, list[1] - list[0]
}

// readInts fills list with a sequence that append wrote; b is all of it.
func readInts(list []int64, numbers *[]uint64, b []byte) bool {
	if len(list) == 0 {
		return len(b) == 0
	}
	if len(b) == 0 || b[0] > 2|flagEmpty || b[0]&orderMask == 3 {
		return false
	}
	order, empty := b[0]&orderMask, b[0]&flagEmpty != 0
	b = b[1:]
	var first, base int64
	n := 0
	if order > 0 {
		if first, n = binary.Varint(b); n <= 0 {
			return false
		}
		b = b[n:]
	}
	if base, n = binary.Varint(b); n <= 0 {
		return false
	}
	b = b[n:]
	if empty {
		if order == 0 {
			first, base = base, 0
		}
		for i := range list {
			list[i] = first
			first += base
		}
		return len(b) == 0
	}
	u := slices.Grow((*numbers)[:0], len(list))[:len(list)]
	*numbers = u
	if order > 0 {
		u = u[1:]
	}
	if len(u) == 0 || !readGroups(u, b) {
		return false
	}
	switch order {
	case 0:
		for i, x := range u {
			list[i] = unzigzag(x) + base
		}
	case 1:
		list[0] = first
		rest := list[1:][:len(u)]
		for i, x := range u {
			first += unzigzag(x) + base
			rest[i] = first
		}
	case 2:
		list[0] = first
		rest := list[1:][:len(u)]
		for i, x := range u {
			base += unzigzag(x)
			first += base
			rest[i] = first
		}
	}
	return true
}
