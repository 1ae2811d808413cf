package histories

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// influx reads line protocol: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/, as influxd inspect
// export-lp and influx_inspect export write it, the latter with headers that are comments and with the statements of a section DDL.
type influx struct {
	in             *lines
	series         seriesTable
	device, metric template // nil: the usual
	precision      time.Duration
	points         map[string]*point // by measurement and tags as they stand in the file
	database       string            // of the comment CONTEXT-DATABASE
	ddl            bool
	values         []Value // of the line: all or nothing
	whole          []byte  // of a point whose text goes over several lines
}

// point is a measurement with its tags.
type point struct {
	key         string
	measurement string
	tags        []tag
	fields      map[string]*Series
}

// deviceTags are tags that name a device, the most certain first. A topic comes before the host, which is that of the collector.
var deviceTags = []string{"device", "device_id", "deviceId", "deviceid", "device_name", "dev_id", "sensor", "sensor_id", "sensorId", "node",
	"node_id", "entity_id", "topic", "friendly_name", "name", "host", "hostname", "location", "room"}

const (
	ownMeasurement   = "plantops"  // what "plantops export" writes
	internalDatabase = "_internal" // what InfluxDB 1 writes about itself
	contextDDL       = "\nDDL"     // no database has that name
)

func newInflux(in *lines, place Place, o Options) (Reader, error) {
	r := &influx{in: in, series: newSeriesTable(o), precision: o.Precision, points: map[string]*point{}, database: place.Context}
	if place.Context == contextDDL {
		r.database, r.ddl = "", true
	}
	var err error
	if o.Device != "" {
		if r.device, err = parseTemplate("--device", o.Device); err != nil {
			return nil, err
		}
	}
	if o.Metric != "" {
		if r.metric, err = parseTemplate("--metric", o.Metric); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *influx) Place() Place {
	if r.ddl {
		return r.in.place(contextDDL)
	}
	return r.in.place(r.database)
}

func (r *influx) Next(sink Sink) error {
	line, long, err := r.in.next()
	if err != nil {
		return err
	}
	number := r.in.number
	if long {
		sink.Reject(number, line[:100], whyLong)
		return nil
	}
	line = bytes.TrimLeft(line, " \t\x00")
	switch {
	case len(line) == 0:
		return nil
	case line[0] == '#':
		r.comment(string(bytes.TrimSpace(line[1:])))
		return nil
	case r.ddl:
		return nil // CREATE DATABASE
	}
	if quoted(line) { // a text may have lines
		if line, err = r.untilClosed(line); err != nil {
			sink.Reject(number, line[:min(len(line), 100)], "a text in quotes does not end")
			return nil
		}
	}
	if why := r.line(sink, number, line); why != "" {
		sink.Reject(number, line, why)
	}
	return nil
}

func (r *influx) comment(text string) {
	switch {
	case text == "DDL":
		r.ddl = true
	case text == "DML":
		r.ddl = false
	default:
		if name, found := strings.CutPrefix(text, "CONTEXT-DATABASE:"); found {
			r.database, r.ddl = strings.TrimSpace(name), false
		}
	}
}

// untilClosed adds the lines up to the one where the quotes are closed.
func (r *influx) untilClosed(line []byte) ([]byte, error) {
	r.whole = append(r.whole[:0], line...)
	for quoted(r.whole) {
		more, long, err := r.in.next()
		if err != nil || long || len(r.whole)+len(more) > maxLineBytes {
			return r.whole, errUnclosed
		}
		r.whole = append(append(r.whole, '\n'), more...)
	}
	return r.whole, nil
}

var errUnclosed = wrongOptions("unclosed quotes")

// quoted tells whether line ends inside the quotes of a text.
func quoted(line []byte) bool {
	if bytes.IndexByte(line, '"') < 0 {
		return false
	}
	at, open := endOf(line, 0, ' '), false
	for at < len(line) {
		at, open = endOfField(line, at+1)
		if at < len(line) && line[at] == ' ' {
			return false // behind it is the time
		}
	}
	return open
}

// endOf returns where stop, or a space, stands from i on without a backslash in front, or the length of line. Before anything else a
// backslash is just one: see scanTo and its like in models/points.go of InfluxDB.
func endOf(line []byte, i int, stop byte) int {
	for ; i < len(line); i++ {
		switch line[i] {
		case '\\':
			if i+1 < len(line) && (line[i+1] == ' ' || line[i+1] == ',' || line[i+1] == '=') {
				i++
			}
		case stop, ' ':
			return i
		}
	}
	return len(line)
}

// endOfField returns where the comma or space behind a field stands. Quotes, in values only, hide what stands in them; open tells that
// they do not end.
func endOfField(line []byte, i int) (end int, open bool) {
	value := false
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case c == '"' && value:
			open = !open
		case open:
		case c == '=':
			value = true
		case c == ',' || c == ' ':
			return i, false
		}
	}
	return len(line), open
}

// line reads one point. The answer says what is wrong with it; "" nothing.
func (r *influx) line(sink Sink, number int64, line []byte) (why string) {
	end := endOf(line, 0, ' ')
	if end == len(line) {
		return "no fields"
	}
	p := r.points[string(line[:end])]
	if p == nil {
		if p, why = r.point(line[:end]); why != "" {
			return why
		}
	}
	fields := line[end+1:]
	last, _ := endOfField(fields, 0) // where all of them end
	for last < len(fields) && fields[last] == ',' {
		last, _ = endOfField(fields, last+1)
	}
	at, why := r.time(bytes.TrimSpace(fields[last:]))
	if why != "" {
		return why
	}
	r.values = r.values[:0]
	for start := 0; start <= last; {
		end, _ := endOfField(fields, start)
		if why := r.field(sink, number, p, fields[start:end], at); why != "" {
			return why
		}
		start = end + 1
	}
	for _, v := range r.values {
		sink.Value(v)
	}
	return ""
}

// point reads measurement and tags and remembers them.
func (r *influx) point(text []byte) (p *point, why string) {
	end := endOf(text, 0, ',')
	p = &point{key: string(text), measurement: unescape(text[:end], ", "), fields: map[string]*Series{}}
	if p.measurement == "" {
		return nil, "no measurement"
	}
	for start := end + 1; start < len(text); start = end + 1 {
		end = endOf(text, start, ',')
		equals := endOf(text[:end], start, '=')
		if equals == end || equals == start {
			return nil, "a tag without name or value"
		}
		p.tags = append(p.tags, tag{unescape(text[start:equals], ",= "), unescape(text[equals+1:end], ",= ")})
	}
	if len(r.points) < maxSeries {
		r.points[p.key] = p
	}
	return p, ""
}

// unescape takes the backslashes away that stand before one of those characters.
func unescape(text []byte, special string) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && strings.IndexByte(special, text[i+1]) >= 0 {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// field reads name=value into r.values.
func (r *influx) field(sink Sink, number int64, p *point, text []byte, at int64) (why string) {
	equals := endOf(text, 0, '=')
	if equals == 0 || equals >= len(text)-1 {
		return "a field without name or value"
	}
	s := p.fields[string(text[:equals])]
	if s == nil {
		if s = r.addSeries(p, unescape(text[:equals], ",= ")); s == nil {
			return whyTooMany
		}
		p.fields[string(text[:equals])] = s
	}
	value, kind, why := influxValue(text[equals+1:])
	switch {
	case why != "":
		return why
	case s.Device == "":
		sink.Leave(s.Source, s.Note)
	case kind == "text":
		sink.Leave(s.Source, "texts are no readings")
	default:
		if kind == "boolean" && s.Note == "" {
			s.Note = "true and false become 1 and 0"
		}
		r.values = append(r.values, Value{Series: s, Line: number, Time: at, Value: value})
	}
	return ""
}

// influxValue reads a value. Numbers that a float64 cannot hold exactly are refused.
func influxValue(text []byte) (value float64, kind, why string) {
	switch string(text) {
	case "t", "T", "true", "True", "TRUE":
		return 1, "boolean", ""
	case "f", "F", "false", "False", "FALSE":
		return 0, "boolean", ""
	}
	last := text[len(text)-1]
	switch {
	case text[0] == '"':
		if len(text) == 1 || last != '"' {
			return 0, "", "a text in quotes does not end"
		}
		return 0, "text", ""
	case last == 'i', last == 'u':
		n, err := strconv.ParseInt(string(text[:len(text)-1]), 10, 64)
		if err != nil || last == 'u' && n < 0 {
			return 0, "", "not an integer"
		}
		if n > 1<<53 || n < -1<<53 {
			return 0, "", "an integer that a float64 does not hold exactly"
		}
		return float64(n), "", ""
	}
	value, ok := number(text)
	if !ok {
		return 0, "", "not a number"
	}
	return value, "", ""
}

// number reads a finite decimal number.
func number(text []byte) (float64, bool) {
	for _, c := range text {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(text), 64)
	return v, err == nil && !math.IsInf(v, 0)
}

// time reads a timestamp in milliseconds.
func (r *influx) time(text []byte) (at int64, why string) {
	if len(text) == 0 {
		return 0, "no time"
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, "not a time"
	}
	if r.precision == 0 {
		return epoch(n), ""
	}
	if r.precision >= time.Millisecond {
		factor := int64(r.precision / time.Millisecond)
		if n > math.MaxInt64/factor || n < math.MinInt64/factor {
			return 0, "not a time"
		}
		return n * factor, ""
	}
	return floorDiv(n, int64(time.Millisecond/r.precision)), ""
}

func floorDiv(n, by int64) int64 {
	if n < 0 && n%by != 0 {
		return n/by - 1
	}
	return n / by
}

// addSeries finds out where a field goes.
func (r *influx) addSeries(p *point, field string) *Series {
	source := p.key + " " + field
	if r.database == internalDatabase {
		return r.series.add(source, "", "", "what InfluxDB writes about itself")
	}
	device, metric := r.usual(p, field)
	if r.device != nil {
		name, missing := r.device.fill(p.measurement, field, p.tags)
		if missing != "" {
			return r.series.add(source, "", "", "it has no tag "+missing+", which --device names")
		}
		device = name
	}
	if r.metric != nil {
		name, missing := r.metric.fill(p.measurement, field, p.tags)
		if missing != "" {
			return r.series.add(source, "", "", "it has no tag "+missing+", which --metric names")
		}
		metric = name
	}
	entity := tagOf(p.tags, "entity_id")
	for _, name := range []string{p.key + " " + field, p.measurement + " " + field, entity, tagOf(p.tags, "domain") + "." + entity, field} {
		if d, m, found := r.series.names.apply(name, device, metric); found && name != "" {
			device, metric = d, m
			break
		}
	}
	if device == leftOut {
		return r.series.add(source, "", "", "the map leaves it out")
	}
	note := ""
	if device == "" {
		note = "no tag that says which device it is: name one with --device '{tag:NAME}'"
	}
	return r.series.add(source, device, metric, note)
}

// usual is where a field goes when nothing says otherwise.
func (r *influx) usual(p *point, field string) (device, metric string) {
	metric = field
	if field == "value" && p.measurement != ownMeasurement {
		metric = p.measurement
	}
	for _, key := range deviceTags {
		value := tagOf(p.tags, key)
		if value == "" {
			continue
		}
		switch key {
		case "topic":
			return deviceOfTopic(value), metric
		case "entity_id": // as Home Assistant writes it; the measurement is a unit or the entity
			object := value[strings.IndexByte(value, '.')+1:]
			device, of := splitEntity(object, tagOf(p.tags, "device_class"))
			if field == "value" {
				metric = of
			}
			return device, metric
		}
		return value, metric
	}
	return "", metric
}

// deviceOfTopic is the part of a topic that names the device, of the forms that sensors use.
func deviceOfTopic(topic string) string {
	parts := strings.Split(strings.Trim(topic, "/"), "/")
	if len(parts) == 1 {
		return topic
	}
	if slices.Contains([]string{"devices", "tele", "stat", "zigbee2mqtt", "sensors", "shellies", "esphome"}, parts[0]) {
		return parts[1]
	}
	return topic
}
