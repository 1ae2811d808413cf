package history

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

func itoa(n int) string { return strconv.Itoa(n) }

// judgeShares looks at what went to the groups of shared subscriptions.
func (c *check) judgeShares() {
	groups := map[string][]*subscription{} // by filter, with the group
	for _, s := range c.sessions {
		for _, sub := range s.subs {
			if sub.group != "" && sub.sure != never {
				groups[sub.filter] = append(groups[sub.filter], sub)
			}
		}
	}
	for _, filter := range slices.Sorted(maps.Keys(groups)) {
		g := newGroup(groups[filter])
		for _, m := range c.order {
			if matches(g.topics, m.topic) {
				c.judgeShared(m, g)
			}
		}
	}
}

// group is what is known of the members of a group together.
type group struct {
	filter, topics string
	sure           int  // since when one was there that stayed to the end; never
	gone           bool // one's session or subscription ended
	got            map[*message][]*delivery
}

func newGroup(members []*subscription) *group {
	g := &group{filter: members[0].filter, topics: members[0].plain(), sure: never, got: map[*message][]*delivery{}}
	seen := map[*session]bool{}
	for _, sub := range members {
		s := sub.session
		stays := sub.over == never && s.stays()
		if stays && sub.qos > 0 {
			g.sure = min(g.sure, sub.sure)
		}
		g.gone = g.gone || !stays && s.ended < never || sub.over != never
		if seen[s] {
			continue // one of its subscriptions before
		}
		seen[s] = true
		for _, d := range s.arrived {
			if !d.Held {
				g.got[d.of] = append(g.got[d.of], d)
			}
		}
	}
	for _, all := range g.got {
		slices.SortFunc(all, func(a, b *delivery) int { return cmp.Compare(a.seq, b.seq) })
	}
	return g
}

func (c *check) judgeShared(m *message, g *group) {
	all := g.got[m]
	if len(all) == 0 {
		// What was on its way at QoS 2 to a member whose session ended is for nobody else (MQTT-4.8.2-5).
		if g.sure < m.sent && c.owed(m) && !(g.gone && (m.qos == 2 || c.rules.NoGiveBack)) {
			c.fault(SharedLost, "%s (QoS %d, sent at event %d, on %s): to no member of %s", m, m.qos, m.sent, m.topic, g.filter)
		}
		return
	}
	had := map[string]bool{}
	all = slices.DeleteFunc(all, func(d *delivery) bool { // the same copy once more
		again := d.Again && d.QoS < 2 && had[d.Client]
		had[d.Client] = true
		return again
	})
	copies := 1
	for i, d := range all[1:] {
		last := all[i]
		if last.Client == d.Client {
			continue // judged with the session
		}
		lostIt := c.killedBetween(last.conn.connected, d.seq) || last.conn.over < d.seq || last.conn.nextConnecting < d.seq
		if last.QoS < 2 && lostIt { // what was begun at QoS 2 is not for others [MQTT-4.8.2-5]
			continue
		}
		if !last.conn.resume && m.again > 0 && c.killedBetween(last.conn.connected, d.seq) {
			continue // with the session that is not kept, a killed broker has forgotten that it had the message
		}
		if copies++; copies > 1+m.again*int(min(1, m.qos&1)) {
			c.fault(SharedTwice, "%s (QoS %d, on %s): to %s at event %d and to %s at event %d, of %s",
				m, m.qos, m.topic, last.Client, last.seq, d.Client, d.seq, g.filter)
			return
		}
	}
}
