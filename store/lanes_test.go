package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const dayMS = int64(86_400_000)

func only(names ...string) Devices {
	return func(name string) bool { return slices.Contains(names, name) }
}

// deleteOf deletes as DeleteBeforeOf does, and says how many and what the newest of them was.
func (p plain) deleteOf(of Devices, cut int64) (count, newest int64) {
	for device, times := range p {
		for time := range times {
			if of(device) && time < cut {
				count, newest = count+1, max(newest, time)
				delete(times, time)
			}
		}
	}
	return count, newest
}

func (p plain) oldestOf(of Devices, from int64) (oldest int64) {
	oldest = math.MaxInt64
	for device, times := range p {
		for time := range times {
			if of(device) && time >= from {
				oldest = min(oldest, time)
			}
		}
	}
	return oldest
}

// Whatever devices are meant, and wherever readings stand: those of them before a time go, and no other.
func TestReadingsOfSomeDevicesAreDeleted(t *testing.T) {
	dir, run := t.TempDir(), 0
	ctx := context.Background()
	names := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(t *rapid.T) {
		run++
		o := Options{Path: filepath.Join(dir, fmt.Sprint(run, ".db"))}
		s, err := Open(ctx, o)
		require.NoError(t, err)
		want, next := plain{}, noon
		some := func() Devices {
			var list []string
			for _, name := range names {
				if rapid.Bool().Draw(t, name) {
					list = append(list, name)
				}
			}
			return only(list...)
		}
		ago := rapid.SampledFrom([]int64{0, 1, dayMS, 20 * dayMS, 100 * dayMS})
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "append", "compact", "delete", "delete", "fail", "look", "rows", "reopen", "crash", "purge"}).Draw(t, "step") {
			case "append":
				var batch []Message
				for range rapid.IntRange(1, 30).Draw(t, "messages") {
					device := rapid.SampledFrom(names).Draw(t, "device")
					next += rapid.Int64Range(0, 2*dayMS).Draw(t, "later")
					time := next - ago.Draw(t, "late")
					v := Value{rapid.SampledFrom([]string{"ph", "t"}).Draw(t, "metric"), 1}
					batch = append(batch, telemetry(device, time, v))
					want.add(device, time, v.Metric, v.Value)
				}
				_, err := s.Append(ctx, batch, nil)
				require.NoError(t, err)
			case "compact":
				require.NoError(t, compacted(ctx, s))
			case "rows":
				require.NoError(t, s.chunk(ctx, func() error { return someIntoRows(s) }))
			case "delete":
				of, cut := some(), next-ago.Draw(t, "keep")
				rows, newest, err := s.CountBeforeOf(ctx, of, time.UnixMilli(cut))
				require.NoError(t, err)
				deleted, err := s.DeleteBeforeOf(ctx, of, time.UnixMilli(cut))
				require.NoError(t, err)
				count, last := want.deleteOf(of, cut)
				require.Equal(t, []int64{count, count, last}, []int64{rows, deleted, newest.UnixMilli()})
			case "fail":
				of, cut, after := some(), next-ago.Draw(t, "keep"), rapid.IntRange(0, 3).Draw(t, "after")
				s.writing <- struct{}{}
				real := s.w.commit.stmt
				s.w.commit.stmt = &hooked{real, func(commit func() error) error {
					if after--; after < 0 {
						return fullError{}
					}
					return commit()
				}}
				s.release()
				if _, err := s.DeleteBeforeOf(ctx, of, time.UnixMilli(cut)); err != nil {
					require.ErrorIs(t, err, ErrFull)
				}
				s.writing <- struct{}{}
				s.w.commit.stmt = real
				s.release()
				if rapid.Bool().Draw(t, "crash") {
					crash(t, s)
					s, err = Open(ctx, o)
					require.NoError(t, err)
				}
				_, err := s.DeleteBeforeOf(ctx, of, time.UnixMilli(cut))
				require.NoError(t, err)
				want.deleteOf(of, cut)
			case "look":
				of, from := some(), next-ago.Draw(t, "from")
				oldest, found, err := s.OldestReadingOf(ctx, of, time.UnixMilli(from))
				require.NoError(t, err)
				at := want.oldestOf(of, from)
				require.Equal(t, at != math.MaxInt64, found)
				if found {
					require.Equal(t, at, oldest.UnixMilli())
				}
			case "reopen":
				require.NoError(t, s.Close())
				s, err = Open(ctx, o)
				require.NoError(t, err)
			case "crash":
				crash(t, s)
				s, err = Open(ctx, o)
				require.NoError(t, err)
			case "purge": // its id is another's then, if it comes again
				name := rapid.SampledFrom(names).Draw(t, "device")
				if _, err := s.PurgeDevice(ctx, name); err != nil {
					require.ErrorIs(t, err, ErrNotFound)
				}
				delete(want, name)
			}
			want.compare(t, s)
		}
		require.NoError(t, s.Check(ctx))
		require.NoError(t, s.Close())
	})
}

// A crash after any transaction of a deletion leaves what another one finishes, and all of the other devices.
func TestADeletionOfSomeDevicesIsFinishedAfterACrash(t *testing.T) {
	const cut = noon + 45*dayMS
	of := only("a", "b")
	for after, all := 0, false; !all; after++ {
		s := byHand(t, Options{Now: func() time.Time { return time.UnixMilli(noon + 60*dayMS) }})
		want := plain{}
		put := func(first, last int64) {
			for i := first; i < last; i++ {
				for _, name := range []string{"a", "b", "c"} {
					mustAppend(t, s, telemetry(name, noon+i*dayMS, Value{"ph", float64(i)}))
					want.add(name, noon+i*dayMS, "ph", float64(i))
				}
			}
		}
		put(0, 10)
		intoRows(t, s, "a")
		put(10, 40)
		flush(t, s)
		put(40, 50)
		left := after
		onCommit(t, s, func(real func() error) error {
			if left--; left < 0 {
				return fullError{}
			}
			return real()
		})
		_, err := s.DeleteBeforeOf(t.Context(), of, time.UnixMilli(cut))
		all = err == nil
		crash(t, s)
		s = openTest(t, Options{Path: s.path, Now: s.options.Now})
		_, err = s.DeleteBeforeOf(t.Context(), of, time.UnixMilli(cut))
		require.NoError(t, err)
		want.deleteOf(of, cut)
		want.compare(t, s)
		require.NoError(t, s.Check(t.Context()))
		require.Less(t, after, 100)
	}
}

// After the first deletion since a start only months are looked through that may have something.
func TestADeletionOfSomeDevicesFindsWhatCameLate(t *testing.T) {
	s := byHand(t, Options{})
	of := only("a")
	deleteOf := func(cut int64) int64 {
		n, err := s.DeleteBeforeOf(t.Context(), of, time.UnixMilli(cut))
		require.NoError(t, err)
		return n
	}
	mustAppend(t, s, telemetry("a", noon, Value{"ph", 6}), telemetry("b", noon, Value{"ph", 6}), telemetry("a", noon+200*dayMS, Value{"ph", 6}))
	flush(t, s)
	assert.EqualValues(t, 1, deleteOf(noon+100*dayMS))
	mustAppend(t, s, telemetry("a", noon-400*dayMS, Value{"ph", 6}))
	flush(t, s)
	assert.EqualValues(t, 1, deleteOf(noon+100*dayMS), "it came late")
	assert.EqualValues(t, 1, deleteOf(noon+201*dayMS))
	assert.EqualValues(t, 1, countRows(t, s), "that of b")
}

func TestHoursOfADeviceOutliveItsReadings(t *testing.T) {
	s := openTables(t)
	keep := TableOptions{Hourly: true, Keep: 24 * time.Hour}
	for i := range 6 {
		s.send("bed-1", i*30, "temperature", float64(i))
		s.send("bed-2", i*30, "temperature", float64(i))
	}
	s.write(181, keep)
	before := asked(t, s.path, hours)
	require.Len(t, before, 6)
	_, err := s.DeleteBeforeOf(t.Context(), only("bed-1"), tablesFrom.Add(75*time.Minute))
	require.NoError(t, err)
	s.send("bed-1", 50, "temperature", 99) // none of its hour is left
	s.send("bed-1", 80, "temperature", 99) // half
	s.send("bed-2", 80, "temperature", 99) // all
	for minute := range 3 {
		s.write(182+minute, keep)
		want := slices.Clone(before)
		want[3] = "1767790800 bed-2 temperature 2 34.66667 99 3"
		assert.Equal(t, want, asked(t, s.path, hours))
		crash(t, s.Store)
		s.open()
	}
	s.write(26*60, keep)
	assert.Len(t, asked(t, s.path, hours), 4, "the oldest two of bed-1 go in their time")
	assert.Len(t, asked(t, s.path, `SELECT * FROM hourly WHERE device = 'bed-2'`), 3)

	_, err = s.DeleteBeforeOf(t.Context(), only("bed-1"), tablesFrom.Add(5*time.Hour))
	require.NoError(t, err)
	s.write(26*60+5, TableOptions{Hourly: true})
	assert.Equal(t, []string{"bed-2"}, asked(t, s.path, `SELECT DISTINCT device FROM hourly`), "or with their readings")
	assert.Equal(t, []string{"3"}, asked(t, s.path, `SELECT count(*) FROM sql_hourly`))
	s.send("bed-1", 30, "temperature", 7)
	s.write(26*60+10, TableOptions{Hourly: true})
	assert.Equal(t, []string{"bed-2"}, asked(t, s.path, `SELECT DISTINCT device FROM hourly`))

	_, err = s.PurgeDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Empty(t, asked(t, s.path, `SELECT * FROM sql_kept`))
	require.NoError(t, s.Check(t.Context()))
}

// While the clock is not to be trusted no hour is too old.
func TestHoursOfADeviceStayWhileTheClockIsUnsure(t *testing.T) {
	s := openTables(t)
	keep := TableOptions{Hourly: true, Keep: 24 * time.Hour}
	s.send("bed-1", 1, "temperature", 20)
	s.write(61, keep)
	_, err := s.DeleteBeforeOf(t.Context(), only("bed-1"), tablesFrom.Add(time.Hour))
	require.NoError(t, err)
	s.options.Unsure = func() bool { return true }
	s.write(100*24*60, keep)
	assert.Len(t, asked(t, s.path, hours), 1)
	s.options.Unsure = func() bool { return false }
	s.write(100*24*60, keep)
	assert.Empty(t, asked(t, s.path, hours))
}

// Many hours and devices go in many transactions.
func TestHoursOfManyDevicesGoWithTheirReadings(t *testing.T) {
	s := openTables(t)
	const devices, count = 2*hoursDevices + 3, 2*tableHours + 5
	for h := range count {
		batch := make([]Message, devices)
		for d := range batch {
			batch[d] = telemetry(fmt.Sprint("bed-", d), tablesFrom.Add(time.Duration(h)*time.Hour).UnixMilli(), Value{"temperature", float64(h)})
		}
		mustAppend(t, s.Store, batch...)
	}
	s.write(count*60, TableOptions{Hourly: true})
	require.Len(t, asked(t, s.path, `SELECT 1 FROM sql_hourly`), devices*count)
	for step, cut := range []int{1, 30, count - 1} {
		_, err := s.DeleteBeforeOf(t.Context(), func(name string) bool { return name != "bed-0" }, tablesFrom.Add(time.Duration(cut)*time.Hour))
		require.NoError(t, err)
		s.write(count*60+step, TableOptions{Hourly: true})
		assert.Len(t, asked(t, s.path, `SELECT 1 FROM hourly WHERE device <> 'bed-0'`), (devices-1)*(count-cut))
		assert.Len(t, asked(t, s.path, `SELECT 1 FROM hourly WHERE device = 'bed-0'`), count)
	}
}

// A file that is made anew has lost the hours of such devices too.
func TestHoursOfADeviceThatADamagedFileTakesAlongAreNamed(t *testing.T) {
	s := openTables(t)
	for i := range 4 {
		s.send("bed-1", i*60, "temperature", float64(i))
	}
	s.write(241, TableOptions{Hourly: true, Keep: 24 * time.Hour})
	_, err := s.DeleteBeforeOf(t.Context(), only("bed-1"), tablesFrom.Add(2*time.Hour))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	content, err := os.ReadFile(s.path)
	require.NoError(t, err)
	content[strings.Index(string(content), "hash      BLOB")] ^= 1 // of the schema
	require.NoError(t, os.WriteFile(s.path, content, 0o600))
	s.open()
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "hourly values of single devices whose readings were deleted, where there were any", list[0].Lost)
}

// A transaction that was rolled back has noted nothing, so the next one notes it again.
func TestWhatARolledBackDeletionNotedIsNotedAgain(t *testing.T) {
	s := openTables(t)
	for i := range 6 {
		s.send("bed-1", i*30, "temperature", float64(i))
	}
	s.write(181, TableOptions{Hourly: true, Keep: 24 * time.Hour})
	require.NoError(t, s.acquire(t.Context()))
	broken := errors.New("broken")
	assert.ErrorIs(t, s.transact(func() error {
		require.NoError(t, s.noteKeptOf(s.state.devices["bed-1"], tablesFrom.Add(2*time.Hour).UnixMilli()))
		return broken
	}), broken)
	s.release()
	_, err := s.DeleteBeforeOf(t.Context(), only("bed-1"), tablesFrom.Add(2*time.Hour))
	require.NoError(t, err)
	assert.Len(t, asked(t, s.path, `SELECT * FROM sql_kept`), 1)
}
