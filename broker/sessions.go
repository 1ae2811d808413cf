package broker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// handoverWait bounds how long a new connection waits for the one it replaces to be finished.
const handoverWait = 5 * time.Second

// errEvicted makes a login start again: the account may have changed since its password was checked.
var errEvicted = errors.New("accounts changed during login")

// link is one connection as the core sees it: the network's conn, mochi's client, and who is behind them. mochi holds
// it as cl.Net.Conn. The fields below ended are written before sessions.claim and only read afterwards.
type link struct {
	*conn
	ended chan struct{} // closed when mochi has let go of the connection

	client  *mqtt.Client
	account Account
	rights  rights
	since   time.Time

	established atomic.Bool            // CONNACK sent
	settled     atomic.Bool            // mochi has dealt with the end of its session
	evicted     atomic.Bool            // nothing of its session may stay
	cause       atomic.Pointer[string] // why we ended it, for the log
}

func newLink(c *conn) *link { return &link{conn: c, ended: make(chan struct{})} }

// linkOf returns nil for a client without a connection of ours.
func linkOf(cl *mqtt.Client) *link {
	l, _ := cl.Net.Conn.(*link)
	return l
}

func (l *link) hasEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// sessions knows whose every client id is, for as long as mochi keeps a session for it, connected or not. Per client
// id one connection at a time is with mochi: mochi's own takeover of a live one loses messages and leaves connected
// clients that receive nothing.
type sessions struct {
	server *mqtt.Server

	mu        sync.Mutex
	byID      map[string]*link // the newest connection of the client id, which may have ended
	evictions uint64
}

func newSessions(server *mqtt.Server) *sessions {
	return &sessions{server: server, byID: map[string]*link{}}
}

// evictionCount is taken before a password is checked and given to claim, so that no login slips past an eviction.
func (s *sessions) evictionCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictions
}

// claim makes l the connection of its client id, after ending the one before it [MQTT-3.1.4-3]. It refuses a client
// id whose session, live or stored, belongs to another account.
func (s *sessions) claim(l *link, evictions uint64) error {
	for {
		s.mu.Lock()
		if s.evictions != evictions {
			s.mu.Unlock()
			return errEvicted
		}
		current := s.byID[l.client.ID]
		if current != nil && current.account.Name != l.account.Name {
			s.mu.Unlock()
			return refuseForeignSess
		}
		if current == nil || current.hasEnded() {
			s.byID[l.client.ID] = l
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()

		s.end(current, packets.ErrSessionTakenOver)
		timer := time.NewTimer(handoverWait)
		select {
		case <-current.ended:
			timer.Stop()
		case <-timer.C:
			return refuseStuckOld
		}
	}
}

// release is called when mochi has let go of l. The client id stays its account's while mochi stores a session for it.
func (s *sessions) release(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(l.ended)
	if l.client == nil || l.account.Name == "" {
		return
	}
	if l.evicted.Load() {
		s.forget(l)
	} else if _, stored := s.server.Clients.Get(l.client.ID); !stored && s.byID[l.client.ID] == l {
		delete(s.byID, l.client.ID)
	}
}

// expired is called when mochi forgets the stored session of cl.
func (s *sessions) expired(cl *mqtt.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byID[cl.ID]; l != nil && l.client == cl {
		delete(s.byID, cl.ID)
	}
}

// end tells a client why and closes its connection. It does not wait.
func (s *sessions) end(l *link, code packets.Code) {
	l.cause.CompareAndSwap(nil, &code.Reason)
	if !l.established.Load() {
		_ = l.Close() // nothing may precede the CONNACK; its establish ends by itself
		return
	}
	_ = s.server.DisconnectClient(l.client, code) // its only error is the code itself
}

// live returns the connections that have not ended.
func (s *sessions) live() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*link
	for _, l := range s.byID {
		if !l.hasEnded() {
			out = append(out, l)
		}
	}
	return out
}

// evict ends the sessions of an account, live and stored, with everything that waits in them. It returns how many
// were connected. Who is logging in with the old rights at this moment is sent through the login again.
func (s *sessions) evict(account string, code packets.Code, wait time.Duration) (connected int) {
	s.mu.Lock()
	s.evictions++
	var live []*link
	for _, l := range s.byID {
		if l.account.Name != account {
			continue
		}
		l.evicted.Store(true)
		if l.hasEnded() {
			s.forget(l)
		} else {
			live = append(live, l)
		}
	}
	s.mu.Unlock()

	for _, l := range live {
		s.end(l, code)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for _, l := range live {
		select {
		case <-l.ended: // and its session is forgotten
		case <-deadline.C:
			return len(live) // release will forget the rest
		}
	}
	return len(live)
}

// forget removes what mochi stores for the client id of l, unless a newer connection owns it already. The caller holds mu.
func (s *sessions) forget(l *link) {
	id := l.client.ID
	if owner := s.byID[id]; owner != l && owner != nil {
		return
	}
	delete(s.byID, id)
	if stored, ok := s.server.Clients.Get(id); ok {
		s.server.UnsubscribeClient(stored)
		stored.ClearInflights()
		s.server.Clients.Delete(id)
	}
}
