package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/block/blocktest"
	"github.com/plantops/plantops/store/storetest"
)

const (
	wearEvery = 5 * time.Minute
	wearBegin = int64(1_767_225_600_000) // 2026-01-01
)

// BenchmarkWear is what readings take of a disk and what they write to it: 1,000 devices that send 4.3 metrics every five minutes, so
// many messages a commit, counters, compaction and the journal of a broker included, in which one message of 200 waits for a session and
// is retained. Hours are the tables for other programs. PLANTOPS_BENCH_DAYS says for how many days; a year is 105 million readings.
// One operation is all of it.
func BenchmarkWear(b *testing.B) {
	days, err := strconv.Atoi(os.Getenv("PLANTOPS_BENCH_DAYS"))
	for _, c := range []struct {
		name            string
		devices, commit int
		days            int
		hours, house    bool
	}{
		{"commit=1000", 1000, 1000, 36, false, true},
		{"commit=33", 1000, 33, 4, false, true},
		{"commit=33,alone", 1000, 33, 4, false, false},
		{"commit=1000,hours", 1000, 1000, 4, true, true},
		{"commit=1000,devices=10000", 10_000, 1000, 4, false, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			if err == nil {
				c.days = days
			}
			for range b.N {
				n := c.days * 288 * c.devices
				f := storetest.NewFleet(c.devices, time.UnixMilli(wearBegin), wearEvery)
				o := f.Options(filepath.Join(b.TempDir(), "plantops.db"))
				s, err := store.Open(b.Context(), o)
				require.NoError(b, err)
				var h *house
				if c.house {
					h = &house{}
					s.Attach(h)
				}
				cpu, written := cpuTime(b), writtenBytes(b)
				for done := 0; done < n; {
					some := n - done
					if c.hours {
						some = min(some, c.devices)
					}
					for left := some; left > 0; left -= c.commit {
						now := min(left, c.commit)
						if h != nil {
							h.hear(now)
						}
						require.NoError(b, f.Fill(b.Context(), s, now, now))
					}
					if done += some; c.hours {
						require.NoError(b, s.WriteTables(b.Context(), store.TableOptions{Hourly: true}))
					}
				}
				if h != nil {
					require.NoError(b, s.Detach(b.Context()))
				}
				require.NoError(b, s.Close())
				per := func(total int64) float64 { return float64(total) / float64(n) }
				b.ReportMetric(per(writtenBytes(b)-written), "written-B/reading")
				b.ReportMetric(per(int64(cpuTime(b)-cpu)), "cpu-ns/reading")
				file, err := os.Stat(o.Path)
				require.NoError(b, err)
				kept, least := per(file.Size()), leastBytes(c.days)
				b.ReportMetric(kept, "kept-B/reading")
				b.ReportMetric(kept/least, "kept/entropy")
				b.ReportMetric(float64(n), "readings")
			}
		})
	}
}

// leastBytes is the entropy of what a part of the fleet sends, for each reading.
func leastBytes(days int) float64 {
	const devices, step = 20, 7 // so that each kind is among them
	bits := 0.0
	for i := range devices {
		bits += blocktest.Entropy(blocktest.New(storetest.FleetSeed, i*step, wearBegin, wearEvery.Milliseconds()).Readings(days * 288))
	}
	return bits / 8 / float64(devices*days*288)
}

// house is a broker of some other clients: one message of 200 goes into the queue of one of ten sessions, which acknowledge it 100
// batches later, and becomes the retained message of one of 100 topics.
type house struct {
	heard, next int
	number      int64
	last        [10]uint64
}

// hear says that messages of devices come: who writes takes the others with them.
func (h *house) hear(n int) { h.heard += n }

func (h *house) Take() *journal.Batch {
	n := h.heard / 200
	if n == 0 {
		return nil
	}
	h.heard -= n * 200
	h.number++
	c := &journal.Batch{Number: h.number, Messages: make([]byte, 120*n)}
	for id, entries := range h.shares(n) {
		if entries == 0 {
			continue
		}
		first := h.last[id] + 1
		h.last[id] += uint64(entries)
		c.Queues = append(c.Queues, journal.Queue{Session: journal.SessionID(id + 1), First: first, Last: h.last[id], Messages: entries, Bytes: 120, Entries: make([]byte, 8*entries)})
		c.Trims = append(c.Trims, journal.Trim{Session: journal.SessionID(id + 1), Before: max(first, 100) - 100})
	}
	for range n {
		h.next++
		c.Retained = append(c.Retained, journal.Retained{Topic: fmt.Sprint("house/", h.next%100), Message: fmt.Appendf(nil, "%120d", h.next)})
	}
	return c
}

func (h *house) shares(n int) (of [10]int) {
	for i := range n {
		of[(h.next+i)%len(of)]++
	}
	return of
}

func (h *house) Done(*journal.Batch, error) {}
func (h *house) Rewrite()                   {}
