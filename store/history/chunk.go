package history

// MaxChunk is how many times a chunk has at most.
const MaxChunk = 4096

// Flags of a time of a chunk.
const (
	FlagTimeSource  = 0b0011 // TimeSource
	FlagClockUnsure = 0b0100
)

// Chunk is readings of one device as columns. Times grow strictly, also from one chunk of a device to the next. One may have no
// value: of the metrics that were asked for, or as what it had is voided.
type Chunk struct {
	Device   string
	Times    []int64  // UTC ms
	Received []int64  // UTC ms, of the first message of that time
	Flags    []uint8  // FlagTimeSource, FlagClockUnsure
	Given    []string // times that the device gave and that were not used; nil: none
	Columns  []Column // in order of metric; each has at least one value
}

// Column is the values of one metric, one for each time of its chunk. Where none is present, the value is of no meaning.
type Column struct {
	Metric  string
	Values  []float64
	Present []uint64 // one bit a value, the lowest first; nil: all are
}

// Has reports whether value i is there.
func (c *Column) Has(i int) bool { return c.Present == nil || c.Present[i/64]&(1<<(i%64)) != 0 }

// Reading returns value i of a column.
func (c *Chunk) Reading(i int, of *Column) Reading {
	r := Reading{
		Device: c.Device, Metric: of.Metric, Time: c.Times[i], Value: of.Values[i], Received: c.Received[i],
		TimeSource: TimeSource(c.Flags[i] & FlagTimeSource), ClockUnsure: c.Flags[i]&FlagClockUnsure != 0,
	}
	if c.Given != nil {
		r.Given = c.Given[i]
	}
	return r
}
