package derive

import (
	"errors"
	"fmt"
	"math"
)

// Void takes the readings of a device from a time on, which is included, to another, which is not, out of what is read.
type Void struct {
	ID       int64
	Device   string
	Metric   string // "": all
	From, To int64  // UTC ms; To 0: no end
	Reason   string
	Created  int64 // UTC ms
	Undone   int64 // UTC ms; 0: it is not
}

// Check says what a voided range lacks.
func (v *Void) Check() error {
	switch {
	case v.Device == "":
		return errors.New("a voided range needs a device")
	case v.To != 0 && v.To <= v.From:
		return fmt.Errorf("voided range %d of %s ends before it begins", v.ID, v.Device)
	}
	return nil
}

func (v *Void) end() int64 {
	if v.To == 0 {
		return math.MaxInt64
	}
	return v.To
}

// overlaps tells whether something of a metric may be voided in a time, both ends included.
func (v *Void) overlaps(metric string, first, last int64) bool {
	return (v.Metric == "" || v.Metric == metric) && v.From <= last && v.end() > first
}
