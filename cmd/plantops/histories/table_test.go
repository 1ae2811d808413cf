package histories

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones of the tests, wherever they run

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func TestTables(t *testing.T) {
	for name, c := range map[string]struct {
		format Format
		text   string
		o      Options
		want   string
	}{
		"our own": {CSV, "time,device,metric,value\n2024-01-01T00:00:00.123Z,bed-1,ph,6.5\n", Options{}, "2: 2024-01-01T00:00:00.123 bed-1 ph = 6.5"},
		"wide": {CSV, "time,device,temp,ph\n1704067200,a,20,6\n1704067200,b,,7\n", Options{},
			"2: 2024-01-01T00:00:00.000 a temp = 20|2: 2024-01-01T00:00:00.000 a ph = 6|3: 2024-01-01T00:00:00.000 b ph = 7"},
		"German": {CSV, "\ufeffDatum;Zeit;Temperatur;\"pH; Wert\"\r\n31.12.2023;23:30;20,5;\"6,1\"\r\n", Options{Device: "=haus", Time: "Datum+Zeit", Zone: zone(t, "Europe/Berlin"),
			Map: NewMap(map[string]string{"Temperatur": "temperature"})},
			"2: 2023-12-31T22:30:00.000 haus temperature = 20.5|2: 2023-12-31T22:30:00.000 haus pH; Wert = 6.1"},
		"named columns": {CSV, "when\twhat\thow much\tof\n01/02/2024 03:04 PM\tph\t6\ta\n", Options{Time: "when", TimeFormat: "%m/%d/%Y %I:%M %p", Zone: time.UTC, Device: "4", Metric: "what", Value: "how much"},
			"2: 2024-01-02T15:04:00.000 a ph = 6"},
		"left out":              {CSV, "time,a,b\n1704067200,1,2\n", Options{Device: "=d", Map: NewMap(map[string]string{"a": ""})}, "2: 2024-01-01T00:00:00.000 d b = 2"},
		"quotes":                {CSV, "time,\"de\"\"vice\",x\n\"2024-01-01 00:00:00Z\",\"a,\"\"b\",\"1\"\n", Options{Device: `de"vice`}, `2: 2024-01-01T00:00:00.000 a,"b x = 1`},
		"comma as decimal mark": {CSV, "time,x\n1704067200,\"1,5\"\n", Options{Device: "=d", Decimal: ','}, "2: 2024-01-01T00:00:00.000 d x = 1.5"},
		"ThingSpeak": {ThingSpeak, "created_at,entry_id,field1,field2,latitude,status\n2024-01-01T01:00:00+01:00,1,20.5,,,hello\n2024-01-01 00:00:15 UTC,2,20.6,7,,\n",
			Options{Device: "=bed", Map: NewMap(map[string]string{"field1": "temperature"})},
			"2: 2024-01-01T00:00:00.000 bed temperature = 20.5|3: 2024-01-01T00:00:15.000 bed temperature = 20.6|3: 2024-01-01T00:00:15.000 bed field2 = 7"},
	} {
		f := readText(t, c.format, c.text, c.o)
		assert.Empty(t, f.rejected, name)
		assert.Equal(t, c.want, strings.Join(f.values, "|"), name)
	}
}

func TestRowsThatCannotBeReadAreRejectedAndSayWhy(t *testing.T) {
	const header = "time,device,x\n"
	for row, want := range map[string]string{
		"1704067200,a":             "2 fields",
		"yesterday,a,1":            `not a time: "yesterday"`,
		"2024-01-01 00:00,a,1":     "--tz",
		"1/2/2024 00:00,a,1":       "--time-format",
		"2024-02-30T00:00:00Z,a,1": "not a time",
		"2024-01-01T24:00:00Z,a,1": "not a time",
		"1704067200,,1":            "no device",
		"1704067200,a,warm":        `x is not a number: "warm"`,
		"1704067200,a,1e400":       "not a number",
		"1704067200,a,\"1":         "quotes",
		"1704067200,a,\"1\"2":      "quotes",
		"1704067200,a,\"1,5\"":     "not a number",
		strings.Repeat("1", 2<<20): whyLong,
	} {
		f := readText(t, CSV, header+row+"\n1704067200,a,1\n", Options{})
		if assert.Len(t, f.rejected, 1, row[:min(len(row), 50)]) {
			assert.Contains(t, f.rejected[0], want)
		}
		assert.Len(t, f.values, 1, "the row behind it")
	}
	for text, o := range map[string]Options{
		"a,b\n":           {},
		"time,b\n":        {},
		"time,device,b\n": {Time: "c"},
		"time,device,c\n": {Metric: "c"},
		"time,device,d\n": {TimeFormat: "%Q"},
		"time,device,e\n": {TimeFormat: "2024"},
		"":                {},
	} {
		_, err := NewText(CSV, strings.NewReader(text), Place{}, o)
		assert.ErrorIs(t, err, ErrOptions, text)
	}
}

func TestTimesOfDay(t *testing.T) {
	c, err := newClock("", zone(t, "Europe/Berlin"))
	require.NoError(t, err)
	for text, want := range map[string]string{
		"2024-07-01 12:00":               "2024-07-01T10:00:00.000",
		"2024-07-01T12:00:00,25":         "2024-07-01T10:00:00.250",
		"2024/07/01 12:00:01":            "2024-07-01T10:00:01.000",
		"2024-07-01":                     "2024-06-30T22:00:00.000",
		"1.7.2024 12:00":                 "2024-07-01T10:00:00.000",
		"2024-07-01T12:00:00Z":           "2024-07-01T12:00:00.000",
		"2024-07-01T12:00:00.123456789Z": "2024-07-01T12:00:00.123",
		"2024-07-01 12:00:00 +0530":      "2024-07-01T06:30:00.000",
		"2024-07-01 12:00:00-03":         "2024-07-01T15:00:00.000",
		"1719828000":                     "2024-07-01T10:00:00.000",
		"1719828000.5":                   "2024-07-01T10:00:00.500",
		"1719828000123":                  "2024-07-01T10:00:00.123",
		"1719828000123.9":                "2024-07-01T10:00:00.123",
	} {
		ms, err := c.parse(text, 0)
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000"), text)
		}
	}
	unix, err := newClock("%s", nil)
	require.NoError(t, err)
	ms, err := unix.parse("5.25", 0)
	require.NoError(t, err)
	assert.Equal(t, int64(5250), ms)
}

// At the end of summer the hour from 2 to 3 comes twice, at its beginning not at all.
func TestHoursThatComeTwiceAndNever(t *testing.T) {
	f := readText(t, CSV, "time,device,x,y\n2024-10-27 01:30,a,1,1\n2024-10-27 02:30,a,2,2\n2024-10-27 02:30,a,2,2\n2024-10-27 02:10,a,3,3\n2024-10-27 02:30,a,4,4\n2024-10-27 03:00,a,5,5\n2024-03-31 02:30,a,6,6\n",
		Options{Zone: zone(t, "Europe/Berlin"), Map: NewMap(map[string]string{"y": ""})})
	var times []string
	for _, v := range f.last {
		times = append(times, time.UnixMilli(v.Time).UTC().Format("15:04"))
	}
	assert.Equal(t, []string{"23:30", "00:30", "00:30", "01:10", "01:30", "02:00"}, times)
	require.Len(t, f.rejected, 1)
	assert.Contains(t, f.rejected[0], "put forward")
}

func TestJSONLines(t *testing.T) {
	f := readText(t, JSON, `[
 {"time":"2024-01-01T00:00:00.001Z","device":"a","metric":"ph","value":6.5,"received":"2024-01-01T00:00:05.000Z","time_source":"device"},
 {"time":1704067200000,"device":"a","metric":"ph","value":-0.1}
]
{"time":"2024-01-01T00:00:00Z","device":"a","metric":"ph","value":9007199254740993}
{"time":"2024-01-01T00:00:00Z","device":"a","metric":"ph","value":"6"}
{"time":null,"device":"a","metric":"ph","value":6}
{"device":"a","metric":"ph","value":6}
{"time":1704067200000,"metric":"ph","value":6}
{"time":1704067200000,"device":"a","value":6}
{"time":1704067200000,"device":"a","metric":"ph"}
[1]
`, Options{})
	assert.Equal(t, []string{"2: 2024-01-01T00:00:00.001 a ph = 6.5", "3: 2024-01-01T00:00:00.000 a ph = -0.1", "5: 2024-01-01T00:00:00.000 a ph = 9.007199254740992e+15"}, f.values)
	assert.Equal(t, int64(1704067205000), f.last[0].Received)
	assert.Len(t, f.rejected, 7)
}

// What is read has a device, a metric and a finite value, whatever the file holds.
func FuzzCSV(f *testing.F) {
	for _, text := range []string{"time,device,metric,value\n2024-01-01T00:00:00Z,a,b,1\n", "time;device;x\n31.12.2023 12:00;a;\"1,5\"\n", "created_at,device,\"a\"\"b\"\n1,2,3\n", "time,device,x\n2024-10-27 02:30:00,a,1"} {
		f.Add(text, "%Y-%m-%d %H:%M")
		f.Add(text, "")
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text, format string) {
		r, err := NewText(CSV, strings.NewReader(text), Place{}, Options{TimeFormat: format, Zone: berlin})
		if err == nil {
			checkFound(t, readAll(t, r))
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add(`{"time":"2024-01-01T00:00:00Z","device":"a","metric":"ph","value":6,"received":1e3}`)
	f.Add("[\n{\"time\":1,\"device\":\" \",\"metric\":\"\\ud800\",\"value\":1e999}\n]")
	f.Fuzz(func(t *testing.T, text string) { checkFound(t, readText(t, JSON, text, Options{})) })
}

// What a file begins with decides how it is read, and never fails otherwise than by saying so.
func FuzzDetect(f *testing.F) {
	f.Add([]byte("time;x\n"))
	f.Add([]byte("air,device=a t=1 17\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		format, err := Detect(head, Options{})
		if err != nil {
			require.ErrorIs(t, err, ErrOptions)
			require.Empty(t, format)
		}
	})
}
