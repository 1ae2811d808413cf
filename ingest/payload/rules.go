package payload

import (
	"bytes"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

// Rules say how the payloads of another program differ from those of devices. The zero value changes nothing.
type Rules struct {
	Values [][]string       // paths of the readings: the first that is there counts; none: the whole payload
	Times  [][]string       // paths of a time outside the readings: the first that is possible counts
	Also   []Also           // readings from outside
	Fields map[string]Field // by path: another metric, another unit
	Ignore map[string]bool  // paths that are no readings, and *.NAME for a name anywhere
	Words  bool             // on and off, open and closed are 1 and 0
	Local  bool             // times have no zone, and say nothing
	Sparse bool             // a message of which nothing can be read is not refused for that
}

// Also is a reading that stands outside of the others.
type Also struct {
	Path   []string
	Metric string
}

// Field changes a reading: its metric, and its value by value*Scale + Offset.
type Field struct {
	Metric        string // empty: as it is
	Scale, Offset float64
}

// Foreign reads a payload by rules: like Value where a topic names a metric, else like Telemetry. What it returns is valid
// until Reset.
func (r *Reader) Foreign(rules *Rules, metric string, content []byte, at Arrival) Content {
	r.rules = rules
	defer func() { r.rules, r.given = nil, "" }()
	text := Trim(content)
	if isJSON := len(text) > 0 && (text[0] == '{' || text[0] == '['); len(rules.Values) > 0 || len(rules.Times) > 0 && isJSON {
		if why := problem(text); why != "" {
			repaired, changed := Repair(text)
			if !changed || problem(repaired) != "" {
				return Content{Reason: why}
			}
			text = repaired
		}
		v, err := r.envelope.ParseBytes(text)
		if err != nil {
			return Content{Reason: "nested too deeply"}
		}
		r.given = r.timeIn(v, at)
		var there bool
		if content, there = r.readingsIn(v); !there {
			return r.absent(at)
		}
		if len(text) > maxScratch {
			defer func() { r.envelope, r.inner = fastjson.Parser{}, nil }()
		}
	}
	c := r.read(metric, content, at)
	if rules.Sparse && c.Reason == noReading && len(c.Parts) > 0 {
		c.Reason = ""
	}
	return c
}

// timeIn returns the text of the first possible time that stands where the rules say, else of the first one at all.
func (r *Reader) timeIn(v *fastjson.Value, at Arrival) (text string) {
	for _, path := range r.rules.Times {
		found := string(scalar(v.Get(path...)))
		if t, ok := Time(found); ok && at.Possible(t) {
			return found
		}
		if text == "" {
			text = found
		}
	}
	return text
}

// readingsIn returns the part of a payload that has the readings, with those that stand outside. A text is one that was
// encoded twice.
func (r *Reader) readingsIn(v *fastjson.Value) (content []byte, there bool) {
	inner := v
	for _, path := range r.rules.Values {
		if inner = v.Get(path...); inner != nil && inner.Type() != fastjson.TypeNull {
			break
		}
	}
	if inner == nil || inner.Type() == fastjson.TypeNull {
		return nil, false
	}
	if inner.Type() == fastjson.TypeString && len(r.rules.Values) > 0 {
		if decoded, err := fastjson.ParseBytes(inner.GetStringBytes()); err == nil {
			inner = decoded
		}
	}
	if inner.Type() == fastjson.TypeObject {
		for _, also := range r.rules.Also {
			if other := v.Get(also.Path...); other != nil && inner.Get(also.Metric) == nil {
				inner.Set(also.Metric, other)
			}
		}
	}
	r.inner = inner.MarshalTo(r.inner[:0])
	return r.inner, true
}

// absent is what a payload says that has no readings where they ought to be: it names the place.
func (r *Reader) absent(at Arrival) Content {
	first := len(r.parts)
	r.parts = append(r.parts, store.Part{Time: at.Time, TimeSource: store.FromArrival})
	c := Content{Parts: r.parts[first:len(r.parts):len(r.parts)],
		Skipped: []store.Skipped{{Field: cut([]byte(strings.Join(r.rules.Values[0], ".")), maxPathBytes)}}}
	if !r.rules.Sparse {
		c.Reason = noReading
	}
	return c
}

// ignores tells whether the rules leave out what stands at a path.
func (r *Reader) ignores(path []byte) bool {
	if r.rules == nil || len(r.rules.Ignore) == 0 {
		return false
	}
	if r.rules.Ignore[string(path)] {
		return true
	}
	return r.rules.Ignore["*."+string(path[bytes.LastIndexByte(path, '.')+1:])]
}

// word is the number that a text stands for.
func (r *Reader) word(text []byte) (value float64, is bool) {
	if r.rules == nil || !r.rules.Words || len(text) > len("closed") {
		return 0, false
	}
	switch strings.ToLower(string(text)) {
	case "on", "open", "true":
		return 1, true
	case "off", "closed", "close", "false":
		return 0, true
	}
	return 0, false
}

// changed is a field by the rules.
func (r *Reader) changed(path []byte, value float64) (metric []byte, changed float64, is bool) {
	if r.rules == nil || len(r.rules.Fields) == 0 {
		return nil, value, false
	}
	f, is := r.rules.Fields[string(path)]
	if !is {
		return nil, value, false
	}
	if f.Metric != "" {
		path = []byte(f.Metric)
	}
	return path, value*f.Scale + f.Offset, true
}
