package alert

import (
	"slices"
	"time"

	"github.com/plantops/plantops/store/history"
)

// gapsKept is from how many intervals one is learned.
const gapsKept = 9

// pace is when something comes: how long it has been quiet, and after what time it used to come.
type pace struct {
	quiet time.Duration // observed, since it came last
	known bool          // it came once
	gaps  []time.Duration
	usual time.Duration // learned of the gaps; 0: too few
}

// pass lets time pass, in which it came or not.
func (p *pace) pass(by time.Duration, came bool) {
	p.quiet += by
	if !came {
		return
	}
	if p.known {
		if len(p.gaps) == gapsKept {
			p.gaps = slices.Delete(p.gaps, 0, 1)
		}
		p.gaps = append(p.gaps, p.quiet)
		p.learn()
	}
	p.known, p.quiet = true, 0
}

// interval is what was learned; false: too little for one.
func (p *pace) interval() (time.Duration, bool) { return p.usual, p.usual > 0 }

// learn takes the median of the gaps, which one outage does not move. What comes so irregularly that two of them are far longer has the
// second longest: two are a habit.
func (p *pace) learn() {
	if len(p.gaps) < 3 {
		return
	}
	var room [gapsKept]time.Duration
	sorted := append(room[:0], p.gaps...)
	slices.Sort(sorted)
	p.usual = sorted[len(sorted)/2]
	if second := sorted[len(sorted)-2]; second > 3*p.usual {
		p.usual = second
	}
}

// expect takes up what was learned before a restart.
func (p *pace) expect(interval time.Duration) {
	p.gaps = []time.Duration{interval, interval, interval}
	p.learn()
}

// device is what is known of a device.
type device struct {
	pace
	seen    int64
	sensors map[string]*sensor
	there   bool // in the look
}

// away is how long it may be quiet.
func (d *device) away(least time.Duration) time.Duration {
	if interval, known := d.interval(); known {
		return max(least, lateBy*interval+slack)
	}
	return max(least, unlearned)
}

// sensor is what is known of a metric of a device.
type sensor struct {
	pace
	history.Reading
	timely  bool          // it came while somebody looked, and soon after its own time
	same    time.Duration // observed, since the value was another
	repeats int
}

// silentAfter is how long it may be quiet; false: nobody knows.
func (s *sensor) silentAfter() (time.Duration, bool) {
	interval, known := s.interval()
	return lateBy*interval + slack, known
}

// current reports whether the reading says how it is now.
func (s *sensor) current() bool {
	after, known := s.silentAfter()
	return s.timely && (!known || s.quiet <= after)
}

// take takes the newest reading in, and lets time pass.
func (s *sensor) take(r history.Reading, by time.Duration, started bool) {
	came := r.Time != s.Time
	if came && s.known && r.Value == s.Value {
		s.repeats++
	}
	if r.Value != s.Value {
		s.same, s.repeats = 0, 0
	} else {
		s.same += by
	}
	s.pass(by, came)
	if came {
		bound := lateReading
		if interval, known := s.interval(); known {
			bound = max(bound, interval)
		}
		s.timely = started && !r.ClockUnsure && r.Received-r.Time <= bound.Milliseconds()
		s.Reading = r
	}
}

// observe takes in what a look has of devices and sensors. The first one after a start says nothing new: it is what was.
func (m *Machine) observe(l *Look, by time.Duration) {
	for _, d := range m.devices {
		d.there = false
	}
	for i := range l.Devices {
		id, seen := l.Devices[i].ID, l.Devices[i].Seen
		d := m.devices[id]
		if d == nil {
			d = &device{sensors: map[string]*sensor{}}
			m.devices[id] = d
		}
		d.there = true
		d.pass(by, seen != d.seen && seen != 0)
		d.seen = seen
	}
	for _, r := range l.Readings {
		d := m.devices[r.Device]
		if d == nil || !d.there {
			continue
		}
		s := d.sensors[r.Metric]
		if s == nil {
			s = &sensor{}
			d.sensors[r.Metric] = s
		}
		s.take(r, by, m.started)
	}
	for id, d := range m.devices {
		if !d.there {
			delete(m.devices, id)
		}
	}
	m.started = true
}

// Learned returns what is worth to be kept over a restart, at times.
func (m *Machine) Learned() (list []Learned) {
	for id, d := range m.devices {
		if interval, known := d.interval(); known {
			list = append(list, Learned{Device: id, Interval: interval.Milliseconds()})
		}
		for metric, s := range d.sensors {
			interval, known := s.interval()
			if known {
				list = append(list, Learned{Device: id, Metric: metric, Interval: interval.Milliseconds(), Still: s.same.Milliseconds(), Repeats: s.repeats, Value: s.Value})
			}
		}
	}
	return list
}

// learn is the other end of it.
func (m *Machine) learn(list []Learned) {
	for _, l := range list {
		d := m.devices[l.Device]
		if d == nil {
			d = &device{sensors: map[string]*sensor{}}
			m.devices[l.Device] = d
		}
		interval := time.Duration(l.Interval) * time.Millisecond
		if l.Metric == "" {
			d.expect(interval)
			continue
		}
		s := &sensor{same: time.Duration(l.Still) * time.Millisecond, repeats: l.Repeats}
		s.Value = l.Value
		s.expect(interval)
		d.sensors[l.Metric] = s
	}
}
