// Package route is the table of subscriptions: who gets the messages of a topic, and on what terms. It knows no sessions,
// rights or connections: who subscribes is a value of the caller's. A share group is one subscriber.
//
// table.go is the table, a tree of the levels of filters; this file is what comes out of it. A [Route] is found once and kept by
// the caller: [Table.Refresh] brings it up to date in proportion to what has changed since, and at no more than
// what it costs to find it anew.
package route

import "reflect"

// Options are the terms of one subscription.
type Options struct {
	ID                uint32 // Subscription Identifier; 0: none
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
}

// Offer is what the subscriptions of one subscriber that match a topic come to: the highest QoS, and all identifiers
// [MQTT-3.3.4-2, -3].
type Offer struct {
	QoS               byte
	RetainAsPublished bool
	IDs               []uint32 // not changed once it is given out
}

func (o *Offer) add(from Options) {
	o.QoS = max(o.QoS, from.QoS)
	o.RetainAsPublished = o.RetainAsPublished || from.RetainAsPublished
	if from.ID > 0 {
		o.IDs = append(o.IDs, from.ID)
	}
}

// Route is who gets the messages of one topic. It belongs to the caller, who sees to it that one goroutine at a time uses it.
type Route[P comparable] struct {
	Topic string
	To    []Match[P] // each subscriber once, in no order

	generation uint64 // of the table when it was right; 0: never
	cost       int    // subscriptions that it was made of
	bytes      int
}

// Bytes is what the matches of the route cost in memory.
func (r *Route[P]) Bytes() int { return r.bytes }

// Match is one subscriber of a topic.
type Match[P comparable] struct {
	Who P

	qos               byte
	retainAsPublished bool
	own               ownership
	more              *more // nil: there are no identifiers, and nothing about what it publishes itself
}

// ownership says what a subscriber gets of its own messages, by No Local [MQTT-3.8.3-3].
type ownership uint8

const (
	likeOthers ownership = iota
	nothing
	different // some of its subscriptions say No Local
)

type more struct {
	ids []uint32
	own Offer
}

// Offer is what the subscriber gets of what others publish.
func (m *Match[P]) Offer() Offer {
	o := Offer{QoS: m.qos, RetainAsPublished: m.retainAsPublished}
	if m.more != nil {
		o.IDs = m.more.ids
	}
	return o
}

// Own is what the subscriber gets of what it publishes itself; wanted is false when that is nothing.
func (m *Match[P]) Own() (o Offer, wanted bool) {
	switch m.own {
	case nothing:
		return Offer{}, false
	case different:
		return m.more.own, true
	}
	return m.Offer(), true
}

// WantsOwn reports whether the subscriber gets what it publishes itself.
func (m *Match[P]) WantsOwn() bool { return m.own != nothing }

// add merges one more subscription; first says that it is the first one.
func (m *Match[P]) add(from Options, first bool) {
	if first {
		m.qos, m.retainAsPublished = from.QoS, from.RetainAsPublished
		if from.NoLocal {
			m.own = nothing
		}
		if from.ID > 0 {
			m.extra().ids = []uint32{from.ID}
		}
		return
	}
	switch {
	case m.own == likeOthers && !from.NoLocal, m.own == nothing && from.NoLocal:
	case m.own == likeOthers: // the first with No Local
		own := m.Offer()
		own.IDs = append([]uint32(nil), own.IDs...)
		m.own, m.extra().own = different, own
	case !from.NoLocal: // after others with No Local
		m.own = different
		m.extra().own.add(from)
	}
	whole := m.Offer()
	whole.add(from)
	m.qos, m.retainAsPublished = whole.QoS, whole.RetainAsPublished
	if from.ID > 0 {
		m.extra().ids = whole.IDs
	}
}

func (m *Match[P]) extra() *more {
	if m.more == nil {
		m.more = new(more)
	}
	return m.more
}

func (m *Match[P]) bytes() int {
	n := int(reflect.TypeFor[Match[P]]().Size())
	if m.more != nil {
		n += int(reflect.TypeFor[more]().Size()) + 4*(cap(m.more.ids)+cap(m.more.own.IDs))
	}
	return n
}
