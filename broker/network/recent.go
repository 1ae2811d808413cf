package network

import "container/list"

// recent remembers the things that were touched last, at most limit of them.
type recent[K comparable, V any] struct {
	limit int
	byKey map[K]*list.Element // of *remembered[K, V]
	order list.List           // the one that was touched last is in front
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](limit int) recent[K, V] {
	return recent[K, V]{limit: limit, byKey: make(map[K]*list.Element)}
}

// get returns nil for what is not remembered. The value stays valid when it is forgotten.
func (r *recent[K, V]) get(key K) *V {
	e := r.byKey[key]
	if e == nil {
		return nil
	}
	return &e.Value.(*remembered[K, V]).value
}

// touch returns the value of key, new or not, and forgets what was touched longest ago if there are too many.
func (r *recent[K, V]) touch(key K) *V {
	e := r.byKey[key]
	if e == nil {
		if r.order.Len() >= r.limit {
			oldest := r.order.Back()
			delete(r.byKey, oldest.Value.(*remembered[K, V]).key)
			r.order.Remove(oldest)
		}
		e = r.order.PushFront(&remembered[K, V]{key: key})
		r.byKey[key] = e
	} else {
		r.order.MoveToFront(e)
	}
	return &e.Value.(*remembered[K, V]).value
}
