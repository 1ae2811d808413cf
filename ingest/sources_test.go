package ingest

import (
	"bufio"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
)

// heard is a payload that somebody's program sent, and what its owner expects of it.
type heard struct {
	Source   string             `json:"source"`
	From     string             `json:"from"` // where it was found
	Topic    string             `json:"topic"`
	Payload  string             `json:"payload"`
	Device   string             `json:"device"`
	Becomes  string             `json:"becomes"`
	Readings map[string]float64 `json:"readings"`
	Skipped  []string           `json:"skipped"`
	Time     time.Time          `json:"time"` // zero: that of the arrival
}

var heardAt = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC).UnixMilli()

func readHeard(t testing.TB) []heard {
	file, err := os.Open("testdata/sources.jsonl")
	require.NoError(t, err)
	defer file.Close()
	var all []heard
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var h heard
		require.NoError(t, json.Unmarshal(lines.Bytes(), &h), "%s", lines.Text())
		all = append(all, h)
	}
	require.NotEmpty(t, all)
	return all
}

func compiled(t testing.TB, configs ...source.Config) *source.Set {
	set, err := source.Compile(configs)
	require.NoError(t, err)
	return set
}

func everyPreset(t testing.TB) *source.Set {
	var configs []source.Config
	for _, name := range source.Presets() {
		configs = append(configs, source.Config{Preset: name})
	}
	return compiled(t, configs...)
}

// becomes is what a message is for its owner.
func becomes(m store.Message) string {
	switch {
	case m.Kind == store.Telemetry && len(m.Values) > 0:
		return "readings"
	case m.Kind == store.Telemetry, m.Kind == store.Heartbeat:
		return "heartbeat"
	case m.Kind == store.Farewell:
		return "offline"
	case m.Kind == store.Nothing:
		return "nothing"
	}
	return "quarantine: " + m.Reason
}

// What people's programs send becomes what they expect, whether theirs is the only source or one of all.
func TestPayloadsOfOtherPrograms(t *testing.T) {
	all := everyPreset(t)
	for _, h := range readHeard(t) {
		for name, set := range map[string]*source.Set{"alone": compiled(t, source.Config{Preset: h.Source}), "among all": all} {
			t.Run(h.Source+"/"+h.Topic+"/"+name, func(t *testing.T) {
				m := DecodeWith(set, Arrived{Topic: h.Topic, Payload: []byte(h.Payload), Time: heardAt})
				require.Equal(t, h.Becomes, becomes(m), "%s", h.Payload)
				assert.Equal(t, h.Device, m.Device)
				readings := map[string]float64{}
				for _, v := range m.Values {
					readings[v.Metric] = v.Value
				}
				if h.Readings == nil {
					h.Readings = map[string]float64{}
				}
				assert.Equal(t, h.Readings, readings)
				assert.Empty(t, m.More)
				var skipped []string
				for _, s := range m.Skipped {
					skipped = append(skipped, s.Field)
				}
				assert.Equal(t, h.Skipped, skipped)
				switch {
				case h.Becomes == "readings" && h.Time.IsZero():
					assert.Equal(t, store.FromArrival, m.TimeSource)
					assert.Equal(t, heardAt, m.Time)
				case h.Becomes == "readings":
					assert.Equal(t, store.FromDevice, m.TimeSource)
					assert.Equal(t, h.Time, time.UnixMilli(m.Time).UTC())
				}
				if h.Device != "" && h.Becomes != "nothing" {
					assert.Equal(t, h.Source, m.Behind.Source)
				}
			})
		}
	}
}

// A copy that a broker has kept says how it was once: it proves no life, and nobody goes by it.
func TestRetainedCopiesProveNothing(t *testing.T) {
	d := newDecoder("", everyPreset(t))
	for topic, payload := range map[string]string{
		"tele/kitchen/LWT":              "Online",
		"zigbee2mqtt/lamp/availability": `{"state":"offline"}`,
		"homie/car/$state":              "lost",
		"devices/bed-1/heartbeat":       "",
	} {
		it := item{topic: topic, payload: []byte(payload), received: heardAt}
		fresh := d.decode(it)
		assert.Contains(t, []store.Kind{store.Heartbeat, store.Farewell}, fresh.Kind, topic)
		it.retained = true
		kept := d.decode(it)
		assert.Equal(t, store.Nothing, kept.Kind, topic)
		assert.True(t, kept.Retained)
		assert.Equal(t, fresh.Device, kept.Device)
	}
}

// Which account sent a message is known from the embedded broker only: another one passes on what anybody claims.
func TestOnlyTheEmbeddedBrokerSaysWhoSentAMessage(t *testing.T) {
	for _, embedded := range []bool{true, false} {
		s, err := New(Options{Host: "localhost", Port: 1, ClientID: "x", Topics: []string{"#"}, MaxBatch: 1, StallTimeout: time.Second,
			Embedded: embedded, Sources: everyPreset(t)}, &open{})
		require.NoError(t, err)
		l := link{Subscriber: s}
		l.hold(item{topic: "tele/kitchen/LWT", payload: []byte("Online"), account: "gate"})
		l.handOver()
		m := newDecoder("", s.o.Sources).decode(s.queue.take(nil, 1)[0])
		assert.Equal(t, embedded, m.Behind.Account == "gate")
		assert.Equal(t, "kitchen", m.Behind.Raw)
	}
}

// Whatever arrives becomes a message with one of the kinds, and a device behind a gateway has a source and a name there.
func FuzzDecodeWithSources(f *testing.F) {
	set := everyPreset(f)
	for _, h := range readHeard(f) {
		f.Add(h.Topic, []byte(h.Payload))
	}
	f.Fuzz(func(t *testing.T, topic string, content []byte) {
		m := DecodeWith(set, Arrived{Topic: topic, Payload: content, Time: heardAt})
		require.LessOrEqual(t, m.Kind, store.Nothing)
		require.Equal(t, m.Kind == store.Bad, m.Reason != "")
		if m.Behind.Source != "" {
			require.NotEmpty(t, m.Device)
			require.NotEmpty(t, m.Behind.Raw)
		}
		if m.Kind == store.Heartbeat || m.Kind == store.Farewell {
			require.NotEmpty(t, m.Device)
		}
	})
}
