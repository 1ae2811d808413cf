package ingest

import (
	"strings"
	"unicode/utf8"

	"github.com/plantops/plantops/ingest/payload"
	"github.com/plantops/plantops/ingest/source"
	"github.com/plantops/plantops/store"
)

// Decode makes a message of what arrived on topic at received (UTC milliseconds). It is pure, and total: what cannot
// be used comes back as Bad with a reason, together with the content. The result refers to content.
//
// Heartbeats (devices/ID/heartbeat) may be anything; only their arrival counts. Telemetry (devices/ID/telemetry, with or
// without a slash behind it) is described at payload.Reader.Telemetry, and telemetry of one metric
// (devices/ID/telemetry/METRIC) at payload.Reader.Value.
func Decode(topic string, content []byte, received int64, clockUnsure bool) store.Message {
	return DecodeWith(nil, Arrived{Topic: topic, Payload: content, Time: received, ClockUnsure: clockUnsure})
}

// Arrived is a message as it came.
type Arrived struct {
	Topic       string
	Payload     []byte
	Time        int64 // UTC ms
	ClockUnsure bool  // this machine's clock was not to be trusted then
}

// DecodeWith is Decode with sources, whose topics are those of other people's programs.
func DecodeWith(sources *source.Set, a Arrived) store.Message {
	return newDecoder("", sources).decode(item{topic: a.Topic, payload: a.Payload, received: a.Time, clockUnsure: a.ClockUnsure})
}

// DeviceTopics are the filters of the topics that need no source.
func DeviceTopics() []string {
	return []string{"devices/+/telemetry", "devices/+/telemetry/+", "devices/+/heartbeat"}
}

// decoder is Decode with memory that is used again.
type decoder struct {
	probe    string // the topic of probes
	sources  *source.Set
	reader   *payload.Reader
	messages []store.Message
}

func newDecoder(probe string, sources *source.Set) *decoder {
	return &decoder{probe: probe, sources: sources, reader: payload.NewReader()}
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
		ClockLine:   it.clockLine,
		Payload:     it.payload,
		Retained:    it.retained,
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
		d.foreign(&m, it, at)
	case what == "heartbeat" && metric == "":
		m.Kind = store.Heartbeat
		if it.retained {
			m.Kind = store.Nothing // it lived once
		}
	case what == "telemetry" && metric == "":
		take(&m, d.reader.Telemetry(it.payload, at))
	case what == "telemetry" && !strings.Contains(metric, "/"):
		take(&m, d.reader.Value(metric, it.payload, at))
	default:
		m.Kind, m.Reason = store.Bad, reasonTopic
	}
	return m
}

// reasonTopic is why a message is refused whose topic nobody understands.
const reasonTopic = "unknown topic"

// foreign reads a message of another program.
func (d *decoder) foreign(m *store.Message, it item, at payload.Arrival) {
	match := d.sources.Match(it.topic)
	if match.Kind == source.Nothing {
		m.Kind, m.Reason = store.Bad, reasonTopic
		return
	}
	said := match.Read(d.reader, it.payload, at)
	m.Device = said.Device
	if it.retained && (said.Fact == source.Online || said.Fact == source.Offline) {
		said.Fact = source.Empty // that is how it was once
	}
	switch said.Fact {
	case source.Values:
		take(m, said.Content)
	case source.Online:
		m.Kind = store.Heartbeat
	case source.Offline:
		m.Kind = store.Farewell
	case source.Unknown:
		m.Kind, m.Reason, m.Skipped = store.Bad, said.Content.Reason, said.Content.Skipped
	default:
		m.Kind = store.Nothing
	}
	if said.Device != "" {
		m.Behind = store.Behind{Source: match.Source, Raw: said.Raw, Account: it.account}
	}
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
