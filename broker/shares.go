package broker

import (
	"sync"
	"time"

	"github.com/plantops/plantops/broker/session"
)

// shareGroup is a share group; one of its members gets the message.
type shareGroup struct {
	filter  string
	members map[string]subscriber
}

// shares takes turns among the members of share groups.
type shares struct {
	mu     sync.Mutex
	groups session.ShareGroups
}

func (s *shares) join(filter, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups.Join(filter, id)
}

func (s *shares) leave(filter, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups.Leave(filter, id)
}

// deliverToOne gives a message to one member of a share group, to one that is online if there is one.
func (r *router) deliverToOne(w *work, s *shareGroup, m *session.Message, now time.Time) {
	t, found := r.shares.choose(s)
	if found {
		w.deliver(t.peer, m, t.offer, now)
	}
}

// choose finds the member whose turn it is.
func (s *shares) choose(group *shareGroup) (subscriber, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	online := func(id string) bool {
		t, ok := group.members[id]
		return ok && t.peer.online.Load()
	}
	for id := range s.groups.Candidates(group.filter, online) {
		if t, ok := group.members[id]; ok {
			return t, true
		}
	}
	return subscriber{}, false
}
