package source

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/ingest/payload"
)

var arrival = payload.Arrival{Time: 1796025600000} // 2026-11-30T08:00:00Z

func TestOwnSources(t *testing.T) {
	for name, tt := range map[string]struct {
		config         Config
		topic, payload string
		device         string
		values         map[string]float64
		at             int64 // 0: the arrival
	}{
		"device and metric in the topic": {Config{Name: "farm", Topic: "farm/{device}/{metric}"}, "farm/bed 1/moisture", "34.5",
			"farm.bed-1", map[string]float64{"moisture": 34.5}, 0},
		"the value and the time stand somewhere": {Config{Name: "farm", Topic: "farm/{device}/{metric}", Value: "data.v", Time: "meta.at"},
			"farm/a/ph", `{"data":{"v":"7.1"},"meta":{"at":1796025000,"rssi":-70}}`, "farm.a", map[string]float64{"ph": 7.1}, 1796025000000},
		"fields get other names and units": {Config{Name: "farm", Topic: "farm/{device}", Fields: []Field{
			{From: "t", To: "temperature", Scale: 0.1}, {From: "h.rel", To: "humidity", Offset: -2}, {From: "outside", Unit: "F"}}},
			"farm/a", `{"t":215,"h":{"rel":52},"outside":32,"other":1}`, "farm.a",
			map[string]float64{"temperature": 21.5, "humidity": 50, "outside": 0, "other": 1}, 0},
		"the device stands in the payload": {Config{Name: "lora", Topic: "gateway/up", Device: "dev.name"}, "gateway/up",
			`{"dev":{"name":"Bed/1"},"temperature":3}`, "lora.Bed-1", map[string]float64{"temperature": 3}, 0},
		"a field of the topic's metric": {Config{Name: "farm", Topic: "farm/{device}/{metric}", Fields: []Field{{From: "temp", To: "temperature", Unit: "K"}}},
			"farm/a/temp", "273.15", "farm.a", map[string]float64{"temperature": 0}, 0},
		"values in a list": {Config{Name: "farm", Topic: "a/{device}/x", Value: "list.1"}, "a/b/x", `{"list":[{"a":1},{"a":2}]}`,
			"farm.b", map[string]float64{"a": 2}, 0},
		"one broken sensor does not take the others with it": {Config{Name: "farm", Topic: "farm/{device}", Time: "at"}, "farm/a",
			`{"at":1796025000,"a":nan,"b":2}`, "farm.a", map[string]float64{"b": 2}, 1796025000000},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Compile([]Config{tt.config})
			require.NoError(t, err)
			m := set.Match(tt.topic).Read(payload.NewReader(), []byte(tt.payload), arrival)
			require.Equal(t, Values, m.Fact, "%s", m.Content.Reason)
			assert.Equal(t, tt.device, m.Device)
			values := map[string]float64{}
			for _, v := range m.Content.Parts[0].Values {
				values[v.Metric] = v.Value
			}
			assert.InDeltaMapValues(t, tt.values, values, 1e-9)
			if tt.at == 0 {
				tt.at = arrival.Time
			}
			assert.Equal(t, tt.at, m.Content.Parts[0].Time)
		})
	}
}

func TestSourcesThatMakeNoSense(t *testing.T) {
	for name, tt := range map[string]struct {
		config Config
		says   string
	}{
		"nothing":                       {Config{Name: "farm"}, "needs a preset, or a topic"},
		"no name":                       {Config{Topic: "farm/{device}"}, "number 1: needs a name"},
		"a name with a dot":             {Config{Name: "my.farm", Topic: "farm/{device}"}, "needs a name of 1 to 24"},
		"no preset of that name":        {Config{Preset: "tasmotta"}, `there is no preset "tasmotta"; there are chirpstack, esphome,`},
		"a preset with a topic":         {Config{Preset: "tasmota", Topic: "tele/{device}/X"}, "leave out topic"},
		"a base with a wildcard":        {Config{Preset: "tasmota", Base: "+/x"}, "base must be levels"},
		"a base of one's own":           {Config{Name: "farm", Topic: "farm/{device}", Base: "x"}, "write the whole topic"},
		"no device":                     {Config{Name: "farm", Topic: "farm/{metric}"}, "one of the two"},
		"two devices":                   {Config{Name: "farm", Topic: "farm/{device}/{device}"}, "once only"},
		"a device in two places":        {Config{Name: "farm", Topic: "farm/{device}", Device: "id"}, "one of the two"},
		"a half level":                  {Config{Name: "farm", Topic: "farm/x{device}"}, "a whole level each"},
		"another word in braces":        {Config{Name: "farm", Topic: "farm/{device}/{value}"}, "a whole level each"},
		"a wildcard where none may be":  {Config{Name: "farm", Topic: "farm/{device}/#/x"}, "# must be the last level"},
		"what belongs to devices":       {Config{Name: "farm", Topic: "devices/{device}/x"}, "those of devices"},
		"what belongs to devices too":   {Config{Name: "farm", Topic: "+/{device}/telemetry/#"}, "those of devices"},
		"a topic of the broker":         {Config{Name: "farm", Topic: "$SYS/{device}"}, "begin with $"},
		"a path with an empty part":     {Config{Name: "farm", Topic: "farm/{device}", Value: "a..b"}, "must be a path"},
		"availability without a device": {Config{Name: "farm", Topic: "farm/{device}", Availability: "farm/status"}, "must have {device}"},
		"a field without from":          {Config{Preset: "tasmota", Fields: []Field{{To: "x"}}}, "needs from"},
		"a field twice":                 {Config{Preset: "tasmota", Fields: []Field{{From: "x"}, {From: "x"}}}, "is there twice"},
		"an unknown unit":               {Config{Preset: "tasmota", Fields: []Field{{From: "x", Unit: "furlong"}}}, `no such unit "furlong"`},
		"a unit and a scale":            {Config{Preset: "tasmota", Fields: []Field{{From: "x", Unit: "F", Scale: 2}}}, "leave these out"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile([]Config{tt.config})
			assert.ErrorContains(t, err, tt.says)
		})
	}
	_, err := Compile([]Config{{Preset: "tasmota"}, {Preset: "shelly", Name: "tasmota"}, {Preset: "x"}})
	assert.ErrorContains(t, err, "another source of this name")
	assert.ErrorContains(t, err, `no preset "x"`, "everything that is wrong is said at once")
}

func TestIDOfADeviceBehindAGateway(t *testing.T) {
	long := strings.Repeat("ü", 40)
	for name, want := range map[string]string{
		"kitchen":                "z.kitchen",
		"kitchen/window sensor":  "z.kitchen-window-sensor",
		"  Living room (south) ": "z.Living-room-south",
		"Ku\u0308che":            "z.K\u00fcche",
		"a+b#c$d%e":              "z.a-b-c-d-e",
		"x.y_z-1":                "z.x.y_z-1",
		"温室":                     "z.温室",
		"\xff\xfe":               "",
		"///":                    "",
		"":                       "",
		"a\x00b\nc":              "z.a-b-c",
		"0x00158d0001dc126a":     "z.0x00158d0001dc126a",
		"C6:C7:52:66:3C:BF":      "z.C6-C7-52-66-3C-BF",
		long:                     ID("z", long),
		"\u202eevil\u202d":       "z.evil",
	} {
		id := ID("z", name)
		assert.Equal(t, want, id, "%q", name)
		assert.LessOrEqual(t, len(id), 64)
		assert.True(t, utf8.ValidString(id))
	}
	assert.NotEqual(t, ID("z", long), ID("z", long+"x"), "names that are cut stay apart")
}

func TestFiltersOfASet(t *testing.T) {
	set, err := Compile([]Config{{Preset: "tasmota"}, {Preset: "zigbee2mqtt", Base: "house/zigbee"}, {Name: "all", Topic: "house/{device}/#"}})
	require.NoError(t, err)
	assert.Equal(t, []string{"tele/+/SENSOR", "tele/+/STATE", "tele/+/LWT", "house/+/#"}, set.Filters(), "none that another one covers")
	assert.True(t, set.Understands("tele/+/SENSOR"))
	assert.True(t, set.Understands("#"))
	assert.False(t, set.Understands("stat/+/RESULT"))
	grant, err := set.Grants("tasmota", "bed 1")
	require.NoError(t, err)
	assert.Equal(t, []string{"tele/bed 1/#", "stat/bed 1/#", "tasmota/discovery/#"}, grant.Publish)
	assert.Equal(t, []string{"cmnd/bed 1/#", "cmnd/tasmotas/#"}, grant.Subscribe)
	grant, err = set.Grants("zigbee2mqtt", "attic")
	require.NoError(t, err)
	assert.Equal(t, []string{"house/zigbee/#", "homeassistant/#"}, grant.Publish)
	grant, err = set.Grants("all", "x")
	require.NoError(t, err)
	assert.Equal(t, []string{"house/x/#"}, grant.Publish)
	_, err = set.Grants("shelly", "x")
	assert.ErrorContains(t, err, "no source")

	var none *Set
	assert.Empty(t, none.Filters())
	assert.Equal(t, Nothing, none.Match("tele/x/SENSOR").Kind)
	assert.Equal(t, Empty, none.Match("tele/x/SENSOR").Read(payload.NewReader(), []byte("1"), arrival).Fact)
}

// Nobody gets the topics of other devices by a name.
func TestANameOpensNoTopicsOfOthers(t *testing.T) {
	set, err := Compile([]Config{{Preset: "shelly"}, {Preset: "esphome"}})
	require.NoError(t, err)
	for _, source := range set.Names() {
		_, err := set.Grants(source, "devices")
		assert.ErrorContains(t, err, "cannot be called", source)
		_, err = set.Grants(source, "bed-1")
		assert.NoError(t, err)
	}
}

// Every preset's account may publish what the preset reads of its device.
func TestGrantsLetThroughWhatIsRead(t *testing.T) {
	for _, name := range Presets() {
		set, err := Compile([]Config{{Preset: name}})
		require.NoError(t, err)
		grant, err := set.Grants(name, "dev")
		require.NoError(t, err)
		for _, r := range set.rules {
			if r.kind == Ignored {
				continue
			}
			levels := append(pattern{}, r.pattern...)
			for i, level := range levels {
				if level == "{device}" || level == "+" && name == "openmqttgateway" && i == 1 || level == "+" && name == "rtl_433" && i == 1 {
					levels[i] = "dev"
				}
			}
			covered := false
			for _, filter := range grant.Publish {
				covered = covered || topic.Covers(filter, levels.filter())
			}
			assert.True(t, covered, "%s: %s in %v", name, levels.filter(), grant.Publish)
		}
	}
}

// Whatever topic fits a source is one that it has asked for, and whatever comes is read without harm: its device has an id
// that can be one, and its readings have names and finite values.
func FuzzMatchAndRead(f *testing.F) {
	var configs []Config
	for _, name := range Presets() {
		configs = append(configs, Config{Preset: name})
	}
	set, err := Compile(append(configs, Config{Name: "farm", Topic: "farm/{device}/{metric}", Value: "v", Time: "t", Availability: "farm/{device}"}))
	require.NoError(f, err)
	f.Add("tele/x/SENSOR", []byte(`{"Time":"2020-01-01T00:00:00","AM2301":{"Temperature":1}}`))
	f.Add("shelly/events/rpc", []byte(`{"params":{"ts":1,"switch:0":{"output":true}}}`))
	f.Add("zigbee2mqtt/a/b/availability", []byte(`{"state":"online"}`))
	f.Add("rtl_433/h/events", []byte(`{"model":"x","id":1,"t":2}`))
	f.Add("application/1/device/2/event/up", []byte(`{"object":"{\"a\":1}","rxInfo":[{"rssi":1}]}`))
	f.Add("farm/a/b", []byte(`{"v":[1,{"t":1796025000}],"t":"x"}`))
	f.Add("home/x/433toMQTT", []byte("ON"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if topic.Check(name, topic.MaxBytes) != nil || strings.HasPrefix(name, "devices/") {
			return
		}
		match := set.Match(name)
		asked := false
		for _, filter := range set.Filters() {
			asked = asked || topic.Matches(filter, name)
		}
		if match.Kind == Reading || match.Kind == Availability {
			require.True(t, asked, "%q is not subscribed to", name)
		}
		m := match.Read(payload.NewReader(), content, arrival)
		require.LessOrEqual(t, len(m.Device), 64)
		require.False(t, strings.ContainsAny(m.Device, "+#/$%"), "%q", m.Device)
		if m.Fact == Values {
			require.NotEmpty(t, m.Device)
			require.NotEmpty(t, m.Content.Parts)
		}
		for _, p := range m.Content.Parts {
			for _, v := range p.Values {
				require.NotEmpty(t, v.Metric)
				require.False(t, v.Value != v.Value || v.Value-v.Value != 0, "%v", v)
			}
		}
	})
}

// What Compile takes has filters that MQTT knows, and a name for each source; it never panics.
func FuzzCompile(f *testing.F) {
	f.Add("farm", "farm/{device}/{metric}", "data.value", "meta.time", "")
	f.Add("x", "+/{device}/#", "", "", "y/{device}/z")
	f.Fuzz(func(t *testing.T, name, own, value, at, availability string) {
		set, err := Compile([]Config{{Name: name, Topic: own, Value: value, Time: at, Availability: availability}})
		if err != nil {
			return
		}
		require.Equal(t, []string{name}, set.Names())
		require.NotEmpty(t, set.Filters())
		for _, filter := range set.Filters() {
			require.Equal(t, topic.Faultless, topic.Filters{NoControl: true, NoDollar: true, Unshared: true}.Fault(filter), "%q", filter)
			require.False(t, topic.Overlap(filter, "devices/#"), "%q", filter)
		}
	})
}
