package block_test

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/block/blocktest"
)

// TestReadingsComeBackBitForBit makes blocks of what sensors send and of what no sensor would, and records of commits of the same.
// PLANTOPS_ROUNDTRIP=100000000 is the number of readings of the long form.
func TestReadingsComeBackBitForBit(t *testing.T) {
	total := 200_000
	if long := os.Getenv("PLANTOPS_ROUNDTRIP"); long != "" {
		var err error
		total, err = strconv.Atoi(long)
		require.NoError(t, err)
	}
	r := rand.New(rand.NewPCG(11, 5))
	var c checker
	c.key = block.Key(block.Month(march), 1, 0)
	done, bytes := 0, 0
	for round := 0; done < total; round++ {
		var readings []block.Reading
		if round%2 == 0 {
			readings = blocktest.New(uint64(round), r.IntN(1000), march, 300_000).Readings(512)
		} else {
			readings = blocktest.Odd(r, 1+r.IntN(1<<r.IntN(12)), march)
		}
		bytes += c.check(t, readings)
		if done += len(readings); round%20000 == 19999 {
			t.Logf("%d readings, %.2f B each", done, float64(bytes)/float64(done))
		}
	}
	t.Logf("%d readings, no bit of difference", done)
}

type checker struct {
	key    int64
	e      block.Encoder
	d      block.Decoder
	r      block.CommitReader
	s      block.Summary
	commit block.Commit
	record []byte
	values []block.Value
}

// check returns the length of body and summary. It asks for as few assertions as it can: there are many readings.
func (c *checker) check(t *testing.T, readings []block.Reading) int {
	m, summary, body, err := c.e.Encode(c.key, readings)
	require.NoError(t, err)
	require.NoError(t, c.d.Decode(m, body))
	for i := range readings {
		got := c.d.Reading(i, c.values[:0])
		c.values = got.Values
		if off := got.Received - readings[i].Received; off > block.ReceivedStep/2 || off < -block.ReceivedStep/2 {
			t.Fatalf("reading %d received at %d, not %d", i, got.Received, readings[i].Received)
		}
		got.Received = readings[i].Received
		requireSame(t, i, &readings[i], &got)
	}
	require.NoError(t, c.d.Err())
	require.NoError(t, block.DecodeSummaryInto(&c.s, m, summary))
	c.commit.Readings = c.commit.Readings[:0]
	for i := range readings {
		c.commit.Readings = append(c.commit.Readings, block.Entry{Device: int64(i) * 7919 % 1000, Reading: readings[i]})
	}
	c.record = block.AppendCommit(c.record[:0], 1, &c.commit)
	require.NoError(t, c.r.Reset(1, c.record))
	n := 0
	for ; c.r.Next(); n++ {
		got := c.r.Entry()
		if got.Device != int64(n)*7919%1000 || got.Received != readings[n].Received {
			t.Fatalf("entry %d is %+v", n, got)
		}
		requireSame(t, n, &readings[n], &got.Reading)
	}
	require.Equal(t, len(readings), n)
	for _, s := range c.s.Metrics { // that of sums is tested elsewhere
		values, present, ok := c.d.Column(s.Metric)
		require.True(t, ok)
		count, low, high := int64(0), math.Inf(1), math.Inf(-1)
		for i, v := range values {
			if present == nil || present[i/64]>>(i%64)&1 != 0 {
				count, low, high = count+1, min(low, v), max(high, v)
			}
		}
		if count != s.Count || low != s.Min || high != s.Max {
			t.Fatalf("summary %+v, want %d values from %v to %v", s, count, low, high)
		}
	}
	return len(body) + len(summary)
}

func requireSame(t *testing.T, at int, want, got *block.Reading) {
	same := want.Time == got.Time && want.Received == got.Received && want.Flags == got.Flags && want.Given == got.Given && len(want.Values) == len(got.Values)
	if same {
		for i, v := range want.Values {
			same = same && v.Metric == got.Values[i].Metric && math.Float64bits(v.Value) == math.Float64bits(got.Values[i].Value)
		}
	}
	if !same {
		t.Fatalf("reading %d is %+v, not %+v", at, *got, *want)
	}
}

// BenchmarkSize is what a reading takes, with and without its time of arrival, and the entropy of the differences of the same data:
// of times, values, and times of arrival in steps, each sequence by itself.
func BenchmarkSize(b *testing.B) {
	for _, n := range []int{288, 512} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var got sizes
			for b.Loop() {
				got = measure(b, n)
			}
			b.ReportMetric(got.body, "body-B/reading")
			b.ReportMetric(got.received, "received-B/reading")
			b.ReportMetric(got.summary, "summary-B/reading")
			b.ReportMetric(got.record, "journal-B/reading")
			b.ReportMetric(got.entropy, "entropy-B/reading")
			b.ReportMetric(got.body/got.entropy, "body/entropy")
		})
	}
}

type sizes struct{ body, received, summary, record, entropy float64 }

const devices, perDevice = 100, 20 * 512

func measure(tb testing.TB, n int) (s sizes) {
	var e block.Encoder
	key := block.Key(block.Month(march), 1, 0)
	var all [devices][]block.Reading
	bitsOf := 0.0
	for i := range all {
		all[i] = blocktest.New(3, i, march, 200_000).Readings(perDevice)
		for at := 0; at < perDevice; at += n {
			part := all[i][at:min(at+n, perDevice)]
			_, summary, body, err := e.Encode(key, part)
			require.NoError(tb, err)
			s.body += float64(len(body))
			s.summary += float64(len(summary))
			late := append([]block.Reading(nil), part...)
			for j := range late {
				late[j].Received = late[j].Time
			}
			_, _, body, err = e.Encode(key, late)
			require.NoError(tb, err)
			s.received -= float64(len(body))
		}
		bitsOf += blocktest.Entropy(all[i])
	}
	s.received += s.body
	var c block.Commit
	for at := range perDevice {
		for i := range all {
			c.Readings = append(c.Readings, block.Entry{Device: int64(1 + i*37%1000), Reading: all[i][at]})
		}
		if len(c.Readings) == 1000 {
			s.record += float64(len(block.AppendCommit(nil, 1, &c)))
			c.Readings = c.Readings[:0]
		}
	}
	for _, p := range []*float64{&s.body, &s.received, &s.summary, &s.record} {
		*p /= devices * perDevice
	}
	s.entropy = bitsOf / 8 / (devices * perDevice)
	return s
}
