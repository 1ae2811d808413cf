package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/broker/topic"
	passwords "github.com/plantops/plantops/store/password"
	"github.com/plantops/plantops/store/people"
)

// Bounds on passwords that people choose.
const (
	minPasswordBytes = 8
	maxPasswordBytes = 1024
)

// NewUser is an account for a person or another program.
type NewUser struct {
	Name               string   // as CheckID has it; devices and users share one name space
	Publish, Subscribe []string // as CheckFilter has them; none allow nothing
	Admin              bool     // may read $SYS; other rights come from the rules alone
	WebRole            WebRole  // on the web page and in its API; "": none

	// One of the two. Password is as CheckPassword has it; Hash is one of Mosquitto ($6$, $7$) or an argon2id hash in PHC
	// format, which is verified as it is and replaced at the next login if new ones are made in another way.
	Password string
	Hash     string
}

// AddUser creates an account with role RoleUser. The errors wrap ErrInvalidID, ErrInvalidFilter, ErrInvalidPassword,
// people.ErrInvalidRole, ErrExists, or ErrOtherRole when a device has the name.
func (s *Store) AddUser(ctx context.Context, u NewUser) error {
	if err := s.addUser(ctx, u); err != nil {
		return fmt.Errorf("add user: %w", err)
	}
	return nil
}

func (s *Store) addUser(ctx context.Context, u NewUser) error {
	if err := errors.Join(CheckID(u.Name), checkRules(u.Publish, u.Subscribe), checkWebRole(u.WebRole)); err != nil {
		return err
	}
	hash, err := s.hashOf(u)
	if err != nil {
		return fmt.Errorf("%q: %w", u.Name, err)
	}
	c := &credential{password: &password{hash: hash}, account: Account{Name: u.Name, Role: RoleUser, Admin: u.Admin, WebRole: u.WebRole,
		Publish: sorted(u.Publish), Subscribe: sorted(u.Subscribe), Created: s.options.Now().UnixMilli()}}
	return s.changeAccount(ctx, u.Name, func(before *credential) (*credential, error) {
		if before != nil {
			return nil, before.inTheWayOf(RoleUser)
		}
		if err := s.notBehind(u.Name); err != nil {
			return nil, err
		}
		return c, s.insertUser(c)
	})
}

// CheckPassword tells whether a person may choose this password: 8 to 1024 bytes of UTF-8 without control characters. The
// error wraps ErrInvalidPassword and does not quote it.
func CheckPassword(password string) error {
	why := ""
	switch {
	case len(password) < minPasswordBytes || len(password) > maxPasswordBytes:
		why = fmt.Sprintf("it has %d bytes, %d to %d are allowed", len(password), minPasswordBytes, maxPasswordBytes)
	case !utf8.ValidString(password):
		why = "it is not valid UTF-8"
	case strings.ContainsFunc(password, unicode.IsControl):
		why = "it holds a line break or another control character"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalidPassword, why)
}

func (s *Store) hashOf(u NewUser) (passwords.Hash, error) {
	switch {
	case u.Hash == "":
		return s.hashPassword(u.Password)
	case u.Password != "":
		return passwords.Hash{}, fmt.Errorf("%w: a password and a hash", ErrInvalidPassword)
	}
	hash, err := passwords.Parse(u.Hash)
	if err != nil {
		return passwords.Hash{}, fmt.Errorf("%w hash: %w", ErrInvalidPassword, err)
	}
	return hash, nil
}

func (s *Store) insertUser(c *credential) error {
	a := &c.account
	admin := int64(0)
	if a.Admin {
		admin = 1
	}
	err := s.w.insertAccount.run(a.Name, string(a.Role), algorithmPassword, []byte{}, []byte(c.password.hash.String()), a.Created, admin, string(a.WebRole))
	if err != nil {
		return err
	}
	return s.insertRules(c)
}

// insertRules writes what an account may do.
func (s *Store) insertRules(c *credential) error {
	a := &c.account
	for action, filters := range map[string][]string{"publish": a.Publish, "subscribe": a.Subscribe} {
		for _, filter := range filters {
			if err := s.w.insertRule.run(a.Name, action, filter); err != nil {
				return err
			}
		}
	}
	return nil
}

// sorted is what the file gives back: every rule once, in order.
func sorted(filters []string) []string {
	out := append([]string{}, filters...)
	slices.Sort(out)
	return slices.Compact(out)
}

// loadUser completes what was read of a user's account; publish and subscribe are JSON.
func (c *credential) loadUser(publish, subscribe string) error {
	a := &c.account
	err := errors.Join(json.Unmarshal([]byte(publish), &a.Publish), json.Unmarshal([]byte(subscribe), &a.Subscribe))
	if err != nil {
		return err
	}
	a.Publish, a.Subscribe = sorted(a.Publish), sorted(a.Subscribe)
	hash, err := passwords.Parse(string(c.hash))
	if err != nil {
		return fmt.Errorf("%w: hash of user %q: %w", ErrDamaged, a.Name, err)
	}
	c.password, c.hash = &password{hash: hash}, nil
	return nil
}

// SetPassword gives a user another password; the old one ends at once, and so does every session on the web page. The errors wrap ErrNotFound or ErrInvalidPassword.
func (s *Store) SetPassword(ctx context.Context, name, newPassword string) error {
	hash, err := s.hashPassword(newPassword)
	if err == nil {
		err = s.replaceHash(ctx, name, func(before *credential) (*password, error) {
			if before == nil || before.account.Role != RoleUser {
				return nil, ErrNotFound
			}
			return &password{hash: hash}, s.logOut(name)
		})
	}
	if err != nil {
		return fmt.Errorf("change password of user: %w", err)
	}
	return nil
}

func (s *Store) replaceHash(ctx context.Context, name string, next func(before *credential) (*password, error)) error {
	return s.changeAccount(ctx, name, func(before *credential) (*credential, error) {
		p, err := next(before)
		if err != nil {
			return nil, err
		}
		after := &credential{account: before.account, password: p}
		return after, s.w.updateSecret.run(algorithmPassword, []byte{}, []byte(p.hash.String()), int64(0), name)
	})
}

// RemoveUser deletes the account of a user. The error wraps ErrNotFound.
func (s *Store) RemoveUser(ctx context.Context, name string) error {
	err := s.removeAccount(ctx, name, RoleUser, func() error { return s.logOut(name) })
	if err != nil {
		return fmt.Errorf("remove user: %w", err)
	}
	return nil
}

// logOut ends the sessions of an account on the web page, in the running transaction.
func (s *Store) logOut(name string) error {
	_, err := writing{s.w}.Run(`DELETE FROM web_session WHERE account = ?`, name)
	return err
}

// SetWebRole says what a user may do on the web page and in its API; "" is nothing. The errors wrap ErrNotFound or people.ErrInvalidRole.
func (s *Store) SetWebRole(ctx context.Context, name string, role WebRole) error {
	err := checkWebRole(role)
	if err == nil {
		err = s.changeAccount(ctx, name, func(before *credential) (*credential, error) {
			if before == nil || before.account.Role != RoleUser {
				return nil, ErrNotFound
			}
			after := *before
			after.account.WebRole = role
			return &after, s.w.updateWebRole.run(string(role), name)
		})
	}
	if err != nil {
		return fmt.Errorf("change role of user: %w", err)
	}
	return nil
}

func checkWebRole(role WebRole) error {
	if role == "" {
		return nil
	}
	return people.CheckRole(role)
}

// Users returns the accounts with role RoleUser in order of name.
func (s *Store) Users(ctx context.Context) ([]Account, error) {
	if err := s.refresh(ctx); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	users := []Account{}
	for _, c := range *s.accounts.Load() {
		if c.account.Role == RoleUser {
			users = append(users, c.account)
		}
	}
	slices.SortFunc(users, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	return users, nil
}

// Bounds on the rules of an account: each is looked at for every topic that a client uses for the first time.
const (
	maxRules       = 1000
	maxFilterBytes = 1024
)

// ruleFilters are the filters that a rule may have. %u and %c stand for the names of the account and of the client, and
// are levels like others until then.
var ruleFilters = topic.Filters{MaxBytes: maxFilterBytes, NoControl: true, NoDollar: true}

// CheckFilter tells whether a rule may have this topic filter: MQTT's wildcards where MQTT has them, no topic that begins
// with $, no control characters, at most 1024 bytes. The error wraps ErrInvalidFilter and says what is wrong.
func CheckFilter(filter string) error {
	fault := ruleFilters.Fault(filter)
	why := fault.String()
	switch fault {
	case topic.Faultless:
		return nil
	case topic.FaultSize:
		why = fmt.Sprintf("it has %d bytes, 1 to %d are allowed", len(filter), maxFilterBytes)
	case topic.FaultDollar:
		why = "topics that begin with $ are not for rules; administrators read $SYS"
		if topic.Shared(filter) {
			why = "a rule names topics: leave out $share/GROUP/, who may subscribe to them may do so in a group"
		}
	}
	return fmt.Errorf("%w %.80q: %s", ErrInvalidFilter, filter, why)
}

// checkRules judges all rules of an account.
func checkRules(publish, subscribe []string) error {
	if n := len(publish) + len(subscribe); n > maxRules {
		return fmt.Errorf("%w: %d of them, at most %d are allowed", ErrInvalidFilter, n, maxRules)
	}
	for _, filters := range [][]string{publish, subscribe} {
		for _, filter := range filters {
			if err := CheckFilter(filter); err != nil {
				return err
			}
		}
	}
	return nil
}

// upgradeWait is how long a login may wait for the writer to take a better hash of its password.
const upgradeWait = 2 * time.Second

// password is the hash of one password of one account. It lives until the password is another one.
type password struct {
	hash  passwords.Hash
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
	if right = p.hash.Matches(plain); right {
		p.right.Store(&m)
	}
	freeHash()
	s.slow.leave(p, right)
	if right && p.hash.Outdated() && !s.options.ReadOnly {
		s.upgrade(name, p, plain, m, w)
	}
	return right
}

// slowly hashes a password that will be p's, in a turn of its own.
func (s *Store) slowly(p *password, plain []byte, w Wait) (ok bool) {
	if _, ok = s.slow.enter(p, w); ok {
		p.hash = passwords.New(plain)
		freeHash()
		s.slow.leave(p, false)
	}
	return ok
}

// hashPassword hashes a password that a person chose.
func (s *Store) hashPassword(plain string) (passwords.Hash, error) {
	if err := CheckPassword(plain); err != nil {
		return passwords.Hash{}, err
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

// maxLoginsWaiting is how many logins wait for the slow hash of one account; more are refused. It is above what the broker
// lets log in at a time, because a hundred clients with one account that come back together are no attack: the first of
// them pays.
const maxLoginsWaiting = 1000

// Wait says how a login waits for its slow hash. The zero value waits for as long as it takes.
type Wait struct {
	Gone <-chan struct{} // closed when nobody wants the answer any more: the login fails at once
	Rank int             // of several that wait for one account the lowest is next, of equals the first
}

// slowQueue lets one slow hash run at a time: one costs megabytes and tens of milliseconds. Passwords take turns, so a
// flood of guesses for one account delays the logins of another one by one hash. The zero value is ready.
type slowQueue struct {
	mu      sync.Mutex
	running bool
	waiting map[*password][]*waiter // in the order in which they will be called
	turn    []*password             // those with waiters, next one first
}

type waiter struct {
	rank   int
	called chan bool // true: it has the turn and must leave; false: the right password has become known
}

// enter waits for the turn of a login. Without an error mine says whether it has it; if not, p is known by now.
func (q *slowQueue) enter(p *password, w Wait) (mine, ok bool) {
	q.mu.Lock()
	if !q.running {
		q.running = true
		q.mu.Unlock()
		return true, true
	}
	all := q.waiting[p]
	if len(all) >= maxLoginsWaiting {
		q.mu.Unlock()
		return false, false
	}
	me := &waiter{rank: w.Rank, called: make(chan bool, 1)}
	place := slices.IndexFunc(all, func(other *waiter) bool { return other.rank > me.rank })
	if place < 0 {
		place = len(all)
	}
	if len(all) == 0 {
		q.turn = append(q.turn, p)
	}
	q.keep(p, slices.Insert(all, place, me))
	q.mu.Unlock()

	select {
	case mine = <-me.called:
		return mine, true
	case <-w.Gone:
		q.giveUp(p, me)
		return false, false
	}
}

// giveUp removes a waiter, who may have been called at the same moment.
func (q *slowQueue) giveUp(p *password, me *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting[p]
	if i := slices.Index(all, me); i >= 0 {
		q.keep(p, slices.Delete(all, i, i+1))
		if len(all) == 1 {
			q.turn = slices.DeleteFunc(q.turn, func(other *password) bool { return other == p })
		}
	} else if <-me.called {
		q.next()
	}
}

// leave ends a turn. known says that from now on p tells right from wrong without a slow hash: nobody need wait for it.
func (q *slowQueue) leave(p *password, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if known && len(q.waiting[p]) > 0 {
		for _, w := range q.waiting[p] {
			w.called <- false
		}
		q.keep(p, nil)
		q.turn = slices.DeleteFunc(q.turn, func(other *password) bool { return other == p })
	}
	q.next()
}

// next calls who is next. The caller holds mu.
func (q *slowQueue) next() {
	q.running = len(q.turn) > 0
	if !q.running {
		return
	}
	p := q.turn[0]
	q.turn = q.turn[1:]
	all := q.waiting[p]
	q.keep(p, all[1:])
	if len(all) > 1 {
		q.turn = append(q.turn, p)
	}
	all[0].called <- true
}

func (q *slowQueue) keep(p *password, all []*waiter) {
	if q.waiting == nil {
		q.waiting = map[*password][]*waiter{}
	}
	if len(all) == 0 {
		delete(q.waiting, p)
		return
	}
	q.waiting[p] = all
}

// freeHash gives the memory of a slow hash back before the next one takes as much. A dozen wrong passwords would otherwise
// let the heap grow by 114 MiB with the collector as lazy as the server sets it (measured; so it is 19).
func freeHash() { runtime.GC() }
