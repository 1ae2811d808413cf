package blocktest

import (
	"fmt"
	"math"
	"math/bits"
	"testing"
	"time"
)

func zz(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func entropy(x []int64) float64 {
	h := map[int64]int{}
	for _, v := range x {
		h[v]++
	}
	e := 0.0
	for _, c := range h {
		p := float64(c) / float64(len(x))
		e -= p * math.Log2(p)
	}
	return e
}

func packed(u []uint64, g int, patch bool) float64 { // bits per value
	total := 0
	for i := 0; i < len(u); i += g {
		grp := u[i:min(i+g, len(u))]
		var h [65]int
		mx := 0
		for _, v := range grp {
			l := bits.Len64(v)
			h[l]++
			mx = max(mx, l)
		}
		best := len(grp) * mx
		if patch {
			exc := 0
			for w := mx - 1; w >= 0; w-- {
				exc += h[w+1]
				best = min(best, len(grp)*w+8+exc*(bits.Len(uint(g-1))+mx-w))
			}
		}
		total += best + 8
	}
	return float64(total) / float64(len(u))
}

func rice(u []uint64, g int) float64 {
	total := 0
	for i := 0; i < len(u); i += g {
		grp := u[i:min(i+g, len(u))]
		best := math.MaxInt
		for k := 0; k < 40; k++ {
			c := len(grp) * (k + 1)
			for _, v := range grp {
				q := v >> k
				if q >= 12 {
					c += 12 + bits.Len64(v)
				} else {
					c += int(q)
				}
			}
			best = min(best, c)
		}
		total += best + 8
	}
	return float64(total) / float64(len(u))
}

func forr(x []int64, g int) float64 {
	total := 0
	for i := 0; i < len(x); i += g {
		grp := x[i:min(i+g, len(x))]
		lo, hi := grp[0], grp[0]
		for _, v := range grp {
			lo, hi = min(lo, v), max(hi, v)
		}
		total += 8 + 8 + len(grp)*bits.Len64(uint64(hi-lo))
	}
	return float64(total) / float64(len(x))
}

func TestProto(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	sum := map[string][]float64{}
	const D, N = 60, 8192
	for i := range D {
		rs := New(1, i, start, 300000).Readings(N)
		cols := map[string][]int64{}
		for _, r := range rs {
			cols["time"] = append(cols["time"], r.Time)
			cols["lag1"] = append(cols["lag1"], r.Received-r.Time)
			cols["lag100"] = append(cols["lag100"], (r.Received-r.Time+50)/100)
			cols["lag128"] = append(cols["lag128"], (r.Received-r.Time+64)/128)
			for _, v := range r.Values {
				p := 1.0
				switch v.Metric {
				case Temperature:
					p = 100
					if i/2%2 == 0 {
						p = 10
					}
				case Humidity:
					p = 10
				case Soil:
					p = 1
					if i/2%2 == 1 {
						p = 10
					}
				case Battery:
					p = 100
				}
				n := fmt.Sprint("m", v.Metric)
				cols[n] = append(cols[n], int64(math.Round(v.Value*p)))
			}
		}
		for n, c := range cols {
			d := make([]int64, len(c))
			for i := 1; i < len(c); i++ {
				d[i] = c[i] - c[i-1]
			}
			if n == "time" {
				sec := make([]int64, len(c))
				for i := 2; i < len(c); i++ {
					sec[i] = d[i] - d[i-1]
				}
				for i := 1; i < len(c); i++ {
					d[i] -= 300000
				}
				u := make([]uint64, len(c))
				for i, v := range sec {
					u[i] = zz(v)
				}
				if i%2 == 0 {
					n = "time-regular"
				}
				sum[n+"2nd"] = add(sum[n+"2nd"], []float64{1, entropy(sec), packed(u, 32, false), packed(u, 32, true), packed(u, 64, true), rice(u, 32), rice(u, 64), rice(u, 128), forr(sec, 32)})
			}
			u := make([]uint64, len(c))
			for i, v := range d {
				u[i] = zz(v)
			}
			f := c
			if n[:2] == "ti" {
				f = d
			}
			sum[n] = add(sum[n], []float64{1, entropy(d), packed(u, 32, false), packed(u, 32, true), packed(u, 64, true), rice(u, 32), rice(u, 64), rice(u, 128), forr(f, 32)})
		}
	}
	fmt.Println("            share entropy pack32 pfor32 pfor64 rice32 rice64 rice128 FOR32")
	for n, s := range sum {
		fmt.Printf("%12s %4.2f", n, s[0]/D)
		for _, v := range s[1:] {
			fmt.Printf(" %6.2f", v/s[0])
		}
		fmt.Println()
	}
}

func add(a, b []float64) []float64 {
	if a == nil {
		return b
	}
	for i := range b {
		a[i] += b[i]
	}
	return a
}
