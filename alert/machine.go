package alert

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Machine holds what is known and decides. It is not safe for concurrent use.
type Machine struct {
	rules   Rules
	state   State
	open    map[Key]*Alert
	watches map[Key]*watch
	devices map[string]*device
	started bool // there was a look
	up      time.Duration

	now   int64 // of this step, UTC ms
	by    time.Duration
	out   Changes
	moved map[Key]bool // alerts that changed in this step
}

// watch is how long a condition has been so.
type watch struct {
	bad, good time.Duration
	stamp     int64 // of the reading that was counted last
	readings  int
}

// verdict on a condition.
type verdict uint8

const (
	unknown verdict = iota // nothing changes
	bad
	between // better than what begins a breach, not as good as what ends one
	good
)

// finding is a verdict with what it is about.
type finding struct {
	verdict
	hold, back time.Duration // how long it must be bad before it is a breach, and good before that is over
	stamp      int64         // names the reading; 0: none. A breach that must last needs two
	about      func(*Alert)  // fills in a new alert
}

// New returns a machine that goes on where another one ended: with its state, the alerts that were open then, and what it had learned.
func New(rules Rules, state State, open []Alert, learned []Learned) *Machine {
	m := &Machine{rules: rules, state: state, open: map[Key]*Alert{}, watches: map[Key]*watch{}, devices: map[string]*device{}}
	for i := range open {
		if open[i].Closed == 0 {
			one := open[i]
			m.open[one.Key] = &one
		}
	}
	m.learn(learned)
	return m
}

// State is what a new machine goes on with. What it holds may change with the next step.
func (m *Machine) State() State { return m.state }

// Open returns the alerts that last, the newest first.
func (m *Machine) Open() []Alert {
	list := make([]Alert, 0, len(m.open))
	for _, a := range m.open {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Alert) int { return cmp.Compare(b.ID, a.ID) })
	return list
}

// Step takes a look in and returns what it comes to.
func (m *Machine) Step(l Look) Changes {
	m.begin(l.Now)
	m.by = max(l.Passed, 0)
	if m.by > longestStep {
		m.by = 0 // nobody looked: a machine that slept, or a disk that did not answer
	}
	m.observe(&l, m.by)
	if m.up < settle {
		m.up += m.by
	}
	if l.Unsure != "" {
		m.up = 0
		m.judgeClock(l.Unsure)
	} else {
		m.wake()
		m.judgeClock("")
		m.judgeDevices()
		m.judgeThresholds(&l)
		if l.Looked {
			m.judgeFaults(l.Faults)
		}
		m.remind()
	}
	m.tell(l.Now, l.Unsure != "")
	return m.end()
}

func (m *Machine) begin(now time.Time) {
	m.now, m.out, m.moved = now.UnixMilli(), Changes{}, map[Key]bool{}
}

// end collects what this step has changed.
func (m *Machine) end() Changes {
	for key := range m.moved {
		if a := m.open[key]; a != nil {
			m.out.Alerts = append(m.out.Alerts, *a)
		}
	}
	slices.SortFunc(m.out.Alerts, func(a, b Alert) int { return cmp.Compare(a.ID, b.ID) })
	if m.out.Kept {
		m.state.Change++
	}
	return m.out
}

// judge brings a finding to what it comes to.
func (m *Machine) judge(key Key, f finding) {
	a, w := m.open[key], m.watches[key]
	switch {
	case f.verdict == unknown:
		return
	case a != nil && f.verdict == good, a == nil && f.verdict == bad:
	default:
		delete(m.watches, key)
		return
	}
	if w == nil {
		w = &watch{}
		m.watches[key] = w
	} else if a != nil {
		w.good += m.by
	} else {
		w.bad += m.by
	}
	if f.stamp != w.stamp {
		w.stamp = f.stamp
		w.readings++
	}
	confirmed := f.stamp == 0 || w.readings > 1
	switch {
	case a != nil && w.good >= f.back && (confirmed || f.back == 0):
		delete(m.watches, key)
		m.close(a, false)
	case a == nil && w.bad >= f.hold && (confirmed || f.hold == 0) && !m.rests(key):
		delete(m.watches, key)
		m.begins(key, f.about)
	}
}

// begins opens an alert.
func (m *Machine) begins(key Key, about func(*Alert)) {
	m.state.Alert++
	a := &Alert{ID: m.state.Alert, Key: key, Opened: m.now}
	about(a)
	m.open[key] = a
	if m.rules.Cooldown > 0 {
		m.state.Resting = append(m.state.Resting, Rest{Key: key, Until: m.now + m.rules.Cooldown.Milliseconds()})
	}
	m.say(Begins, a)
}

// close ends an alert; gone says that nobody watches this any more.
func (m *Machine) close(a *Alert, gone bool) {
	a.Closed, a.Gone = m.now, gone
	delete(m.open, a.Key)
	delete(m.moved, a.Key)
	m.say(Ends, a)
	m.out.Alerts = append(m.out.Alerts, *a)
}

// say has something told as soon as that may be.
func (m *Machine) say(what string, a *Alert) {
	a.Told = m.now
	if what != Ends {
		m.moved[a.Key] = true
	}
	m.state.Waiting = append(m.state.Waiting, Notice{What: what, At: m.now, Alert: *a})
	m.out.Kept = true
}

// rests reports whether no alert of a key may begin yet.
func (m *Machine) rests(key Key) bool {
	return slices.ContainsFunc(m.state.Resting, func(r Rest) bool { return r.Key == key })
}

// longestRest bounds what a clock that was moved can do.
const longestRest = 31 * 24 * time.Hour

// wake ends rests whose time is over, and says again what was snoozed and lasts.
func (m *Machine) wake() {
	m.state.Resting = slices.DeleteFunc(m.state.Resting, func(r Rest) bool {
		if m.now < r.Until && r.Until-m.now <= longestRest.Milliseconds() {
			return false
		}
		m.out.Kept = true
		if a := m.open[r.Key]; r.Snooze && a != nil {
			a.Snoozed = 0
			m.moved[r.Key] = true
			if a.Acknowledged == 0 {
				m.say(Lasts, a)
			}
		}
		return true
	})
}

// remind says again what nobody has acknowledged.
func (m *Machine) remind() {
	if m.rules.Repeat <= 0 {
		return
	}
	for _, a := range m.Open() {
		if a.Acknowledged == 0 && a.Snoozed == 0 && m.now-a.Told >= m.rules.Repeat.Milliseconds() {
			m.say(Lasts, m.open[a.Key])
		}
	}
}

// byID returns an open alert.
func (m *Machine) byID(id int64) (*Alert, error) {
	for _, a := range m.open {
		if a.ID == id {
			return a, nil
		}
	}
	return nil, fmt.Errorf("alert %d: %w", id, ErrNotFound)
}

// Acknowledge notes that somebody knows of an alert: it is not said again, only that it is over.
func (m *Machine) Acknowledge(id int64, by string, now time.Time) (Changes, error) {
	m.begin(now)
	a, err := m.byID(id)
	if err != nil {
		return Changes{}, err
	}
	if a.Acknowledged == 0 {
		a.Acknowledged, a.By = m.now, by
		m.moved[a.Key] = true
	}
	return m.end(), nil
}

// Snooze has nothing said of an alert for a time, but that it is over; if it lasts then, or begins again meanwhile, it is said afterwards.
func (m *Machine) Snooze(id int64, length time.Duration, now time.Time) (Changes, error) {
	m.begin(now)
	a, err := m.byID(id)
	if err != nil {
		return Changes{}, err
	}
	if length <= 0 || length > longestRest {
		return Changes{}, fmt.Errorf("snooze alert %d for %s: it can be for at most %d days", id, length, int(longestRest.Hours()/24))
	}
	a.Snoozed = m.now + length.Milliseconds()
	m.state.Resting = slices.DeleteFunc(m.state.Resting, func(r Rest) bool { return r.Key == a.Key && r.Snooze })
	m.state.Resting = append(m.state.Resting, Rest{Key: a.Key, Until: a.Snoozed, Snooze: true})
	m.moved[a.Key], m.out.Kept = true, true
	return m.end(), nil
}
