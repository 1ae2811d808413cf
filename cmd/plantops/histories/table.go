package histories

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// table reads CSV. A row has a time and either the values of several metrics, each in its column, or one value with the name of its
// metric.
type table struct {
	in        *lines
	series    seriesTable
	clock     clock
	header    string // the first line, for Place
	names     []string
	separator byte
	decimal   byte // 0: . and, where that separates nothing, also ,

	times         []int // columns, joined by a space
	device        int   // column; -1: all are of deviceName
	deviceName    string
	metric, value int                           // columns; -1: wide
	skipped       []int                         // columns that are no metrics
	wide          map[string][]*Series          // by device: for each column; nil where it is not one
	long          map[string]map[string]*Series // by device and metric
	previous      map[string]int64              // time, by device
	cells         [][]byte
	unquoted      []byte
}

// Names of columns that say what they are.
var (
	timeNames   = []string{"time", "timestamp", "datetime", "date_time", "created_at", "date", "ts", "zeit", "zeitstempel", "datum"}
	deviceNames = []string{"device", "device_id", "deviceid", "sensor", "sensor_id", "node"}
	metricNames = []string{"metric", "field", "measurement", "_field"}
	valueNames  = []string{"value", "_value", "wert"}
)

func newTable(format Format, in *lines, place Place, o Options) (Reader, error) {
	t := &table{in: in, series: newSeriesTable(o), header: place.Context, separator: o.Separator, decimal: o.Decimal,
		wide: map[string][]*Series{}, long: map[string]map[string]*Series{}, previous: map[string]int64{}}
	if t.header == "" {
		line, long, err := in.next()
		if err != nil || long {
			return nil, wrongOptions("a CSV file begins with a line that names its columns")
		}
		t.header = string(line)
	}
	if t.separator == 0 {
		t.separator = separatorOf(t.header)
	}
	cells, ok := t.split([]byte(t.header))
	if !ok {
		return nil, wrongOptions("the first line, which names the columns, has quotes that do not end")
	}
	for _, c := range cells {
		t.names = append(t.names, strings.TrimSpace(string(c)))
	}
	var err error
	if t.clock, err = newClock(o.TimeFormat, o.Zone); err != nil {
		return nil, err
	}
	if format == ThingSpeak {
		t.skipped = t.columns("entry_id", "status")
	}
	return t, t.find(format, o)
}

// separatorOf is what most often stands between the names of the first line.
func separatorOf(header string) byte {
	best := byte(',')
	for _, c := range []byte(";\t|") {
		if strings.Count(header, string(c)) > strings.Count(header, string(best)) {
			best = c
		}
	}
	return best
}

// columns are those with these names, as far as they are there.
func (t *table) columns(names ...string) (found []int) {
	for _, name := range names {
		if i := slices.IndexFunc(t.names, func(have string) bool { return strings.EqualFold(have, name) }); i >= 0 {
			found = append(found, i)
		}
	}
	return found
}

// column is the one that an option names, by name or number from 1; without an option the first with a usual name, or -1.
func (t *table) column(flag, given string, usual []string) (int, error) {
	if given == "" {
		if found := t.columns(usual...); len(found) > 0 {
			return found[0], nil
		}
		return -1, nil
	}
	if found := t.columns(given); len(found) > 0 {
		return found[0], nil
	}
	if n, err := strconv.Atoi(given); err == nil && n >= 1 && n <= len(t.names) {
		return n - 1, nil
	}
	return -1, wrongOptions("%s %s: the file has the columns %s", flag, given, strings.Join(t.names, ", "))
}

// find finds out which column is what.
func (t *table) find(format Format, o Options) error {
	if o.Time == "" {
		i, _ := t.column("--time", "", timeNames)
		if i < 0 {
			return wrongOptions("which column is the time? --time NAME; the file has %s", strings.Join(t.names, ", "))
		}
		t.times = []int{i}
	}
	for name := range strings.SplitSeq(o.Time, "+") {
		if name == "" {
			continue
		}
		i, err := t.column("--time", name, nil)
		if err != nil {
			return err
		}
		t.times = append(t.times, i)
	}
	var err error
	var all bool
	if t.deviceName, all = strings.CutPrefix(o.Device, "="); all {
		t.device = -1
	} else if t.device, err = t.column("--device", o.Device, deviceNames); err != nil {
		return err
	} else if t.device < 0 {
		return wrongOptions("which device is it? --device =NAME for all of the file, or --device COLUMN; it has %s", strings.Join(t.names, ", "))
	} else {
		t.deviceName = ""
	}
	if format == ThingSpeak {
		t.metric, t.value = -1, -1
		return nil
	}
	if t.metric, err = t.column("--metric", o.Metric, metricNames); err == nil {
		t.value, err = t.column("--value", o.Value, valueNames)
	}
	if err == nil && (o.Metric != "" || o.Value != "") && (t.metric < 0 || t.value < 0) {
		err = wrongOptions("--metric and --value: name both columns")
	}
	if t.metric < 0 || t.value < 0 {
		t.metric, t.value = -1, -1
	}
	return err
}

func (t *table) Place() Place { return t.in.place(t.header) }

// split splits a line into cells, which are valid until the next call. False: quotes do not end.
func (t *table) split(line []byte) ([][]byte, bool) {
	t.cells, t.unquoted = t.cells[:0], t.unquoted[:0]
	for {
		if len(line) == 0 || line[0] != '"' {
			end := bytes.IndexByte(line, t.separator)
			if end < 0 {
				t.cells = append(t.cells, line)
				return t.cells, true
			}
			t.cells, line = append(t.cells, line[:end]), line[end+1:]
			continue
		}
		start := len(t.unquoted)
		for line = line[1:]; ; {
			end := bytes.IndexByte(line, '"')
			if end < 0 {
				return t.cells, false
			}
			t.unquoted = append(t.unquoted, line[:end]...)
			if line = line[end+1:]; len(line) == 0 || line[0] != '"' {
				break
			}
			t.unquoted, line = append(t.unquoted, '"'), line[1:]
		}
		t.cells = append(t.cells, t.unquoted[start:len(t.unquoted):len(t.unquoted)])
		if len(line) == 0 {
			return t.cells, true
		}
		if line[0] != t.separator {
			return t.cells, false
		}
		line = line[1:]
	}
}

func (t *table) Next(sink Sink) error {
	line, long, err := t.in.next()
	if err != nil {
		return err
	}
	if long {
		sink.Reject(t.in.number, line[:100], whyLong)
		return nil
	}
	if len(bytes.TrimSpace(line)) == 0 || string(line) == t.header { // files that were put together have it again
		return nil
	}
	if why := t.row(sink, line); why != "" {
		sink.Reject(t.in.number, line, why)
	}
	return nil
}

// row reads one row. The answer says what is wrong with all of it; "" nothing.
func (t *table) row(sink Sink, line []byte) (why string) {
	cells, ok := t.split(line)
	if !ok {
		return "quotes that do not end, or text behind them"
	}
	if len(cells) != len(t.names) && !(len(cells) == len(t.names)+1 && len(cells[len(cells)-1]) == 0) {
		return "it has " + strconv.Itoa(len(cells)) + " fields, the first line " + strconv.Itoa(len(t.names))
	}
	device := t.deviceName
	if t.device >= 0 {
		if device = strings.TrimSpace(string(cells[t.device])); device == "" {
			return "no device"
		}
	}
	text := string(cells[t.times[0]])
	for _, i := range t.times[1:] {
		text += " " + string(cells[i])
	}
	at, err := t.clock.parse(text, t.previous[device])
	if err != nil {
		if errors.Is(err, errNoZone) || errors.Is(err, errOrder) || errors.Is(err, errNotThere) {
			return err.Error()
		}
		return "not a time: " + strconv.Quote(cut(text, 40))
	}
	if len(t.previous) < maxSeries {
		t.previous[device] = at
	}
	if t.metric >= 0 {
		s := t.longSeries(device, cells[t.metric])
		if s == nil {
			return whyTooMany
		}
		return t.cell(sink, s, at, cells[t.value])
	}
	series, there := t.wide[device]
	if !there {
		if series = t.wideSeries(device); series == nil {
			return whyTooMany
		}
	}
	for i, s := range series {
		if s == nil || i >= len(cells) {
			continue
		}
		if bad := t.cell(sink, s, at, cells[i]); bad != "" { // the others of the row may be good
			sink.Reject(t.in.number, line, bad)
		}
	}
	return ""
}

// cell reads the value of a series.
func (t *table) cell(sink Sink, s *Series, at int64, text []byte) (why string) {
	text = bytes.TrimSpace(text)
	if s.Device == "" {
		sink.Leave(s.Source, s.Note)
		return ""
	}
	switch string(text) {
	case "", "-", "NA", "N/A", "NaN", "nan", "null", "NULL", "none", "None", "unknown", "unavailable":
		sink.Leave(s.Source, "no value")
		return ""
	}
	plain := text
	if comma := bytes.IndexByte(text, ','); comma >= 0 && t.decimal != '.' && t.separator != ',' || comma >= 0 && t.decimal == ',' {
		if bytes.IndexByte(text, '.') < 0 && bytes.Count(text, []byte{','}) == 1 {
			plain = bytes.Replace(text, []byte{','}, []byte{'.'}, 1)
		}
	} else if t.decimal == ',' && bytes.IndexByte(text, '.') >= 0 {
		plain = nil
	}
	value, ok := number(plain)
	if !ok {
		return s.Source + " is not a number: " + strconv.Quote(cut(string(text), 40))
	}
	sink.Value(Value{Series: s, Line: t.in.number, Time: at, Value: value})
	return ""
}

// wideSeries makes the series of a device, one for each column that can be a metric.
func (t *table) wideSeries(device string) []*Series {
	list := make([]*Series, len(t.names))
	for i, name := range t.names {
		if name == "" || i == t.device || slices.Contains(t.times, i) || slices.Contains(t.skipped, i) {
			continue
		}
		if list[i] = t.add(device, name, name); list[i] == nil {
			return nil
		}
	}
	t.wide[device] = list
	return list
}

func (t *table) longSeries(device string, metric []byte) *Series {
	if s := t.long[device][string(metric)]; s != nil {
		return s
	}
	name := strings.TrimSpace(string(metric))
	s := t.add(device, name, name)
	if s != nil {
		if t.long[device] == nil {
			t.long[device] = map[string]*Series{}
		}
		t.long[device][string(metric)] = s
	}
	return s
}

func (t *table) add(device, column, metric string) *Series {
	to, metric, _ := t.series.names.apply(column, device, metric)
	if to == leftOut {
		return t.series.add(device+" "+column, "", "", "the map leaves it out")
	}
	return t.series.add(device+" "+column, to, metric, "")
}
