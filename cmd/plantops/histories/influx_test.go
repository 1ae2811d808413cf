package histories

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLineProtocol(t *testing.T) {
	const at = " 1704067200000000000"
	for name, c := range map[string]struct{ line, want string }{
		"fields become metrics":               {`air,device=bed-1 temperature=20.5,humidity=40i` + at, "bed-1 temperature = 20.5|bed-1 humidity = 40"},
		"a field value has its measurement":   {`soil,sensor=bed-1 value=7u` + at, "bed-1 soil = 7"},
		"booleans are 1 and 0":                {`door,device=a open=true,shut=F` + at, "a open = 1|a shut = 0"},
		"exponents":                           {`a,device=a x=-1.5e-3` + at, "a x = -0.0015"},
		"escaped spaces, commas, equals":      {`my\ air,device=bed\ 1\,2\=3,b=c so\ il\,x=1` + at, `bed 1,2=3 so il,x = 1`},
		"a backslash that escapes nothing":    {`a,device=C:\dir\x x=1` + at, `C:\dir\x x = 1`},
		"texts hide commas, spaces, quotes":   {`a,device=a s="x, y=\"1\" \\",x=1` + at, "a x = 1"},
		"quotes in names are just characters": {`a,device="a" x"y=1` + at, `"a" x"y = 1`},
		"topic before host":                   {`mqtt_consumer,host=pi,topic=devices/bed-1/telemetry ph=6` + at, "bed-1 ph = 6"},
		"another topic":                       {`mqtt_consumer,host=pi,topic=garden/north ph=6` + at, "garden-north ph = 6"},
		"Home Assistant's own export":         {`°C,domain=sensor,entity_id=bed_1_temperature value=20.5,friendly_name_str="Bed"` + at, "bed_1 temperature = 20.5"},
		"host":                                {`cpu,host=pi usage=3` + at, "pi usage = 3"},
	} {
		f := readText(t, Influx, c.line+"\n", Options{})
		assert.Empty(t, f.rejected, name)
		var got []string
		for _, v := range f.values {
			got = append(got, strings.TrimPrefix(v, "1: 2024-01-01T00:00:00.000 "))
		}
		assert.Equal(t, c.want, strings.Join(got, "|"), name)
	}
	f := readText(t, Influx, "air temperature=1"+at+"\nair,device=a s=\"x\""+at, Options{})
	require.Len(t, f.left, 2)
	assert.Contains(t, f.left[0], "--device")
	assert.Contains(t, f.left[1], "texts are no readings")
}

func TestLinesThatAreNoPointsAreRejected(t *testing.T) {
	for line, want := range map[string]string{
		`air`:                                "no fields",
		`air,device=a t=1`:                   "no time",
		`air,device=a t=1 x`:                 "not a time",
		`air,device=a t=x 1`:                 "not a number",
		`air,device=a t=NaN 1`:               "not a number",
		`air,device=a t=1e999 1`:             "not a number",
		`air,device=a t=0x1p3 1`:             "not a number",
		`air,device=a t=1_0 1`:               "not a number",
		`air,device=a t=9007199254740993i 1`: "exactly",
		`air,device=a t=-1u 1`:               "not an integer",
		`air,device= t=1 1`:                  "", // InfluxDB has no empty tags; it names no device
		`air,=a t=1 1`:                       "a tag without",
		`air,device=a =1 1`:                  "a field without",
		`air,device=a t= 1`:                  "a field without",
		`air,device=a t=1, 1`:                "a field without",
		`,device=a t=1 1`:                    "no measurement",
		`air,device=a s="x 1`:                "does not end",
	} {
		f := readText(t, Influx, line, Options{})
		if want == "" {
			assert.Len(t, f.left, 1, line)
			continue
		}
		require.Len(t, f.rejected, 1, line)
		assert.Contains(t, f.rejected[0], want, line)
		assert.Empty(t, f.values, line)
	}
}

func TestTimestampsSayTheirPrecision(t *testing.T) {
	for _, c := range []struct {
		text      string
		precision time.Duration
		want      int64
	}{
		{"1704067200", 0, 1704067200000}, {"1704067200123", 0, 1704067200123}, {"1704067200123456", 0, 1704067200123},
		{"1704067200123456789", 0, 1704067200123}, {"631152000000000000", 0, 631152000000}, {"-1", 0, -1000},
		{"5", time.Second, 5000}, {"5", time.Millisecond, 5}, {"5999", time.Microsecond, 5}, {"-1", time.Nanosecond, -1},
	} {
		r := &influx{precision: c.precision}
		got, why := r.time([]byte(c.text))
		assert.Empty(t, why)
		assert.Equal(t, c.want, got, c.text)
	}
	r := &influx{precision: time.Second}
	_, why := r.time([]byte(strconv.FormatInt(math.MaxInt64, 10)))
	assert.NotEmpty(t, why)
}

func TestTemplatesAndMapNameDeviceAndMetric(t *testing.T) {
	const line = "air,room=north,topic=a/bed-1/x,entity_id=pump temperature=20.5 1704067200000000000\n"
	m, err := ReadMap(nil, strings.NewReader("# names\npump,bed-9,\n"))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"tag":      {Options{Device: "{tag:room}", Metric: "{measurement}_{field}"}, "north air_temperature"},
		"part":     {Options{Device: "gh-{tag:topic/2}"}, "gh-bed-1 temperature"},
		"map":      {Options{Map: m}, "bed-9 temperature"},
		"constant": {Options{Device: "box", Metric: "t"}, "box t"},
	} {
		f := readText(t, Influx, line, c.o)
		require.Len(t, f.last, 1, name)
		assert.Equal(t, c.want, f.last[0].Series.Device+" "+f.last[0].Series.Metric, name)
	}
	f := readText(t, Influx, line, Options{Device: "{tag:house}"})
	assert.Len(t, f.left, 1)
	assert.Contains(t, f.left[0], "no tag house")
	for _, wrong := range []string{"{tag:}", "{x}", "{tag:a/0}", "{tag:a"} {
		_, err := NewText(Influx, strings.NewReader(line), Place{}, Options{Device: wrong})
		assert.ErrorIs(t, err, ErrOptions, wrong)
	}
}

// What is read of a line has a device, a metric and a finite value, and a line that is written anew is read the same.
func FuzzLineProtocol(f *testing.F) {
	for _, line := range []string{
		`air,device=bed-1 temperature=20.5,humidity=40i 1704067200000000000`, `a\ b,device=c\,d x\=y="z\"",v=t 17`, "a,device=b s=\"x\ny\",v=1 1",
		"# CONTEXT-DATABASE:_internal\na,b=c d=1 1", "# DDL\nx\n# DML\n", `a,device=\ x=1 1`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := NewText(Influx, strings.NewReader(string(text)), Place{}, Options{})
		require.NoError(t, err)
		checkFound(t, readAll(t, r))
	})
}

// checkFound checks what holds of every value that a Reader finds.
func checkFound(t *testing.T, f *found) {
	for _, v := range f.last {
		require.NotEmpty(t, v.Series.Device)
		require.NotEmpty(t, v.Series.Metric)
		require.LessOrEqual(t, len(v.Series.Device), maxDeviceBytes)
		require.False(t, strings.ContainsAny(v.Series.Device, "+#/$%"), "%q", v.Series.Device)
		require.False(t, math.IsNaN(v.Value) || math.IsInf(v.Value, 0))
	}
}
