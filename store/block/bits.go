package block

import (
	"encoding/binary"
	"math/bits"
)

// Numbers stand in groups of 32 in one stream of bits, least significant bit first. A group has one of two forms, whichever
// takes fewer bits:
//
//   - packed: each number in the same few bits; what is too large for them follows, with its place in the group (patched
//     frame of reference). Good for what is constant but for an outlier, and for what is no noise.
//   - Rice: number>>k in unary, then k bits. Noise takes it to within some percent of its entropy.
//
// A bit before each group says whether it has form and width of the one before.
const (
	groupSize = 32

	// unaryEnd is how many zeros mean that the number follows in full, after its length in 6 bits.
	unaryEnd = 16
	// maxRice lets a number in Rice form be read from one word: unaryEnd + 1 + maxRice bits are at most 57.
	maxRice = 40

	lengthBits = 6 // length of a number, less one
	placeBits  = 5 // in a group
	widthBits  = 7 // of a group, 0 to 64

	// slackBytes is more than a group can take: 32 numbers of 64 bits, and each again as an exception.
	slackBytes = 640
)

// form is how a group is written.
type form struct {
	rice  bool
	width int
}

// bitWriter appends bits to a slice.
type bitWriter struct {
	b   []byte
	acc uint64
	n   uint // bits in acc, below 64
}

// put appends the n low bits of v, which has no others.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.n
	if w.n+n >= 64 {
		w.b = binary.LittleEndian.AppendUint64(w.b, w.acc)
		w.acc = v >> (64 - w.n)
		w.n -= 64
	}
	w.n += n
}

// finish fills the last byte with zeros.
func (w *bitWriter) finish() []byte {
	for ; w.n > 0; w.n -= min(w.n, 8) {
		w.b = append(w.b, byte(w.acc))
		w.acc >>= 8
	}
	return w.b
}

// appendGroups appends numbers as a stream that ends with a whole byte.
func appendGroups(dst []byte, numbers []uint64) []byte {
	w := bitWriter{b: dst}
	last := form{}
	for len(numbers) > 0 {
		group := numbers[:min(groupSize, len(numbers))]
		numbers = numbers[len(group):]
		f := chooseForm(group, last)
		if f == last {
			w.put(1, 1)
		} else {
			w.put(uint64(f.width)<<2|b2u(f.rice)<<1, 2+widthBits)
		}
		last = f
		if f.rice {
			w.rice(group, uint(f.width))
		} else {
			w.packed(group, uint(f.width))
		}
	}
	return w.finish()
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// chooseForm finds the form that takes the fewest bits, where another form than the last one takes 8 for itself.
func chooseForm(group []uint64, last form) form {
	var lengths [65]uint8
	all, sum := uint64(0), uint64(0)
	for _, u := range group {
		lengths[bits.Len64(u)]++
		all |= u
		sum += min(u, 1<<50)
	}
	n, longest := len(group), bits.Len64(all)

	best := form{width: longest}
	cost := n*longest + 1
	if !last.rice && last.width > longest {
		if c := n*last.width + 1 - widthBits - 1; c < cost {
			best, cost = last, c
		}
	}
	exceptions := 0
	for width := longest - 1; width >= 0; width-- {
		exceptions += int(lengths[width+1])
		if exceptions*(placeBits+longest-width) >= cost {
			break
		}
		c := n*width + 1 + placeBits + lengthBits + exceptions*(placeBits+longest-width)
		if !last.rice && last.width == width {
			c -= widthBits + 1
		}
		if c < cost {
			best, cost = form{width: width}, c
		}
	}
	if cost <= n {
		return best // Rice takes a bit for each
	}
	// With k the length of the mean less one, the numbers and the bits in front of them take the least.
	k := min(max(bits.Len64(sum/uint64(n))-1, 0), maxRice)
	for _, k := range [...]int{k, last.width} {
		c := riceCost(group, uint(k), &lengths, longest)
		if last.rice && last.width == k {
			c -= widthBits + 1
		}
		if c < cost {
			best, cost = form{true, k}, c
		}
		if !last.rice || last.width < k-1 || last.width > k+1 {
			break
		}
	}
	return best
}

// riceCost is about what a group takes in Rice form, without its head.
func riceCost(group []uint64, k uint, lengths *[65]uint8, longest int) int {
	const escaped = unaryEnd + lengthBits + 4 // more than in unary, when it is just too large
	sum := uint64(0)
	for _, u := range group {
		sum += min(u>>(k&63), escaped)
	}
	c := len(group)*int(k+1) + int(sum)
	for length := int(k) + 6; length <= longest; length++ {
		c += int(lengths[length]) * (length - int(k) - 5)
	}
	return c
}

func (w *bitWriter) packed(group []uint64, width uint) {
	mask := uint64(1)<<width - 1
	above := uint64(0)
	exceptions := 0
	for _, u := range group {
		above |= u >> width
		exceptions += int(b2u(u>>width != 0))
	}
	length := uint(bits.Len64(above))
	if exceptions == 0 {
		w.put(0, 1)
	} else {
		w.put(1, 1)
		w.put(uint64(exceptions-1), placeBits)
		w.put(uint64(length-1), lengthBits)
	}
	for _, u := range group {
		w.put(u&mask, width)
	}
	if exceptions == 0 {
		return
	}
	for i, u := range group {
		if high := u >> width; high != 0 {
			w.put(uint64(i), placeBits)
			w.put(high, length)
		}
	}
}

func (w *bitWriter) rice(group []uint64, k uint) {
	mask := uint64(1)<<k - 1
	for _, u := range group {
		q := u >> k
		if q < unaryEnd {
			w.put((u&mask<<1|1)<<q, uint(q)+1+k)
			continue
		}
		length := uint(bits.Len64(u))
		w.put(0, unaryEnd)
		w.put(uint64(length-1), lengthBits)
		w.put(u, length)
	}
}

// bitReader reads at a bit of a slice that is at least slackBytes longer than what is to be read.
type bitReader struct {
	b   []byte
	pos int
}

// get reads n bits, at most 64.
func (r *bitReader) get(n int) uint64 {
	at, shift := r.pos>>3, uint(r.pos&7)
	u := binary.LittleEndian.Uint64(r.b[at:]) >> shift
	if int(shift)+n > 64 {
		u |= uint64(r.b[at+8]) << (64 - shift)
	}
	r.pos += n
	return u & (1<<uint(n) - 1)
}

// readGroups fills numbers, at least one, from a stream that appendGroups wrote, and that ends where it ended.
func readGroups(numbers []uint64, stream []byte) bool {
	var tail [2 * slackBytes]byte
	r := bitReader{b: stream}
	end := len(stream)
	inTail := false
	last := form{}
	for len(numbers) > 0 {
		if !inTail && end-r.pos>>3 < slackBytes {
			from := min(r.pos>>3, end)
			copy(tail[:], stream[from:])
			r = bitReader{tail[:], r.pos - from<<3}
			end, inTail = end-from, true
		}
		group := numbers[:min(groupSize, len(numbers))]
		numbers = numbers[len(group):]
		if r.get(1) == 0 {
			f := r.get(1 + widthBits)
			next := form{f&1 != 0, int(f >> 1)}
			if next == last || next.width > 64 || next.rice && next.width > maxRice {
				return false
			}
			last = next
		}
		ok := true
		if last.rice {
			r.rice(group, last.width)
		} else {
			ok = r.packed(group, last.width)
		}
		if !ok || r.pos > end<<3 {
			return false
		}
	}
	return (r.pos+7)>>3 == end && r.get(-r.pos&7) == 0
}

func (r *bitReader) packed(group []uint64, width int) bool {
	exceptions, length := 0, 0
	if r.get(1) != 0 {
		exceptions = int(r.get(placeBits)) + 1
		length = int(r.get(lengthBits)) + 1
	}
	switch {
	case width == 0:
		clear(group)
	case width <= 57:
		b, pos, mask := r.b, r.pos, uint64(1)<<uint(width)-1
		for i := range group {
			group[i] = binary.LittleEndian.Uint64(b[pos>>3:]) >> uint(pos&7) & mask
			pos += width
		}
		r.pos = pos
	default:
		for i := range group {
			group[i] = r.get(width)
		}
	}
	before := -1
	for range exceptions {
		place := int(r.get(placeBits))
		high := r.get(length)
		if place <= before || place >= len(group) || width+bitLength(high) > 64 || high == 0 {
			return false
		}
		before = place
		group[place] |= high << uint(width)
	}
	return true
}

func bitLength(u uint64) int { return bits.Len64(u) }

func (r *bitReader) rice(group []uint64, k int) {
	b, pos, mask := r.b, r.pos, uint64(1)<<uint(k)-1
	for i := range group {
		u := binary.LittleEndian.Uint64(b[pos>>3:]) >> uint(pos&7)
		q := bits.TrailingZeros64(u)
		if q >= unaryEnd {
			r.pos = pos + unaryEnd
			group[i] = r.get(int(r.get(lengthBits)) + 1)
			pos = r.pos
			continue
		}
		group[i] = uint64(q)<<uint(k) | u>>uint(q+1)&mask
		pos += q + 1 + k
	}
	r.pos = pos
}
