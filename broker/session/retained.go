package session

import (
	"slices"
	"strings"
)

// Retained is the store of retained messages: a tree of topic levels whose
// children are sorted, so that a walk can stop anywhere and go on later. The
// zero value is empty and unlimited. One lock guards it; Next only reads.
type Retained struct {
	// MaxMessages and MaxBytes bound the store, MaxOwned and MaxOwnedBytes what
	// one owner has in it; 0: no bound.
	MaxMessages, MaxOwned   int
	MaxBytes, MaxOwnedBytes int
	// Assured and AssuredBytes are what an owner may have although others fill
	// the store.
	Assured, AssuredBytes int

	root  node
	count int
	bytes int
}

type node struct {
	name     string
	parent   *node
	children []*node // sorted by name
	kept     Kept
}

// Kept is a retained message and whose it is. Owner is nil for the broker's
// own messages, which are in no bound.
type Kept struct {
	*Message
	Owner *Owner
}

// Owner is an account as the store knows it. The store's lock guards it.
type Owner struct {
	Account  string
	Messages int // that it has in the store
	Bytes    int // that those are charged with
	Gone     bool
}

// Keeping says whether a message was kept.
type Keeping uint8

// The outcomes of Set.
const (
	Stored Keeping = iota
	OwnerFull
	StoreFull
	OwnerGone // it was removed meanwhile
)

// Len returns the number of retained messages.
func (r *Retained) Len() int { return r.count }

// Bytes returns what the retained messages are charged with.
func (r *Retained) Bytes() int { return r.bytes }

// Set makes m the retained message of its topic, for its owner; an empty payload
// removes the one that is there [MQTT-3.3.1-5, -6, -7]. Unless it returns Stored,
// nothing has changed. What does not grow is never refused for want of room.
func (r *Retained) Set(m *Message, o *Owner) Keeping {
	if o != nil && o.Gone {
		return OwnerGone
	}
	n := r.find(m.Topic)
	if len(m.Payload) == 0 {
		r.remove(n)
		return Stored
	}
	count, bytes := 1, storedBytes(m)
	ownCount, ownBytes := count, bytes
	if n != nil && n.kept.Message != nil {
		count, bytes = 0, bytes-storedBytes(n.kept.Message)
		if n.kept.Owner == o {
			ownCount, ownBytes = count, bytes
		}
	}
	if o != nil && (exceeds(o.Messages, ownCount, r.MaxOwned) || exceeds(o.Bytes, ownBytes, r.MaxOwnedBytes)) {
		return OwnerFull
	}
	assured := o != nil && o.Messages+ownCount <= r.Assured && o.Bytes+ownBytes <= r.AssuredBytes
	if o != nil && !assured && (exceeds(r.count, count, r.MaxMessages) || exceeds(r.bytes, bytes, r.MaxBytes)) {
		return StoreFull
	}
	n = r.make(m.Topic)
	r.charge(n.kept, -1)
	n.kept = Kept{m, o}
	r.charge(n.kept, 1)
	return Stored
}

// A level costs levelBytes where no other topic shares it; sharedLevels mostly are shared.
const (
	levelBytes   = 80
	sharedLevels = 4
)

// storedBytes is what a message is charged with here: a deep topic is a chain of nodes.
func storedBytes(m *Message) int {
	return m.costBytes() + levelBytes*max(0, strings.Count(m.Topic, "/")+1-sharedLevels)
}

func exceeds(have, more, limit int) bool { return limit > 0 && more > 0 && have+more > limit }

// charge accounts for a message that comes (1) or goes (-1).
func (r *Retained) charge(k Kept, sign int) {
	if k.Message == nil {
		return
	}
	bytes := sign * storedBytes(k.Message)
	r.count += sign
	r.bytes += bytes
	if k.Owner != nil {
		k.Owner.Messages += sign
		k.Owner.Bytes += bytes
	}
}

// Get returns the retained message of a topic, or nil.
func (r *Retained) Get(topic string) *Message {
	if n := r.find(topic); n != nil {
		return n.kept.Message
	}
	return nil
}

// Kept returns the retained message of a topic and whose it is.
func (r *Retained) Kept(topic string) Kept {
	if n := r.find(topic); n != nil {
		return n.kept
	}
	return Kept{}
}

// Sweep goes on removing what is stale where c stands, and visits a bounded
// part of the tree per call. When c is done, begin again with Everything.
func (r *Retained) Sweep(c *Cursor, stale func(Kept) bool) (removed int) {
	for _, k := range r.Next(c, visitsPerCall, nil) {
		if stale(k) {
			r.remove(r.find(k.Topic))
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
	if n == nil || n.kept.Message == nil {
		return
	}
	r.charge(n.kept, -1)
	n.kept = Kept{}
	for n.parent != nil && n.kept.Message == nil && len(n.children) == 0 {
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
