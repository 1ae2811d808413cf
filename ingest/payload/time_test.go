package payload

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func at(t *testing.T, text string) int64 {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return v.UnixMilli()
}

func TestTimesAsDevicesWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-07T11:00:00Z":           "2026-01-07T11:00:00Z",
		"2026-01-07T13:00:00+02:00":      "2026-01-07T11:00:00Z",
		"2026-01-07T13:00:00+0200":       "2026-01-07T11:00:00Z",
		"2026-01-07T13:00:00+02":         "2026-01-07T11:00:00Z",
		"2026-01-07T05:30:00-0530":       "2026-01-07T11:00:00Z",
		"2026-01-07 11:00:00Z":           "2026-01-07T11:00:00Z",
		"2026-01-07 11:00:00+00:00":      "2026-01-07T11:00:00Z",
		"2026-01-07 13:00:00 +0200":      "2026-01-07T11:00:00Z",
		"2026-01-07 11:00:00 UTC":        "2026-01-07T11:00:00Z",
		"2026-01-07 11:00:00 gmt":        "2026-01-07T11:00:00Z",
		"2026-01-07t11:00:00z":           "2026-01-07T11:00:00Z",
		" 2026-01-07T11:00:00Z\r\n":      "2026-01-07T11:00:00Z",
		"2026-01-07T11:00:00.123456Z":    "2026-01-07T11:00:00.123Z",
		"2026-01-07T11:00:00,5Z":         "2026-01-07T11:00:00.5Z",
		"2026-01-07 13:00:00.5+02":       "2026-01-07T11:00:00.5Z",
		"2026-01-07T11:00Z":              "2026-01-07T11:00:00Z",
		"2026-01-07 13:00+0200":          "2026-01-07T11:00:00Z",
		"20260107T110000Z":               "2026-01-07T11:00:00Z",
		"20260107t130000.5+0200":         "2026-01-07T11:00:00.5Z",
		"2016-12-31T23:59:60Z":           "2017-01-01T00:00:00Z",
		"2016-12-31T23:59:60.5Z":         "2017-01-01T00:00:00.5Z",
		"1767783600":                     "2026-01-07T11:00:00Z",
		"1767783600.25":                  "2026-01-07T11:00:00.25Z",
		"1.7677836e9":                    "2026-01-07T11:00:00Z",
		"1767783600123":                  "2026-01-07T11:00:00.123Z",
		"1767783600123.9":                "2026-01-07T11:00:00.124Z",
		"1767783600123456":               "2026-01-07T11:00:00.123Z",
		"1767783600123456789":            "2026-01-07T11:00:00.123Z",
		" 1767783600 ":                   "2026-01-07T11:00:00Z",
		"99999999999":                    "5138-11-16T09:46:39Z",
		"2026-01-07T11:00:00.999999999Z": "2026-01-07T11:00:00.999Z",
	} {
		got, ok := Time(text)
		assert.True(t, ok, text)
		assert.Equal(t, at(t, want), got, text)
	}
	for _, text := range []string{
		"", "123456", "999999999", "-1767783600", "100000000000", "100000000000000000", "1e308", "1e999", "NaN", "true", "2026-01-07T11:00:00",
		"2026-01-07 11:00:00", "2026-02-30T11:00:00Z", "2026-01-07", "11:00:00", "2026-01-07T11:00:00+2", "2026-01-07T11:00:00 CET",
		"2026-01-07T25:00:00Z", "2026-01-07T11:00:00+99:00", "2026-01-07TZ", "07.01.2026 11:00Z", "20260107", "2026-01-07T11Z", "Z", "2026-01-07TUTC",
		"2016-12-31T23:59:61Z", "Wed Jan  7 11:00:00 2026",
	} {
		_, ok := Time(text)
		assert.False(t, ok, "%q", text)
	}
}

func TestOnlyPossibleTimesCount(t *testing.T) {
	for name, tt := range map[string]struct {
		fields string
		want   string // empty: the arrival
		source store.TimeSource
		given  string
	}{
		"a time":                       {`"timestamp":"2026-01-07T11:00:00Z"`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"a number":                     {`"timestamp":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"a number in a text":           {`"timestamp":"1767783600"`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"oldest":                       {`"timestamp":"2020-01-01T00:00:00Z"`, "2020-01-01T00:00:00Z", store.FromDevice, ""},
		"a day ahead":                  {`"timestamp":"2026-01-08T12:00:00Z"`, "2026-01-08T12:00:00Z", store.FromDevice, ""},
		"none":                         {`"x":1`, "", store.FromArrival, ""},
		"null":                         {`"timestamp":null`, "", store.FromArrival, ""},
		"older than oldest":            {`"timestamp":"2019-12-31T23:59:59.999Z"`, "", store.FromArrivalImpossible, "2019-12-31T23:59:59.999Z"},
		"more than a day ahead":        {`"timestamp":"2026-01-08T12:00:00.001Z"`, "", store.FromArrivalImpossible, "2026-01-08T12:00:00.001Z"},
		"uptime":                       {`"timestamp":123456`, "", store.FromArrivalImpossible, "123456"},
		"without a zone":               {`"Time":"2026-01-07T11:00:00"`, "", store.FromArrivalImpossible, "2026-01-07T11:00:00"},
		"empty":                        {`"timestamp":""`, "", store.FromArrivalImpossible, ""},
		"not a time":                   {`"timestamp":true`, "", store.FromArrivalImpossible, "true"},
		"an object":                    {`"timestamp":{"t":1767783600}`, "", store.FromArrivalImpossible, `{"t":1767783600}`},
		"nan":                          {`"timestamp":nan`, "", store.FromArrivalImpossible, "nan"},
		"overflow":                     {`"timestamp":1e999`, "", store.FromArrivalImpossible, "1e999"},
		"ts":                           {`"ts":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"time":                         {`"time":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"dateTime":                     {`"dateTime":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"epoch":                        {`"epoch":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"TIMESTAMP":                    {`"TIMESTAMP":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"under an escape":              {`"time\u0073tamp":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"timestamp counts before time": {`"time":1767780000,"timestamp":1767783600,"epoch":1767776400`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"what is possible counts":      {`"timestamp":17,"epoch":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"the later of two equal keys":  {`"ts":1767780000,"ts":1767783600`, "2026-01-07T11:00:00Z", store.FromDevice, ""},
		"all impossible":               {`"ts":17,"timestamp":"soon"`, "", store.FromArrivalImpossible, "soon"},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewReader().Telemetry([]byte(`{"ph":7,`+tt.fields+`}`), Arrival{Time: arrival})
			require.Empty(t, c.Reason)
			require.Len(t, c.Parts, 1)
			p, want := c.Parts[0], arrival
			if tt.want != "" {
				want = at(t, tt.want)
			}
			assert.Equal(t, want, p.Time)
			assert.Equal(t, tt.source, p.TimeSource)
			assert.Equal(t, tt.given, p.Given)
			assert.Equal(t, store.Value{Metric: "ph", Value: 7}, p.Values[0])
		})
	}
	t.Run("our clock stands at the epoch", func(t *testing.T) {
		c := NewReader().Telemetry([]byte(`{"ph":7,"timestamp":1767783600}`), Arrival{Time: 60_000, Unsure: true})
		assert.Equal(t, store.FromDevice, c.Parts[0].TimeSource, "the device knows better")
		assert.Equal(t, at(t, "2026-01-07T11:00:00Z"), c.Parts[0].Time)
	})
}

func TestATimeThatIsNotUsedIsNamed(t *testing.T) {
	for payload, want := range map[string][]store.Skipped{
		`{"a":1,"timestamp":1767783600,"time":12.5}`:                       {{Field: "time", Text: "12.5"}},
		`{"a":1,"time":"morning","timestamp":1767783600}`:                  {{Field: "time", Text: "morning"}},
		`{"a":1,"pump":{"time":"morning"},"ts":1767783600}`:                {{Field: "pump.time", Text: "morning"}},
		`{"a":1,"ts":17,"timestamp":"soon"}`:                               {{Field: "ts", Text: "17"}},
		`{"a":1,"timestamp":"soon","ts":17}`:                               {{Field: "ts", Text: "17"}},
		`{"a":1,"Time":"2026-01-07T12:00:00","ts":1767783600}`:             nil, // the local time beside the time
		`{"a":1,"time":"2026-01-07T11:00:00Z","timestamp":1767783600}`:     nil,
		`{"StatusSNS":{"Time":"2026-01-07T12:00:00","A":1}}`:               nil, // kept with the row
		`{"a":1,"timestamp":null,"time":null}`:                             nil,
		`{"a":1,"pump":{"time":12.5}}`:                                     nil, // a reading
		`{"a":1,"boot_id":"x","sequence":1,"age_ms":5,"timestamp":"soon"}`: nil, // kept with the row
	} {
		c := NewReader().Telemetry([]byte(payload), Arrival{Time: arrival})
		require.Empty(t, c.Reason, payload)
		assert.ElementsMatch(t, want, c.Skipped, payload)
	}
}

// FuzzTime states: what is read is after 2001 or has a date, and RFC 3339 means what it means in package time.
func FuzzTime(f *testing.F) {
	for _, seed := range []string{"2026-01-07T11:00:00Z", "2026-01-07 13:00:00+02", "20260107T110000Z", "1767783600", "1e18", "2016-12-31T23:59:60Z", "TZ", "0000-00-00 00:00-00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := Time(text)
		if want, err := time.Parse(time.RFC3339, text); err == nil {
			require.True(t, ok)
			require.Equal(t, want.UnixMilli(), got)
		}
		if !ok {
			return
		}
		a := Arrival{Time: arrival}
		if a.Possible(got) {
			require.True(t, got >= earliest && got <= arrival+86_400_000)
		}
		if _, isNumber := Number([]byte(text)); isNumber {
			require.GreaterOrEqual(t, got, int64(1e12))
		}
	})
}
