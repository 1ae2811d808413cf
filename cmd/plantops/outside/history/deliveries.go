package history

import (
	"cmp"
	"slices"
)

// judgeSession looks at what one session got, and should have got.
func (c *check) judgeSession(s *session) {
	newest := newestDelivered(s)
	for _, sub := range s.subs {
		if sub.group == "" && sub.sure != never && sub.qos > 0 {
			c.judgeSubscription(s, sub, newest)
		}
	}
	var repeated []*message
	for m, all := range s.got {
		if len(all) > 1 {
			repeated = append(repeated, m)
		}
	}
	slices.SortFunc(repeated, func(a, b *message) int { return cmp.Compare(a.sent, b.sent) })
	for _, m := range repeated {
		c.judgeCopies(s, m, s.got[m])
	}
	c.judgeOrder(s)
}

// judgeSubscription looks for what was lost.
func (c *check) judgeSubscription(s *session, sub *subscription, newest map[stream]int) {
	if sub.over != never {
		return // what waits may be given up then (MQTT 5, 3.10.4)
	}
	stays := s.stays()
	for _, m := range sentWithin(c.order, sub.sure, s.ended) {
		if len(s.got[m]) > 0 || !c.owed(m) || !matches(sub.filter, m.topic) {
			continue
		}
		switch {
		case stays || s.lost:
			what := Lost
			if m.will {
				what = MissingWill
			}
			c.fault(what, "%s (QoS %d, sent at event %d, taken at %s, on %s): never delivered to %s, which had subscribed to %s at event %d",
				m, m.qos, m.sent, seqText(m.taken), m.topic, s.client, sub.filter, sub.sure)
		case m.Number < newest[m.stream()] && !m.will:
			c.fault(Lost, "%s (QoS %d, on %s): not delivered to %s, but %d of the same was", m, m.qos, m.topic, s.client, newest[m.stream()])
		}
	}
}

func seqText(seq int) string {
	if seq == never {
		return "the end of its connection"
	}
	return "event " + itoa(seq)
}

// stream is what keeps its order.
type stream struct {
	from, topic string
	qos         byte
}

func (m *message) stream() stream { return stream{m.From, m.topic, m.qos} }

// newestDelivered is the newest message of each stream that a session got as it was published.
func newestDelivered(s *session) map[stream]int {
	newest := map[stream]int{}
	for _, d := range s.arrived {
		if m := d.of; !d.Retain {
			newest[m.stream()] = max(newest[m.stream()], m.Number)
		}
	}
	return newest
}

// judgeCopies looks at a message that a session got more than once. Each of its subscriptions may have brought it, and each
// time that its publisher sent it, at QoS 1, is one more.
func (c *check) judgeCopies(s *session, m *message, all []*delivery) {
	subs := 0
	for _, sub := range s.subs {
		if matches(sub.plain(), m.topic) {
			subs++
		}
	}
	allowed := max(subs, 1)
	if m.qos == 1 {
		allowed *= 1 + m.again
	}
	copies, here, resends := 0, 0, 0 // different ones; and on the connection of last
	var last *delivery
	for i, d := range all {
		if d.Held || d.Retain && !m.will { // what was retained came with a subscription
			continue
		}
		if last == nil || last.conn != d.conn {
			here, resends = 0, 0
		}
		here++
		if resends < copies && slices.ContainsFunc(all[:i], func(before *delivery) bool { return c.resent(m, before, d) }) {
			resends++
		} else {
			copies++
		}
		if s.client == c.rules.Bridged && d.QoS == 1 && c.killedBetween(0, d.seq) {
			continue
		}
		if copies > allowed || here > allowed {
			c.fault(Doubled, "%s (QoS %d, sent %d times, on %s): %s got it at event %d and again at event %d (QoS %d, id %d, DUP %t)",
				m, m.qos, 1+m.again, m.topic, s.client, last.seq, d.seq, d.QoS, d.ID, d.Again)
			return
		}
		last = d
	}
}

// resent says whether a broker had a reason to send d after it had sent last: at QoS 1, the connection of then has ended
// before it can have read the acknowledgement. Who was killed may not know that it had sent it, and leave out DUP; and what it
// handed on at QoS 0 before it had acknowledged it, it hands on once more when it is sent to it once more.
func (c *check) resent(m *message, last, d *delivery) bool {
	switch {
	case last.conn == d.conn, d.QoS == 2:
		return false
	case c.killedBetween(last.conn.connected, d.seq):
		return d.QoS == 1 || m.again > 0
	case !d.Again, d.QoS == 0:
		return false
	}
	return !last.conn.parted || last.answered > last.conn.over || c.hasty(last.conn) // else the acknowledgement came before the DISCONNECT
}

// judgeOrder looks at what a session got first.
func (c *check) judgeOrder(s *session) {
	newest, seen := map[stream]*delivery{}, map[*message]bool{}
	for _, d := range s.arrived {
		if d.Retain || seen[d.of] || s.sharedOnly(d.Topic) || s.missedFirst(d) {
			continue
		}
		seen[d.of] = true
		key := d.of.stream()
		if last := newest[key]; last != nil && cmp.Compare(last.Message.Number, d.Message.Number) > 0 {
			c.fault(Reordered, "%s got %s at event %d after %s at event %d (QoS %d, on %s)",
				s.client, d.Message, d.seq, last.Message, last.seq, key.qos, d.Topic)
			continue
		}
		newest[key] = d
	}
}

// missedFirst says that a message was sent more than once, and the session may have got only what was sent again: it was away, at
// QoS 0, or had not subscribed yet, or not any more.
func (s *session) missedFirst(d *delivery) bool {
	m := d.of
	return m.again > 0 && (d.QoS == 0 || !slices.ContainsFunc(s.subs, func(sub *subscription) bool {
		return sub.sure < m.sent && sub.over > d.seq && matches(sub.plain(), m.topic)
	}))
}

// sharedOnly says that a topic comes to a session through share groups: another member may have had what is late.
func (s *session) sharedOnly(topic string) bool {
	for _, sub := range s.subs {
		if sub.group == "" && matches(sub.filter, topic) {
			return false
		}
	}
	return true
}
