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
		members := groups[filter]
		for _, m := range c.order {
			if matches(members[0].plain(), m.topic) {
				c.judgeShared(m, members)
			}
		}
	}
}

func (c *check) judgeShared(m *message, members []*subscription) {
	var all []*delivery
	must, gone := false, false
	for _, sub := range members {
		s := sub.session
		stays := s.ended == never && sub.over == never && s.conns[len(s.conns)-1].over == never
		must = must || stays && sub.sure < m.sent && sub.qos > 0
		gone = gone || !stays && max(s.ended, m.sent) < never || sub.over != never
		for _, d := range s.got[m.Message] {
			if !d.Held {
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b *delivery) int { return cmp.Compare(a.seq, b.seq) })
	if len(all) == 0 {
		// What was on its way at QoS 2 to a member whose session ended is for nobody else (MQTT-4.8.2-5).
		if must && c.owed(m) && !(gone && (m.qos == 2 || c.rules.NoGiveBack)) {
			c.fault(SharedLost, "%s (QoS %d, sent at event %d, on %s): to no member of %s", m, m.qos, m.sent, m.topic, members[0].filter)
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
				m, m.qos, m.topic, last.Client, last.seq, d.Client, d.seq, members[0].filter)
			return
		}
	}
}
