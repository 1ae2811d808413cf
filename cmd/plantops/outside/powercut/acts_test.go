//go:build linux && amd64

package powercut_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// acts are what a process does until it is killed. Each line that it says is a promise.
var acts = map[string]func(dir string) error{
	"compact": compactAct, "retain": retainAct, "hours": hoursAct, "migrate": migrateAct, "rebuild": rebuildAct, "schedule": scheduleAct,
}

const (
	minute = int64(60_000)
	day    = 24 * 60 * minute
	origin = int64(1_767_225_600_000) // 2026-01-01, UTC ms
)

// today is the time of all acts.
func today() time.Time { return time.UnixMilli(origin + 40*day) }

// sheet is readings in the plainest form.
type sheet map[string]float64

func cell(device string, time int64, metric string) string {
	return fmt.Sprint(device, " ", time, " ", metric)
}

// message is one of a device, of two metrics.
func message(device string, at int64) store.Message {
	return store.Message{Kind: store.Telemetry, Device: device, Topic: "devices/" + device + "/telemetry", Time: at, Received: at + 5,
		Payload: []byte("{}"), Values: []store.Value{{Metric: "temperature", Value: float64(at/minute%700) / 10}, {Metric: "ph", Value: float64(600+at/minute%9) / 100}}}
}

// batch is one of those that an act stores: a lot of some devices, little of others, some late, one twice, and one with another value.
func batch(n int) (list []store.Message) {
	first := origin + int64(n)*8*day
	for i := range int64(140) {
		for d := range 3 {
			list = append(list, message(fmt.Sprint("bed-", d), first+i*10*minute+int64(d)))
		}
		if i%10 == 0 {
			list = append(list, message(fmt.Sprint("tank-", i%3), first+i*10*minute))
			list = append(list, message("bed-0", first+i*10*minute-8*day+5*minute)) // among what may be in a block
		}
	}
	conflict := message("bed-1", first+1)
	conflict.Values = []store.Value{{Metric: "ph", Value: -1}}
	return append(list, list[0], conflict)
}

// messages is how many a batch has, and addTo what comes of it.
func messages() int64 { return int64(len(batch(0))) }

func (s sheet) add(list []store.Message) {
	for _, m := range list {
		for _, v := range m.Values {
			if _, there := s[cell(m.Device, m.Time, v.Metric)]; !there {
				s[cell(m.Device, m.Time, v.Metric)] = v.Value
			}
		}
	}
}

// read returns all that a store has; a reading that is there twice is an error.
func read(s *store.Store) (sheet, error) {
	found := sheet{}
	for r, err := range s.Readings(context.Background(), store.Query{}) {
		if err != nil {
			return nil, err
		}
		at := cell(r.Device, r.Time, r.Metric)
		if _, twice := found[at]; twice {
			return nil, fmt.Errorf("%s is there twice", at)
		}
		found[at] = r.Value
	}
	return found, nil
}

// open opens the store of an act. While old is true every reading is old enough to become part of a block.
func open(dir string, old *atomic.Bool) (*store.Store, error) {
	return store.Open(context.Background(), store.Options{Path: filepath.Join(dir, "plantops.db"), Now: today, Elapsed: func() time.Duration {
		if old != nil && old.Load() {
			return 100 * time.Hour
		}
		return time.Hour
	}})
}

// put stores batches from one to another and says so.
func put(s *store.Store, from, to int) error {
	for n := from; n < to; n++ {
		if _, err := s.Append(context.Background(), batch(n), nil); err != nil {
			return err
		}
		fmt.Println("stored", n)
	}
	return nil
}

// flush makes blocks of everything and cuts the journal.
func flush(s *store.Store, old *atomic.Bool) error {
	old.Store(true)
	defer old.Store(false)
	return s.Flush(context.Background())
}

// fill makes a store with batches, of which the first ones are in blocks.
func fill(t *testing.T, dir string, inBlocks, all int) {
	t.Helper()
	var old atomic.Bool
	s, err := open(dir, &old)
	require.NoError(t, err)
	_, err = s.AddDevice(t.Context(), "bed-0")
	require.NoError(t, err)
	for n := range all {
		_, err := s.Append(t.Context(), batch(n), nil)
		require.NoError(t, err)
		if n+1 == inBlocks {
			require.NoError(t, flush(s, &old))
		}
	}
	require.NoError(t, s.Close())
	_ = os.Remove(filepath.Join(dir, "plantops.db.reserve")) // may not be there
}

// compactAct lets enough come of some devices for blocks, and of others not, before it makes blocks of all.
func compactAct(dir string) error {
	var old atomic.Bool
	s, err := open(dir, &old)
	for n := 1; err == nil && n < 5; n += 2 {
		if err = put(s, n, n+2); err == nil {
			err = s.Flush(context.Background())
		}
	}
	if err == nil {
		err = flush(s, &old)
	}
	if err == nil {
		err = s.Close()
	}
	return err
}

// retained is the time before which the acts delete.
func retained() time.Time { return time.UnixMilli(origin + 8*day + 700*minute) }

func retainAct(dir string) error {
	s, err := open(dir, nil)
	if err != nil {
		return err
	}
	if _, err := s.DeleteBefore(context.Background(), retained()); err != nil {
		return err
	}
	fmt.Println("deleted")
	if err := put(s, 3, 4); err != nil {
		return err
	}
	return s.Close()
}

// verify judges a store that has, as a whole each, a first number of batches, all that were said to be stored. It stores the rest and
// judges again. deleted says that readings before a time may be gone.
func verify(t *testing.T, dir, heard string, first, all int, until time.Time) *store.Store {
	t.Helper()
	var old atomic.Bool
	s, err := open(dir, &old)
	require.NoError(t, err)
	require.NoError(t, s.Check(t.Context()))
	found, err := read(s)
	require.NoError(t, err)
	said := max(first, strings.Count(heard, "stored "))
	if n := lastStored(heard); n >= 0 {
		said = n + 1
	}
	counts, err := s.Totals(t.Context())
	require.NoError(t, err)
	there := int((counts.Stored + counts.Duplicate + counts.Quarantined) / messages())
	require.Equal(t, int64(there)*messages(), counts.Stored+counts.Duplicate+counts.Quarantined, "batches are there as a whole: %+v", counts)
	require.EqualValues(t, there, counts.Duplicate)
	require.EqualValues(t, there, counts.Quarantined)
	require.GreaterOrEqual(t, there, said, "what was said to be stored")
	want := expected(there)
	requireSame(t, want, found, until)

	for n := there; n < all; n++ {
		_, err := s.Append(t.Context(), batch(n), nil)
		require.NoError(t, err)
	}
	outcomes, err := s.Append(t.Context(), batch(all - 1)[50:60], nil)
	require.NoError(t, err)
	require.Equal(t, slices.Repeat([]store.Outcome{store.Duplicate}, 10), outcomes, "nothing is stored twice")
	require.NoError(t, flush(s, &old))
	found, err = read(s)
	require.NoError(t, err)
	requireSame(t, expected(all), found, until)
	require.NoError(t, s.Check(t.Context()))
	return s
}

func lastStored(heard string) (n int) {
	n = -1
	for line := range strings.Lines(heard) {
		_, _ = fmt.Sscanf(line, "stored %d\n", &n)
	}
	return n
}

func expected(batches int) sheet {
	want := sheet{}
	for n := range batches {
		want.add(batch(n))
	}
	return want
}

// requireSame compares readings; those before until may be missing.
func requireSame(t *testing.T, want, found sheet, until time.Time) {
	t.Helper()
	for at, value := range want {
		have, there := found[at]
		if !there {
			var device string
			var ms int64
			_, err := fmt.Sscan(at, &device, &ms)
			require.NoError(t, err)
			require.Less(t, ms, until.UnixMilli(), "%s is lost", at)
		} else if have != value {
			require.Equal(t, value, have, at)
		}
	}
	for at := range found {
		if _, there := want[at]; !there {
			require.Fail(t, "nobody sent it", at)
		}
	}
}

// closed closes a store and looks for files that nobody needs; some are the names that may be there besides.
func closed(t *testing.T, s *store.Store, dir string, some ...string) {
	t.Helper()
	require.NoError(t, s.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	maps.DeleteFunc(names, func(name string, _ bool) bool {
		return name == "plantops.db" || name == "plantops.db.reserve" || name == "plantops.lock" || name == "plantops.db-lock" ||
			slices.ContainsFunc(some, func(one string) bool { ok, _ := filepath.Match(one, name); return ok })
	})
	require.Empty(t, names, "files that are left over")
}
