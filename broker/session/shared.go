package session

import (
	"iter"
	"slices"
)

// ShareGroups chooses, for each message, the one member of a share group that
// gets it: in turn among those online, and one that is away only when all are.
// The zero value is empty. One lock guards it.
type ShareGroups struct {
	groups map[string]*shareGroup
}

type shareGroup struct {
	members []string // client ids, in the order of joining
	next    int      // whose turn it is
}

// Join adds a client to the group of a filter ("$share/group/filter"). Joining
// twice does nothing.
func (g *ShareGroups) Join(filter, clientID string) {
	if g.groups == nil {
		g.groups = make(map[string]*shareGroup)
	}
	group := g.groups[filter]
	if group == nil {
		group = &shareGroup{}
		g.groups[filter] = group
	}
	if !slices.Contains(group.members, clientID) {
		group.members = append(group.members, clientID)
	}
}

// Leave removes a client from the group of a filter.
func (g *ShareGroups) Leave(filter, clientID string) {
	group := g.groups[filter]
	if group == nil {
		return
	}
	i := slices.Index(group.members, clientID)
	if i < 0 {
		return
	}
	group.members = slices.Delete(group.members, i, i+1)
	if len(group.members) == 0 {
		delete(g.groups, filter)
		return
	}
	if i < group.next {
		group.next--
	}
	group.next %= len(group.members)
}

// Candidates yields the members in the order in which to try them. The caller
// stops at the first that takes the message; the next message begins after it.
func (g *ShareGroups) Candidates(filter string, online func(clientID string) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		group := g.groups[filter]
		if group == nil {
			return
		}
		start := group.next
		for _, wanted := range []bool{true, false} {
			for i := range group.members {
				at := (start + i) % len(group.members)
				if online(group.members[at]) != wanted {
					continue
				}
				group.next = (at + 1) % len(group.members)
				if !yield(group.members[at]) {
					return
				}
			}
		}
	}
}
