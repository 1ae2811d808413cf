package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// So many logins wait for one account's slow hash; more are refused. It is above what the broker lets log in at a
	// time, because a hundred clients with one account that come back together are no attack: the first of them pays.
	maxLoginsWaiting = 1000
	// upgradeWait is how long a login may wait for the writer to take a better hash of its password.
	upgradeWait = 2 * time.Second
)

// password is the hash of one password of one account. It lives until the password is another one.
type password struct {
	hash passwordHash

	right   atomic.Pointer[mark] // of the password that was right; nil before the first login
	waiting atomic.Int32
	turn    sync.Mutex // held by the one of this account that uses the slow hash: a flood for one account delays others by one hash
}

// mark tells a password again that was seen since the start, at the cost of a fast hash. Its key never leaves the process.
type mark [sha256.Size]byte

func (s *Store) mark(plain []byte) mark {
	mac := hmac.New(sha256.New, s.markKey)
	mac.Write(plain)
	return mark(mac.Sum(nil))
}

func (p *password) seen(m mark) bool {
	right := p.right.Load()
	return right != nil && hmac.Equal(right[:], m[:])
}

// checkPassword tells whether plain is the password p of the account called name.
func (s *Store) checkPassword(name string, p *password, plain []byte) bool {
	m := s.mark(plain)
	if p.seen(m) {
		return true
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxLoginsWaiting {
		return false
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.seen(m) { // meanwhile
		return true
	}
	right := false
	s.slowly(func() { right = p.hash.matches(plain) })
	if !right {
		return false
	}
	p.right.Store(&m)
	if p.hash.outdated() && !s.options.ReadOnly {
		s.upgrade(name, p, plain, m)
	}
	return true
}

// slowly runs one slow hash, alone.
func (s *Store) slowly(hash func()) {
	s.slowHash.Lock()
	defer s.slowHash.Unlock()
	hash()
	// Its memory is given back before the next one takes as much. A dozen wrong passwords would otherwise let the heap
	// grow by 114 MiB with the collector as lazy as the server sets it (measured; so it is 19).
	runtime.GC()
}

// hashPassword hashes a password that a person chose.
func (s *Store) hashPassword(plain string) (h passwordHash, err error) {
	if err := CheckPassword(plain); err != nil {
		return h, err
	}
	s.slowly(func() { h = newPasswordHash([]byte(plain)) })
	return h, nil
}

// errChanged says that an account is not what it was when the work on it began.
var errChanged = errors.New("changed meanwhile")

// upgrade replaces a hash that was made elsewhere, now that the password is known for a moment.
func (s *Store) upgrade(name string, p *password, plain []byte, m mark) {
	better := &password{}
	better.right.Store(&m)
	s.slowly(func() { better.hash = newPasswordHash(plain) })
	ctx, cancel := context.WithTimeout(context.Background(), upgradeWait)
	defer cancel()
	err := s.replaceHash(ctx, name, func(before *credential) (*password, error) {
		if before == nil || before.password == nil || before.password.hash.String() != p.hash.String() {
			return nil, errChanged
		}
		return better, nil
	})
	if errors.Is(err, errChanged) {
		return
	}
	if err != nil {
		s.log.Warn("replace the imported hash of a password", "user", name, "err", err) // the next start tries again
		return
	}
	s.log.Info("replaced the imported hash of a password", "user", name)
}
