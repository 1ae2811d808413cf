package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

var arrival = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC).UnixMilli()

const telemetryTopic = "devices/bed-1/telemetry"

func TestDecodeReadings(t *testing.T) {
	for name, tt := range map[string]struct {
		payload string
		want    []store.Value
	}{
		"the example of the requirements": {
			`{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800}`,
			[]store.Value{{Metric: "soil_moisture", Value: 45.2}, {Metric: "temperature", Value: 22.5}, {Metric: "humidity", Value: 65}, {Metric: "light_level", Value: 800}}},
		"other numbers are metrics":                {`{"battery":3.71,"co2":412,"ph":-0.5e1}`, []store.Value{{Metric: "battery", Value: 3.71}, {Metric: "co2", Value: 412}, {Metric: "ph", Value: -5}}},
		"light is light_level":                     {`{"light":7}`, []store.Value{{Metric: "light_level", Value: 7}}},
		"light_level beats light after it":         {`{"light_level":1,"light":7}`, []store.Value{{Metric: "light_level", Value: 1}}},
		"light_level beats light before it":        {`{"light":7,"light_level":1}`, []store.Value{{Metric: "light_level", Value: 1}}},
		"light stands in for a null":               {`{"light_level":null,"light":7}`, []store.Value{{Metric: "light_level", Value: 7}}},
		"the last of two equal keys":               {`{"ph":1,"co2":3,"ph":2}`, []store.Value{{Metric: "ph", Value: 2}, {Metric: "co2", Value: 3}}},
		"booleans are 1 and 0":                     {`{"pump":true,"leak":false}`, []store.Value{{Metric: "pump", Value: 1}, {Metric: "leak", Value: 0}}},
		"null is no value":                         {`{"temperature":null,"humidity":1}`, []store.Value{{Metric: "humidity", Value: 1}}},
		"strings, objects, arrays left out":        {`{"fw":"1.2","wifi":{"rssi":-60},"list":[1],"humidity":1}`, []store.Value{{Metric: "humidity", Value: 1}}},
		"a known metric may be a string":           {`{"temperature":"22.5","humidity":"nan","soil_moisture":"0x1"}`, []store.Value{{Metric: "temperature", Value: 22.5}}},
		"a name that is escaped":                   {`{"temp\u00e9rature":1}`, []store.Value{{Metric: "température", Value: 1}}},
		"white space around":                       {" \r\n{ \"ph\" :\t1 }\n", []store.Value{{Metric: "ph", Value: 1}}},
		"more digits than a float64 has":           {`{"a":0.12345678901234567890,"b":9007199254740993,"c":12345678.901234567}`, []store.Value{{Metric: "a", Value: 0.12345678901234567890}, {Metric: "b", Value: 9007199254740993}, {Metric: "c", Value: 12345678.901234567}}},
		"a timestamp under an escape is no metric": {`{"time\u0073tamp":1767787200,"ph":1}`, []store.Value{{Metric: "ph", Value: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := Decode(telemetryTopic, []byte(tt.payload), arrival, true)
			assert.Empty(t, m.Reason)
			assert.Equal(t, store.Telemetry, m.Kind)
			assert.Equal(t, "bed-1", m.Device)
			assert.Equal(t, tt.want, m.Values)
			assert.Equal(t, arrival, m.Received)
			assert.True(t, m.ClockUnsure)
		})
	}
}

func TestDecodeKeepsWhatItCannotUse(t *testing.T) {
	many := "{"
	for i := range 300 {
		many += fmt.Sprintf(`"m%d":1,`, i)
	}
	for name, tt := range map[string]struct{ topic, payload, reason string }{
		"empty":                   {telemetryTopic, ``, "empty payload"},
		"bare number":             {telemetryTopic, `22.5`, "not a JSON object"},
		"array":                   {telemetryTopic, `[{"ph":1}]`, "not a JSON object"},
		"null":                    {telemetryTopic, `null`, "not a JSON object"},
		"nothing in it":           {telemetryTopic, `{}`, "no reading"},
		"only a timestamp":        {telemetryTopic, `{"timestamp":1767787200}`, "no reading"},
		"only text":               {telemetryTopic, `{"status":"ok","temperature":null}`, "no reading"},
		"nan":                     {telemetryTopic, `{"temperature":nan,"humidity":1}`, "not JSON"},
		"NaN":                     {telemetryTopic, `{"temperature":NaN}`, "not JSON"},
		"infinity":                {telemetryTopic, `{"temperature":-inf}`, "not JSON"},
		"too large a number":      {telemetryTopic, `{"temperature":1e999,"humidity":1}`, "number too large"},
		"too large in a string":   {telemetryTopic, `{"temperature":"-1e999"}`, "number too large"},
		"leading zero":            {telemetryTopic, `{"temperature":01}`, "not JSON"},
		"hexadecimal":             {telemetryTopic, `{"temperature":0x1p-2}`, "not JSON"},
		"trailing garbage":        {telemetryTopic, `{"temperature":1} x`, "not JSON"},
		"two objects":             {telemetryTopic, `{"temperature":1}{"temperature":2}`, "not JSON"},
		"trailing comma":          {telemetryTopic, `{"temperature":1,}`, "not JSON"},
		"cut off":                 {telemetryTopic, `{"temperature":1`, "not JSON"},
		"broken UTF-8":            {telemetryTopic, "{\"temperature\":1,\"name\":\"\xff\"}", "not UTF-8"},
		"byte order mark":         {telemetryTopic, "\ufeff{\"temperature\":1}", "not JSON"},
		"control character":       {telemetryTopic, "{\"fw\":\"a\x01\\n\",\"temperature\":1}", "not JSON"},
		"deep in a thousand":      {telemetryTopic, `{"temperature":1,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "nested too deeply"},
		"deep in a million":       {telemetryTopic, strings.Repeat(`{"a":`, 1e6), "not JSON"},
		"metric without a name":   {telemetryTopic, `{"":1,"humidity":1}`, "bad metric name"},
		"metric with a long name": {telemetryTopic, `{"` + strings.Repeat("m", 65) + `":1}`, "bad metric name"},
		"unprintable metric":      {telemetryTopic, `{"a\u0007":1}`, "bad metric name"},
		"metric of half a letter": {telemetryTopic, `{"\ud800":1}`, "bad metric name"},
		"too many readings":       {telemetryTopic, many + `"z":1}`, "more than 256 readings"},
		"heartbeat that is noise": {"devices/bed-1/heartbeat", `online`, "not JSON"},
		"another topic":           {"devices/bed-1/status", `{"ph":1}`, "unknown topic"},
		"a level more":            {"devices/bed-1/telemetry/x", `{"ph":1}`, "unknown topic"},
		"somebody else's":         {"zigbee2mqtt/x", `{"ph":1}`, "unknown topic"},
		"no device":               {"devices//telemetry", `{"ph":1}`, "unknown topic"},
		"topic in broken UTF-8":   {"devices/\xff/telemetry", `{"ph":1}`, "topic is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			m := Decode(tt.topic, []byte(tt.payload), arrival, false)
			assert.Equal(t, store.Bad, m.Kind)
			assert.True(t, strings.HasPrefix(m.Reason, tt.reason), "reason %q", m.Reason)
			assert.Equal(t, tt.payload, string(m.Payload))
			assert.Empty(t, m.Values)
			assert.Equal(t, arrival, m.Time)
			assert.True(t, utf8.ValidString(m.Topic))
		})
	}
}

func TestDecodeHeartbeat(t *testing.T) {
	for _, payload := range []string{"", "{}", `{"uptime":12,"temperature":3}`, "1", "null"} {
		m := Decode("devices/bed-1/heartbeat", []byte(payload), arrival, false)
		assert.Equal(t, store.Heartbeat, m.Kind, payload)
		assert.Equal(t, arrival, m.Time)
		assert.Empty(t, m.Values, "a heartbeat only says that the device lives")
	}
}

func TestDecodeTimestamp(t *testing.T) {
	at := func(text string) int64 {
		v, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return v.UnixMilli()
	}
	for name, tt := range map[string]struct {
		timestamp string
		want      int64
		source    store.TimeSource
	}{
		"RFC 3339":                   {`"2026-01-07T11:00:00Z"`, at("2026-01-07T11:00:00Z"), store.FromDevice},
		"with an offset":             {`"2026-01-07T13:00:00+02:00"`, at("2026-01-07T11:00:00Z"), store.FromDevice},
		"with a fraction":            {`"2026-01-07T11:00:00.123456Z"`, at("2026-01-07T11:00:00.123Z"), store.FromDevice},
		"seconds":                    {`1767783600`, at("2026-01-07T11:00:00Z"), store.FromDevice},
		"seconds with a fraction":    {`1767783600.25`, at("2026-01-07T11:00:00.25Z"), store.FromDevice},
		"milliseconds":               {`1767783600123`, at("2026-01-07T11:00:00.123Z"), store.FromDevice},
		"exponent":                   {`1.7677836e9`, at("2026-01-07T11:00:00Z"), store.FromDevice},
		"number in a string":         {`"1767783600"`, at("2026-01-07T11:00:00Z"), store.FromDevice},
		"oldest":                     {`"2020-01-01T00:00:00Z"`, at("2020-01-01T00:00:00Z"), store.FromDevice},
		"a day ahead":                {`"2026-01-08T12:00:00Z"`, at("2026-01-08T12:00:00Z"), store.FromDevice},
		"null":                       {`null`, arrival, store.FromArrival},
		"older than oldest":          {`"2019-12-31T23:59:59.999Z"`, arrival, store.FromArrivalImpossible},
		"more than a day ahead":      {`"2026-01-08T12:00:00.001Z"`, arrival, store.FromArrivalImpossible},
		"uptime in milliseconds":     {`123456`, arrival, store.FromArrivalImpossible},
		"uptime of 11 days in ms":    {`999999999`, arrival, store.FromArrivalImpossible},
		"negative":                   {`-1767783600`, arrival, store.FromArrivalImpossible},
		"microseconds":               {`1767783600000000`, arrival, store.FromArrivalImpossible},
		"beyond everything":          {`1e308`, arrival, store.FromArrivalImpossible},
		"overflow":                   {`1e999`, arrival, store.FromArrivalImpossible},
		"NaN in a string":            {`"NaN"`, arrival, store.FromArrivalImpossible},
		"without a zone":             {`"2026-01-07T11:00:00"`, arrival, store.FromArrivalImpossible},
		"empty":                      {`""`, arrival, store.FromArrivalImpossible},
		"a date that does not exist": {`"2026-02-30T11:00:00Z"`, arrival, store.FromArrivalImpossible},
		"not a time":                 {`true`, arrival, store.FromArrivalImpossible},
		"an object":                  {`{"t":1767783600}`, arrival, store.FromArrivalImpossible},
	} {
		t.Run(name, func(t *testing.T) {
			m := Decode(telemetryTopic, []byte(`{"ph":7,"timestamp":`+tt.timestamp+`}`), arrival, false)
			require.Empty(t, m.Reason)
			assert.Equal(t, tt.want, m.Time)
			assert.Equal(t, tt.source, m.TimeSource)
		})
	}

	t.Run("none", func(t *testing.T) {
		m := Decode(telemetryTopic, []byte(`{"ph":7}`), arrival, false)
		assert.Equal(t, store.FromArrival, m.TimeSource)
	})
	t.Run("our clock stands at the epoch", func(t *testing.T) {
		m := Decode(telemetryTopic, []byte(`{"ph":7,"timestamp":1767783600}`), 60_000, true)
		assert.Equal(t, store.FromDevice, m.TimeSource, "the device knows better")
		assert.Equal(t, at("2026-01-07T11:00:00Z"), m.Time)
	})
}

func TestBatchDecodingDoesNotMixMessages(t *testing.T) {
	d := newDecoder("")
	d.decodeAll([]item{{topic: telemetryTopic, payload: []byte(`{"x":9,"y":9,"z":9}`)}}, false)
	got := d.decodeAll([]item{
		{topic: telemetryTopic, payload: []byte(`{"a":1,"b":2}`)},
		{topic: telemetryTopic, payload: []byte(`{"a":1,"b":`)},
		{topic: "devices/bed-2/telemetry", payload: []byte(`{"a":3}`)},
	}, false)
	require.Len(t, got, 3)
	assert.Equal(t, []store.Value{{Metric: "a", Value: 1}, {Metric: "b", Value: 2}}, got[0].Values)
	assert.Empty(t, got[1].Values)
	assert.Equal(t, []store.Value{{Metric: "a", Value: 3}}, got[2].Values)
	assert.Equal(t, "bed-2", got[2].Device)
}

// FuzzDecode states: what Decode makes of a payload is what encoding/json sees in it, every accepted value is finite
// and has a good name, and a payload that is refused had no reading to lose.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"light":800}`, `{"a":1,"a":2}`, `{"a":nan}`, `{"a":1e999}`,
		`{"a":01}`, `{"a":1}x`, `[[[[`, `{"a":{"b":[1,{}]},"c":-0}`, `{"\ud800":1,"b":1}`, "{\"\xff\":1}", `{"timestamp":1e12,"temperature":"1"}`,
		`{"a":12345678901234567890123456789,"b":0.1234567890123456789e-300}`, `{"light":1,"light_level":true}`, ``, `null`, `"x"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		m := Decode(telemetryTopic, payload, arrival, false)
		assert.Equal(t, payload, m.Payload)
		if m.TimeSource != store.FromDevice {
			assert.Equal(t, arrival, m.Time)
		} else {
			assert.True(t, m.Time >= earliest && m.Time <= arrival+86_400_000)
		}
		want, ok := oracle(payload)
		if !ok {
			require.Equal(t, store.Bad, m.Kind)
			require.NotEmpty(t, m.Reason)
			return
		}
		if m.Kind == store.Bad {
			require.Contains(t, m.Reason, "nested too deeply")
			return
		}
		got := make(map[string]float64, len(m.Values))
		for _, v := range m.Values {
			require.True(t, printable(v.Metric) && len(v.Metric) <= maxNameBytes)
			require.False(t, math.IsNaN(v.Value) || math.IsInf(v.Value, 0))
			got[v.Metric] = v.Value
		}
		require.Len(t, got, len(m.Values), "a metric twice")
		require.Equal(t, want, got)
	})
}

// oracle reads the same readings with encoding/json; ok is false where Decode must refuse.
func oracle(payload []byte) (readings map[string]float64, ok bool) {
	if !utf8.Valid(payload) || !json.Valid(payload) {
		return nil, false
	}
	in := json.NewDecoder(bytes.NewReader(payload))
	in.UseNumber()
	if open, _ := in.Token(); open != json.Delim('{') {
		return nil, false
	}
	readings = map[string]float64{}
	var light *float64
	for in.More() {
		token, _ := in.Token()
		key := token.(string)
		var value any
		if err := in.Decode(&value); err != nil {
			panic(err)
		}
		if text, is := value.(string); is && writtenAsString([]byte(key)) && isNumber([]byte(text)) {
			value = json.Number(text)
		}
		var number float64
		switch v := value.(type) {
		case json.Number:
			n, err := v.Float64()
			if key != "timestamp" && (err != nil || !printable(key) || len(key) > maxNameBytes) {
				return nil, false
			}
			number = n
		case bool:
			if key != "timestamp" && (!printable(key) || len(key) > maxNameBytes) {
				return nil, false
			}
			if v {
				number = 1
			}
		default:
			continue
		}
		switch key {
		case "timestamp":
		case "light":
			light = &number
		default:
			readings[key] = number
		}
	}
	if _, named := readings["light_level"]; light != nil && !named {
		readings["light_level"] = *light
	}
	return readings, len(readings) > 0 && len(readings) <= maxReadings
}
