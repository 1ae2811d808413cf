// Package payload reads what devices send as telemetry: it makes readings, their times and a list of what could not be read
// of the bytes of one message. It is pure: bytes and the time of arrival in, values out. It leaves to others what a topic
// says (ingest), what is done with the readings (store), and the dialects of other people's firmware.
//
// The rule is that no field vanishes: each is a reading, a null, a time, what a device says about the message (tell), or it
// is in Content.Skipped.
package payload

import (
	"encoding/json"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

const (
	maxReadings = 256     // in one part
	maxParts    = 1024    // in one message
	maxSkipped  = 256     // named of one message
	maxScratch  = 1 << 16 // a payload larger than this leaves no scratch memory behind
	maxValues   = 1 << 16 // kept for reuse
)

// noReading is why a message is refused that says nothing.
const noReading = "no reading"

// Content is what a payload says.
type Content struct {
	// Parts has one element per time. There is at least one, which may be without values: the device said that it has none.
	Parts []store.Part
	// Skipped names what could not be read.
	Skipped []store.Skipped
	// Reason says why nothing could be read of the whole message; empty when all is well. Then Parts has the numbering only.
	Reason string
}

// Reader reads payloads with memory that is used again: of a batch that looks like the one before, nothing is allocated. It
// is not safe for concurrent use.
type Reader struct {
	parser fastjson.Parser
	names  map[string]string // metric names seen, all of them good
	token  []byte            // the number under way
	path   []byte            // the field under way

	// Of all messages since Reset, one after the other.
	values  []store.Value
	parts   []store.Part
	skipped []store.Skipped

	message message

	// Of Foreign.
	rules    *Rules // nil: none
	given    string // a time of the whole message
	envelope fastjson.Parser
	inner    []byte
}

// message is what is known of the message under way.
type message struct {
	at                   Arrival
	firstPart, firstSkip int // in Reader.parts and Reader.skipped
	values, nulls        int
	inside               []inside
	reason               string // why it is refused as a whole
	cause                string // why the first field that is no reading is none
}

// inside is an object with a time of its own, inside another one: a part of the message.
type inside struct {
	path   string
	object *fastjson.Object
}

// NewReader returns a Reader.
func NewReader() *Reader { return &Reader{names: make(map[string]string)} }

// Reset lets go of what Telemetry and Value have returned.
func (r *Reader) Reset() {
	if cap(r.values) > maxValues {
		r.values, r.parts = nil, nil
	}
	clear(r.parts)
	clear(r.skipped)
	r.values, r.parts, r.skipped = r.values[:0], r.parts[:0], r.skipped[:0]
}

// Telemetry reads a payload that is a JSON object, an array of them, or one object per line: each object is a part. The
// result is valid until Reset and keeps no reference to payload.
//
//   - Numbers, and texts that are numbers (Number), are readings of the metric they are called; true and false are 1 and 0.
//     The four metrics of the old system are known in any case, and "light" is light_level unless that is there too.
//   - What stands in an object or an array inside has a path for its name: AM2301.Temperature, ENERGY.Power.0.
//   - null is no value. Bare nan and inf, texts, numbers that do not fit a float64, and names that are not 1 to 64 bytes of
//     printable text are skipped.
//   - timestamp, ts, time, dateTime and epoch, in any case, are times (Time), the first possible one of them in this order
//     counts. An object inside with a possible time of its own is a part of its own.
//   - boot_id, sequence, age_ms and dropped are described at tell.
//   - The whole message is refused when it is no JSON, when a part has more than 256 readings, when it has more than 1024
//     parts, and when nothing can be read of it.
func (r *Reader) Telemetry(payload []byte, at Arrival) Content { return r.read("", payload, at) }

// Value reads a payload on a topic that names a metric: a plain number, a text that is one, true or false; or JSON as in
// Telemetry, whose paths begin with the metric. In an object "value" is the metric itself.
func (r *Reader) Value(metric string, payload []byte, at Arrival) Content {
	if name, _ := known([]byte(metric)); string(name) != metric {
		metric = string(name)
	}
	return r.read(metric, payload, at)
}

func (r *Reader) read(metric string, payload []byte, at Arrival) Content {
	r.message = message{at: at, firstPart: len(r.parts), firstSkip: len(r.skipped), inside: r.message.inside[:0]}
	if len(payload) > maxScratch {
		defer func() { r.parser, r.path, r.message.inside = fastjson.Parser{}, nil, nil }()
	}
	m := &r.message
	if why := r.document(metric, Trim(payload)); why != "" {
		m.reason = why
	}
	content := Content{
		Parts:   r.parts[m.firstPart:len(r.parts):len(r.parts)],
		Skipped: r.skipped[m.firstSkip:len(r.skipped):len(r.skipped)],
		Reason:  m.reason,
	}
	if content.Reason == "" && m.values == 0 && (m.nulls == 0 || len(content.Skipped) > 0) {
		content.Reason = noReading
		if m.cause != "" && m.cause != notANumber {
			content.Reason = m.cause
		}
	}
	if content.Reason != "" {
		for i := range content.Parts {
			content.Parts[i].Values = nil
		}
	}
	return content
}

// document reads a text that is one JSON value or has one object per line.
func (r *Reader) document(metric string, text []byte) (reason string) {
	if metric != "" && r.plain(metric, text) {
		return ""
	}
	reason = problem(text)
	if reason != "" {
		repaired, changed := Repair(text)
		if changed && json.Valid(repaired) {
			r.message.cause = reason // should nothing else be left
			return r.root(metric, repaired)
		}
		lines := objectLines(repaired)
		if lines == nil || reason == "not UTF-8" {
			return reason
		}
		return r.lines(metric, lines)
	}
	return r.root(metric, text)
}

// plain takes a text that is not JSON, or just a number, as the value of a metric.
func (r *Reader) plain(metric string, text []byte) bool {
	if len(text) == 0 {
		return false
	}
	value, why := number(text)
	if why != "" && json.Valid(text) {
		return false
	}
	if why != "" && (text[0] == '{' || text[0] == '[') {
		return false // it was meant to be JSON
	}
	if word, is := r.word(text); why != "" && is {
		value, why = word, ""
	}
	p := part{Reader: r, first: len(r.values)}
	p.path = append(p.path[:0], metric...)
	if r.ignores(p.path) {
		r.message.nulls++
	} else {
		p.put(value, why, text, exactly)
	}
	p.end()
	return true
}

// lines reads an object from each line; a line that has none is skipped.
func (r *Reader) lines(metric string, lines [][]byte) (reason string) {
	for i, line := range lines {
		line = Trim(line)
		switch {
		case len(line) == 0:
			continue
		case isObject(line):
			reason = r.root(metric, line)
		default:
			r.skip([]byte("line "+strconv.Itoa(i+1)), line)
		}
		if reason != "" {
			return reason
		}
	}
	return ""
}

// root reads a JSON value: an object, an array of objects, or below a metric anything.
func (r *Reader) root(metric string, text []byte) (reason string) {
	v, err := r.parser.ParseBytes(text)
	if err != nil {
		return "nested too deeply" // the one thing that fastjson refuses in valid JSON
	}
	switch {
	case v.Type() == fastjson.TypeObject:
		r.part(metric, v.GetObject(), true)
	case v.Type() == fastjson.TypeArray && isList(v.GetArray()):
		for i, element := range v.GetArray() {
			if o, err := element.Object(); err == nil {
				r.part(metric, o, true)
			} else {
				r.skip(strconv.AppendInt(nil, int64(i), 10), element.MarshalTo(nil))
			}
		}
	case metric == "":
		return "not a JSON object"
	default:
		p := part{Reader: r, first: len(r.values)}
		p.path = append(p.path[:0], metric...)
		p.walk(v)
		p.end()
	}
	for i := 0; i < len(r.message.inside) && r.message.reason == ""; i++ {
		in := r.message.inside[i]
		r.part(in.path, in.object, false)
	}
	r.message.inside = r.message.inside[:0]
	return r.message.reason
}

// isList tells whether an array has an object, and so is a list of parts.
func isList(elements []*fastjson.Value) bool {
	for _, v := range elements {
		if v.Type() == fastjson.TypeObject {
			return true
		}
	}
	return false
}

// skip names a field that could not be read.
func (r *Reader) skip(path, text []byte) {
	switch n := len(r.skipped) - r.message.firstSkip; {
	case n < maxSkipped-1:
		r.skipped = append(r.skipped, store.Skipped{Field: cut(path, maxPathBytes), Text: cut(text, maxTextBytes)})
	case n == maxSkipped-1:
		r.skipped = append(r.skipped, store.Skipped{Field: "other fields"})
	}
}

// name returns a metric's name as a string that is shared between messages, and whether it may be one.
func (r *Reader) name(path []byte) (string, bool) {
	if len(path) > maxNameBytes { // before the map: it would hash a path of any length
		return "", false
	}
	if name, ok := r.names[string(path)]; ok {
		return name, true
	}
	name := string(path)
	if !printable(name) {
		return "", false
	}
	if len(r.names) < maxNames {
		r.names[name] = name
	}
	return name, true
}
