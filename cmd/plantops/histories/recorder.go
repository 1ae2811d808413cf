package histories

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// recorder reads the database of Home Assistant's recorder, of the schemas since 2021 (homeassistant/components/recorder/db_schema.py):
// states in order of state_id, then statistics of five minutes, then hourly ones. States name their entity in a column of their own,
// or since 2023 in states_meta, and their time as text or since then as seconds.
type recorder struct {
	ctx      context.Context
	from     Rows
	series   seriesTable
	place    Place // Context is the stage
	stages   []stage
	entities map[string]*entity
	o        Options
}

// stage is one table.
type stage struct {
	name  string
	query string // from a row on, at most so many: id, name of the entity, time, and values
	row   func(sink Sink, id int64, e *entity, at float64, row []any)
}

// entity is a state or a statistic by its id.
type entity struct {
	id         string
	attributes struct {
		Class string `json:"device_class"`
		Unit  string `json:"unit_of_measurement"`
		State string `json:"state_class"`
	}
	states        *Series
	low, high     *Series // minimum and maximum of statistics
	first, short  float64 // Unix seconds of its first state and of its first statistic of five minutes; +Inf: none
	statisticNote bool
}

const (
	shortTerm = "statistics_short_term"
	longTerm  = "statistics"
)

// domains are those whose states are measured or set numbers.
var domains = []string{"sensor", "number", "input_number", "counter"}

func newRecorder(ctx context.Context, from Rows, place Place, o Options, tables map[string][]string) (Reader, error) {
	r := &recorder{ctx: ctx, from: from, series: newSeriesTable(o), place: place, entities: map[string]*entity{}, o: o}
	switch o.Statistics {
	case "", "auto", "all", "none":
	default:
		return nil, wrongOptions("--statistics %s: use auto, all or none", o.Statistics)
	}
	states := tables["states"]
	name, join := "s.entity_id", ""
	if slices.Contains(states, "metadata_id") && len(tables["states_meta"]) > 0 {
		join = " LEFT JOIN states_meta AS m ON m.metadata_id = s.metadata_id"
		name = "m.entity_id"
		if slices.Contains(states, "entity_id") {
			name = "coalesce(m.entity_id, s.entity_id)"
		}
	}
	r.stages = append(r.stages, stage{"states", fmt.Sprintf(`SELECT s.state_id, %s, %s, +s.state FROM states AS s%s WHERE s.state_id > ? ORDER BY s.state_id LIMIT ?`,
		name, secondsOf(states, "s.", "last_updated"), join), r.state})
	if err := r.findEntities(tables, name, join); err != nil {
		return nil, err
	}
	if o.Statistics == "none" || len(tables["statistics_meta"]) == 0 {
		return r, nil
	}
	for _, table := range []string{shortTerm, longTerm} {
		if slices.Contains(tables[table], "metadata_id") {
			r.stages = append(r.stages, stage{table, fmt.Sprintf(`SELECT s.id, m.statistic_id, %s, s.mean, s.min, s.max, s.state, +m.has_sum, m.unit_of_measurement
				FROM %s AS s JOIN statistics_meta AS m ON m.id = s.metadata_id WHERE s.id > ? ORDER BY s.id LIMIT ?`,
				secondsOf(tables[table], "s.", "start"), table), r.statistic})
		}
	}
	return r, r.findFirst(tables)
}

// secondsOf is an expression for the Unix seconds of a time that has a column of seconds, one of text, or both.
func secondsOf(columns []string, table, name string) string {
	text := fmt.Sprintf("(strftime('%%s', substr(%[1]s, 1, 19)) + CAST('0' || substr(%[1]s, 20, 7) AS REAL))", table+name)
	if !slices.Contains(columns, name+"_ts") {
		return text
	}
	if !slices.Contains(columns, name) {
		return "+" + table + name + "_ts"
	}
	return fmt.Sprintf("coalesce(%s%s_ts, %s)", table, name, text)
}

// findEntities reads the newest attributes of each entity that may have numbers.
func (r *recorder) findEntities(tables map[string][]string, name, join string) error {
	attributes, more := "+s.attributes", ""
	if len(tables["state_attributes"]) > 0 {
		more = " LEFT JOIN state_attributes AS a ON a.attributes_id = s.attributes_id"
		attributes = "a.shared_attrs"
		if slices.Contains(tables["states"], "attributes") {
			attributes = "coalesce(a.shared_attrs, s.attributes)"
		}
	}
	key := "s.entity_id"
	if join != "" {
		key = "coalesce(s.metadata_id, " + "0)"
		if slices.Contains(tables["states"], "entity_id") {
			key = "s.metadata_id, s.entity_id"
		}
	}
	// One pass over an index where there is one; the newest row of each entity has the attributes that hold now.
	query := fmt.Sprintf(`SELECT %s, %s, newest.first FROM (SELECT max(s.state_id) AS id, min(%s) AS first FROM states AS s GROUP BY %s) AS newest
		JOIN states AS s ON s.state_id = newest.id%s%s`, name, attributes, secondsOf(tables["states"], "s.", "last_updated"), key, join, more)
	return r.from.Each(r.ctx, func(row []any) error {
		id, _ := row[0].(string)
		if id == "" || len(r.entities) >= maxSeries {
			return nil
		}
		e := r.entity(id)
		if first, ok := asNumber(row[2]); ok {
			e.first = min(e.first, first)
		}
		switch text := row[1].(type) {
		case string:
			_ = json.Unmarshal([]byte(text), &e.attributes) // what cannot be read says nothing
		case []byte:
			_ = json.Unmarshal(text, &e.attributes)
		}
		return nil
	}, query)
}

// findFirst finds from when on each entity has finer statistics.
func (r *recorder) findFirst(tables map[string][]string) error {
	if !slices.Contains(tables[shortTerm], "metadata_id") {
		return nil
	}
	return r.from.Each(r.ctx, func(row []any) error {
		id, _ := row[0].(string)
		if first, ok := asNumber(row[1]); ok && id != "" && len(r.entities) < maxSeries {
			r.entity(id).short = first
		}
		return nil
	}, fmt.Sprintf(`SELECT m.statistic_id, min(%s) FROM %s AS s JOIN statistics_meta AS m ON m.id = s.metadata_id GROUP BY s.metadata_id`,
		secondsOf(tables[shortTerm], "s.", "start"), shortTerm))
}

func (r *recorder) entity(id string) *entity {
	e := r.entities[id]
	if e == nil {
		e = &entity{id: id, first: math.Inf(1), short: math.Inf(1)}
		r.entities[id] = e
	}
	return e
}

func (r *recorder) Place() Place { return r.place }

func (r *recorder) Next(sink Sink) error {
	i := slices.IndexFunc(r.stages, func(s stage) bool { return s.name == r.place.Context })
	if i < 0 {
		i, r.place = 0, Place{Context: r.stages[0].name}
	}
	s, rows := r.stages[i], 0
	err := r.from.Each(r.ctx, func(row []any) error {
		rows++
		id, _ := row[0].(int64)
		name, _ := row[1].(string)
		at, ok := asNumber(row[2])
		r.place.Offset = id
		r.place.Line++
		switch {
		case name == "":
			sink.Reject(id, rowText(row), "no entity")
		case !ok:
			sink.Reject(id, rowText(row), "no time")
		case len(r.entities) >= maxSeries && r.entities[name] == nil:
			sink.Reject(id, rowText(row), whyTooMany)
		default:
			s.row(sink, id, r.entity(name), at, row)
		}
		return nil
	}, s.query, r.place.Offset, stepRows)
	switch {
	case err != nil:
		return err
	case rows > 0:
		return nil
	case i == len(r.stages)-1:
		return io.EOF
	}
	r.place.Offset, r.place.Context = 0, r.stages[i+1].name
	return nil
}

// state reads a row of table states.
func (r *recorder) state(sink Sink, id int64, e *entity, at float64, row []any) {
	s := r.seriesOf(e)
	text, _ := row[3].(string)
	switch {
	case s == nil:
		sink.Reject(id, rowText(row), whyTooMany)
	case s.Device == "":
		sink.Leave(e.id, s.Note)
	case text == "unavailable" || text == "unknown" || text == "":
		sink.Leave(e.id, "unavailable or unknown")
	default:
		value, ok := number([]byte(text))
		if _, mapped := r.series.names.of(e.id); !ok && mapped {
			value, ok = onOff(text)
		}
		if !ok {
			sink.Leave(e.id, "texts are no readings")
			return
		}
		sink.Value(Value{Series: s, Line: id, Time: milliseconds(at), Value: value})
	}
}

func onOff(text string) (float64, bool) {
	switch text {
	case "on", "true", "home", "open":
		return 1, true
	case "off", "false", "not_home", "closed":
		return 0, true
	}
	return 0, false
}

// statistic reads a row of one of the tables of statistics: a mean stands at the beginning of its time, the state of a meter at its
// end, where it was read.
func (r *recorder) statistic(sink Sink, id int64, e *entity, at float64, row []any) {
	finest, length := e.first, 300.0
	if r.place.Context == longTerm {
		finest, length = min(e.first, e.short), 3600
	}
	if r.o.Statistics != "all" && at+length > finest {
		sink.Leave(e.id, "statistics of times of which there are finer values")
		return
	}
	if e.attributes.Unit == "" {
		e.attributes.Unit, _ = row[8].(string)
	}
	s := r.seriesOf(e)
	switch {
	case s == nil:
		sink.Reject(id, rowText(row), whyTooMany)
		return
	case s.Device == "":
		sink.Leave(e.id, s.Note)
		return
	}
	if !e.statisticNote {
		e.statisticNote = true
		s.Note = join(s.Note, "means of hours or five minutes where there are no states any more")
	}
	if mean, ok := asNumber(row[3]); ok {
		sink.Value(Value{Series: s, Line: id, Time: milliseconds(at), Value: mean})
		r.extremes(sink, id, e, at, row)
		return
	}
	if state, ok := asNumber(row[6]); ok {
		sink.Value(Value{Series: s, Line: id, Time: milliseconds(at + length), Value: state})
		return
	}
	sink.Leave(e.id, "statistics without a mean")
}

func (r *recorder) extremes(sink Sink, id int64, e *entity, at float64, row []any) {
	if !r.o.Extremes {
		return
	}
	if e.low == nil {
		e.low = r.series.add(e.id+" min", e.states.Device, e.states.Metric+"_min", "")
		e.high = r.series.add(e.id+" max", e.states.Device, e.states.Metric+"_max", "")
	}
	for i, s := range []*Series{e.low, e.high} {
		if value, ok := asNumber(row[4+i]); ok && s != nil && s.Device != "" {
			sink.Value(Value{Series: s, Line: id, Time: milliseconds(at), Value: value})
		}
	}
}

// seriesOf finds out where an entity goes; nil when there are too many.
func (r *recorder) seriesOf(e *entity) *Series {
	if e.states != nil {
		return e.states
	}
	domain, object, found := strings.Cut(e.id, ".")
	if !found { // statistics from elsewhere are named domain:object
		if _, object, found = strings.Cut(e.id, ":"); found {
			domain = "sensor"
		}
	}
	device, metric := splitEntity(object, e.attributes.Class)
	device, metric, mapped := r.series.names.apply(e.id, device, metric)
	note := ""
	switch {
	case mapped && device == leftOut:
		device, note = "", "the map leaves it out"
	case !mapped && !slices.Contains(domains, domain):
		device, note = "", "it is no sensor; --map takes it in"
	case e.attributes.Class == "timestamp" || e.attributes.Class == "date" || e.attributes.Class == "enum":
		device, note = "", "times and words are no readings"
	case strings.HasSuffix(e.attributes.Unit, "F") && strings.HasPrefix(e.attributes.Unit, "°"):
		note = "in °F, as they are"
	}
	e.states = r.series.add(e.id, device, metric, note)
	return e.states
}

// milliseconds are those of Unix seconds.
func milliseconds(seconds float64) int64 {
	return int64(math.Floor(seconds*1000 + 0.0005)) // a float64 holds them to about 0.2 µs
}

// asNumber is a column that is a number, also as text.
func asNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	case int64:
		return float64(v), v <= 1<<53 && v >= -1<<53
	case string:
		return number([]byte(v))
	}
	return 0, false
}

// rowText is a row for people.
func rowText(row []any) []byte {
	var text []byte
	for i, v := range row {
		if i > 0 {
			text = append(text, ' ')
		}
		switch v := v.(type) {
		case nil:
			text = append(text, '-')
		case string:
			text = strconv.AppendQuote(text, cut(v, 64))
		case float64:
			text = strconv.AppendFloat(text, v, 'f', -1, 64)
		case int64:
			text = strconv.AppendInt(text, v, 10)
		default:
			text = fmt.Appendf(text, "%T", v)
		}
	}
	return text
}
