package histories

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxDeviceBytes = 64
	maxMetricBytes = 128
)

// seriesTable holds the series of a file, by what the file calls them.
type seriesTable struct {
	check func(string) error
	names *Map
	count int
}

func newSeriesTable(o Options) seriesTable { return seriesTable{check: o.CheckDevice, names: o.Map} }

// add makes the series of a source. Names that cannot be are changed to ones that can, and the note says so. A series without
// device is left out; its note says why. It returns nil when there are too many.
func (t *seriesTable) add(source, device, metric, note string) *Series {
	if t.count == maxSeries {
		return nil
	}
	s := &Series{ID: t.count, Source: source, Note: note}
	t.count++
	if device == "" {
		return s
	}
	if metric == "" {
		s.Note = "no metric: name one with --metric or --map"
		return s
	}
	s.Device, s.Metric = cleanDevice(device), cut(strings.ToValidUTF8(metric, "�"), maxMetricBytes)
	if t.check != nil && t.check(s.Device) != nil {
		s.Note, s.Device, s.Metric = fmt.Sprintf("no device can have this name (%v): name another with --device or --map", t.check(s.Device)), "", ""
		return s
	}
	for _, changed := range [][2]string{{device, s.Device}, {metric, s.Metric}} {
		if changed[0] != changed[1] {
			s.Note = join(s.Note, fmt.Sprintf("%q cannot be a name here", changed[0]))
		}
	}
	return s
}

// Series makes the series with a number of a device and metric that the file names as such.
func (o Options) Series(id int, device, metric string) *Series {
	t := newSeriesTable(o)
	t.count = id
	to, name, _ := t.names.apply(metric, device, metric)
	note := ""
	if to == leftOut {
		to, note = "", "the map leaves it out"
	}
	s := t.add(device+" "+metric, to, name, note)
	if s == nil {
		s = &Series{ID: maxSeries, Source: device + " " + metric, Note: whyTooMany}
	}
	return s
}

func join(note, more string) string {
	if note == "" {
		return more
	}
	return note + "; " + more
}

// cleanDevice puts - in place of what no device id may have, see store.CheckID.
func cleanDevice(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || strings.ContainsRune("+#/$%", r) || r == utf8.RuneError {
			return '-'
		}
		return r
	}, strings.TrimSpace(name))
	return strings.TrimSpace(cut(name, maxDeviceBytes))
}

// cut shortens text to n bytes, between runes.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Map says for names of a file (an entity, a column, a field) which device and metric they are.
type Map struct{ targets map[string]target }

type target struct{ device, metric string }

// leftOut is the device of what is not to be imported.
const leftOut = "-"

// NewMap returns a Map of these metrics by name of the file. An empty metric leaves the name out.
func NewMap(metrics map[string]string) *Map {
	m := &Map{map[string]target{}}
	for name, metric := range metrics {
		to := target{metric: metric}
		if metric == "" {
			to.device = leftOut
		}
		m.targets[name] = to
	}
	return m
}

// ReadMap adds the lines name,device,metric or name,metric of a CSV file to m, which may be nil, and returns it. An empty device
// or metric leaves to the program what it finds, and the device - leaves the name out.
func ReadMap(m *Map, from io.Reader) (*Map, error) {
	if m == nil {
		m = NewMap(nil)
	}
	in := csv.NewReader(from)
	in.FieldsPerRecord, in.Comment, in.TrimLeadingSpace = -1, '#', true
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(row[0], string(utf8BOM))
		switch line, _ := in.FieldPos(0); {
		case len(row) == 2:
			m.targets[name] = target{"", strings.TrimSpace(row[1])}
		case len(row) == 3:
			m.targets[name] = target{strings.TrimSpace(row[1]), strings.TrimSpace(row[2])}
		default:
			return nil, fmt.Errorf("line %d has %d fields: write NAME,DEVICE,METRIC or NAME,METRIC", line, len(row))
		}
	}
}

// of returns what the map says of a name.
func (m *Map) of(name string) (to target, found bool) {
	if m == nil {
		return to, false
	}
	to, found = m.targets[name]
	return to, found
}

// apply puts what the map says in place of what was found.
func (m *Map) apply(name, device, metric string) (string, string, bool) {
	to, found := m.of(name)
	if !found {
		return device, metric, false
	}
	if to.device != "" {
		device = to.device
	}
	if to.metric != "" {
		metric = to.metric
	}
	return device, metric, true
}

// template is a text with places that a point fills.
type template []piece

// piece is literal text, or what stands in braces: measurement, field, or a tag.
type piece struct {
	text, place string
	part        int // of a tag that is split at /, from 1; 0: all of it
}

// parseTemplate reads "{tag:device}", "greenhouse-{tag:topic/2}", "{measurement}_{field}".
func parseTemplate(flag, text string) (template, error) {
	var t template
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if before != "" {
			t = append(t, piece{text: before})
		}
		if !found {
			break
		}
		place, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, wrongOptions("%s: a { without }", flag)
		}
		p := piece{place: place}
		switch tag, isTag := strings.CutPrefix(place, "tag:"); {
		case place == "measurement" || place == "field":
		case isTag && tag != "":
			p.place = tag
			if name, number, split := strings.Cut(tag, "/"); split {
				n, err := strconv.Atoi(number)
				if err != nil || n < 1 {
					return nil, wrongOptions("%s: {%s}: write {tag:NAME/2} for the second part of a tag such as a topic", flag, place)
				}
				p.place, p.part = name, n
			}
			p.place = "tag:" + p.place
		default:
			return nil, wrongOptions("%s: {%s}: use {tag:NAME}, {tag:NAME/2}, {measurement} or {field}", flag, place)
		}
		t, text = append(t, p), after
	}
	return t, nil
}

// fill returns the text, or which tag is missing.
func (t template) fill(measurement, field string, tags []tag) (text, missing string) {
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.place == "":
			b.WriteString(p.text)
		case p.place == "measurement":
			b.WriteString(measurement)
		case p.place == "field":
			b.WriteString(field)
		default:
			name := strings.TrimPrefix(p.place, "tag:")
			value := tagOf(tags, name)
			if p.part > 0 {
				parts := strings.Split(value, "/")
				value = ""
				if p.part <= len(parts) {
					value = parts[p.part-1]
				}
			}
			if value == "" {
				return "", name
			}
			b.WriteString(value)
		}
	}
	return b.String(), ""
}

type tag struct{ key, value string }

func tagOf(tags []tag, key string) string {
	for _, t := range tags {
		if t.key == key {
			return t.value
		}
	}
	return ""
}

// suffixes are the ends of entity ids that name a metric, the longer of two that fit first.
var suffixes = []string{
	"soil_temperature", "soil_moisture", "soil_conductivity", "water_temperature", "air_temperature", "dew_point", "co2", "carbon_dioxide",
	"temperature", "humidity", "moisture", "conductivity", "illuminance", "light", "lux", "pressure", "battery_level", "battery_voltage",
	"battery", "voltage", "current", "power", "energy", "signal_strength", "rssi", "linkquality", "ph", "ec", "tds", "vpd", "water_level",
	"level", "distance", "flow", "volume", "wind_speed", "rain", "precipitation", "pm25", "pm10", "voc", "uv_index", "weight",
}

// splitEntity makes device and metric of an entity id without its domain: bed_1_temperature is the temperature of bed_1. Class is
// what Home Assistant says it measures; "" when it does not.
func splitEntity(object, class string) (device, metric string) {
	for _, suffix := range append([]string{class}, suffixes...) {
		if suffix == "" {
			continue
		}
		if device, ok := strings.CutSuffix(object, "_"+suffix); ok && device != "" {
			return device, suffix
		}
	}
	if class != "" {
		return object, class
	}
	return object, "value"
}
