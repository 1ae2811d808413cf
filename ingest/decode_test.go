package ingest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
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

// payloadCase is one line of testdata/payloads.jsonl: what came, and what is right.
type payloadCase struct {
	Name    string
	Topic   string
	Payload string
	Encoded string `json:"payload_base64"`
	Rows    []struct {
		Time     *time.Time
		Readings map[string]float64
	}
	Skipped     []string
	Quarantined bool
}

func payloadCases(t *testing.T) (cases []payloadCase) {
	file, err := os.Open("testdata/payloads.jsonl")
	require.NoError(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var c payloadCase
		require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
		if c.Encoded != "" {
			decoded, err := base64.StdEncoding.DecodeString(c.Encoded)
			require.NoError(t, err)
			c.Payload = string(decoded)
		}
		cases = append(cases, c)
	}
	require.Len(t, cases, 28)
	return cases
}

// The cases are what devices in people's houses send.
func TestDecodePayloadsOfTheField(t *testing.T) {
	received := time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC).UnixMilli()
	for _, c := range payloadCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			m := Decode(strings.ReplaceAll(c.Topic, "{device}", "bed-1"), []byte(c.Payload), received, false)
			require.Equal(t, c.Quarantined, m.Kind == store.Bad, "reason %q", m.Reason)
			var skipped []string
			for _, s := range m.Skipped {
				skipped = append(skipped, s.Field)
			}
			assert.Equal(t, c.Skipped, skipped)
			if c.Quarantined {
				return
			}
			parts := append([]store.Part{{Time: m.Time, TimeSource: m.TimeSource, Values: m.Values}}, m.More...)
			require.Len(t, parts, len(c.Rows))
			for i, row := range c.Rows {
				readings := map[string]float64{}
				for _, v := range parts[i].Values {
					readings[v.Metric] = v.Value
				}
				assert.Equal(t, row.Readings, readings)
				if row.Time != nil {
					assert.Equal(t, store.FromDevice, parts[i].TimeSource)
					assert.Equal(t, row.Time.UnixMilli(), parts[i].Time)
				} else {
					assert.NotEqual(t, store.FromDevice, parts[i].TimeSource)
				}
			}
		})
	}
}

func TestDecodeKeepsWhatItCannotUse(t *testing.T) {
	for name, tt := range map[string]struct{ topic, payload, reason string }{
		"not JSON":               {telemetryTopic, `{"temperature":01}`, "not JSON"},
		"no reading":             {telemetryTopic, `{"status":"ok"}`, "no reading"},
		"another topic":          {"devices/bed-1/status", `{"ph":1}`, "unknown topic"},
		"two levels more":        {"devices/bed-1/telemetry/x/y", `1`, "unknown topic"},
		"a level more":           {"devices/bed-1/heartbeat/x", `1`, "unknown topic"},
		"metric of half a glyph": {"devices/bed-1/telemetry/a\\b", `1`, "bad metric name"},
		"somebody else's":        {"zigbee2mqtt/x", `{"ph":1}`, "unknown topic"},
		"no device":              {"devices//telemetry", `{"ph":1}`, "unknown topic"},
		"topic in broken UTF-8":  {"devices/\xff/telemetry", `{"ph":1}`, "topic is not UTF-8"},
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
	for _, payload := range []string{"", "{}", `{"uptime":12,"temperature":3}`, "1", "null", "online", "\xff\x00"} {
		m := Decode("devices/bed-1/heartbeat", []byte(payload), arrival, false)
		assert.Equal(t, store.Heartbeat, m.Kind, payload)
		assert.Equal(t, arrival, m.Time)
		assert.Empty(t, m.Values, "a heartbeat only says that the device lives")
	}
}

func TestDecodeSlashBehindTelemetry(t *testing.T) {
	m := Decode(telemetryTopic+"/", []byte(`{"ph":7}`), arrival, false)
	assert.Equal(t, []store.Value{{Metric: "ph", Value: 7}}, m.Values)
}

func TestBatchDecodingDoesNotMixMessages(t *testing.T) {
	d := newDecoder("", nil)
	d.decodeAll([]item{{topic: telemetryTopic, payload: []byte(`{"x":9,"y":9,"z":"?"}`)}})
	got := d.decodeAll([]item{
		{topic: telemetryTopic, payload: []byte(`{"a":1,"b":2}`)},
		{topic: telemetryTopic, payload: []byte(`{"a":1,"b":`)},
		{topic: telemetryTopic, payload: []byte(`[{"a":4,"b":"x"},{"a":5}]`)},
		{topic: "devices/bed-2/telemetry/c", payload: []byte(`3`)},
	})
	require.Len(t, got, 4)
	assert.Equal(t, []store.Value{{Metric: "a", Value: 1}, {Metric: "b", Value: 2}}, got[0].Values)
	assert.Empty(t, got[0].Skipped)
	assert.Empty(t, got[1].Values)
	assert.Equal(t, []store.Value{{Metric: "a", Value: 4}}, got[2].Values)
	require.Len(t, got[2].More, 1)
	assert.Equal(t, []store.Value{{Metric: "a", Value: 5}}, got[2].More[0].Values)
	assert.Equal(t, []store.Skipped{{Field: "b", Text: "x"}}, got[2].Skipped)
	assert.Equal(t, []store.Value{{Metric: "c", Value: 3}}, got[3].Values)
	assert.Equal(t, "bed-2", got[3].Device)
}

// FuzzDecode states: whatever comes on whatever topic has one outcome. A message keeps its payload; a bad one has a reason, a
// topic in UTF-8 and no values; one of telemetry has a device.
func FuzzDecode(f *testing.F) {
	for _, topic := range []string{telemetryTopic, telemetryTopic + "/ph", telemetryTopic + "/", "devices/bed-1/heartbeat", "devices//x", "a", "\xff"} {
		for _, payload := range []string{`{"ph":7}`, `7`, `[{"a":1},{"a":"x"}]`, "{\"a\":1}\n{\"a\":2}", `{"boot_id":"x","sequence":1,"age_ms":5}`, ``, `nan`} {
			f.Add(topic, []byte(payload))
		}
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		before := bytes.Clone(payload)
		m := Decode(topic, payload, arrival, false)
		require.Equal(t, before, payload)
		require.Equal(t, before, m.Payload)
		require.True(t, utf8.ValidString(m.Topic))
		require.Equal(t, m.Kind == store.Bad, m.Reason != "")
		switch m.Kind {
		case store.Bad:
			require.Empty(t, m.Values)
			require.Empty(t, m.More)
			require.Equal(t, arrival, m.Time)
		case store.Telemetry:
			require.NotEmpty(t, m.Device)
		}
	})
}
