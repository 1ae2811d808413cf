package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"
)

// upgradeWait is how long a login may wait for the writer to take a better hash of its password.
const upgradeWait = 2 * time.Second

// password is the hash of one password of one account. It lives until the password is another one.
type password struct {
	hash  passwordHash
	right atomic.Pointer[mark] // of the password that was right; nil before the first login
}

// mark tells a password again that was seen since the start, at the cost of a fast hash. Its key never leaves the process.
type mark [sha256.Size]byte

func (s *Store) mark(plain []byte) mark {
	mac := hmac.New(sha256.New, s.markKey)
	mac.Write(plain)
	return mark(mac.Sum(nil))
}

// judge knows the answer once the right password has been seen: any other one is wrong. So guesses for an account
// that is in use cost next to nothing.
func (p *password) judge(m mark) (right, known bool) {
	seen := p.right.Load()
	return seen != nil && hmac.Equal(seen[:], m[:]), seen != nil
}

// checkPassword tells whether plain is the password p of the account called name.
func (s *Store) checkPassword(name string, p *password, plain []byte, w Wait) bool {
	m := s.mark(plain)
	right, known := p.judge(m)
	if known {
		return right
	}
	mine, ok := s.slow.enter(p, w)
	if !ok {
		return false
	}
	if right, known = p.judge(m); known { // since it began to wait
		if mine {
			s.slow.leave(p, true)
		}
		return right
	}
	if right = p.hash.matches(plain); right {
		p.right.Store(&m)
	}
	freeHash()
	s.slow.leave(p, right)
	if right && p.hash.outdated() && !s.options.ReadOnly {
		s.upgrade(name, p, plain, m, w)
	}
	return right
}

// slowly hashes a password that will be p's, in a turn of its own.
func (s *Store) slowly(p *password, plain []byte, w Wait) (ok bool) {
	if _, ok = s.slow.enter(p, w); ok {
		p.hash = newPasswordHash(plain)
		freeHash()
		s.slow.leave(p, false)
	}
	return ok
}

// hashPassword hashes a password that a person chose.
func (s *Store) hashPassword(plain string) (passwordHash, error) {
	if err := CheckPassword(plain); err != nil {
		return passwordHash{}, err
	}
	var p password
	s.slowly(&p, []byte(plain), Wait{})
	return p.hash, nil
}

// errChanged says that an account is not what it was when the work on it began.
var errChanged = errors.New("changed meanwhile")

// upgrade replaces a hash that was made elsewhere, now that the password is known for a moment.
func (s *Store) upgrade(name string, p *password, plain []byte, m mark, w Wait) {
	better := &password{}
	better.right.Store(&m)
	if !s.slowly(better, plain, w) {
		return // the next start tries again
	}
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
