package payload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func read(payload string) Content {
	return NewReader().Telemetry([]byte(payload), Arrival{Time: arrival})
}

// said writes readings and skipped fields in one line: a=1 b=2 | c="x".
func said(c Content) string {
	var out []string
	for i, p := range c.Parts {
		if i > 0 {
			out = append(out, "/")
		}
		for _, v := range p.Values {
			out = append(out, v.Metric+"="+strconv.FormatFloat(v.Value, 'g', -1, 64))
		}
	}
	if len(c.Skipped) > 0 {
		out = append(out, "|")
	}
	for _, s := range c.Skipped {
		out = append(out, fmt.Sprintf("%s=%q", s.Field, s.Text))
	}
	return strings.Join(out, " ")
}

func TestTelemetry(t *testing.T) {
	for name, tt := range map[string]struct{ payload, want string }{
		"the example of the requirements": {
			`{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800}`,
			"soil_moisture=45.2 temperature=22.5 humidity=65 light_level=800"},
		"other numbers are metrics":         {`{"battery":3.71,"co2":412,"ph":-0.5e1}`, "battery=3.71 co2=412 ph=-5"},
		"light is light_level":              {`{"light":7}`, "light_level=7"},
		"light_level beats light after it":  {`{"light_level":1,"light":7}`, `light_level=1 | light="7"`},
		"light_level beats light before it": {`{"light":7,"light_level":1}`, `light_level=1 | light="7"`},
		"one light beats another":           {`{"light":5,"Light":6}`, `light_level=6 | light="5"`},
		"light stands in for a null":        {`{"light_level":null,"light":7}`, "light_level=7"},
		"known in any case":                 {`{"Soil_Moisture":1,"TEMPERATURE":2,"Humidity":3,"LIGHT":4}`, "soil_moisture=1 temperature=2 humidity=3 light_level=4"},
		"others are not":                    {`{"CO2":1,"co2":2}`, "CO2=1 co2=2"},
		"nor further inside":                {`{"a":{"Temperature":1,"light":2}}`, "a.Temperature=1 a.light=2"},
		"the exact name counts":             {`{"Temperature":1,"temperature":2}`, `temperature=2 | temperature="1"`},
		"also before":                       {`{"temperature":2,"Temperature":1}`, `temperature=2 | Temperature="1"`},
		"a name twice and the same":         {`{"Temperature":1,"temperature":1,"ph":2,"ph":2}`, "temperature=1 ph=2"},
		"the last of two equal keys":        {`{"ph":1,"co2":3,"ph":2}`, `ph=2 co2=3 | ph="1"`},
		"a dot in a name meets a path":      {`{"a.b":1,"a":{"b":2}}`, `a.b=2 | a.b="1"`},
		"booleans are 1 and 0":              {`{"pump":true,"leak":false}`, "pump=1 leak=0"},
		"null is no value":                  {`{"temperature":null,"humidity":1}`, "humidity=1"},
		"text that is a number":             {`{"battery":"3.91","fw":"1.2","t":" +.5 "}`, "battery=3.91 fw=1.2 t=0.5"},
		"text that is none":                 {`{"temperature":"21,5","fw":"1.2.3","mode":"","t":"0x1","humidity":1}`, `humidity=1 | temperature="21,5" fw="1.2.3" mode="" t="0x1"`},
		"objects and arrays":                {`{"wifi":{"rssi":-60,"ap":{"ch":6}},"list":[1,[2,true],{"x":3}],"e":{},"f":[]}`, "wifi.rssi=-60 wifi.ap.ch=6 list.0=1 list.1.0=2 list.1.1=1 list.2.x=3"},
		"text further inside":               {`{"wifi":{"ssid":"home","rssi":-60},"list":["a",1]}`, `wifi.rssi=-60 list.1=1 | wifi.ssid="home" list.0="a"`},
		"bare nan among others":             {`{"a":nan,"b":[1,-inf],"c":1}`, `b.0=1 c=1 | a="nan" b.1="-inf"`},
		"a name that is escaped":            {`{"temp\u00e9rature":1}`, "température=1"},
		"white space around":                {" \r\n{ \"ph\" :\t1 }\n", "ph=1"},
		"more digits than a float64 has":    {`{"a":0.12345678901234567890,"c":12345678.901234567,"d":1}`, "a=0.12345678901234568 c=1.2345678901234567e+07 d=1"},
		"not to be rounded in silence":      {`{"a":9007199254740993,"b":"18446744073709551615","c":9007199254740992}`, `c=9.007199254740992e+15 | a="9007199254740993" b="18446744073709551615"`},
		"too large for a float64":           {`{"a":1e999,"b":1}`, `b=1 | a="1e999"`},
		"bad names":                         {`{"":5,"a\u0007":6,"b":1,"\ud800":2,"` + strings.Repeat("m", 65) + `":7}`, `b=1 | ="5" a` + `\a="6" \ud800="2" ` + strings.Repeat("m", 65) + `="7"`},
		"all null":                          {`{"temperature":null,"humidity":null}`, ""},
		"a timestamp under an escape":       {`{"time\u0073tamp":1767787200,"ph":1}`, "ph=1"},
		"a list":                            {`[{"a":1},{"a":2,"b":"x"},3,{"c":3}]`, `a=1 / a=2 / c=3 | b="x" 2="3"`},
		"a list with nothing in its head":   {`[{"a":null},{},{"a":2}]`, `a=2`},
		"a list of nulls":                   {`[{"a":null},{"a":null}]`, ``},
		"one object a line":                 {"{\"a\":1}\r\n\n{\"a\":nan,\"b\":2}\n", `a=1 / b=2 | a="nan"`},
		"a line that is cut off":            {"{\"a\":1}\n{\"a\":2}\n{\"a\":", `a=1 / a=2 | line 3="{\"a\":"`},
		"timed objects inside":              {`{"x":1,"data":[{"ts":1767783600,"a":2},{"ts":1767783660,"a":3}],"y":4}`, "x=1 y=4 / data.a=2 / data.a=3"},
		"only timed objects inside":         {`{"data":[{"ts":1767783600,"a":2},{"ts":1767783660,"a":3}]}`, "data.a=2 / data.a=3"},
		"a timed object inside":             {`{"aenergy":{"ts":1767783600,"total":2},"x":1}`, "x=1 / aenergy.total=2"},
		"trailing noughts":                  {"{\"a\":1}\n\x00\x00", "a=1"},
		"byte order mark":                   {"\ufeff{\"a\":1}", "a=1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := read(tt.payload)
			assert.Empty(t, c.Reason)
			assert.Equal(t, tt.want, strings.ReplaceAll(said(c), "\u0007", `\a`))
			assert.NotEmpty(t, c.Parts)
		})
	}
}

func TestValueOfATopic(t *testing.T) {
	for payload, want := range map[string]string{
		`23.5`: "m=23.5", ` 23.5` + "\x00": "m=23.5", `+.5`: "m=0.5", `true`: "m=1", `"23.5"`: "m=23.5", `null`: "", `[1,2]`: "m.0=1 m.1=2",
		`{"value":5,"unit":"C","ts":1767783600,"min":1}`: `m=5 m.min=1 | m.unit="C"`,
		`[{"value":5,"ts":1767783600},{"value":6}]`:      `m=5 / m=6`,
		`{"value":5,"boot_id":"x","sequence":1}`:         `m=5`,
		`{"value":{"a":1}}`:                              `m.a=1`,
		`{"value":nan,"b":1}`:                            `m.b=1 | m="nan"`,
	} {
		c := NewReader().Value("m", []byte(payload), Arrival{Time: arrival})
		assert.Empty(t, c.Reason, payload)
		assert.Equal(t, want, said(c), payload)
	}
	for payload, want := range map[string]struct{ reason, said string }{
		``:           {"empty payload", ""},
		`nan`:        {"no reading", `| m="nan"`},
		`online`:     {"no reading", `| m="online"`},
		`21,5`:       {"no reading", `| m="21,5"`},
		"21.5 \xb0C": {"no reading", "| m=\"21.5 \\xb0C\""},
		`1e999`:      {tooLarge, `| m="1e999"`},
		`{"value":`:  {"not JSON", ""},
	} {
		c := NewReader().Value("m", []byte(payload), Arrival{Time: arrival})
		assert.True(t, strings.HasPrefix(c.Reason, want.reason), "%s: %q", payload, c.Reason)
		assert.Equal(t, want.said, said(c), payload)
	}
	assert.Equal(t, "temperature=1", said(NewReader().Value("Temperature", []byte("1"), Arrival{Time: arrival})))
	assert.Equal(t, "time=1", said(NewReader().Value("time", []byte("1"), Arrival{Time: arrival})), "the topic says that it is one")
}

func TestWhatIsRefusedAsAWhole(t *testing.T) {
	many := "{"
	for i := range 300 {
		many += fmt.Sprintf(`"m%d":1,`, i)
	}
	for name, tt := range map[string]struct{ payload, reason string }{
		"empty":                   {``, "empty payload"},
		"noughts":                 {"\x00\x00", "empty payload"},
		"bare number":             {`22.5`, "not a JSON object"},
		"bare nan":                {`nan`, "not a JSON object"},
		"array of numbers":        {`[1,2]`, "not a JSON object"},
		"empty array":             {`[]`, "not a JSON object"},
		"null":                    {`null`, "not a JSON object"},
		"nothing in it":           {`{}`, "no reading"},
		"only a timestamp":        {`{"timestamp":1767787200}`, "no reading"},
		"only text":               {`{"status":"ok","temperature":null}`, "no reading"},
		"only nan":                {`{"temperature":nan}`, "not JSON"},
		"only a large number":     {`{"temperature":1e999}`, "number too large"},
		"only a rounded number":   {`{"temperature":9007199254740993}`, "number not exact"},
		"only a bad name":         {`{"":1}`, "bad metric name"},
		"only a long name":        {`{"` + strings.Repeat("m", 65) + `":1}`, "bad metric name"},
		"leading zero":            {`{"temperature":01}`, "not JSON"},
		"hexadecimal":             {`{"temperature":0x1p-2}`, "not JSON"},
		"nan and something else":  {`{"temperature":nan,"a":01}`, "not JSON"},
		"trailing garbage":        {`{"temperature":1} x`, "not JSON"},
		"two objects in a line":   {`{"temperature":1}{"temperature":2}`, "not JSON"},
		"comma between digits":    {`{"temperature":21,5,"humidity":50}`, "not JSON"},
		"trailing comma":          {`{"temperature":1,}`, "not JSON"},
		"cut off":                 {`{"temperature":1`, "not JSON"},
		"cut off in lines":        {"[\n{\"a\":1},\n{\"a\":2", "not JSON"},
		"broken UTF-8":            {"{\"temperature\":1,\"name\":\"\xff\"}", "not UTF-8"},
		"broken UTF-8 in a line":  {"{\"temperature\":1}\n{\"name\":\"\xff\"}", "not UTF-8"},
		"control character":       {"{\"fw\":\"a\x01\\n\",\"temperature\":1}", "not JSON"},
		"deep in a thousand":      {`{"temperature":1,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "nested too deeply"},
		"deep in a million":       {strings.Repeat(`{"a":`, 1e6), "not JSON"},
		"too many readings":       {many + `"z":1}`, "more than 256 readings"},
		"too many, further on":    {`[{"a":1},` + many + `"z":1},{"a":2}]`, "more than 256 readings"},
		"too many parts":          {`[{"a":1}` + strings.Repeat(`,{"a":1}`, 1024) + `]`, "more than 1024 parts"},
		"too many parts in lines": {strings.Repeat("{\"a\":1}\n", 1025), "more than 1024 parts"},
	} {
		t.Run(name, func(t *testing.T) {
			c := read(tt.payload)
			assert.True(t, strings.HasPrefix(c.Reason, tt.reason), "reason %q", c.Reason)
			for _, p := range c.Parts {
				assert.Empty(t, p.Values)
			}
		})
	}
	assert.Equal(t, "| status=\"ok\"", said(read(`{"status":"ok"}`)), "and what could not be read is named")
	assert.Len(t, read(`[{"a":1}`+strings.Repeat(`,{"a":1}`, 1023)+`]`).Parts, 1024)
}

func TestPartsHaveTimesAndNumbersOfTheirOwn(t *testing.T) {
	c := read(`[{"boot_id":"x","sequence":1,"age_ms":2000,"a":1},{"boot_id":"x","sequence":2,"age_ms":1000,"a":null,"dropped":3},{"timestamp":1767783600,"a":3},{"a":4,"time":"noon"}]`)
	require.Empty(t, c.Reason)
	value := func(v float64) []store.Value { return []store.Value{{Metric: "a", Value: v}} }
	assert.Equal(t, []store.Part{
		{Time: arrival - 2000, TimeSource: store.FromAge, Numbering: store.Numbering{Boot: "x", Sequence: 1}, Values: value(1)},
		{Time: arrival - 1000, TimeSource: store.FromAge, Numbering: store.Numbering{Boot: "x", Sequence: 2, Dropped: 3}, Values: []store.Value{}},
		{Time: 1767783600000, TimeSource: store.FromDevice, Values: value(3)},
		{Time: arrival, TimeSource: store.FromArrivalImpossible, Given: "noon", Values: value(4)},
	}, c.Parts)
}

func TestNamesOfSkippedFieldsAreBounded(t *testing.T) {
	payload := `{"a":1`
	for i := range 1000 {
		payload += fmt.Sprintf(`,"%d%s":"%s"`, i, strings.Repeat("é", 100), strings.Repeat("ü", 100))
	}
	c := read(payload + "}")
	require.Len(t, c.Skipped, maxSkipped)
	for _, s := range c.Skipped {
		require.True(t, utf8.ValidString(s.Field) && len(s.Field) <= maxPathBytes)
		require.True(t, utf8.ValidString(s.Text) && len(s.Text) <= maxTextBytes)
	}
	assert.Equal(t, "other fields", c.Skipped[maxSkipped-1].Field)
}

func TestAReaderThatIsUsedAgainAllocatesLittle(t *testing.T) {
	r, payload := NewReader(), []byte(`{"timestamp":1767787200,"temperature":22.5,"wifi":{"rssi":-60},"list":[1,2]}`)
	allocs := testing.AllocsPerRun(100, func() {
		r.Reset()
		r.Telemetry(payload, Arrival{Time: arrival})
	})
	assert.LessOrEqual(t, allocs, 8.0, "also with the race detector, which counts some of its own")
}

// FuzzTelemetry states: no field vanishes. In an object of plain JSON each number, text, true and false is a reading of its
// name, a time, what a device says about the message, or it is named as skipped; every reading is finite and has a good name,
// once in its part.
func FuzzTelemetry(f *testing.F) {
	for _, seed := range []string{
		`{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"light":800}`, `{"a":1,"a":2}`, `{"a":nan}`, `{"a":1e999}`, `[{"a":1},2]`,
		`{"a":01}`, `{"a":1}x`, `[[[[`, `{"a":{"b":[1,{}]},"c":-0}`, `{"\ud800":1,"b":1}`, "{\"\xff\":1}", `{"timestamp":1e12,"temperature":"1"}`,
		`{"a":12345678901234567890123456789,"b":0.1234567890123456789e-300}`, `{"light":1,"light_level":true}`, ``, `null`, `"x"`,
		`{"boot_id":"x","sequence":1,"age_ms":5,"dropped":2,"ph":7}`, "{\"a\":1}\n{\"b\":\"x\"}", `{"d":[{"ts":1767783600,"a":2}]}`, `{"a":{"time":"x"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		c := NewReader().Telemetry(payload, Arrival{Time: arrival})
		require.Equal(t, before, payload)
		require.True(t, c.Reason != "" || len(c.Parts) > 0)
		require.LessOrEqual(t, len(c.Skipped), maxSkipped)
		readings := 0
		for _, p := range c.Parts {
			names := map[string]bool{}
			for _, v := range p.Values {
				require.True(t, printable(v.Metric) && len(v.Metric) <= maxNameBytes)
				require.False(t, math.IsNaN(v.Value) || math.IsInf(v.Value, 0))
				require.False(t, names[v.Metric], "a metric twice")
				names[v.Metric] = true
				readings++
			}
			if p.TimeSource != store.FromDevice && p.TimeSource != store.FromAge {
				require.Equal(t, arrival, p.Time)
			}
			require.True(t, p.Time >= earliest && p.Time <= arrival+maxAhead)
			require.LessOrEqual(t, len(p.Given), maxTextBytes)
		}
		require.True(t, c.Reason == "" || readings == 0)
		if fields, ok := leaves(payload); ok && c.Reason == "" && len(c.Skipped) < maxSkipped {
			require.Equal(t, fields, readings+len(c.Skipped), "%s", said(c))
		}
	})
}

// leaves counts with encoding/json the fields of an object that must be readings or skipped; ok is false where that cannot
// be said: keys that meet or are times or metadata.
func leaves(payload []byte) (count int, ok bool) {
	var root map[string]any
	in := json.NewDecoder(bytes.NewReader(payload))
	in.UseNumber()
	if !json.Valid(payload) || !utf8.Valid(payload) || in.Decode(&root) != nil || root == nil {
		return 0, false
	}
	special := map[string]bool{"light": true, "boot_id": true, "sequence": true, "age_ms": true, "dropped": true, "other fields": true}
	for _, name := range timeKeys {
		special[name] = true
	}
	keys, ok := 0, true
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			fold := map[string]bool{}
			for key, value := range v {
				lower := strings.ToLower(key)
				ok = ok && !special[lower] && !fold[lower] && !strings.Contains(key, ".") && !strings.Contains(key, "\ufffd")
				fold[lower] = true
				keys++
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		case nil:
		default:
			count++
		}
	}
	walk(root)
	return count, ok && keys == bytes.Count(payload, []byte(":"))-colonsInText(payload)
}

// colonsInText counts the colons that stand in strings: with them the keys of a text are counted, those that come twice too.
func colonsInText(payload []byte) (n int) {
	for i := 0; i < len(payload); i++ {
		if payload[i] == '"' {
			end := quoted(payload[i:])
			n += bytes.Count(payload[i:i+end], []byte(":"))
			i += end - 1
		}
	}
	return n
}
