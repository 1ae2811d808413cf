// Package histories reads the histories that people already have: exports of InfluxDB, the recorder of Home Assistant, CSV of all
// kinds, and what this program itself writes. It turns them into values of devices and metrics one after the other, in memory
// that does not grow with the file, and says of every line that it cannot use why. Whether a time is plausible, and where the
// values go, is for others.
package histories

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Format is a kind of file.
type Format string

// The formats, by the names that people use on the command line.
const (
	CSV           Format = "csv"
	JSON          Format = "jsonl"
	Influx        Format = "influx"
	ThingSpeak    Format = "thingspeak"
	Parquet       Format = "parquet"
	HomeAssistant Format = "homeassistant"
	SQLite        Format = "sqlite"   // what "export --sqlite" writes
	Database      Format = "plantops" // a database of this program, which is not read here
)

// Formats are all that --format takes.
var Formats = []Format{CSV, JSON, Influx, ThingSpeak, Parquet, HomeAssistant, SQLite, Database}

// String says it for people.
func (f Format) String() string {
	switch f {
	case CSV:
		return "CSV"
	case JSON:
		return "JSON lines"
	case Influx:
		return "InfluxDB line protocol"
	case ThingSpeak:
		return "ThingSpeak CSV"
	case Parquet:
		return "Parquet"
	case HomeAssistant:
		return "Home Assistant recorder database"
	case SQLite:
		return "SQLite export of PlantOps"
	default:
		return "PlantOps database"
	}
}

// Series is where one kind of value of a file goes: a field of a measurement with its tags, a column, an entity.
type Series struct {
	ID             int    // from 0, in the order in which they come up
	Source         string // as the file names it
	Device, Metric string // where it goes; no device: it is left out
	Note           string // what is not as the file has it, or why it is left out; "": nothing
}

// Value is one value of a series.
type Value struct {
	Series   *Series
	Line     int64 // from 1; of a database, the number of the row
	Time     int64 // UTC ms
	Received int64 // UTC ms; 0: the file does not say
	Value    float64
}

// Sink takes what a Reader finds.
type Sink interface {
	Value(Value)
	// Leave is told of values that are no readings by their kind, such as texts, and will not be however one looks at them.
	Leave(source, why string)
	// Reject is told of what cannot be used, though its like can. The text is valid until Reject returns.
	Reject(line int64, text []byte, why string)
}

// Place is up to where a file has been read.
type Place struct {
	Offset  int64  `json:"offset"` // bytes of text, or the number of the last row
	Line    int64  `json:"line"`   // lines or rows before it
	Context string `json:"context,omitempty"`
}

// Reader reads a file in steps.
type Reader interface {
	// Next reads a step, a line or some rows, and gives what is in it to sink. io.EOF means that there is no more, any other
	// error that the file cannot be read on.
	Next(sink Sink) error
	// Place is from where a new Reader goes on after the last Next.
	Place() Place
}

// Options say what the file itself does not. The zero value means what is most usual.
type Options struct {
	Device, Metric string // Influx: templates; CSV: a column, or =NAME for all
	Map            *Map   // nil: none

	Time, TimeFormat, Value string         // CSV: columns; TimeFormat as in strftime(3), "" finds out
	Zone                    *time.Location // of times that say none; nil: they are refused
	Separator               byte           // CSV; 0 finds out
	Decimal                 byte           // CSV; 0: a point, or with ; and tabs also a comma

	Precision time.Duration // of Influx timestamps; 0 finds out

	Statistics string // HomeAssistant: "auto", "all" or "none"; "" is auto
	Extremes   bool   // HomeAssistant: minimum and maximum of statistics too, as METRIC_min and METRIC_max

	// CheckDevice tells whether a device can have that name; nil: any can.
	CheckDevice func(string) error
}

// ErrOptions: a file needs options that were not given, or does not have what they name.
var ErrOptions = errors.New("options")

// optionsError is an ErrOptions whose text is its own.
type optionsError struct{ text string }

func (e optionsError) Error() string        { return e.text }
func (e optionsError) Is(target error) bool { return target == ErrOptions }

func wrongOptions(format string, args ...any) error {
	return optionsError{fmt.Sprintf(format, args...)}
}

// maxSeries bounds what is kept in memory of a file.
const maxSeries = 100_000

const whyTooMany = "the file has more than 100000 series; name fewer with --device and --metric"

// NewText returns a Reader for a text format. From is the file from place on; the zero Place is its beginning.
func NewText(format Format, from io.Reader, place Place, o Options) (Reader, error) {
	lines := newLines(from, place)
	switch format {
	case CSV, ThingSpeak:
		return newTable(format, lines, place, o)
	case JSON:
		return newObjects(lines, o), nil
	case Influx:
		return newInflux(lines, place, o)
	}
	return nil, wrongOptions("%s is no text", format)
}
