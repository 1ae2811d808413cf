package history

import (
	"cmp"
	"maps"
	"slices"
)

// judgeRetained compares the retained messages of the end, and the ones that subscriptions brought, with what was published.
func (c *check) judgeRetained() {
	topics := map[string][]*message{}
	plain := map[string]bool{} // topics with messages that are not retained, or of QoS 0
	for _, m := range c.order {
		if m.retain {
			topics[m.topic] = append(topics[m.topic], m)
		}
		if !m.retain || m.qos == 0 {
			plain[m.topic] = true
		}
	}
	shown := c.shownRetained()
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		all := topics[topic]
		for _, d := range shown[topic] {
			c.judgeShown(d, all)
		}
		if c.kept == nil {
			continue
		}
		kept, there := c.kept[topic]
		if w := c.newer(all, kept, there, never); w != nil {
			c.fault(Stale, "%s: in the end %s is retained, but %s was taken at event %d, after it", topic, keptText(kept, there), w, w.completed)
		}
		if !plain[topic] && there {
			c.judgeLast(topic, kept, all)
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(c.kept)) {
		if m := c.kept[topic]; c.messages[m] == nil || !c.messages[m].retain {
			c.fault(Strange, "%s: %s is retained, which nobody wanted", topic, m)
		}
	}
}

func keptText(m Message, there bool) string {
	if !there {
		return "nothing"
	}
	return m.String()
}

// shownDelivery is a retained message that a subscription brought.
type shownDelivery struct {
	*delivery
	session *session
}

// shownRetained is what new subscriptions were shown, by topic.
func (c *check) shownRetained() map[string][]shownDelivery {
	shown := map[string][]shownDelivery{}
	for _, s := range c.sessions {
		for _, d := range s.arrived {
			if d.Retain && !d.Again {
				shown[d.Topic] = append(shown[d.Topic], shownDelivery{d, s})
			}
		}
	}
	return shown
}

// judgeShown looks at what a new subscription was shown.
func (c *check) judgeShown(d shownDelivery, all []*message) {
	asked := -1
	for _, sub := range d.session.subs {
		if sub.asked < d.seq && matches(sub.plain(), d.Topic) {
			asked = max(asked, sub.asked)
		}
	}
	if w := c.newer(all, d.Message, true, asked); w != nil {
		c.fault(Stale, "%s: %s was shown %s at event %d, but %s was taken at event %d, before it subscribed at event %d",
			d.Topic, d.session.client, d.Message, d.seq, w, w.completed, asked)
	}
}

// newer returns a message that must have come in the place of another, or of nothing, before an event; nil if there is none.
func (c *check) newer(all []*message, kept Message, there bool, before int) *message {
	var v *message
	if there {
		v = c.messages[kept]
	}
	if v != nil {
		all = sentWithin(all, v.sent, before) // numbers grow, and what ends before another begins has begun before it
	}
	for _, w := range all {
		if w.completed > before || w.completed == never || w == v {
			continue
		}
		switch {
		case v == nil && !w.empty && !c.removedAfter(all, w):
			return w
		case v == nil:
		case v.From == w.From && v.qos == w.qos && v.Number < w.Number,
			v.completed < w.sent:
			return w
		}
	}
	return nil
}

// removedAfter says whether a message may have been removed by now.
func (c *check) removedAfter(all []*message, w *message) bool {
	return slices.ContainsFunc(all, func(r *message) bool {
		return r.empty && (r.completed > w.sent || r.completed == never)
	})
}

// handedOn says that a broker that was killed has handed on what it had not acknowledged: of that nothing need be left.
func (c *check) handedOn(d *delivery) bool {
	return d.of.completed == never && c.killedBetween(d.conn.connected, never)
}

// judgeLast compares the last value that subscribers have got with the one that is retained.
func (c *check) judgeLast(topic string, kept Message, all []*message) {
	for _, s := range c.sessions {
		if s.ended != never || s.conns[len(s.conns)-1].over != never {
			continue
		}
		i := slices.IndexFunc(s.subs, func(sub *subscription) bool {
			return sub.group == "" && sub.over == never && sub.sure != never && sub.qos > 0 && matches(sub.filter, topic)
		})
		if i < 0 || c.messages[kept] == nil || c.messages[kept].sent < s.subs[i].sure {
			continue
		}
		if slices.ContainsFunc(all, func(m *message) bool { return m.empty && cmp.Compare(m.completed, s.subs[i].sure) > 0 }) {
			continue // who was told of a removal cannot say by which
		}
		var last *delivery
		seen := map[Message]bool{}
		for _, d := range s.arrived {
			if d.Topic == topic && !d.Held && !(d.Again && seen[d.Message]) {
				last, seen[d.Message] = d, true
			}
		}
		if last != nil && last.Message != kept && !c.handedOn(last) {
			c.fault(Stale, "%s: the last that %s got is %s at event %d, but %s is retained", topic, s.client, last.Message, last.seq, kept)
		}
	}
}
