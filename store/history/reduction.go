package history

import "time"

// Reduction says into which buckets readings are put.
type Reduction struct {
	Every      Span           // zero: Points says
	Points     int            // at most so many buckets per series, as long as they must be; used when Every is zero
	Location   *time.Location // whose hours, days and months buckets follow; nil: UTC
	Aggregates Aggregate      // what is needed; zero: all but Times
}
