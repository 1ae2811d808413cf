package alert

import (
	"fmt"
	"slices"
	"time"
)

const (
	// gather is how long notices of devices and faults wait for others: what takes several at once is told once. After a digest
	// they wait longer.
	gather      = time.Minute
	gatherAfter = 5 * time.Minute

	// At most burst messages go out in burstTime; what comes then waits and is told together. So is what comes together and is more
	// than single.
	burst     = 5
	burstTime = 10 * time.Minute
	single    = 3

	// mostListed bounds a message; the rest of it is a number.
	mostListed = 200
)

// waits is how long a notice may be held for others.
func (m *Machine) waits(n *Notice) time.Duration {
	switch n.Alert.Kind {
	case Offline, Silent, Stuck:
	default:
		return 0
	}
	if m.since(m.state.Digest) < burstTime {
		return gatherAfter
	}
	return gather
}

// since is how long ago a time was; one that is ahead, because the clock was moved, is long ago.
func (m *Machine) since(t int64) time.Duration {
	if t == 0 || t > m.now {
		return longestRest
	}
	return time.Duration(m.now-t) * time.Millisecond
}

// tell makes messages of the notices that have waited long enough, as far as it may now.
func (m *Machine) tell(now time.Time, unsure bool) {
	if len(m.state.Waiting) == 0 || !unsure && m.rules.Quiet.Has(now) {
		return
	}
	sent := len(m.state.Sent)
	m.state.Sent = slices.DeleteFunc(m.state.Sent, func(t int64) bool { return m.since(t) >= burstTime })
	m.out.Kept = m.out.Kept || sent != len(m.state.Sent)
	due := m.takeDue(unsure)
	if len(due) == 0 {
		return
	}
	if free := burst - len(m.state.Sent); len(due) <= min(single, free) {
		for _, n := range due {
			m.send(n)
		}
	} else {
		m.state.Digest = m.now
		m.send(due...)
	}
}

// takeDue takes from what waits what is to be told now. Where something has waited long enough, what would wait for the same is taken along.
func (m *Machine) takeDue(unsure bool) (due []Notice) {
	if len(m.state.Sent) >= burst && !unsure {
		return nil
	}
	ripe := map[time.Duration]bool{}
	for i := range m.state.Waiting {
		n := &m.state.Waiting[i]
		wait := m.waits(n)
		ripe[wait] = ripe[wait] || m.since(n.At) >= wait
	}
	m.state.Waiting = slices.DeleteFunc(slices.Clone(m.state.Waiting), func(n Notice) bool {
		if unsure && n.Alert.Kind != Clock || !ripe[m.waits(&n)] {
			return false
		}
		due = append(due, n)
		return true
	})
	return due
}

// send makes one message. Its id has the time: the number alone would come again after a backup was restored.
func (m *Machine) send(notices ...Notice) {
	m.state.Message++
	m.state.Sent = append(m.state.Sent, m.now)
	m.out.Kept = true
	msg := Message{ID: fmt.Sprintf("%s-%d-%x", m.state.Box, m.state.Message, m.now), Notices: slices.Clone(notices)}
	if len(notices) > mostListed {
		msg.Notices, msg.More = msg.Notices[:mostListed], len(notices)-mostListed
	}
	m.out.Messages = append(m.out.Messages, msg)
}
