package histories

import (
	"bytes"

	"github.com/valyala/fastjson"
)

// objects reads one JSON object a line, as "readings --format json" prints them: with a comma behind each and brackets around all,
// or without.
type objects struct {
	in     *lines
	series seriesTable
	clock  clock
	known  map[string]map[string]*Series // by device and metric
	parser fastjson.Parser
}

func newObjects(in *lines, o Options) Reader {
	return &objects{in: in, series: newSeriesTable(o), clock: clock{zone: o.Zone}, known: map[string]map[string]*Series{}}
}

func (r *objects) Place() Place { return r.in.place("") }

func (r *objects) Next(sink Sink) error {
	line, long, err := r.in.next()
	if err != nil {
		return err
	}
	if long {
		sink.Reject(r.in.number, line[:100], whyLong)
		return nil
	}
	line = bytes.TrimSpace(line)
	line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("[")))
	line = bytes.TrimSpace(bytes.TrimSuffix(line, []byte("]")))
	line = bytes.TrimSuffix(bytes.TrimPrefix(line, []byte(",")), []byte(","))
	if len(line) == 0 {
		return nil
	}
	if why := r.object(sink, line); why != "" {
		sink.Reject(r.in.number, line, why)
	}
	return nil
}

func (r *objects) object(sink Sink, line []byte) (why string) {
	v, err := r.parser.ParseBytes(line)
	if err != nil || v.Type() != fastjson.TypeObject {
		return "not a JSON object"
	}
	device, metric, value := v.GetStringBytes("device"), v.GetStringBytes("metric"), v.Get("value")
	switch {
	case len(device) == 0:
		return "no device"
	case len(metric) == 0:
		return "no metric"
	case value == nil:
		return "no value"
	}
	at, ok := r.time(v.Get("time"))
	if !ok {
		return "no time, or one that cannot be read"
	}
	received, _ := r.time(v.Get("received"))
	n, ok := number(value.MarshalTo(nil))
	if !ok || value.Type() != fastjson.TypeNumber {
		return "the value is not a number"
	}
	s := r.known[string(device)][string(metric)]
	if s == nil {
		if s = r.add(string(device), string(metric)); s == nil {
			return whyTooMany
		}
	}
	if s.Device == "" {
		sink.Leave(s.Source, s.Note)
		return ""
	}
	sink.Value(Value{Series: s, Line: r.in.number, Time: at, Received: received, Value: n})
	return ""
}

// time reads a text or a number.
func (r *objects) time(v *fastjson.Value) (int64, bool) {
	if v == nil {
		return 0, false
	}
	text := v.GetStringBytes()
	if v.Type() == fastjson.TypeNumber {
		text = v.MarshalTo(nil)
	}
	at, err := r.clock.parse(string(text), 0)
	return at, err == nil
}

func (r *objects) add(device, metric string) *Series {
	to, name, _ := r.series.names.apply(metric, device, metric)
	note := ""
	if to == leftOut {
		to, note = "", "the map leaves it out"
	}
	s := r.series.add(device+" "+metric, to, name, note)
	if s != nil {
		if r.known[device] == nil {
			r.known[device] = map[string]*Series{}
		}
		r.known[device][metric] = s
	}
	return s
}
