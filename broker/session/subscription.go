package session

import (
	"slices"

	"github.com/plantops/plantops/broker/topic"
)

// Subscription is one granted subscription.
type Subscription struct {
	Filter            string // as subscribed, with $share/group/ in front if shared
	QoS               byte   // granted
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	ID                uint32 // Subscription Identifier, 0: none
}

// Shared reports whether the subscription belongs to a share group.
func (s Subscription) Shared() bool { return topic.Shared(s.Filter) }

// SendsRetained reports whether retained messages follow the SUBACK; existed
// is what Subscribe returned [MQTT-3.3.1-9, -10, -11]. A share group gets none.
func (s Subscription) SendsRetained(existed bool) bool {
	return !s.Shared() && (s.RetainHandling == 0 || (s.RetainHandling == 1 && !existed))
}

// Subscribe notes a granted subscription and reports whether it replaces one
// with the same filter [MQTT-3.8.4-3].
func (s *Session) Subscribe(sub Subscription) (existed bool) {
	if !s.exists {
		return false
	}
	return s.filters.put(sub)
}

// Unsubscribe removes a subscription and reports whether there was one.
// Messages that already wait for the client stay.
func (s *Session) Unsubscribe(filter string) (existed bool) { return s.filters.remove(filter) }

// AppendFilters appends the filters of all subscriptions to dst.
func (s *Session) AppendFilters(dst []string) []string {
	for sub := range s.filters.all {
		dst = append(dst, sub.Filter)
	}
	return dst
}

// Subscriptions returns how many there are.
func (s *Session) Subscriptions() int { return s.filters.count() }

// SharedSubscriptions returns how many of them are shared. It walks every filter.
func (s *Session) SharedSubscriptions() (n int) {
	for sub := range s.filters.all {
		if sub.Shared() {
			n++
		}
	}
	return n
}

// Subscription returns the subscription with this very filter, if there is one.
func (s *Session) Subscription(filter string) (sub Subscription, ok bool) {
	return s.filters.get(filter)
}

// Subscribed reports whether there is a subscription with this very filter.
func (s *Session) Subscribed(filter string) bool {
	_, ok := s.filters.get(filter)
	return ok
}

// filters are subscriptions. Most sessions have one or two: a map would be ten times as large.
type filters struct {
	few  []Subscription
	many map[string]Subscription // nil: they are few
}

// mostFew is how many are looked through one by one.
const mostFew = 8

func (f *filters) find(filter string) int {
	return slices.IndexFunc(f.few, func(sub Subscription) bool { return sub.Filter == filter })
}

func (f *filters) get(filter string) (sub Subscription, ok bool) {
	if f.many != nil {
		sub, ok = f.many[filter]
	} else if i := f.find(filter); i >= 0 {
		return f.few[i], true
	}
	return sub, ok
}

// put reports whether it replaces one.
func (f *filters) put(sub Subscription) (existed bool) {
	if f.many == nil {
		if i := f.find(sub.Filter); i >= 0 {
			f.few[i] = sub
			return true
		}
		if len(f.few) < mostFew {
			f.few = append(f.few, sub)
			return false
		}
		f.many, f.few = f.byName(), nil
	}
	_, existed = f.many[sub.Filter]
	f.many[sub.Filter] = sub
	return existed
}

func (f *filters) remove(filter string) (existed bool) {
	if f.many != nil {
		_, existed = f.many[filter]
		delete(f.many, filter)
		return existed
	}
	i := f.find(filter)
	if i >= 0 {
		f.few = slices.Delete(f.few, i, i+1)
	}
	return i >= 0
}

func (f *filters) count() int { return len(f.few) + len(f.many) }

// all visits each.
func (f *filters) all(yield func(Subscription) bool) {
	for _, sub := range f.few {
		if !yield(sub) {
			return
		}
	}
	for _, sub := range f.many {
		if !yield(sub) {
			return
		}
	}
}

// byName returns them as a map; nil where there are none.
func (f *filters) byName() map[string]Subscription {
	if f.many != nil || len(f.few) == 0 {
		return f.many
	}
	all := make(map[string]Subscription, len(f.few))
	for _, sub := range f.few {
		all[sub.Filter] = sub
	}
	return all
}
