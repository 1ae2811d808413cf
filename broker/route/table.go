package route

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/plantops/plantops/broker/topic"
)

// recentChanges is how many changes of the table a route can be brought up to date with one by one.
const recentChanges = 256

// Table is who is subscribed to what. The zero value is empty; it is safe for concurrent use.
type Table[P comparable] struct {
	// Grew, when it is not nil, is told how many bytes a subscriber has more, or fewer, in a route. It must not call the
	// table.
	Grew func(who P, bytes int)

	mu         sync.RWMutex
	root       node[P]
	generation atomic.Uint64 // counts changes
	recent     [recentChanges]change[P]
	walks      sync.Pool
}

type change[P comparable] struct {
	filter string
	who    P
}

// node is one level of filters.
type node[P comparable] struct {
	parent   *node[P]
	level    string
	children map[string]*node[P]
	plus     *node[P] // the child for +
	ends     set[P]   // who is subscribed to what ends here
	open     set[P]   // and to that followed by /#
}

// Subscribe enters a subscription, which replaces one to the same filter, and reports whether that changes anything. The
// filter is well formed and not a shared one. The cost goes with its levels.
func (t *Table[P]) Subscribe(who P, filter string, o Options) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.root.reach(filter).put(who, o) {
		return false
	}
	t.changed(who, filter)
	return true
}

// Unsubscribe removes a subscription and reports whether there was one.
func (t *Table[P]) Unsubscribe(who P, filter string) (existed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, in := t.root.find(filter)
	if n == nil || !in.remove(who) {
		return false
	}
	n.prune()
	t.changed(who, filter)
	return true
}

// changed notes a change. The caller holds mu.
func (t *Table[P]) changed(who P, filter string) {
	at := t.generation.Load() + 1
	t.recent[at%recentChanges] = change[P]{filter, who}
	t.generation.Store(at)
}

// Refresh brings a route up to date and reports whether it changed; a new one has a Topic and nothing else. Who has
// subscribed before the call is in it.
func (t *Table[P]) Refresh(r *Route[P]) (changed bool) {
	if r.generation == t.generation.Load()+1 { // of a route it is one more: 0 is none
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	now := t.generation.Load() + 1
	w, _ := t.walks.Get().(*walk[P])
	if w == nil {
		w = &walk[P]{places: map[P]int{}}
	}
	if behind := now - r.generation; r.generation == 0 || behind > recentChanges || behind > uint64(levelsCost+r.cost) {
		t.Clear(r)
		w.find(&t.root, r.Topic)
		w.fill(r)
		for i := range r.To {
			t.grew(r, &r.To[i], 1)
		}
		changed = true
	} else {
		for at := r.generation; at < now; at++ {
			if c := &t.recent[at%recentChanges]; topic.Matches(c.filter, r.Topic) {
				t.renew(w, r, c.who)
				changed = true
			}
		}
	}
	r.generation = now
	w.clear()
	t.walks.Put(w)
	return changed
}

// levelsCost is about what the levels of a topic cost to look up, in subscriptions.
const levelsCost = 16

// renew finds the part of one subscriber of a route anew.
func (t *Table[P]) renew(w *walk[P], r *Route[P], who P) {
	for i := range r.To {
		if r.To[i].Who == who {
			t.grew(r, &r.To[i], -1)
			last := len(r.To) - 1
			r.To[i], r.To[last] = r.To[last], Match[P]{}
			r.To = r.To[:last]
			break
		}
	}
	if len(w.sets) == 0 {
		w.find(&t.root, r.Topic)
	}
	m, found := Match[P]{Who: who}, false
	for _, s := range w.sets {
		if o, in := s.get(who); in {
			m.add(o, !found)
			found = true
		}
	}
	if found {
		r.To = append(r.To, m)
		t.grew(r, &m, 1)
	}
}

// Clear empties a route; the next Refresh fills it again.
func (t *Table[P]) Clear(r *Route[P]) {
	for i := range r.To {
		t.grew(r, &r.To[i], -1)
	}
	r.To, r.generation, r.cost, r.bytes = nil, 0, 0, 0
}

func (t *Table[P]) grew(r *Route[P], m *Match[P], sign int) {
	bytes := sign * m.bytes()
	r.bytes += bytes
	if t.Grew != nil {
		t.Grew(m.Who, bytes)
	}
}

// walk is what a search through the table needs.
type walk[P comparable] struct {
	sets   []*set[P] // that match, none of them empty
	places map[P]int // in the route, of a subscriber
}

// find collects who is subscribed to a topic. Each node that it visits is the beginning of a filter that may match.
func (w *walk[P]) find(root *node[P], topic string) {
	wild := !strings.HasPrefix(topic, "$") // [MQTT-4.7.2-1]
	if wild {
		w.take(&root.open)
	}
	w.below(root, topic, wild)
}

func (w *walk[P]) below(n *node[P], rest string, wild bool) {
	level, rest, more := strings.Cut(rest, "/")
	if child := n.children[level]; child != nil {
		w.visit(child, rest, more)
	}
	if n.plus != nil && wild {
		w.visit(n.plus, rest, more)
	}
}

func (w *walk[P]) visit(n *node[P], rest string, more bool) {
	w.take(&n.open)
	if !more {
		w.take(&n.ends)
		return
	}
	w.below(n, rest, true)
}

func (w *walk[P]) take(s *set[P]) {
	if len(s.items) > 0 {
		w.sets = append(w.sets, s)
	}
}

// fill makes an empty route of what was found.
func (w *walk[P]) fill(r *Route[P]) {
	r.cost = 0
	for _, s := range w.sets {
		r.cost += len(s.items)
	}
	if r.cost == 0 {
		return
	}
	r.To = make([]Match[P], 0, r.cost)
	for i, s := range w.sets {
		for j := range s.items {
			it := &s.items[j]
			at := len(r.To)
			if len(w.sets) > 1 {
				if known, there := w.places[it.who]; there {
					at = known
				} else if i < len(w.sets)-1 {
					w.places[it.who] = at
				}
			}
			first := at == len(r.To)
			if first {
				r.To = append(r.To, Match[P]{Who: it.who})
			}
			r.To[at].add(it.options, first)
		}
	}
}

const keptPlaces = 4096

func (w *walk[P]) clear() {
	clear(w.sets)
	w.sets = w.sets[:0]
	if len(w.places) > keptPlaces {
		w.places = map[P]int{}
	}
	clear(w.places)
}

// reach returns where a filter's subscribers are, and makes the levels that are missing.
func (n *node[P]) reach(filter string) *set[P] {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" {
			return &n.open
		}
		child := n.child(level)
		if child == nil {
			child = &node[P]{parent: n, level: strings.Clone(level)}
			switch {
			case level == "+":
				n.plus = child
			case n.children == nil:
				n.children = map[string]*node[P]{child.level: child}
			default:
				n.children[child.level] = child
			}
		}
		n = child
	}
	return &n.ends
}

// find is reach for a filter that may not be there: nil.
func (n *node[P]) find(filter string) (*node[P], *set[P]) {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" {
			return n, &n.open
		}
		if n = n.child(level); n == nil {
			return nil, nil
		}
	}
	return n, &n.ends
}

func (n *node[P]) child(level string) *node[P] {
	if level == "+" {
		return n.plus
	}
	return n.children[level]
}

// prune takes away levels that nobody is subscribed to.
func (n *node[P]) prune() {
	for n.parent != nil && n.plus == nil && len(n.children) == 0 && len(n.ends.items) == 0 && len(n.open.items) == 0 {
		if n.level == "+" {
			n.parent.plus = nil
		} else if delete(n.parent.children, n.level); len(n.parent.children) == 0 {
			n.parent.children = nil
		}
		n = n.parent
	}
}

// fewItems are looked through one by one.
const fewItems = 16

// set is who is subscribed to one filter.
type set[P comparable] struct {
	items []item[P]
	where map[P]int // in items; nil while they are few
}

type item[P comparable] struct {
	who     P
	options Options
}

func (s *set[P]) index(who P) int {
	if s.where != nil {
		if i, there := s.where[who]; there {
			return i
		}
		return -1
	}
	for i := range s.items {
		if s.items[i].who == who {
			return i
		}
	}
	return -1
}

func (s *set[P]) get(who P) (Options, bool) {
	if i := s.index(who); i >= 0 {
		return s.items[i].options, true
	}
	return Options{}, false
}

func (s *set[P]) put(who P, o Options) (changed bool) {
	if i := s.index(who); i >= 0 {
		changed = s.items[i].options != o
		s.items[i].options = o
		return changed
	}
	s.items = append(s.items, item[P]{who, o})
	if s.where == nil && len(s.items) > fewItems {
		s.where = make(map[P]int, len(s.items))
		for i := range s.items {
			s.where[s.items[i].who] = i
		}
	} else if s.where != nil {
		s.where[who] = len(s.items) - 1
	}
	return true
}

func (s *set[P]) remove(who P) bool {
	i := s.index(who)
	if i < 0 {
		return false
	}
	last := len(s.items) - 1
	s.items[i] = s.items[last]
	s.items[last] = item[P]{}
	s.items = s.items[:last]
	if s.where != nil {
		delete(s.where, who)
		if i < last {
			s.where[s.items[i].who] = i
		}
	}
	switch {
	case last == 0:
		*s = set[P]{}
	case s.where != nil && last <= fewItems/2:
		s.items, s.where = append([]item[P](nil), s.items...), nil
	}
	return true
}
