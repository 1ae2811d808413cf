package export

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/store/history"
)

// bufferBytes is how much text is written at a time.
const bufferBytes = 64 << 10

// maxUnnamed bounds the names that are told of.
const maxUnnamed = 100

// measurement is that of line protocol; "import readings" knows it.
const measurement = "plantops"

// text writes the formats that are text.
type text struct {
	w      io.Writer
	buffer []byte
	clock  clock
	result *Result
	line   func(c *history.Chunk, names []string, i int) (n int64) // writes time i of a chunk
	name   func(string) (string, bool)                             // a name as it is written; false: it cannot be
	names  []string
	device string // as it is written
}

func newText(format Format, w io.Writer, result *Result) (encoder, error) {
	t := &text{w: w, result: result}
	switch format {
	case CSV:
		t.name, t.line = csvName, t.csv
		t.buffer = append(t.buffer, "time,device,metric,value\n"...)
	case JSON:
		t.name, t.line = jsonName, t.json
	default:
		t.name, t.line = influxName, t.influx
	}
	return t, nil
}

func (t *text) chunk(c *history.Chunk) (n int64, err error) {
	var ok bool
	if t.device, ok = t.name(c.Device); !ok {
		t.unnamed(c.Device)
		return 0, nil
	}
	t.names = t.names[:0]
	for i := range c.Columns {
		name, ok := t.name(c.Columns[i].Metric)
		if !ok {
			t.unnamed(c.Columns[i].Metric)
			name = ""
		}
		t.names = append(t.names, name)
	}
	for i := range c.Times {
		n += t.line(c, t.names, i)
		if len(t.buffer) >= bufferBytes {
			if err := t.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (t *text) unnamed(name string) {
	if len(t.result.Unnamed) < maxUnnamed && !slices.Contains(t.result.Unnamed, name) {
		t.result.Unnamed = append(t.result.Unnamed, name)
	}
}

func (t *text) flush() error {
	_, err := t.w.Write(t.buffer)
	t.buffer = t.buffer[:0]
	return err
}

func (t *text) end() error { return t.flush() }

func csvName(name string) (string, bool) {
	if strings.ContainsAny(name, "\",\r\n") || strings.HasPrefix(name, " ") || name == "" {
		name = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	return name, !strings.ContainsAny(name, "\r\n") // lines are lines, for everybody who reads them one by one
}

func (t *text) csv(c *history.Chunk, names []string, i int) (n int64) {
	for k := range c.Columns {
		column := &c.Columns[k]
		if names[k] == "" || !column.Has(i) {
			continue
		}
		b := append(t.clock.append(t.buffer, c.Times[i]), ',')
		b = append(append(b, t.device...), ',')
		b = append(append(b, names[k]...), ',')
		t.buffer = append(strconv.AppendFloat(b, column.Values[i], 'f', -1, 64), '\n')
		n++
	}
	return n
}

func jsonName(name string) (string, bool) {
	text, err := json.Marshal(name)
	return string(text), err == nil
}

func (t *text) json(c *history.Chunk, names []string, i int) (n int64) {
	for k := range c.Columns {
		column := &c.Columns[k]
		if names[k] == "" || !column.Has(i) {
			continue
		}
		b := append(t.clock.append(append(t.buffer, `{"time":"`...), c.Times[i]), `","device":`...)
		b = append(append(b, t.device...), `,"metric":`...)
		b = appendNumber(append(append(b, names[k]...), `,"value":`...), column.Values[i])
		b = append(t.clock.append(append(b, `,"received":"`...), c.Received[i]), `","time_source":"`...)
		b = append(append(b, listing.SourceText(history.TimeSource(c.Flags[i]&history.FlagTimeSource))...), '"')
		if c.Given != nil && c.Given[i] != "" {
			given, _ := jsonName(c.Given[i])
			b = append(append(b, `,"given_time":`...), given...)
		}
		if c.Flags[i]&history.FlagClockUnsure != 0 {
			b = append(b, `,"clock_unsure":true`...)
		}
		t.buffer = append(b, "}\n"...)
		n++
	}
	return n
}

// appendNumber writes a number with the digits that it has, with an exponent where it would have very many.
func appendNumber(b []byte, v float64) []byte {
	form := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(b, v, form, -1, 64)
}

var influxEscapes = strings.NewReplacer(",", `\,`, " ", `\ `, "=", `\=`)

// influxName escapes a tag or a field. Line protocol has no way to write a line break in them, or a backslash at the end.
func influxName(name string) (string, bool) {
	return influxEscapes.Replace(name), name != "" && !strings.ContainsAny(name, "\r\n") && !strings.HasSuffix(name, `\`)
}

// influx writes one point with all values of a time.
func (t *text) influx(c *history.Chunk, names []string, i int) (n int64) {
	before := len(t.buffer)
	b := append(append(append(t.buffer, measurement+",device="...), t.device...), ' ')
	for k := range c.Columns {
		column := &c.Columns[k]
		if names[k] == "" || !column.Has(i) {
			continue
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = appendNumber(append(append(b, names[k]...), '='), column.Values[i])
		n++
	}
	b = append(strconv.AppendInt(append(b, ' '), c.Times[i], 10), "000000\n"...)
	if n == 0 {
		b = b[:before]
	}
	t.buffer = b
	return n
}

const dayMillis = 24 * 60 * 60 * 1000

// clock writes times as RFC 3339 with milliseconds, in UTC. It remembers the day.
type clock struct {
	day  int64
	text []byte // of the day, with the T behind it
}

func (c *clock) append(b []byte, ms int64) []byte {
	day, rest := ms/dayMillis, ms%dayMillis
	if rest < 0 {
		day, rest = day-1, rest+dayMillis
	}
	if c.text == nil || day != c.day {
		c.day, c.text = day, time.UnixMilli(day*dayMillis).UTC().AppendFormat(c.text[:0], "2006-01-02T")
	}
	b = append(b, c.text...)
	two := func(n int64, end byte) { b = append(b, byte('0'+n/10), byte('0'+n%10), end) }
	two(rest/3_600_000, ':')
	two(rest/60_000%60, ':')
	two(rest/1000%60, '.')
	return append(b, byte('0'+rest/100%10), byte('0'+rest/10%10), byte('0'+rest%10), 'Z')
}
