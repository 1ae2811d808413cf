package ingest

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

const (
	maxNameBytes = 64      // of a metric
	maxReadings  = 256     // in one message
	maxNames     = 1024    // metric names kept for reuse
	maxScratch   = 1 << 16 // a payload larger than this leaves no scratch memory behind
)

// Decode makes a message of what arrived on topic at received (UTC milliseconds). It is pure, and total: what cannot
// be used comes back as Bad with a reason, together with the payload. The result refers to payload.
//
// Heartbeats (devices/ID/heartbeat) may be empty or any JSON; only their arrival counts. Telemetry
// (devices/ID/telemetry) is one JSON object:
//
//   - Numbers are readings of the metric they are called; true and false are 1 and 0. "light" is light_level, unless
//     the object has a light_level too. A metric given twice has its last value.
//   - soil_moisture, temperature, humidity and light_level may also be written as strings ("22.5").
//   - null is no value. Other strings, objects and arrays are no readings; they are left out.
//   - "timestamp" is described at timestamp.
//   - "boot_id", "sequence", "age_ms" and "dropped" come from a device that numbers its messages or has no time; they are
//     described at tell. Without a timestamp that can be, the time is that of arrival less the age.
//   - The whole message is Bad when a number does not fit a float64, when a metric's name is not 1 to 64 bytes of
//     printable text, or when no reading is left.
func Decode(topic string, payload []byte, received int64, clockUnsure bool) store.Message {
	return newDecoder("").decode(topic, payload, received, clockUnsure)
}

// decoder is Decode with memory that is used again: of a batch that looks like the one before, nothing is allocated.
type decoder struct {
	probe    string // the topic of probes
	parser   fastjson.Parser
	names    map[string]string // metric names seen, all of them good
	number   []byte
	values   []store.Value // of all messages of the batch, one after the other
	messages []store.Message
}

func newDecoder(probe string) *decoder {
	return &decoder{probe: probe, names: make(map[string]string)}
}

// decodeAll decodes a batch. The result is valid until the next call.
func (d *decoder) decodeAll(items []item, clockUnsure bool) []store.Message {
	clear(d.messages)
	d.messages, d.values = d.messages[:0], d.values[:0]
	for _, it := range items {
		d.messages = append(d.messages, d.decode(it.topic, it.payload, it.received, clockUnsure))
	}
	return d.messages
}

func (d *decoder) decode(topic string, payload []byte, received int64, clockUnsure bool) store.Message {
	m := store.Message{
		Topic:       topic,
		Time:        received,
		Received:    received,
		TimeSource:  store.FromArrival,
		ClockUnsure: clockUnsure,
		Payload:     payload,
	}
	var what string
	m.Device, what = splitTopic(topic)
	switch {
	case topic == d.probe && topic != "":
		m.Kind = store.Probe
	case !utf8.ValidString(topic):
		m.Device, m.Topic = "", strings.ToValidUTF8(topic, "\uFFFD")
		m.Reason = "topic is not UTF-8"
	case m.Device == "":
		m.Reason = "unknown topic"
	case what == "heartbeat":
		m.Kind = store.Heartbeat
		m.Reason = heartbeatProblem(payload)
	case what == "telemetry":
		m.Kind = store.Telemetry
		m.Reason = d.telemetry(&m)
	default:
		m.Reason = "unknown topic"
	}
	if m.Reason != "" {
		m.Kind, m.Values = store.Bad, nil
		m.Time, m.TimeSource = received, store.FromArrival
	}
	return m
}

// splitTopic takes devices/ID/WHAT apart; device is empty for any other topic. Which ids are allowed the store knows.
func splitTopic(topic string) (device, what string) {
	rest, ok := strings.CutPrefix(topic, "devices/")
	if !ok {
		return "", ""
	}
	device, what, _ = strings.Cut(rest, "/")
	return device, what
}

// printable tells whether a name is text that a person can read: not empty, valid UTF-8, no control characters. The
// backslash and the replacement character are what is left of broken escapes.
func printable(name string) bool {
	for _, r := range name {
		if r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return name != ""
}

func heartbeatProblem(payload []byte) string {
	if len(payload) == 0 {
		return ""
	}
	return jsonProblem(payload)
}

// jsonProblem says why payload is no JSON text, "" if it is. fastjson alone takes nan, 01, control characters, broken
// escapes and broken UTF-8.
func jsonProblem(payload []byte) string {
	switch {
	case len(payload) == 0:
		return "empty payload"
	case !utf8.Valid(payload):
		return "not UTF-8"
	case json.Valid(payload):
		return ""
	}
	var any json.RawMessage
	return "not JSON: " + json.Unmarshal(payload, &any).Error()
}

// telemetry fills in the time and the values of m, or says why it cannot.
func (d *decoder) telemetry(m *store.Message) (reason string) {
	if reason := jsonProblem(m.Payload); reason != "" {
		return reason
	}
	if len(m.Payload) > maxScratch {
		defer func() { d.parser = fastjson.Parser{} }()
	}
	root, err := d.parser.ParseBytes(m.Payload)
	if err != nil {
		return "nested too deeply" // the one thing that fastjson refuses in valid JSON
	}
	object, err := root.Object()
	if err != nil {
		return "not a JSON object"
	}
	fields := fields{decoder: d, start: len(d.values)}
	told, tells := tell(object)
	m.Numbering = told.numbering
	m.Time, m.TimeSource = told.when(m.Received, m.ClockUnsure)
	object.Visit(func(key []byte, v *fastjson.Value) {
		if reason != "" || tells && isTold(key) {
			return
		}
		if string(key) == "timestamp" {
			if at, source := timestamp(v, m.Received, m.ClockUnsure); source == store.FromDevice || !told.aged && source != store.FromArrival {
				m.Time, m.TimeSource = at, source
			}
			return
		}
		reason = fields.add(key, v)
	})
	m.Values = d.values[fields.start:len(d.values):len(d.values)]
	if reason == "" && len(m.Values) == 0 {
		reason = "no reading"
	}
	return reason
}

// fields collects the readings of one message at the end of decoder.values.
type fields struct {
	*decoder
	start   int
	aliased bool // light_level came from "light" so far
}

// add takes one field of the object. reason is set when the whole message must be refused.
func (f *fields) add(key []byte, v *fastjson.Value) (reason string) {
	value, ok := f.value(key, v)
	if !ok {
		return ""
	}
	alias := string(key) == "light"
	if alias {
		key = []byte("light_level")
	}
	metric, ok := f.name(key)
	if !ok {
		return "bad metric name: not 1 to 64 bytes of printable text"
	}
	if math.IsInf(value, 0) {
		return "number too large"
	}
	if metric == "light_level" {
		if alias && !f.aliased && f.find(metric) != nil {
			return ""
		}
		f.aliased = alias
	}
	if same := f.find(metric); same != nil {
		same.Value = value
		return ""
	}
	if len(f.values)-f.start == maxReadings {
		return "more than 256 readings"
	}
	f.values = append(f.values, store.Value{Metric: metric, Value: value})
	return ""
}

func (f *fields) find(metric string) *store.Value {
	for i := f.start; i < len(f.values); i++ {
		if f.values[i].Metric == metric {
			return &f.values[i]
		}
	}
	return nil
}

// value returns the number that a field holds; ok is false when it is no reading. Too large a number is infinite.
func (f *fields) value(key []byte, v *fastjson.Value) (value float64, ok bool) {
	switch v.Type() {
	case fastjson.TypeNumber:
		f.number = v.MarshalTo(f.number[:0])
	case fastjson.TypeString:
		text := v.GetStringBytes()
		if !writtenAsString(key) || !isNumber(text) {
			return 0, false
		}
		f.number = append(f.number[:0], text...)
	case fastjson.TypeTrue:
		return 1, true
	case fastjson.TypeFalse:
		return 0, true
	default:
		return 0, false
	}
	value, _ = strconv.ParseFloat(string(f.number), 64) // fastjson's own may be off by a bit; the one error is range: ±Inf
	return value, true
}

// writtenAsString tells which metrics may come as a string: those of the old system, whose backend took them so. Other
// strings that look like numbers are names and versions.
func writtenAsString(key []byte) bool {
	switch string(key) {
	case "soil_moisture", "temperature", "humidity", "light_level", "light":
		return true
	}
	return false
}

// isNumber tells whether text is a number as JSON writes it.
func isNumber(text []byte) bool {
	if len(text) == 0 || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return false
	}
	return !bytes.ContainsAny(text, " \t\r\n") && json.Valid(text)
}

// name returns the metric's name as a string that is shared between messages, and whether it may be one.
func (d *decoder) name(key []byte) (string, bool) {
	if name, ok := d.names[string(key)]; ok {
		return name, true
	}
	name := string(key)
	if len(name) > maxNameBytes || !printable(name) {
		return "", false
	}
	if len(d.names) < maxNames {
		d.names[name] = name
	}
	return name, true
}
