package alert

import (
	"cmp"
	"slices"
	"time"

	"github.com/plantops/plantops/store/garden"
)

// judgeDevices looks for devices that are offline, and for sensors that are silent, stuck or nearly without power.
func (m *Machine) judgeDevices() {
	moving := m.moving()
	for id, d := range m.devices {
		key := Key{Kind: Offline, Subject: id}
		online := d.quiet <= d.away(m.rules.OfflineAfter)
		v := good
		switch {
		case m.rules.NoOffline || !d.known:
			v = unknown
		case !online && m.up < settle:
			v = unknown
		case !online:
			v = bad
		case d.seen == m.seenOf(key):
			v = unknown // not heard of since, although it was waited for anew
		}
		m.judge(key, finding{verdict: v, about: func(a *Alert) { a.Name, a.Device, a.Seen = id, id, d.seen }})
		for metric, s := range d.sensors {
			m.judgeSilent(id, metric, s, d)
			m.judgeStuck(id, metric, s, moving)
			m.judgeBattery(id, metric, s)
		}
	}
	for key, a := range m.open {
		switch key.Kind {
		case Offline, Silent, Stuck, Battery:
			if !m.watched(key) {
				m.close(a, true)
			}
		}
	}
}

// seenOf is when what an open alert is about was heard of last, when it began.
func (m *Machine) seenOf(key Key) int64 {
	if a := m.open[key]; a != nil {
		return a.Seen
	}
	return 0
}

// watched reports whether a device or a metric of it is there to be judged, and by a rule that holds.
func (m *Machine) watched(key Key) bool {
	d := m.devices[key.Subject]
	if d == nil || key.Kind == Offline {
		return d != nil && !m.rules.NoOffline
	}
	s := d.sensors[key.Metric]
	switch key.Kind {
	case Silent:
		return s != nil && !m.rules.NoSilent && m.now-s.Time < givenUp.Milliseconds()
	case Stuck:
		return s != nil && !m.rules.NoStuck
	}
	return s != nil
}

func (m *Machine) judgeSilent(id, metric string, s *sensor, d *device) {
	key := Key{Kind: Silent, Subject: id, Metric: metric}
	after, known := s.silentAfter()
	v := good
	switch {
	case m.rules.NoSilent, !s.known:
		return
	case s.quiet <= after || !known:
		if s.Time == m.seenOf(key) {
			return // nothing came since
		}
	case s.quiet-d.quiet <= after, m.up < settle:
		return // the device has not been heard of since this should have come, or has had no time to come back
	case s.Time > m.now+lateReading.Milliseconds(), m.now-s.Time >= givenUp.Milliseconds():
		return // nothing can be newer than what a wrong clock has dated; or it is long gone
	default:
		v = bad
	}
	m.judge(key, finding{verdict: v, about: func(a *Alert) { a.Name, a.Device, a.Seen = id, id, s.Time }})
}

// moving is when a value of a metric changed last, observed time ago; what has never changed is not in it.
func (m *Machine) moving() map[string]time.Duration {
	list := map[string]time.Duration{}
	for _, d := range m.devices {
		for metric, s := range d.sensors {
			if stuckAfter[metric] == 0 || s.same >= stuckAfter[metric] {
				continue
			}
			if last, there := list[metric]; !there || s.same < last {
				list[metric] = s.same
			}
		}
	}
	return list
}

// judgeStuck finds a sensor whose value is the same for long while others vary: others of its device, or those of the same metric.
func (m *Machine) judgeStuck(id, metric string, s *sensor, moving map[string]time.Duration) {
	bound := stuckAfter[metric]
	if bound == 0 || m.rules.NoStuck || !s.known {
		return
	}
	key, v := Key{Kind: Stuck, Subject: id, Metric: metric}, good
	if s.same >= bound {
		_, others := moving[metric]
		for name, other := range m.devices[id].sensors {
			others = others || name != metric && other.known && other.same < bound/2
		}
		if v = bad; !others || s.repeats < leastRepeats {
			return
		}
	} else if a := m.open[key]; a != nil && a.Value != nil && *a.Value == s.Value {
		return // nobody remembers for how long
	}
	value := s.Value
	m.judge(key, finding{verdict: v, about: func(a *Alert) { a.Name, a.Device, a.Value = id, id, &value }})
}

func (m *Machine) judgeBattery(id, metric string, s *sensor) {
	if !isBattery(metric) || !s.current() {
		return
	}
	v := between
	switch {
	case s.Value <= batteryLow:
		v = bad
	case s.Value >= batteryGood:
		v = good
	}
	value, limit := s.Value, float64(batteryLow)
	m.judge(Key{Kind: Battery, Subject: id, Metric: metric}, finding{verdict: v, hold: m.rules.After, back: m.rules.After, stamp: s.Time,
		about: func(a *Alert) { a.Name, a.Device, a.Value, a.Limit = id, id, &value, &limit }})
}

// judgeThresholds looks at the newest reading of each plant and metric, whichever device it comes from.
func (m *Machine) judgeThresholds(l *Look) {
	if l.Plan == nil {
		return
	}
	type place struct{ plant, metric string }
	newest := map[place]*sensor{}
	for id, d := range m.devices {
		for metric, s := range d.sensors {
			plant := l.Plan.Owner(id, metric, s.Time, s.Received)
			at := place{plant, metric}
			if plant == "" || !s.known {
				continue
			}
			if have := newest[at]; have == nil || cmp.Or(cmp.Compare(s.Time, have.Time), cmp.Compare(have.Device, id)) > 0 {
				newest[at] = s
			}
		}
	}
	watched := map[Key]bool{}
	for _, plant := range l.Plan.Plants() {
		for _, t := range plant.Thresholds {
			served := slices.ContainsFunc(l.Plan.Assignments(plant.ID), func(a garden.Assignment) bool { return a.Covers(m.now) })
			for _, side := range []Side{Min, Max} {
				if bound(t, side) == nil || !served {
					continue
				}
				key := Key{Kind: Threshold, Subject: plant.ID, Metric: t.Metric, Side: side}
				watched[key] = true
				if s := newest[place{plant.ID, t.Metric}]; s != nil && s.current() {
					m.judgeValue(key, plant.Name, t, s)
				}
			}
		}
	}
	for key, a := range m.open {
		if key.Kind == Threshold && !watched[key] {
			m.close(a, true)
		}
	}
}

// judgeValue compares a value with one side of a threshold.
func (m *Machine) judgeValue(key Key, plant string, t garden.Threshold, s *sensor) {
	clears := Clears(t)
	value, limit, clear := s.Value, *bound(t, key.Side), *bound(clears, key.Side)
	over := value - limit
	back := value - clear
	if key.Side == Min {
		over, back = -over, -back
	}
	v := between
	switch {
	case over > 0:
		v = bad
	case back <= 0:
		v = good
	}
	m.judge(key, finding{verdict: v, hold: m.rules.After, back: m.rules.After, stamp: s.Time,
		about: func(a *Alert) { a.Name, a.Device, a.Value, a.Limit = plant, s.Device, &value, &limit }})
}

// bound is that of one side.
func bound(t garden.Threshold, side Side) *float64 {
	if side == Min {
		return t.Min
	}
	return t.Max
}

func (m *Machine) judgeClock(doubt string) {
	v := good
	if doubt != "" {
		v = bad
	}
	m.judge(Key{Kind: Clock}, finding{verdict: v, hold: clockAfter, back: faultAfter, about: func(a *Alert) { a.Text = "the clock is not to be trusted: " + doubt }})
}

// judgeFaults takes in what is wrong with the box. It is looked at more seldom than the rest, so that one look is enough.
func (m *Machine) judgeFaults(faults []Fault) {
	there := map[Key]bool{}
	for _, f := range faults {
		key := Key{Kind: f.Kind, Subject: f.Subject}
		there[key] = true
		m.judge(key, finding{verdict: bad, about: func(a *Alert) { a.Text = f.Text }})
	}
	for key, a := range m.open {
		switch key.Kind {
		case Certificate, Disk, Backup, Quarantine:
			if !there[key] {
				m.close(a, false)
			}
		}
	}
}
