package session

import (
	"slices"
	"strings"
)

// visitsPerCall bounds how long one Next holds the store's lock, also when a
// filter like "+/x" passes over many topics that do not match.
const visitsPerCall = 1024

// Cursor is a walk over the retained messages that match a filter. Between two
// calls the store may change: what is there when the walk comes by is given,
// in order of topic levels, each topic at most once.
type Cursor struct {
	filter []string
	hidden bool     // a leading wildcard matches $ topics too
	after  []string // path of the node visited last
	done   bool

	// of the call of Next that runs
	messages, visits int
	found            []Kept
	last             *node
}

// Match returns a walk over the messages that a valid filter matches; for a
// shared subscription there is none.
func Match(filter string) *Cursor { return &Cursor{filter: strings.Split(filter, "/")} }

// Everything returns a walk over all messages, $ topics included.
func Everything() *Cursor { return &Cursor{filter: []string{"#"}, hidden: true} }

// Done reports whether the walk is over.
func (c *Cursor) Done() bool { return c.done }

// Next appends up to limit more messages to dst. It may append none although
// the walk is not over: ask Done. Expired messages are not left out.
func (r *Retained) Next(c *Cursor, limit int, dst []Kept) []Kept {
	if c.done || limit <= 0 {
		return dst
	}
	c.messages, c.visits, c.found, c.last = limit, visitsPerCall, dst, nil
	c.done = c.descend(&r.root, 0, c.after)
	if c.last != nil {
		c.after = c.last.path(c.after[:0])
	}
	dst, c.found, c.last = c.found, nil, nil
	return dst
}

// visit walks n and what is below it, and reports whether it came to the end.
// The filter matches n up to level. When bound is not nil, n is an ancestor of
// the node visited last, or that node itself, and was visited before.
func (c *Cursor) visit(n *node, level int, bound []string) bool {
	if bound == nil {
		if c.messages == 0 || c.visits == 0 {
			return false
		}
		c.visits--
		c.last = n
		if n.kept.Message != nil && c.complete(level) {
			c.messages--
			c.found = append(c.found, n.kept)
		}
	}
	return c.descend(n, level, bound)
}

func (c *Cursor) descend(n *node, level int, bound []string) bool {
	if len(n.children) == 0 || (level == len(c.filter) && !c.open()) {
		return true
	}
	first := 0
	if len(bound) > 0 {
		first, _ = n.search(bound[0])
	}
	if name := c.level(level); name != "#" && name != "+" {
		i, found := n.search(name)
		if !found || i < first {
			return true
		}
		return c.child(n.children[i], level, bound)
	}
	for _, child := range n.children[first:] {
		if level == 0 && !c.hidden && strings.HasPrefix(child.name, "$") { // [MQTT-4.7.2-1]
			continue
		}
		if !c.child(child, level, bound) {
			return false
		}
	}
	return true
}

// child visits a child of a node with this bound.
func (c *Cursor) child(n *node, level int, bound []string) bool {
	if len(bound) > 0 && n.name == bound[0] {
		return c.visit(n, min(level+1, len(c.filter)), bound[1:])
	}
	return c.visit(n, min(level+1, len(c.filter)), nil)
}

// open reports whether the filter ends in "#".
func (c *Cursor) open() bool { return c.filter[len(c.filter)-1] == "#" }

// level returns the filter's name for the children of a node at level.
func (c *Cursor) level(level int) string {
	if level == len(c.filter) {
		return "#"
	}
	return c.filter[level]
}

// complete reports whether the filter matches a topic that ends at level:
// "a/#" matches "a" too.
func (c *Cursor) complete(level int) bool {
	return level == len(c.filter) || (level == len(c.filter)-1 && c.open())
}

// path appends the names from the root down to n.
func (n *node) path(dst []string) []string {
	for ; n.parent != nil; n = n.parent {
		dst = append(dst, n.name)
	}
	slices.Reverse(dst)
	return dst
}
