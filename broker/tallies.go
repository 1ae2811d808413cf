package broker

import (
	"maps"
	"sync"
	"sync/atomic"
)

// tally counts the messages of one device.
type tally struct{ received, refused, pending atomic.Int64 }

// tallies counts by device.
type tallies struct {
	mu       sync.Mutex
	byDevice map[string]*tally
}

// of returns the tally of a device, which is made if there is none.
func (t *tallies) of(device string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byDevice[device]
	if one == nil {
		if t.byDevice == nil {
			t.byDevice = map[string]*tally{}
		}
		one = new(tally)
		t.byDevice[device] = one
	}
	return one
}

// stats adds up what every device has.
func (t *tallies) stats() IngestStats {
	t.mu.Lock()
	all := maps.Clone(t.byDevice)
	t.mu.Unlock()
	s := IngestStats{Devices: make(map[string]DeviceStats, len(all))}
	for name, one := range all {
		d := DeviceStats{Pending: one.pending.Load(), Refused: one.refused.Load(), Received: one.received.Load()}
		s.Received += d.Received
		s.Refused += d.Refused
		s.Pending += d.Pending
		s.Devices[name] = d
	}
	return s
}
