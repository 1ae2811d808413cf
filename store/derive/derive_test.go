package derive_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/derive"
	"github.com/plantops/plantops/store/history"
)

const minute, hour, day = int64(60_000), int64(3600_000), int64(86400_000)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

func formula(t *testing.T, text string) derive.Derived {
	t.Helper()
	d, err := derive.ParseFormula(text)
	require.NoError(t, err)
	return d
}

// chunk makes one of values by metric; NaN is none.
func chunk(device string, start, step int64, metrics map[string][]float64) *history.Chunk {
	c := &history.Chunk{Device: device}
	for name, values := range metrics {
		column := history.Column{Metric: name, Present: make([]uint64, (len(values)+63)/64)}
		for i, v := range values {
			if len(c.Times) <= i {
				c.Times = append(c.Times, start+int64(i)*step)
				c.Received, c.Flags = append(c.Received, c.Times[i]+7), append(c.Flags, uint8(i%8))
			}
			if v-v == 0 {
				column.Present[i/64] |= 1 << (i % 64)
			} else {
				v = 0
			}
			column.Values = append(column.Values, v)
		}
		c.Columns = append(c.Columns, column)
	}
	slices.SortFunc(c.Columns, func(a, b history.Column) int { return slices.Compare([]byte(a.Metric), []byte(b.Metric)) })
	return c
}

type cell struct {
	Time   int64
	Metric string
	Value  float64
}

// cells are the values of a chunk in order of time and metric; they check what a chunk must be.
func cells(t *testing.T, c *history.Chunk) (list []cell) {
	t.Helper()
	if c == nil {
		return nil
	}
	require.NotEmpty(t, c.Times)
	require.Len(t, c.Received, len(c.Times))
	require.Len(t, c.Flags, len(c.Times))
	for i, at := range c.Times {
		any := false
		for k := range c.Columns {
			require.Len(t, c.Columns[k].Values, len(c.Times))
			require.True(t, k == 0 || c.Columns[k].Metric > c.Columns[k-1].Metric)
			if c.Columns[k].Has(i) {
				list = append(list, cell{at, c.Columns[k].Metric, c.Columns[k].Values[i]})
				any = true
			}
		}
		require.True(t, any)
		require.Equal(t, at+7, c.Received[i])
	}
	return list
}

func applied(t *testing.T, r *derive.Rules, o derive.Options, c *history.Chunk) []cell {
	t.Helper()
	a := r.Applier(o)
	a.Begin(c.Device)
	return cells(t, a.Apply(c))
}

func TestValuesAreCorrectedFromATimeOn(t *testing.T) {
	table := derive.Points{{0, 10}, {10, 30}, {20, 10}}
	for name, test := range map[string]struct {
		list []derive.Calibration
		want []float64
	}{
		"none":                       {nil, []float64{0, 5, 10, 15, 30}},
		"shifted":                    {[]derive.Calibration{{From: march, Points: derive.Points{{20, 21}}}}, []float64{1, 6, 11, 16, 31}},
		"a line":                     {[]derive.Calibration{{From: march, Points: derive.Points{{0, 1}, {10, 21}}}}, []float64{1, 11, 21, 31, 61}},
		"a line downwards":           {[]derive.Calibration{{From: march, Points: derive.Points{{0, 100}, {30, 10}}}}, []float64{100, 85, 70, 55, 10}},
		"a table, and beyond it":     {[]derive.Calibration{{From: march, Points: table}}, []float64{10, 20, 30, 20, -10}},
		"from the third on":          {[]derive.Calibration{{From: march + 2*minute, Points: derive.Points{{0, 1}}}}, []float64{0, 5, 11, 16, 31}},
		"one after the other":        {[]derive.Calibration{{From: march + 3*minute, Points: derive.Points{{0, 2}}}, {From: march, Points: derive.Points{{0, 1}}}}, []float64{1, 6, 11, 17, 32}},
		"ended":                      {[]derive.Calibration{{From: march, Points: derive.Points{{0, 1}}}, {From: march + 2*minute}}, []float64{1, 6, 10, 15, 30}},
		"a better one of that time":  {[]derive.Calibration{{Version: 2, From: march, Points: derive.Points{{0, 2}}}, {Version: 1, From: march, Points: derive.Points{{0, 1}}}}, []float64{2, 7, 12, 17, 32}},
		"beyond the largest numbers": {[]derive.Calibration{{From: march, Points: derive.Points{{0, 0}, {1, 1e308}}}}, []float64{0, math.NaN(), math.NaN(), math.NaN(), math.NaN()}},
	} {
		for i := range test.list {
			test.list[i].Device, test.list[i].Metric = "bed", "soil"
		}
		r, err := derive.New(test.list, nil, nil)
		require.NoError(t, err, name)
		raw := chunk("bed", march, minute, map[string][]float64{"soil": {0, 5, 10, 15, 30}, "other": {1, 2, 3, 4, 5}})
		got := applied(t, r, derive.Options{Metrics: []string{"soil"}}, raw)
		assert.Equal(t, cells(t, withoutNothing(chunk("bed", march, minute, map[string][]float64{"soil": test.want}))), got, name)
		assert.Equal(t, []float64{0, 5, 10, 15, 30}, raw.Columns[1].Values, "the source stays as it was")
		raw.Device = "other"
		assert.Len(t, applied(t, r, derive.Options{}, raw), 10)
	}
}

func TestWhatIsVoidedIsNotThere(t *testing.T) {
	values := map[string][]float64{"a": {1, 2, 3, 4}, "b": {5, math.NaN(), 7, 8}}
	for name, test := range map[string]struct {
		voids []derive.Void
		want  map[string][]float64
	}{
		"nothing":    {nil, values},
		"all":        {[]derive.Void{{}}, nil},
		"undone":     {[]derive.Void{{Undone: 5}}, values},
		"two times":  {[]derive.Void{{From: march + minute, To: march + 3*minute}}, map[string][]float64{"a": {1, math.NaN(), math.NaN(), 4}, "b": {5, math.NaN(), math.NaN(), 8}}},
		"one metric": {[]derive.Void{{Metric: "a", From: march + minute}}, map[string][]float64{"a": {1, math.NaN(), math.NaN(), math.NaN()}, "b": {5, math.NaN(), 7, 8}}},
		"both":       {[]derive.Void{{Metric: "a"}, {Metric: "b", To: march + 1}}, map[string][]float64{"b": {math.NaN(), math.NaN(), 7, 8}}},
	} {
		for i := range test.voids {
			test.voids[i].Device = "bed"
		}
		r, err := derive.New(nil, test.voids, nil)
		require.NoError(t, err, name)
		var want []cell
		if test.want != nil {
			want = cells(t, withoutNothing(chunk("bed", march, minute, test.want)))
		}
		assert.Equal(t, want, applied(t, r, derive.Options{}, chunk("bed", march, minute, values)), name)
	}
}

func TestDerivedMetricsFollowTheirSources(t *testing.T) {
	nan := math.NaN()
	for _, test := range []struct {
		formula                   string
		temperature, second, want []float64
		tolerance                 float64
	}{
		// FAO Irrigation and Drainage Paper 56, annex 2, table 2.3: saturation vapour pressure at 1, 15, 20, 25, 40 °C in kPa.
		{"x = vpd(temperature, second)", []float64{1, 15, 20, 25, 40}, []float64{0, 0, 0, 0, 0}, []float64{0.657, 1.705, 2.338, 3.168, 7.376}, 0.0006},
		{"x = vpd(temperature, second)", []float64{25, 25, 25, 61, -46}, []float64{50, 100, 104, 50, 50}, []float64{1.584, 0, 0, nan, nan}, 0.0006},
		{"x = dewpoint(temperature, second)", []float64{20, 25, 30, -10, 20}, []float64{100, 60, 35, 80, 0}, []float64{20, 16.7, 12.9, -12.8, nan}, 0.06},
		{"x = dewpoint(temperature, second)", []float64{20, nan, 30, 1, 2}, []float64{nan, 60, -1, 101, 100}, []float64{nan, nan, nan, 1, 2}, 1e-9},
		{"x = 1.8*temperature + 32", []float64{0, 100, -40, nan, 37}, []float64{1, 1, 1, 1, 1}, []float64{32, 212, -40, nan, 98.6}, 1e-9},
		{"x = temperature - second*0.5 - 1", []float64{0, 100, 1e308, nan, 1}, []float64{1, 2, -1e308, 1, nan}, []float64{-1.5, 98, 1.5e308, nan, nan}, 1e-9},
		{"x = 3*temperature - 3*second", []float64{1, 2, 1e308, 1, 1}, []float64{1, 1, -1e308, 1, 1}, []float64{0, 3, nan, 0, 0}, 1e-9},
	} {
		r, err := derive.New(nil, nil, []derive.Derived{formula(t, test.formula)})
		require.NoError(t, err)
		got := map[int64]float64{}
		for _, c := range applied(t, r, derive.Options{Metrics: []string{"x"}}, chunk("bed", march, minute, map[string][]float64{"temperature": test.temperature, "second": test.second})) {
			got[(c.Time-march)/minute] = c.Value
		}
		for i, want := range test.want {
			v, there := got[int64(i)]
			if assert.Equal(t, want == want, there, "%s: %d", test.formula, i) && there {
				assert.InDelta(t, want, v, test.tolerance, test.formula)
			}
		}
	}
}

func TestATableIsExactAtItsPoints(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	for range 1000 {
		c := derive.Calibration{}
		for i := range 3 + rnd.IntN(5) {
			c.Points = append(c.Points, derive.Point{Raw: float64(i) + rnd.Float64(), True: rnd.Float64()})
		}
		for _, p := range c.Points {
			require.Equal(t, p.True, c.At(p.Raw))
		}
	}
}

func TestADerivedMetricCanBeVoidedAndHidesWhatHasItsName(t *testing.T) {
	r, err := derive.New(nil, []derive.Void{{Device: "bed", Metric: "x", From: march + minute, To: march + 2*minute}}, []derive.Derived{formula(t, "x = 2*a")})
	require.NoError(t, err)
	got := applied(t, r, derive.Options{Metrics: []string{"x"}}, chunk("bed", march, minute, map[string][]float64{"a": {1, 2, 3}, "x": {7, 7, 7}}))
	assert.Equal(t, []cell{{march, "x", 2}, {march + 2*minute, "x", 6}}, got)
	for _, test := range []struct {
		first, last int64
		want        bool
	}{{march, march + minute - 1, true}, {march, march + minute, false}, {march + 2*minute - 1, march + hour, false}, {march + 2*minute, march + hour, true}} {
		_, _, ok := r.Lines("bed", "x", test.first, test.last)
		assert.Equal(t, test.want, ok)
	}
}

func TestLightIsAddedUpFromMidnightToMidnight(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	r, err := derive.New(nil, nil, []derive.Derived{formula(t, "light_day = dli(light, 2)")})
	require.NoError(t, err)
	start := time.Date(2026, 3, 28, 0, 0, 0, 0, berlin).UnixMilli()
	values := make([]float64, 3*24*4) // the clock goes forward on the second day
	for i := range values {
		values[i] = 250
	}
	last := map[string]float64{}
	a := r.Applier(derive.Options{Location: berlin})
	for _, c := range cells(t, a.Apply(chunk("bed", start, 15*minute, map[string][]float64{"light": values}))) {
		if c.Metric == "light_day" {
			last[time.UnixMilli(c.Time).In(berlin).Format(time.DateOnly)] = c.Value
		}
	}
	quarter := 500.0 * 900 / 1e6 // of an hour, in mol/m²: the last reading of a day is a quarter before midnight
	for date, quarters := range map[string]float64{"2026-03-28": 95, "2026-03-29": 91, "2026-03-30": 95} {
		assert.InDelta(t, quarters*quarter, last[date], 1e-9, date)
	}
	a.Begin("bed")
	got := cells(t, a.Apply(chunk("bed", start, 61*minute, map[string][]float64{"light": {100, 100}})))
	assert.Zero(t, got[3].Value, "more than an hour is a gap")
	a.Begin("bed")
	got = cells(t, a.Apply(chunk("bed", start, 30*minute, map[string][]float64{"light": {-5, 100}})))
	assert.InDelta(t, 100*2*1800/2/1e6, got[3].Value, 1e-12, "darkness is no negative light")
	a.Begin("bed")
	got = cells(t, a.Apply(chunk("bed", start-30*minute, 60*minute, map[string][]float64{"light": {100, 300}})))
	assert.InDelta(t, (200+300)/2*2*1800/1e6, got[3].Value, 1e-12, "from midnight on")
}

// What comes out does not depend on how readings are cut into chunks, nor on where reading begins.
func TestChunksAndBeginningsMakeNoDifference(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	place := time.FixedZone("", 3*3600)
	r, err := derive.New([]derive.Calibration{
		{Device: "bed", Metric: "light", From: march + 5*hour, Points: derive.Points{{0, 1}, {100, 99}}},
		{Device: "bed", Metric: "humidity", From: march + 9*hour, Points: derive.Points{{0, 0}, {50, 60}, {100, 99}}},
	}, []derive.Void{{Device: "bed", From: march + 7*hour, To: march + 8*hour}, {Device: "bed", Metric: "light", From: march + 30*hour, To: march + 31*hour}}, []derive.Derived{
		formula(t, "spread = temperature - dew"), formula(t, "dew = dewpoint(temperature, humidity)"), formula(t, "day = dli(light, 0.0185)"), formula(t, "fahrenheit = 1.8*temperature + 32"),
	})
	require.NoError(t, err)
	values := map[string][]float64{}
	for _, name := range []string{"temperature", "humidity", "light"} {
		for range 4000 {
			v := float64(rnd.IntN(1000)) / 10
			if rnd.IntN(10) == 0 {
				v = math.NaN()
			}
			values[name] = append(values[name], v)
		}
	}
	all := withoutNothing(chunk("bed", march+17_000, minute, values))
	want := applied(t, r, derive.Options{Location: place}, all)
	for range 20 {
		from := march + rnd.Int64N(4000*minute)
		o := derive.Options{Location: place, From: from, Metrics: []string{"day", "spread"}}
		start := r.Start(o.Metrics, from, place)
		require.Less(t, start, from)
		a := r.Applier(o)
		a.Begin("bed")
		var got []cell
		at, _ := slices.BinarySearch(all.Times, start)
		for at < len(all.Times) {
			end := min(at+1+rnd.IntN(500), len(all.Times))
			part := cut(all, at, end)
			got = append(got, cells(t, a.Apply(part))...)
			at = end
		}
		assert.Equal(t, slices.DeleteFunc(slices.Clone(want), func(c cell) bool { return c.Time < from || c.Metric != "day" && c.Metric != "spread" }), got)
	}
	assert.Equal(t, march, r.Start([]string{"dew"}, march, place))
	assert.ElementsMatch(t, []string{"spread", "temperature", "dew", "humidity"}, r.Stored([]string{"spread"}))
	assert.Nil(t, r.Stored(nil))
}

// Where Lines says that summaries will do, they give what the readings give.
func TestSummariesGiveWhatReadingsGive(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 1))
	r, err := derive.New([]derive.Calibration{
		{Device: "bed", Metric: "soil", From: march + 2*hour, Points: derive.Points{{3, 17.3}, {71, 0.7}}},
		{Device: "bed", Metric: "soil", From: march + 4*hour, Points: derive.Points{{0, 0}, {1, 2}, {100, 99}}},
		{Device: "bed", Metric: "soil", From: march + 6*hour},
	}, []derive.Void{{Device: "bed", From: march + 7*hour, To: march + 8*hour}}, []derive.Derived{
		formula(t, "wet = -0.37*soil + 4.1"), formula(t, "wetter = 3*wet"), formula(t, "two = soil + other"),
	})
	require.NoError(t, err)
	values := make([]float64, 600)
	for i := range values {
		values[i] = float64(rnd.IntN(1000)) / 10
	}
	raw := chunk("bed", march, minute, map[string][]float64{"soil": values, "other": values})
	a := r.Applier(derive.Options{})
	a.Begin("bed")
	read := map[string]map[int64]float64{}
	for _, c := range cells(t, a.Apply(raw)) {
		if read[c.Metric] == nil {
			read[c.Metric] = map[int64]float64{}
		}
		read[c.Metric][c.Time] = c.Value
	}
	summarized := 0
	for range 500 {
		i := rnd.IntN(len(values))
		j := i + 1 + rnd.IntN(min(90, len(values)-i))
		first, last := raw.Times[i], raw.Times[j-1]
		for _, metric := range []string{"soil", "wet", "wetter", "two"} {
			source, lines, ok := r.Lines("bed", metric, first, last)
			period := func(at int64) int64 { return min((at-march)/(2*hour), 3) }
			within := period(first) == period(last) && period(first) != 2 && (last < march+7*hour || first >= march+8*hour)
			assert.Equal(t, within && metric != "two", ok)
			if !ok {
				continue
			}
			summarized++
			require.Equal(t, "soil", source)
			b := history.Bucket{Min: math.Inf(1), Max: math.Inf(-1), First: values[i], Last: values[j-1]}
			low, high, sum := math.Inf(1), math.Inf(-1), 0.0
			for k := i; k < j; k++ {
				b.Count++
				b.Min, b.Max, b.ScaledSum = min(b.Min, values[k]), max(b.Max, values[k]), b.ScaledSum+values[k]*history.SumScale
				v := read[metric][raw.Times[k]]
				low, high, sum = min(low, v), max(high, v), sum+v
			}
			for _, line := range lines {
				b.Linear(line.Factor, line.Offset)
			}
			assert.Equal(t, []float64{low, high, read[metric][first], read[metric][last]}, []float64{b.Min, b.Max, b.First, b.Last})
			assert.InDelta(t, sum/float64(j-i), b.Mean(), 1e-9)
		}
	}
	assert.Greater(t, summarized, 100)
	source, lines, ok := r.Lines("another", "soil", march, march+9*hour)
	assert.True(t, ok && source == "soil" && len(lines) == 0)
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "use NAME = FORMULA",
		"x":                             "use NAME = FORMULA",
		"x = ":                          "want a number or a metric",
		"x = 5":                         "0 metrics",
		"x = a b":                       "want + or -",
		"x = a*":                        "want a number",
		"x = a + a":                     `"a" is there twice`,
		"x = 2*x":                       "needs itself",
		"x = vpd(a)":                    "vpd needs temperature and humidity",
		"x = vpd(a, b, c)":              "is too much",
		"x = vpd(a, )":                  "needs the name of a metric for humidity",
		"x = dli(a, b)":                 "is a number",
		"x = dli(a, 0)":                 "must be above 0",
		"x = 1e400*a":                   "want a number",
		`x = "soil`:                     "want a number or a metric",
		"x = vpd(a, b) + 1":             "is too much",
		"x = soil-temp*2 + soil - temp": "twice",
	} {
		_, err := derive.ParseFormula(text)
		assert.ErrorContains(t, err, want, text)
	}
	for want, list := range map[string][]string{
		"needs itself":   {"a = 2*b", "b = 2*a"},
		"is there twice": {"a = 2*b", "a = 2*c"},
	} {
		var derived []derive.Derived
		for _, text := range list {
			derived = append(derived, formula(t, text))
		}
		_, err := derive.New(nil, nil, derived)
		assert.ErrorContains(t, err, want)
	}
	for text, want := range map[string]string{"5": "use RAW=TRUE", "a=5": "use RAW=TRUE", "NaN=5": "finite", "1=1e400": "use RAW=TRUE"} {
		_, err := derive.ParsePoints([]string{text})
		assert.ErrorContains(t, err, want, text)
	}
	_, err := derive.ParsePoints([]string{"5=1", "5=2"})
	assert.ErrorContains(t, err, "each raw value once")
	_, err = derive.ParsePoints([]string{"0=0", "5e-324=1e300"})
	assert.ErrorContains(t, err, "too close together")
	_, err = derive.New([]derive.Calibration{{Device: "bed"}}, nil, nil)
	assert.ErrorContains(t, err, "needs a device and a metric")
	_, err = derive.New(nil, []derive.Void{{Device: "bed", From: 5, To: 5}}, nil)
	assert.ErrorContains(t, err, "ends before it begins")
	_, err = derive.New(nil, []derive.Void{{}}, nil)
	assert.ErrorContains(t, err, "needs a device")
}

func TestRulesAreKeptAsText(t *testing.T) {
	for _, text := range []string{
		"x = vpd(temperature, humidity)", `dew = dewpoint("air temp", "1h.humidity")`, "day = dli(par)", "day = dli(lux, 0.0185)", "f = 1.8*t + 32", `"a-b" = -t - 0.5*"c d" - 1e-07`, "ä.b_2 = größe",
	} {
		d := formula(t, text)
		assert.Equal(t, text, d.String())
		assert.Equal(t, d, formula(t, d.String()))
	}
	assert.Equal(t, formula(t, "x=3e2*a-b+ 4 -1"), formula(t, " x = a * 300 - b + 3"))
	p, err := derive.ParsePoints([]string{"20.5=100", "3=-1e-5"})
	require.NoError(t, err)
	assert.Equal(t, "3=-1e-05 20.5=100", p.String())
	assert.Equal(t, derive.KindLine, p.Kind())
	body, err := json.Marshal(p)
	require.NoError(t, err)
	assert.Equal(t, "[[3,-0.00001],[20.5,100]]", string(body))
	var back derive.Points
	require.NoError(t, json.Unmarshal(body, &back))
	assert.Equal(t, p, back)
	for _, bad := range []string{"{}", "[[1]]", "[[1,2],[1,3]]", "[1]"} {
		assert.Error(t, json.Unmarshal([]byte(bad), &back), bad)
	}
	vpd := formula(t, "x = vpd(a, b)")
	assert.Equal(t, "kPa", vpd.Unit())
}

func FuzzFormula(f *testing.F) {
	for _, text := range []string{"x = vpd(a, b)", "x = 1.5*a - b*2e3 + 4", `"a b" = dli("c", 0.1)`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := derive.ParseFormula(text)
		if err != nil {
			return
		}
		again, err := derive.ParseFormula(d.String())
		require.NoError(t, err)
		require.Equal(t, d, again)
	})
}

// withoutNothing leaves out times at which there is no value.
func withoutNothing(c *history.Chunk) *history.Chunk {
	b := history.Builder{}
	b.Begin(c.Device)
	for i := range c.Times {
		b.Row(c.Times[i], c.Received[i], c.Flags[i], "")
		for k := range c.Columns {
			if c.Columns[k].Has(i) {
				b.Value(c.Columns[k].Metric, c.Columns[k].Values[i])
			}
		}
	}
	return b.Chunk()
}

// cut is the times from number i to before j.
func cut(c *history.Chunk, i, j int) *history.Chunk {
	b := history.Builder{}
	b.Begin(c.Device)
	for ; i < j; i++ {
		b.Row(c.Times[i], c.Received[i], c.Flags[i], "")
		for k := range c.Columns {
			if c.Columns[k].Has(i) {
				b.Value(c.Columns[k].Metric, c.Columns[k].Values[i])
			}
		}
	}
	return b.Chunk()
}
