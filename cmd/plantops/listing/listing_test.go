package listing

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

const start = 1_700_000_000_000 // UTC ms

// fill stores readings of two devices at random times over a year.
func fill(t *testing.T, db *store.Store, random *rand.Rand, n int) (newest int64) {
	t.Helper()
	var batch []store.Message
	for i := range n {
		at := start + random.Int64N(365*24*3600*1000)
		newest = max(newest, at)
		batch = append(batch, store.Message{Kind: store.Telemetry, Device: fmt.Sprintf("bed-%d", i%2), Topic: "t", Time: at, Received: at,
			Values: []store.Value{{Metric: "temperature", Value: float64(i)}, {Metric: "humidity", Value: float64(i)}}})
	}
	_, err := db.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	return newest
}

func collect(t *testing.T, db *store.Store, q store.Query, newest int64) (list []store.Reading) {
	t.Helper()
	count, err := Each(t.Context(), db, q, newest, func(r store.Reading) error {
		list = append(list, r)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, len(list), count)
	return list
}

func TestTheNewestAreTheEndOfAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	db := storetest.Open(t)
	newest := fill(t, db, random, 500)
	for range 60 {
		q := store.Query{Limit: 1 + random.IntN(1200)}
		if random.IntN(2) == 0 {
			q.From = start + random.Int64N(365*24*3600*1000)
		}
		if random.IntN(2) == 0 {
			q.To = max(q.From, start) + 1 + random.Int64N(100*24*3600*1000)
		}
		if random.IntN(3) == 0 {
			q.Every = time.Duration(1+random.IntN(72)) * time.Hour
		}
		if random.IntN(3) == 0 {
			q.Metric = "humidity"
		}
		if random.IntN(3) == 0 {
			q.Devices = []string{"bed-1"}
		}
		all := q
		all.Limit = 0
		want := collect(t, db, all, newest)
		got := collect(t, db, q, newest)
		want = want[max(0, len(want)-q.Limit):]
		if len(want) == 0 {
			assert.Empty(t, got)
			continue
		}
		if q.Every > 0 && q.From != 0 { // a mean at the edge of what was asked for is of less
			require.Len(t, got, len(want))
			continue
		}
		require.Equal(t, want, got, "%+v", q)
	}
	assert.Empty(t, collect(t, storetest.Open(t), store.Query{Limit: 5}, 0))
}

func TestTableIsAsWideAsWhatIsInIt(t *testing.T) {
	write := func(readings ...store.Reading) string {
		var out strings.Builder
		w := NewWriter("table", false, &out)
		require.NoError(t, w.Begin())
		for _, r := range readings {
			require.NoError(t, w.Write(r))
		}
		require.NoError(t, w.End())
		return out.String()
	}
	assert.Equal(t, "TIME                 DEVICE  METRIC  VALUE\n", write())
	table := write(store.Reading{Device: "a", Metric: "ph", Time: start, Value: 7},
		store.Reading{Device: "gewächshaus", Metric: "soil_moisture_left", Time: start, Value: 21.5})
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	require.Len(t, lines, 3)
	assert.Regexp(t, `^TIME {17}DEVICE {7}METRIC {14}VALUE$`, lines[0])
	assert.Regexp(t, ` a {12}ph {18}7$`, lines[1])
	assert.Regexp(t, ` gewächshaus  soil_moisture_left  21.5$`, lines[2])
}

func TestFollowerEndsWithItsContext(t *testing.T) {
	db := storetest.Open(t)
	f, err := NewFollower(t.Context(), db, nil, time.Now())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	assert.NoError(t, f.Run(ctx, db, store.Query{}, NewWriter("json", true, &out), nil))
	assert.Empty(t, out.String())
}
