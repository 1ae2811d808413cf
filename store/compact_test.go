package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/store/block"
)

// crash ends a store as a kill would: nothing of what is in memory is written.
func crash(t require.TestingT, s *Store) {
	s.stopCompaction()
	s.writing <- struct{}{}
	s.closed = true
	s.idle.Stop()
	require.NoError(t, s.disconnect())
	s.release()
}

// compacted does all steps of compaction that it would do with much more data.
func compacted(ctx context.Context, s *Store) error {
	s.writing <- struct{}{}
	s.compaction.goal, s.compaction.moving = s.journal.seq, s.hasRows
	s.release()
	for range 10_000 {
		if _, err := s.compactStep(ctx); errors.Is(err, errNothingDue) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return errors.New("it does not end")
}

// plain is a store in the plainest form.
type plain map[string]map[int64]map[string]float64

func (p plain) add(device string, time int64, metric string, value float64) Outcome {
	if p[device] == nil {
		p[device] = map[int64]map[string]float64{}
	}
	if p[device][time] == nil {
		p[device][time] = map[string]float64{}
	}
	old, there := p[device][time][metric]
	switch {
	case !there:
		p[device][time][metric] = value
		return Stored
	case old == value:
		return Duplicate
	}
	return Quarantined
}

func (p plain) compare(t require.TestingT, s *Store) {
	got, rows := plain{}, int64(0)
	for r, err := range s.Readings(context.Background(), Query{}) {
		require.NoError(t, err)
		require.Equal(t, Stored, got.add(r.Device, r.Time, r.Metric, r.Value), "%v twice", r)
	}
	for device, times := range p {
		if len(times) == 0 {
			delete(p, device)
			continue
		}
		rows += int64(len(times))
		latest := map[string]Reading{}
		for _, time := range slices.Sorted(maps.Keys(times)) {
			for metric, value := range times[time] {
				latest[metric] = Reading{Device: device, Metric: metric, Time: time, Value: value}
			}
		}
		list, err := s.Latest(context.Background(), device)
		require.NoError(t, err)
		require.Len(t, list, len(latest), "latest of %s", device)
		for _, r := range list {
			want := latest[r.Metric]
			require.Equal(t, []any{want.Time, want.Value}, []any{r.Time, r.Value}, "latest of %s", device)
		}
	}
	require.Equal(t, p, got)
	h, err := s.Health(context.Background())
	require.NoError(t, err)
	require.Equal(t, rows, h.Readings)
}

// Whatever comes in whatever order, and whatever happens to the file between: what was stored is there once.
func TestReadingsAreThereOnceWhereverTheyStand(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		o := Options{Path: filepath.Join(dir, fmt.Sprint(run, ".db"))}
		s, err := Open(context.Background(), o)
		require.NoError(t, err)
		want, cut := plain{}, int64(math.MinInt64)
		next := noon
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "append", "late", "compact", "fail", "reopen", "crash", "delete", "read", "rows"}).Draw(t, "step") {
			case "append", "late":
				var batch []Message
				var outcomes []Outcome
				for range rapid.IntRange(1, 30).Draw(t, "messages") {
					device := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "device")
					next += rapid.Int64Range(0, 40*3_600_000).Draw(t, "later") // so that months end
					time := max(next-rapid.SampledFrom([]int64{0, 0, 0, 1, 86_400_000, 40 * 86_400_000}).Draw(t, "late"), noon)
					v := Value{rapid.SampledFrom([]string{"ph", "co2", "t"}).Draw(t, "metric"), float64(rapid.IntRange(0, 3).Draw(t, "value"))}
					batch = append(batch, telemetry(device, time, v))
					outcomes = append(outcomes, want.add(device, time, v.Metric, v.Value))
				}
				got, err := s.Append(context.Background(), batch, nil)
				require.NoError(t, err)
				require.Equal(t, outcomes, got)
			case "compact":
				require.NoError(t, compacted(context.Background(), s))
			case "fail":
				after := rapid.IntRange(0, 3).Draw(t, "after")
				s.writing <- struct{}{}
				real := s.w.commit.stmt
				s.w.commit.stmt = &hooked{real, func(commit func() error) error {
					if after--; after == -1 {
						return fullError{}
					}
					return commit()
				}}
				s.release()
				if err := compacted(context.Background(), s); err != nil {
					require.ErrorIs(t, err, ErrFull)
				}
				s.writing <- struct{}{}
				s.w.commit.stmt = real
				s.release()
			case "reopen":
				require.NoError(t, s.Close())
				s, err = Open(context.Background(), o)
				require.NoError(t, err)
			case "crash":
				crash(t, s)
				s, err = Open(context.Background(), o)
				require.NoError(t, err)
			case "delete":
				cut = max(cut, next-rapid.SampledFrom([]int64{0, 86_400_000, 20 * 86_400_000}).Draw(t, "keep"))
				deleted, err := s.DeleteBefore(context.Background(), time.UnixMilli(cut))
				require.NoError(t, err)
				for _, times := range want {
					for time := range times {
						if time < cut {
							delete(times, time)
							deleted--
						}
					}
				}
				require.Zero(t, deleted)
			case "read":
				o := o
				o.ReadOnly = true
				reader, err := Open(context.Background(), o)
				require.NoError(t, err)
				want.compare(t, reader)
				require.NoError(t, reader.Close())
			case "rows": // as an earlier version left them
				require.NoError(t, s.chunk(context.Background(), func() error { return someIntoRows(s) }))
			}
			want.compare(t, s)
		}
		require.NoError(t, s.Check(context.Background()))
		require.NoError(t, s.Close())
	})
}

// someIntoRows makes rows of what the tail has, inside the running transaction.
func someIntoRows(s *Store) error {
	for _, a := range s.tail.Load().All() {
		d := s.state.byID[a.Device]
		var w scratch
		list := w.read(s.tail.Load().Slice(d.id, math.MinInt64, math.MaxInt64))
		if slices.ContainsFunc(list, func(r blockReading) bool { return r.Flags&flagExtra != 0 }) {
			continue // an earlier version knew no such
		}
		for _, r := range list {
			if _, err := s.insertRow(d, r.Time, r.Received, int64(r.Flags), r.Given, r.Values); err != nil {
				return err
			}
		}
		if err := s.replaceNewestFlushed(d); err != nil {
			return err
		}
		s.tx.flushed = append(s.tx.flushed, flushed{d, math.MinInt64, true})
	}
	return nil
}

// replaceNewestFlushed says that nothing of the journal is to be counted for a device.
func (s *Store) replaceNewestFlushed(d *device) error {
	n, err := s.newestOf(d)
	if err != nil {
		return err
	}
	n.flushed = s.journal.seq
	return s.replaceNewest(d, &n)
}

func TestALongJournalIsCutByItself(t *testing.T) {
	s := openTest(t, Options{})
	const devices, rounds = 40, flushReadings + 50
	for i := range int64(rounds) {
		batch := make([]Message, devices)
		for d := range batch {
			batch[d] = telemetry(fmt.Sprint("d", d), noon+i*1000, Value{"ph", float64(i % 7)}, Value{"t", float64(d)})
		}
		mustAppend(t, s, batch...)
	}
	require.Eventually(t, func() bool {
		var n int64
		require.NoError(t, s.queryRow(t.Context(), `SELECT coalesce(sum(n), 0) FROM block`).Scan(&n))
		return n >= devices*flushReadings
	}, 30*time.Second, 10*time.Millisecond)
	assert.EqualValues(t, devices*rounds, countRows(t, s))
	require.NoError(t, compacted(t.Context(), s))
	var records, blocks int64
	require.NoError(t, s.queryRow(t.Context(), `SELECT (SELECT count(*) FROM journal), (SELECT count(*) FROM block)`).Scan(&records, &blocks))
	assert.LessOrEqual(t, records, int64(3))
	assert.LessOrEqual(t, blocks, int64(2*devices))
	crash(t, s)
	again := openTest(t, Options{Path: s.path})
	assert.EqualValues(t, devices*rounds, countRows(t, again))
	assert.EqualValues(t, devices*rounds, totals(t, again).Stored)
	require.NoError(t, again.Check(t.Context()))
}

// A device that sends little between two steps of compaction gets large blocks all the same, and each reading is written a few
// times for that, not once for each step.
func TestBlocksGrowWithLittleWrittenAgain(t *testing.T) {
	for name, some := range map[string]int{"a day of five minutes": 288, "few": 25} {
		t.Run(name, func(t *testing.T) {
			s := byHand(t, Options{})
			written := 0
			s.w.writeBlock.stmt = &hooked{s.w.writeBlock.stmt, func(real func() error) error {
				written += int(s.w.writeBlock.args[1].Value.(int64))
				return real()
			}}
			const readings = 6 * blockReadings
			sent := int64(0)
			for sent < readings {
				batch := make([]Message, some)
				for i := range batch {
					batch[i] = telemetry("a", noon+sent*300_000, Value{"ph", float64(sent % 9)})
					sent++
				}
				mustAppend(t, s, batch...)
				flush(t, s, "a")
			}
			var blocks, large int64
			require.NoError(t, s.queryRow(t.Context(), `SELECT count(*), coalesce(sum(n) FILTER (WHERE n >= ?), 0) FROM block`, blockReadings).Scan(&blocks, &large))
			assert.LessOrEqual(t, blocks, int64(16))
			assert.GreaterOrEqual(t, large, int64(readings-2*blockReadings))
			assert.Less(t, written, 4*readings)
			assert.EqualValues(t, sent, countRows(t, s))
			require.NoError(t, s.Check(t.Context()))
		})
	}
}

func TestWhichBlocksBecomeOne(t *testing.T) {
	for name, c := range map[string]struct {
		last         []int // the last one first
		more, number int
		want         int
	}{
		"a small one is on one page":               {[]int{smallBlock - 1, 500}, 1, 7, 1},
		"they do not make a large one yet":         {[]int{300, 300}, 300, 7, 0},
		"now they do":                              {[]int{300, 300, 300, 300}, 300, 7, 3},
		"a large one does not grow":                {[]int{blockReadings}, blockReadings, 7, 0},
		"one that is not large beside many":        {[]int{500}, blockReadings, 7, 1},
		"together they are too many":               {[]int{smallBlock - 1}, maxReadings, 7, 0},
		"what is behind a large one stays":         {[]int{300, blockReadings, 900}, 300, 7, 0},
		"of numbers there are few left":            {[]int{blockReadings, 10}, 1, scarceNumber, 1},
		"of numbers there are few, and it is full": {[]int{scarceBlock, 10}, 1, scarceNumber, 0},
	} {
		var last []block.Meta
		for _, n := range c.last {
			last = append(last, block.Meta{N: n})
		}
		assert.Equal(t, c.want, growing(last, c.more, c.number), name)
	}
}
