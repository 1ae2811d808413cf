package session

import (
	"slices"
	"strings"
	"time"
)

// Retained is the store of retained messages: a tree of topic levels whose
// children are sorted, so that a walk can stop anywhere and go on later. The
// zero value is empty and unlimited. One lock guards it; Next only reads.
type Retained struct {
	// MaxMessages and MaxBytes bound the store; 0: no bound.
	MaxMessages int
	MaxBytes    int

	root  node
	count int
	bytes int
}

type node struct {
	name     string
	parent   *node
	children []*node // sorted by name
	message  *Message
}

// Len returns the number of retained messages.
func (r *Retained) Len() int { return r.count }

// Bytes returns what the retained messages are charged with.
func (r *Retained) Bytes() int { return r.bytes }

// Set makes m the retained message of its topic; an empty payload removes it
// [MQTT-3.3.1-5, -6, -7]. It reports false, and changes nothing, when the
// store is full.
func (r *Retained) Set(m *Message) bool {
	if len(m.Payload) == 0 {
		r.remove(r.find(m.Topic))
		return true
	}
	count, bytes := r.count+1, r.bytes+m.costBytes()
	if n := r.find(m.Topic); n != nil && n.message != nil {
		count, bytes = r.count, bytes-n.message.costBytes()
	}
	if (r.MaxMessages > 0 && count > r.MaxMessages) || (r.MaxBytes > 0 && bytes > r.MaxBytes) {
		return false
	}
	r.make(m.Topic).message = m
	r.count, r.bytes = count, bytes
	return true
}

// Get returns the retained message of a topic, or nil.
func (r *Retained) Get(topic string) *Message {
	if n := r.find(topic); n != nil {
		return n.message
	}
	return nil
}

// Sweep goes on removing expired messages where c stands, and visits a bounded
// part of the tree per call. When c is done, begin again with Everything.
func (r *Retained) Sweep(now time.Time, c *Cursor) (removed int) {
	for _, m := range r.Next(c, visitsPerCall, nil) {
		if m.Expired(now) {
			r.remove(r.find(m.Topic))
			removed++
		}
	}
	return removed
}

func (r *Retained) find(topic string) *node {
	n := &r.root
	for more := true; more; {
		var name string
		name, topic, more = strings.Cut(topic, "/")
		i, found := n.search(name)
		if !found {
			return nil
		}
		n = n.children[i]
	}
	return n
}

func (r *Retained) make(topic string) *node {
	n := &r.root
	for more := true; more; {
		var name string
		name, topic, more = strings.Cut(topic, "/")
		i, found := n.search(name)
		if !found {
			child := &node{name: strings.Clone(name), parent: n}
			n.children = slices.Insert(n.children, i, child)
		}
		n = n.children[i]
	}
	return n
}

// remove takes the message out and prunes what is empty then.
func (r *Retained) remove(n *node) {
	if n == nil || n.message == nil {
		return
	}
	r.count--
	r.bytes -= n.message.costBytes()
	n.message = nil
	for n.parent != nil && n.message == nil && len(n.children) == 0 {
		i, _ := n.parent.search(n.name)
		n.parent.children = slices.Delete(n.parent.children, i, i+1)
		n = n.parent
	}
}

func (n *node) search(name string) (int, bool) {
	return slices.BinarySearchFunc(n.children, name, func(c *node, name string) int {
		return strings.Compare(c.name, name)
	})
}
