package broker

import (
	"errors"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/session"
)

const (
	// lastWordsWait bounds how long what a client has sent on its old connection is dealt with, handoverWait how long its new
	// one waits for the old one to be finished after that.
	lastWordsWait = 2 * time.Second
	handoverWait  = 5 * time.Second
)

// errEvicted makes a login start again: the account may have changed since its password was checked.
var errEvicted = errors.New("accounts changed during login")

// sessions knows every client id that has a connection or a session, and whose it is. Per client id one connection at
// a time is with mochi, and mochi keeps nothing of a client that has gone: it would hand sessions over in its own way.
type sessions struct {
	router *router

	mu        sync.Mutex // may be held when a peer's lock is taken, not the other way round
	byID      map[string]*peer
	usages    map[string]*usage // by account
	connected int               // connections of clients, without that of ingest
	evictions uint64
}

func newSessions(r *router) *sessions {
	return &sessions{router: r, byID: map[string]*peer{}, usages: map[string]*usage{}}
}

// evictionCount is taken before a password is checked and given to claim, so that no login slips past an eviction.
func (s *sessions) evictionCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictions
}

// claim makes l the connection of its client id, after hearing out and ending the one before it [MQTT-3.1.4-3]. It refuses a client
// id whose session, live or stored, belongs to another account, and what is above the account's quotas. The name of an
// account is its client id, whoever took it before there was the account.
func (s *sessions) claim(l *clientLink, evictions uint64, ingest bool) error {
	for {
		s.mu.Lock()
		if s.evictions != evictions {
			s.mu.Unlock()
			return errEvicted
		}
		p := s.byID[l.id]
		foreign := p != nil && p.account != l.account
		if foreign && l.id != l.account {
			s.mu.Unlock()
			return refusal.ForeignSession
		}
		if !foreign && (p == nil || p.owner.hasEnded()) {
			tooMany, err := s.take(l, p, ingest)
			s.mu.Unlock()
			if tooMany != nil {
				s.router.refuseElsewhere(tooMany, refusal.TooManyConnections.By("max_connections", s.router.quotas.limits.MaxConnections))
			}
			return err
		}
		current := p.owner
		s.mu.Unlock()

		if foreign {
			s.dispossess(p)
		} else if current.Drain(); current.endsWithin(lastWordsWait) {
			continue
		} else {
			s.end(current, packets.ErrSessionTakenOver)
		}
		if !current.endsWithin(handoverWait) {
			return refusal.PreviousNotEnded
		}
	}
}

// dispossess ends the session of an account on a client id that is another account's name. It was free when the session began,
// and would be kept from its owner for as long as a session may last.
func (s *sessions) dispossess(p *peer) {
	w := s.router.begin()
	s.mu.Lock()
	l := p.owner
	stored := l.hasEnded()
	switch {
	case !stored:
		l.evicted.Store(true)
	case s.byID[p.id] == p:
		s.endStored(w, p)
	}
	s.mu.Unlock()
	w.finish()
	if stored {
		s.router.refusedAway(p.account, p.id, refusal.ForeignClientID, "")
	} else {
		s.router.refuseElsewhere(l, refusal.ForeignClientID.Told(packets.ErrNotAuthorized))
	}
	s.router.log.Warn("client id taken back by the account of its name", "client", p.id, "from", p.account)
}

// take gives the client id p to l, or a new one where p is nil, if the account's quotas allow it. tooMany, if not nil, is
// another account's connection that must end for it. The caller holds mu.
func (s *sessions) take(l *clientLink, p *peer, ingest bool) (tooMany *clientLink, err error) {
	u := s.usageOf(l.account)
	if !ingest {
		if err := u.admit(p == nil, len(s.byID)); err != nil {
			return nil, err
		}
		if err := u.admitWill(int(l.willBytes)); err != nil {
			return nil, err
		}
		if tooMany, err = s.makeRoom(u); err != nil {
			return nil, err
		}
	}
	switch {
	case p == nil:
		p = newPeer(l.id, u, ingest)
		s.byID[p.id] = p
		u.sessions++
	case p.usage != u: // the account was removed and made again while the old session was being forgotten: it is empty
		p.usage.sessions--
		u.sessions++
		p.mu.Lock()
		p.usage = u
		p.mu.Unlock()
	}
	u.connections++
	if !ingest {
		s.connected++
		l.ChargeTo(u.charge)
	}
	p.owner, l.peer, l.account, l.rights = l, p, u.owner.Account, u.sameRights(l.rights)
	return tooMany, nil
}

// makeRoom says whether there is room for one more connection of an account. Where there is none, an account that has less than
// its share of them gets the place of the newest connection of the one that has most. The caller holds mu.
func (s *sessions) makeRoom(u *usage) (tooMany *clientLink, err error) {
	limit := u.quotas.limits.MaxConnections
	if s.connected < limit {
		return nil, nil
	}
	most := u
	for _, other := range s.usages {
		if other.connections > most.connections {
			most = other
		}
	}
	if u.connections < share(limit) && most.connections > share(limit) {
		for _, p := range s.byID {
			if p.usage == most && !p.ingest && !p.owner.hasEnded() && !p.owner.IsClosing() && (tooMany == nil || p.owner.since > tooMany.since) {
				tooMany = p.owner
			}
		}
	}
	if tooMany == nil {
		return nil, refusal.TooManyConnections.By("max_connections", limit)
	}
	return tooMany, nil
}

// usageOf returns what an account has, which is nothing yet where it is new. The caller holds mu.
func (s *sessions) usageOf(account string) *usage {
	u := s.usages[account]
	if u == nil {
		u = &usage{quotas: &s.router.quotas, owner: session.Owner{Account: account}}
		s.usages[account] = u
	}
	return u
}

// release is called when mochi has let go of l and its session is detached. The client id stays its account's while
// there is a session.
func (s *sessions) release(l *clientLink) {
	defer dieOfPanic()
	w := s.router.begin()
	defer w.finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.peer != nil && l.evicted.Load() { // detach has come too early to see it, or there was nothing to detach
		s.endStored(w, l.peer)
	}
	l.ended.come()
	if l.peer != nil {
		l.peer.usage.connections--
		if !l.peer.ingest {
			s.connected--
		}
		l.peer.owner = nil // the session may stay long, and what hangs on l is some 10 kB
	}
	if l.peer != nil {
		s.forgetEnded(l.peer)
	}
}

// forget is called when a session has ended.
func (s *sessions) forget(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetEnded(p)
}

// forgetEnded removes a client id that has neither a connection nor a session. The caller holds mu.
func (s *sessions) forgetEnded(p *peer) {
	if !p.owner.hasEnded() {
		return
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended && s.byID[p.id] == p {
		delete(s.byID, p.id)
		p.usage.sessions--
	}
}

// peer returns nil for a client id that has no session.
func (s *sessions) peer(id string) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// each visits every client id but that of the backend's subscriber; mu is held.
func (s *sessions) each(visit func(*peer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.byID {
		if !p.ingest {
			visit(p)
		}
	}
}

// count returns the number of client ids, connected or not.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// end tells a client why and closes its connection. It does not wait.
func (s *sessions) end(l *clientLink, code packets.Code) {
	l.because(code.Reason)
	if !l.established.Load() {
		_ = l.Close() // nothing may precede the CONNACK; its establish ends by itself
		return
	}
	_ = s.router.server.DisconnectClient(l.mochi(), code) // its only error is the code itself
}

// live returns the connections that have not ended.
func (s *sessions) live() []*clientLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*clientLink
	for _, p := range s.byID {
		if !p.owner.hasEnded() {
			out = append(out, p.owner)
		}
	}
	return out
}

// endStored ends the session of a client that is not connected. The caller holds mu, and finishes w afterwards.
func (s *sessions) endStored(w *work, p *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.out = p.state.End(s.router.now(), w.out[:0])
	w.apply(p)
}

// evict ends the sessions of an account, live and stored, with everything that waits in them, and removes what it has
// retained and may not publish any more. It returns how many were connected. Who is logging in with the old rights at this
// moment is sent through the login again.
func (s *sessions) evict(account string, code packets.Code, wait time.Duration) (connected int) {
	_, exists := s.router.account(account)
	w := s.router.begin()
	s.mu.Lock()
	s.evictions++
	u, gone := s.usages[account], !exists
	if gone {
		delete(s.usages, account) // another account of that name has nothing to do with this one
	}
	var live []*clientLink
	for _, p := range s.byID {
		if p.account != account {
			continue
		}
		if !p.owner.hasEnded() {
			p.owner.evicted.Store(true)
			live = append(live, p.owner)
			continue
		}
		s.endStored(w, p)
	}
	s.mu.Unlock()
	w.finish()
	if u != nil {
		s.router.disown(u, gone)
	}

	s.endAll(live, code, wait)
	return len(live)
}

// endOne ends the session of a client id as evict does, and returns whether there was one.
func (s *sessions) endOne(id string, code packets.Code, wait time.Duration) bool {
	return s.endPicked(func(p *peer) bool { return p.id == id && !p.ingest }, code, wait) > 0
}

// endPicked ends the sessions of picks, live and stored, with everything that waits in them, and returns how many there were.
func (s *sessions) endPicked(picks func(*peer) bool, code packets.Code, wait time.Duration) (ended int) {
	w := s.router.begin()
	s.mu.Lock()
	var live []*clientLink
	for _, p := range s.byID {
		if !picks(p) {
			continue
		}
		ended++
		if !p.owner.hasEnded() {
			p.owner.evicted.Store(true)
			live = append(live, p.owner)
			continue
		}
		s.endStored(w, p)
	}
	s.mu.Unlock()
	w.finish()
	s.endAll(live, code, wait)
	return ended
}

// endAll ends connections and waits until their sessions have let go of them, or wait is over: then detach will do the
// rest.
func (s *sessions) endAll(live []*clientLink, code packets.Code, wait time.Duration) {
	for _, l := range live {
		s.end(l, code)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for _, l := range live {
		select {
		case <-l.ended.Done():
		case <-deadline.C:
			return
		}
	}
}

// endRevoked ends the connections that revoked picks, and returns how many there were. Their sessions stay.
func (s *sessions) endRevoked(revoked func(*clientLink) bool, wait time.Duration) int {
	var picked []*clientLink
	for _, l := range s.live() {
		if revoked(l) {
			l.revoked.Store(true)
			picked = append(picked, l)
		}
	}
	s.endAll(picked, packets.Code{Code: packets.ErrAdministrativeAction.Code, Reason: refusal.CertificateRevoked.Reason}, wait)
	return len(picked)
}
