package history

import (
	"slices"
	"time"
)

// judgeWills finds which wills must be there and which must not. The ones that must count as taken when their client was
// lost, so that whoever watches them must get them, once.
func (c *check) judgeWills() {
	published := map[*message]int{}
	for _, s := range c.sessions {
		for _, d := range s.arrived {
			if d.of.will {
				published[d.of] = d.seq
			}
		}
	}
	for _, m := range c.order {
		if !m.will {
			continue
		}
		must, mustNot := c.verdict(m.conn)
		if must {
			m.taken, m.sent = m.conn.over, m.conn.connecting
		}
		if seq, there := published[m]; there && mustNot {
			c.fault(FalseWill, "the will of connection %d of %s came at event %d: it began at event %d, and ended at event %d, by DISCONNECT %t",
				m.Number, m.From, seq, m.conn.connecting, m.conn.over, m.conn.parted)
		}
	}
}

// killedSoon says whether the broker was killed so soon after an event that what it then did of its own accord, and has
// promised to nobody, may not have been on disk yet.
func (c *check) killedSoon(seq int) bool {
	const soon = 500 * time.Millisecond
	i, _ := slices.BinarySearch(c.kills, seq)
	return i < len(c.kills) && c.events[c.kills[i]].At-c.events[seq].At < soon
}

// verdict says of a connection whether its will must, or must not be published. After a restart of the broker neither holds:
// it waits whether the client comes back.
func (c *check) verdict(n *connection) (must, mustNot bool) {
	if n.connected == never {
		return false, false
	}
	if n.over == never {
		return false, !c.killedBetween(n.connected, never)
	}
	until := n.nextConnected
	if c.killedBetween(n.connected, until) {
		return false, false
	}
	if c.killedSoon(n.over) {
		return false, false
	}
	if n.parted {
		return false, until != never || c.events[len(c.events)-1].Kind == Ended
	}
	if n.will.Delay == 0 {
		return !c.hasty(n), false
	}
	due := c.events[n.over].At + n.will.Delay
	end := c.events[len(c.events)-1].At
	if n.nextConnecting != never {
		end = c.events[n.nextConnecting].At
	}
	if end > due+c.rules.Slack {
		return true, false
	}
	// A client that takes its session up in time has not died [MQTT-3.1.3-9].
	back := until != never && c.events[until].At < due && c.events[until].Present
	return false, back
}
