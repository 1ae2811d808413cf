package session

import "github.com/plantops/plantops/broker/topic"

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
	if s.filters == nil {
		s.filters = make(map[string]Subscription)
	}
	_, existed = s.filters[sub.Filter]
	s.filters[sub.Filter] = sub
	return existed
}

// Unsubscribe removes a subscription and reports whether there was one.
// Messages that already wait for the client stay.
func (s *Session) Unsubscribe(filter string) (existed bool) {
	_, existed = s.filters[filter]
	delete(s.filters, filter)
	return existed
}

// AppendFilters appends the filters of all subscriptions to dst.
func (s *Session) AppendFilters(dst []string) []string {
	for filter := range s.filters {
		dst = append(dst, filter)
	}
	return dst
}

// Subscriptions returns how many there are.
func (s *Session) Subscriptions() int { return len(s.filters) }

// SharedSubscriptions returns how many of them are shared. It walks every filter.
func (s *Session) SharedSubscriptions() (n int) {
	for _, sub := range s.filters {
		if sub.Shared() {
			n++
		}
	}
	return n
}

// Subscription returns the subscription with this very filter, if there is one.
func (s *Session) Subscription(filter string) (sub Subscription, ok bool) {
	sub, ok = s.filters[filter]
	return sub, ok
}

// Subscribed reports whether there is a subscription with this very filter.
func (s *Session) Subscribed(filter string) bool {
	_, ok := s.filters[filter]
	return ok
}
