package ingest

import (
	"strings"
	"unicode/utf8"

	"github.com/plantops/plantops/ingest/payload"
	"github.com/plantops/plantops/store"
)

// Decode makes a message of what arrived on topic at received (UTC milliseconds). It is pure, and total: what cannot
// be used comes back as Bad with a reason, together with the content. The result refers to content.
//
// Heartbeats (devices/ID/heartbeat) may be anything; only their arrival counts. Telemetry (devices/ID/telemetry, with or
// without a slash behind it) is described at payload.Reader.Telemetry, and telemetry of one metric
// (devices/ID/telemetry/METRIC) at payload.Reader.Value.
func Decode(topic string, content []byte, received int64, clockUnsure bool) store.Message {
	return newDecoder("").decode(item{topic: topic, payload: content, received: received, clockUnsure: clockUnsure})
}

// decoder is Decode with memory that is used again.
type decoder struct {
	probe    string // the topic of probes
	reader   *payload.Reader
	messages []store.Message
}

func newDecoder(probe string) *decoder {
	return &decoder{probe: probe, reader: payload.NewReader()}
}

// decodeAll decodes a batch. The result is valid until the next call.
func (d *decoder) decodeAll(items []item) []store.Message {
	clear(d.messages)
	d.messages = d.messages[:0]
	d.reader.Reset()
	for _, it := range items {
		d.messages = append(d.messages, d.decode(it))
	}
	return d.messages
}

func (d *decoder) decode(it item) store.Message {
	m := store.Message{
		Topic:       it.topic,
		Time:        it.received,
		Received:    it.received,
		TimeSource:  store.FromArrival,
		ClockUnsure: it.clockUnsure,
		Payload:     it.payload,
	}
	var what, metric string
	m.Device, what, metric = splitTopic(it.topic)
	at := payload.Arrival{Time: it.received, Unsure: it.clockUnsure}
	switch {
	case it.topic == d.probe && it.topic != "":
		m.Kind = store.Probe
	case !utf8.ValidString(it.topic):
		m.Device, m.Topic = "", strings.ToValidUTF8(it.topic, "\uFFFD")
		m.Kind, m.Reason = store.Bad, "topic is not UTF-8"
	case m.Device == "":
		m.Kind, m.Reason = store.Bad, "unknown topic"
	case what == "heartbeat" && metric == "":
		m.Kind = store.Heartbeat
	case what == "telemetry" && metric == "":
		take(&m, d.reader.Telemetry(it.payload, at))
	case what == "telemetry" && !strings.Contains(metric, "/"):
		take(&m, d.reader.Value(metric, it.payload, at))
	default:
		m.Kind, m.Reason = store.Bad, "unknown topic"
	}
	return m
}

// take puts what a payload says into its message.
func take(m *store.Message, c payload.Content) {
	m.Skipped = c.Skipped
	if len(c.Parts) > 0 {
		m.Numbering = c.Parts[0].Numbering
	}
	if c.Reason != "" {
		m.Kind, m.Reason = store.Bad, c.Reason
		return
	}
	m.Kind = store.Telemetry
	first := c.Parts[0]
	m.Time, m.TimeSource, m.Given, m.Values = first.Time, first.TimeSource, first.Given, first.Values
	m.More = c.Parts[1:]
}

// splitTopic takes devices/ID/WHAT and devices/ID/WHAT/METRIC apart; device is empty for any other topic. Which ids are
// allowed the store knows.
func splitTopic(topic string) (device, what, metric string) {
	rest, ok := strings.CutPrefix(topic, "devices/")
	if !ok {
		return "", "", ""
	}
	device, rest, _ = strings.Cut(rest, "/")
	what, metric, _ = strings.Cut(rest, "/")
	return device, what, metric
}
