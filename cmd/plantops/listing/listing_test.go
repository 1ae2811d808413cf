package listing

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the machine need not have them

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/storetest"
)

const start = 1_700_000_000_000 // UTC ms

// fill stores readings of two devices at random times over a year.
func fill(t *testing.T, db *store.Store, random *rand.Rand, n int) {
	t.Helper()
	var batch []store.Message
	for i := range n {
		at := start + random.Int64N(365*24*3600*1000)
		batch = append(batch, store.Message{Kind: store.Telemetry, Device: fmt.Sprintf("bed-%d", i%2), Topic: "t", Time: at, Received: at,
			Values: []store.Value{{Metric: "temperature", Value: float64(i)}, {Metric: "humidity", Value: float64(i)}}})
	}
	_, err := db.Append(t.Context(), batch, nil)
	require.NoError(t, err)
}

// list is a writer that remembers.
type list struct {
	readings []store.Reading
	points   []history.Point
}

func (l *list) Begin() error { return nil }
func (l *list) End() error   { return nil }
func (l *list) Write(r store.Reading) error {
	l.readings = append(l.readings, r)
	return nil
}
func (l *list) WritePoint(p history.Point) error {
	l.points = append(l.points, p)
	return nil
}

func TestTheNewestAreTheEndOfAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	db := storetest.Open(t)
	fill(t, db, random, 500)
	v := history.Fresh(db.View)
	for range 60 {
		limit := 1 + random.IntN(1200)
		var q history.Query
		if random.IntN(2) == 0 {
			q.From = start + random.Int64N(365*24*3600*1000)
		}
		if random.IntN(2) == 0 {
			q.To = max(q.From, start) + 1 + random.Int64N(100*24*3600*1000)
		}
		if random.IntN(3) == 0 {
			q.Metrics = []string{"humidity"}
		}
		if random.IntN(3) == 0 {
			q.Devices = []string{"bed-1"}
		}
		var all, newest list
		if random.IntN(3) > 0 {
			n, err := Readings(t.Context(), v, q, 0, &all, nil)
			require.NoError(t, err)
			require.Len(t, all.readings, n)
			seen := 0
			_, err = Readings(t.Context(), v, q, limit, &newest, func(store.Reading) { seen++ })
			require.NoError(t, err)
			require.Len(t, newest.readings, seen)
			require.Equal(t, all.readings[max(0, len(all.readings)-limit):], append([]store.Reading{}, newest.readings...), "%+v", q)
			continue
		}
		r := history.Reduction{Every: history.Every(time.Duration(1+random.IntN(72)) * time.Hour)}
		if random.IntN(3) == 0 {
			r = history.Reduction{Points: 1 + random.IntN(400)}
		}
		_, err := Points(t.Context(), v, q, r, 0, &all)
		require.NoError(t, err)
		_, err = Points(t.Context(), v, q, r, limit, &newest)
		require.NoError(t, err)
		require.Equal(t, all.points[max(0, len(all.points)-limit):], append([]history.Point{}, newest.points...), "%+v %+v", q, r)
	}
	var none list
	n, err := Readings(t.Context(), history.Fresh(storetest.Open(t).View), history.Query{}, 5, &none, nil)
	require.NoError(t, err)
	assert.Zero(t, n)
}

func written(t *testing.T, o Options, write func(Writer)) string {
	t.Helper()
	var out strings.Builder
	w := NewWriter(o, &out)
	require.NoError(t, w.Begin())
	write(w)
	require.NoError(t, w.End())
	return out.String()
}

func TestTableIsAsWideAsWhatIsInIt(t *testing.T) {
	write := func(readings ...store.Reading) string {
		return written(t, Options{Format: "table"}, func(w Writer) {
			for _, r := range readings {
				require.NoError(t, w.Write(r))
			}
		})
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

func TestPointsInEachFormat(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	point := history.Point{Device: "bed-1", Metric: "ph", Bucket: history.Bucket{Start: start, End: start + 1, Count: 4, Min: 5, Max: 7, First: 6, Last: 5.5, ScaledSum: 23 * history.SumScale}}
	huge := history.Point{Device: "bed-1", Metric: "ph", Bucket: history.Bucket{Start: start + 1, Count: 2, ScaledSum: math.MaxFloat64 * history.SumScale * 2}}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Format: "csv"}, "time,device,metric,value\n2023-11-14T22:13:20.000Z,bed-1,ph,5.75\n"},
		{Options{Format: "csv", Aggregates: []history.Aggregate{history.Max}}, "time,device,metric,value\n2023-11-14T22:13:20.000Z,bed-1,ph,7\n"},
		{Options{Format: "csv", Aggregates: []history.Aggregate{history.Max, history.Count}, Location: berlin}, "time,device,metric,max,count\n2023-11-14T23:13:20.000+01:00,bed-1,ph,7,4\n"},
		{Options{Format: "json"}, `[` + "\n " + `{"time":"2023-11-14T22:13:20.000Z","device":"bed-1","metric":"ph","value":5.75}` + "\n]\n"},
		{Options{Format: "json", Aggregates: []history.Aggregate{history.Sum, history.Min}}, `[` + "\n " + `{"time":"2023-11-14T22:13:20.000Z","device":"bed-1","metric":"ph","sum":23,"min":5}` + "\n]\n"},
		{Options{Format: "table", Location: berlin}, "TIME                 DEVICE  METRIC  VALUE\n2023-11-14 23:13:20  bed-1   ph      5.75\n"},
		{Options{Format: "table", Aggregates: []history.Aggregate{history.First, history.Last}, Location: time.UTC}, "TIME                 DEVICE  METRIC  FIRST  LAST\n2023-11-14 22:13:20  bed-1   ph      6      5.5\n"},
	} {
		assert.Equal(t, c.want, written(t, c.o, func(w Writer) { require.NoError(t, w.WritePoint(point)) }))
	}
	sum := []history.Aggregate{history.Sum, history.Count}
	assert.Contains(t, written(t, Options{Format: "json", Aggregates: sum}, func(w Writer) { require.NoError(t, w.WritePoint(huge)) }), `"sum":null,"count":2`)
}

func TestALineForEachMetricShowsHowItWent(t *testing.T) {
	rising := func(device string, n int) func(Writer) {
		return func(w Writer) {
			for i := range n {
				require.NoError(t, w.Write(store.Reading{Device: device, Metric: "ph", Time: start + int64(i)*1000, Value: float64(i)}))
			}
		}
	}
	course := func(ascii bool, write func(Writer)) string {
		_, below, _ := strings.Cut(written(t, Options{Format: "table", ASCII: ascii}, write), "\n\n")
		return below
	}
	assert.Empty(t, course(false, rising("a", 3)), "too few to see anything")
	assert.Regexp(t, `^DEVICE  METRIC  LOWEST  HIGHEST  COURSE\na       ph      0       99       ▁+▂+▃+▄+▅+▆+▇+█+\n$`, course(false, rising("a", 100)))
	assert.Regexp(t, ` _+\.+-+=+\++\*+#+\n$`, course(true, rising("a", 100)))
	assert.Regexp(t, ` ▅+\n$`, course(false, func(w Writer) {
		for i := range int64(5) {
			require.NoError(t, w.Write(store.Reading{Device: "a", Metric: "ph", Time: start + i, Value: 3}))
		}
	}), "it stays")
	extremes := course(false, func(w Writer) {
		for i, v := range []float64{math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64, 5e-324} {
			require.NoError(t, w.Write(store.Reading{Device: "a", Metric: "ph", Time: start + int64(i)*1e9, Value: v}))
		}
	})
	assert.Regexp(t, `█ +▁ +█ +▅\n$`, extremes, "gaps are blank")
	assert.Regexp(t, ` ▁\S+\n$`, course(false, func(w Writer) {
		for i, v := range []float64{0, 5e-324, 0, 5e-324} {
			require.NoError(t, w.Write(store.Reading{Device: "a", Metric: "ph", Time: start + int64(i), Value: v}))
		}
	}))
	assert.Empty(t, course(false, func(w Writer) {
		for i := range sparkSeries + 1 {
			rising(fmt.Sprint("bed-", i), 5)(w)
		}
	}), "of many devices there is none")
	endless := written(t, Options{Format: "table", Endless: true}, func(w Writer) {
		rising("a", 100)(w)
		rising("a", 5)(w) // what a device sends later that was away
	})
	assert.NotContains(t, endless, "COURSE")
}

func TestFollowerEndsWithItsContext(t *testing.T) {
	db := storetest.Open(t)
	f, err := NewFollower(t.Context(), db, nil, time.Now())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	assert.NoError(t, f.Run(ctx, db, store.Query{}, NewWriter(Options{Format: "json", Endless: true}, &out), nil))
	assert.Empty(t, out.String())
}
