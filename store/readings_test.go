package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/history"
)

func collect(t *testing.T, s *Store, q Query) (lines []string) {
	t.Helper()
	for r, err := range s.Readings(t.Context(), q) {
		require.NoError(t, err)
		lines = append(lines, fmt.Sprintf("%d%s %s %v", r.Time-noon, r.Device, r.Metric, r.Value))
	}
	return lines
}

func TestQueries(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s,
		telemetry("b", noon+20, Value{"ph", 6.1}),
		telemetry("a", noon+10, Value{"ph", 5}, Value{"co2", 400}),
		telemetry("a", noon+20, Value{"ph", 6}),
		telemetry("a", noon+1010, Value{"ph", 7}),
	)
	for name, c := range map[string]struct {
		q    Query
		want []string
	}{
		"all":         {Query{}, []string{"10a co2 400", "10a ph 5", "20a ph 6", "20b ph 6.1", "1010a ph 7"}},
		"device":      {Query{Devices: []string{"b"}}, []string{"20b ph 6.1"}},
		"named twice": {Query{Devices: []string{"b", "b"}}, []string{"20b ph 6.1"}},
		"metric":      {Query{Metrics: []string{"co2"}}, []string{"10a co2 400"}},
		"no such":     {Query{Metrics: []string{"x"}}, nil},
		"span":        {Query{From: noon + 20, To: noon + 1010}, []string{"20a ph 6", "20b ph 6.1"}},
		"metrics":     {Query{Metrics: []string{"co2", "ph"}, From: noon + 20}, []string{"20a ph 6", "20b ph 6.1", "1010a ph 7"}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, collect(t, s, c.q)) })
	}
	for _, err := range s.Readings(t.Context(), Query{Devices: []string{"a", "nobody"}}) {
		require.ErrorIs(t, err, ErrNotFound)
		require.ErrorContains(t, err, `"nobody"`)
	}
}

func openView(t *testing.T, s *Store) history.View {
	t.Helper()
	v, err := s.View(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

func TestMeanOfTheLargestValuesIsFinite(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon, Value{"ph", math.MaxFloat64}, Value{"co2", 0.1}),
		telemetry("a", noon+1, Value{"ph", math.MaxFloat64}, Value{"co2", 0.3}))
	var got []float64
	for series, err := range openView(t, s).Reduce(t.Context(), Query{}, history.Reduction{Every: history.Every(time.Hour)}) {
		require.NoError(t, err)
		require.Len(t, series.Buckets, 1)
		got = append(got, series.Buckets[0].Mean())
	}
	assert.Equal(t, []float64{0.2, math.MaxFloat64}, got)
}

func TestReadingsHoldNothingOpenForWhoTakesHisTime(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	const n = 2*pageRows + 7
	for i := range int64(n) {
		batch = append(batch, telemetry("a", noon+i, Value{"ph", 6}))
		batch = append(batch, telemetry("b", noon+2*i, Value{"ph", 6}))
	}
	mustAppend(t, s, batch...)
	count := 0
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		if count++; count == 10 {
			execute(t, s, `PRAGMA wal_checkpoint(TRUNCATE)`) // while r is being looked at
			require.NotEmpty(t, r.Device)
		}
	}
	assert.Equal(t, 2*n, count)
}

func TestLatestFindsTheNewestOfEachMetricInEarlierRowsToo(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s,
		telemetry("a", noon, Value{"battery", 3.7}, Value{"ph", 5}),
		telemetry("a", noon+2, Value{"ph", 7}),
		telemetry("a", noon+1, Value{"ph", 6}),
		Message{Kind: Heartbeat, Device: "b", Received: noon},
	)
	latest, err := s.Latest(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, []Reading{
		{Device: "a", Metric: "battery", Time: noon, Value: 3.7, Received: noon},
		{Device: "a", Metric: "ph", Time: noon + 2, Value: 7, Received: noon + 2},
	}, latest)
	latest, err = s.Latest(t.Context(), "b")
	require.NoError(t, err)
	assert.Empty(t, latest)
	_, err = s.Latest(t.Context(), "c")
	assert.ErrorIs(t, err, ErrNotFound)
}

func TestWhatCannotBeReadIsNamedAndTheRestIsRead(t *testing.T) {
	filled := filledFile(t)
	good, err := os.ReadFile(filled)
	require.NoError(t, err)
	partly := 0
	for page := 2; page <= len(good)/pageBytes; page++ {
		path := filepath.Join(t.TempDir(), "plantops.db")
		damage(t, path, good, page, func(int) byte { return 0xA5 })
		s, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged, "a table that is needed for everything")
			continue
		}
		got, devices := 0, map[string]bool{}
		for _, err := range s.Readings(t.Context(), Query{Metrics: []string{"temperature"}}) {
			if damaged, ok := errors.AsType[*DamagedError](err); ok {
				devices[damaged.Device] = true
				assert.Less(t, damaged.From, damaged.To)
				continue
			}
			require.NoError(t, err)
			got++
		}
		all := damageDevices * damageRows
		if devices["some devices"] { // a record of the journal: what it had may be in blocks
			assert.GreaterOrEqual(t, got, all-2*damageRows, "page %d", page)
			require.NoError(t, s.Close())
			continue
		}
		assert.Equal(t, got < all, len(devices) > 0, "page %d: %d of %d rows, damage named for %d devices", page, got, all, len(devices))
		if len(devices) > 0 && len(devices) <= 4 { // a leaf may have rows of so many
			partly++
			assert.GreaterOrEqual(t, got, all-4*damageRows, "page %d", page)
		}
		require.NoError(t, s.Close())
	}
	assert.Greater(t, partly, 3, "leaves of the table of readings were among the pages")
}
