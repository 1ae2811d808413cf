package payload

import (
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/store"
)

// part collects the readings of one time at the end of Reader.values.
type part struct {
	*Reader
	first   int  // of its values
	base    int  // bytes of the path that its object has
	object  bool // it is one, not a plain value
	outer   bool // of the message, not inside another object
	told    told
	tells   bool
	date    date
	origins [len(names)]origin // of the four metrics; counts when the metric is there
}

// part reads an object. outer is false for one inside another, which knows nothing of the device and its old names.
func (r *Reader) part(path string, o *fastjson.Object, outer bool) {
	if len(r.parts)-r.message.firstPart == maxParts {
		r.message.reason = "more than 1024 parts"
		return
	}
	p := part{Reader: r, first: len(r.values), base: len(path), outer: outer, object: true}
	if outer {
		p.told, p.tells = tell(o, func(key string, v *fastjson.Value) { p.skip([]byte(key), scalarOr(v)) })
	}
	p.path = append(p.path[:0], path...)
	p.members(o)
	p.end()
}

// end makes a part of what was collected. One that says nothing is left out, unless it is the only one.
func (p *part) end() {
	if p.given != "" {
		p.time(0, []byte("time"), []byte(p.given))
	}
	if p.date.known && p.date.rejected {
		p.unused(p.date.key, p.date.text)
	}
	made := store.Part{Values: p.values[p.first:len(p.values):len(p.values)], Numbering: p.told.numbering}
	made.Time, made.TimeSource, made.Given = p.date.of(p.message.at, &p.told)
	if p.rules != nil && p.rules.Local && made.TimeSource == store.FromArrivalImpossible {
		if _, is := Time(p.date.text + "Z"); is {
			made.TimeSource = store.FromArrival // what it gave is no time without a zone, and not wrong
		}
	}
	empty := len(made.Values) == 0 && made.Numbering == store.Numbering{}
	if last := len(p.parts) - 1; last >= p.message.firstPart && empty {
		return
	} else if last == p.message.firstPart && p.message.values == 0 && p.parts[last].Numbering == (store.Numbering{}) {
		p.parts = p.parts[:last] // the first one says nothing
	}
	p.message.values += len(made.Values)
	p.parts = append(p.parts, made)
}

// members reads the fields of an object; the path is that of the object.
func (p *part) members(o *fastjson.Object) {
	end := len(p.path)
	atRoot := end == p.base && p.object
	o.Visit(func(key []byte, v *fastjson.Value) {
		if p.message.reason != "" {
			return
		}
		if atRoot && p.aside(key, v) {
			return
		}
		if atRoot && p.outer && end > 0 && string(key) == "value" {
			p.walk(v) // of the metric that the topic names
			return
		}
		if rank, is := timeKey(key); is && !atRoot && v.Type() == fastjson.TypeString {
			p.time(rank+insideRank, key, v.GetStringBytes())
			return
		}
		if end > 0 {
			p.path = append(p.path, '.')
		}
		if p.path = append(p.path, key...); p.ignores(p.path) {
			p.message.nulls++
		} else {
			p.walk(v)
		}
		p.path = p.path[:end]
	})
}

// aside takes what an object says that is no reading.
func (p *part) aside(key []byte, v *fastjson.Value) bool {
	if p.tells && isTold(key) {
		return true
	}
	rank, is := timeKey(key)
	if !is {
		return false
	}
	switch v.Type() {
	case fastjson.TypeNull:
	case fastjson.TypeString:
		p.time(rank, key, v.GetStringBytes())
	default:
		p.token = v.MarshalTo(p.token[:0])
		p.time(rank, key, p.token)
	}
	return true
}

// time takes a time that stands under a key of that rank.
func (p *part) time(rank int, key, text []byte) {
	before := p.date
	lost := p.date.take(rank, text, p.message.at)
	if lost == older {
		p.unused(before.key, before.text)
	}
	if lost == newer || p.date.rejected && p.date.key == "" {
		path := string(key)
		if len(p.path) > 0 {
			path = string(p.path) + "." + path
		}
		if lost == newer {
			p.unused(path, string(text))
		} else {
			p.date.key = path
		}
	}
}

// unused names a time that is not used, because another one is, unless it is one to look at: people send the local time
// beside the time.
func (p *part) unused(key, text string) {
	if _, is := Time(text); is {
		return
	}
	if _, is := Time(text + "Z"); is {
		return
	}
	p.skip([]byte(key), []byte(text))
}

// walk reads the value at the path.
func (p *part) walk(v *fastjson.Value) {
	switch v.Type() {
	case fastjson.TypeNull:
		p.message.nulls++
	case fastjson.TypeTrue:
		p.put(1, "", nil, exactly)
	case fastjson.TypeFalse:
		p.put(0, "", nil, exactly)
	case fastjson.TypeNumber:
		p.token = v.MarshalTo(p.token[:0])
		value, why := number(p.token)
		p.put(value, why, p.token, exactly)
	case fastjson.TypeString:
		text := v.GetStringBytes()
		value, why := number(text)
		if word, is := p.word(text); why != "" && is {
			value, why = word, ""
		}
		p.put(value, why, text, exactly)
	case fastjson.TypeObject:
		if o := v.GetObject(); !p.apart(o) {
			p.members(o)
		}
	case fastjson.TypeArray:
		end := len(p.path)
		for i, element := range v.GetArray() {
			if o, err := element.Object(); err == nil && p.apart(o) {
				continue
			}
			p.path = strconv.AppendInt(append(p.path, '.'), int64(i), 10)
			p.walk(element)
			p.path = p.path[:end]
		}
	}
}

// apart keeps an object that has a possible time of its own for a part of its own.
func (p *part) apart(o *fastjson.Object) bool {
	own := false
	o.Visit(func(key []byte, v *fastjson.Value) {
		if _, is := timeKey(key); is && !own {
			at, ok := Time(string(scalar(v)))
			own = ok && p.message.at.Possible(at)
		}
	})
	if own {
		p.message.inside = append(p.message.inside, inside{string(p.path), o})
	}
	return own
}

// put takes one field: its value, or why it has none. text is what stands there.
func (p *part) put(value float64, why string, text []byte, from origin) {
	name := p.path
	if p.outer && p.base == 0 {
		name, from = known(p.path)
	}
	metric, good := "", false
	if to, changed, is := p.changed(p.path, value); is && why == "" {
		name, value = to, changed
		if math.IsInf(value, 0) || math.IsNaN(value) {
			why = tooLarge
		}
	}
	if why == "" {
		if metric, good = p.name(name); !good {
			why = "bad metric name: not 1 to 64 bytes of printable text"
		}
	}
	if why != "" {
		if p.message.cause == "" {
			p.message.cause = why
		}
		p.skip(p.path, textOr(text, value))
		return
	}
	there := p.find(metric)
	if there == nil {
		if len(p.values)-p.first == maxReadings {
			p.message.reason = "more than 256 readings"
			return
		}
		p.values = append(p.values, store.Value{Metric: metric, Value: value})
		p.came(metric, from)
		return
	}
	before := p.camefrom(metric)
	differs := math.Float64bits(there.Value) != math.Float64bits(value)
	if from < before {
		if differs {
			p.skip(p.path, textOr(text, value))
		}
		return
	}
	if differs {
		loser := p.path
		if before == old {
			loser = []byte("light")
		}
		p.skip(loser, textOr(nil, there.Value))
	}
	there.Value = value
	p.came(metric, from)
}

func (p *part) find(metric string) *store.Value {
	for i := p.first; i < len(p.values); i++ {
		if p.values[i].Metric == metric {
			return &p.values[i]
		}
	}
	return nil
}

func (p *part) came(metric string, from origin) {
	for i, name := range names {
		if metric == name {
			p.origins[i] = from
		}
	}
}

func (p *part) camefrom(metric string) origin {
	for i, name := range names {
		if metric == name {
			return p.origins[i]
		}
	}
	return exactly
}

// textOr returns text, or the number written out.
func textOr(text []byte, value float64) []byte {
	if text != nil {
		return text
	}
	return strconv.AppendFloat(nil, value, 'g', -1, 64)
}

// scalarOr returns the text of a string or a number, and of anything else its JSON.
func scalarOr(v *fastjson.Value) []byte {
	if text := scalar(v); text != nil {
		return text
	}
	return v.MarshalTo(nil)
}
