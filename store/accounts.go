package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/store/garden"
)

// Role says what kind of client an account is for.
type Role string

// The roles, as they stand in the database.
const (
	RoleDevice Role = "device" // sends readings; its account bears its id, and its secret is random
	RoleUser   Role = "user"   // a person or a program, with rules and a password of its own
)

// Account is who may log in, and with which topics. In the filters %u stands for the account's name and %c for the
// client id.
type Account struct {
	Name               string
	Role               Role
	Publish, Subscribe []string
	Admin              bool    // may read $SYS
	WebRole            WebRole // on the web page and in its API; "": none, as every device
	Created            int64   // UTC ms
}

// What a device may do: speak and listen below its own topic.
var deviceTopics = []string{"devices/%u/#"}

// reserved names belong to the backend of this program.
var reserved = []string{"plantops_backend", "plantops-ingest"}

const (
	algorithmSHA256   = "sha256"   // of salt and secret: enough for secrets of 256 random bits, and cheap on a Pi
	algorithmPassword = "password" // the hash says itself how it was made
	secretBytes       = 32
	saltBytes         = 16
	maxIDBytes        = 64
)

// credential is an account and what proves it.
type credential struct {
	account    Account
	salt, hash []byte    // of a device's secret
	password   *password // of people and other programs; nil for a device
}

// CheckID tells whether id can name a device or a user: 1 to 64 bytes of UTF-8, no control characters, none of + # / $ %, no space
// at either end, and not a name that the program itself uses. The error wraps ErrInvalidID and says what is wrong.
func CheckID(id string) error {
	why := ""
	switch {
	case id == "" || len(id) > maxIDBytes:
		why = fmt.Sprintf("it has %d bytes, 1 to %d are allowed", len(id), maxIDBytes)
	case !utf8.ValidString(id):
		why = "it is not valid UTF-8"
	case strings.ContainsAny(id, "+#/$%"):
		why = "the characters + # / $ % are not allowed"
	case strings.ContainsFunc(id, unicode.IsControl):
		why = "control characters are not allowed"
	case strings.TrimSpace(id) != id:
		why = "spaces at the ends are not allowed"
	case slices.Contains(reserved, id):
		why = "the name is reserved"
	default:
		return nil
	}
	return fmt.Errorf("%w %.80q: %s", ErrInvalidID, id, why)
}

type accountStatements struct {
	insertAccount, insertRule, updateSecret, updateWebRole, dropAccount *statement
}

func (q *accountStatements) all() []compile {
	return []compile{
		{&q.insertAccount, `INSERT INTO account (name, role, algorithm, salt, hash, created, admin, web_role) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`},
		{&q.insertRule, `INSERT OR IGNORE INTO rule (account, action, filter) VALUES (?, ?, ?)`},
		{&q.updateSecret, `UPDATE account SET algorithm = ?, salt = ?, hash = ?, rotated = ? WHERE name = ?`},
		{&q.updateWebRole, `UPDATE account SET web_role = ? WHERE name = ?`},
		{&q.dropAccount, `DELETE FROM account WHERE name = ?`},
	}
}

// AddDevice creates the account of a device and returns its secret, which cannot be had again. The errors wrap
// ErrInvalidID or ErrExists; a name that a user has is ErrOtherRole.
func (s *Store) AddDevice(ctx context.Context, id string) (secret string, err error) {
	return s.addDevice(ctx, id, deviceTopics, deviceTopics)
}

// AddOtherDevice is AddDevice for one that uses these topics, in place of all below devices/ID/. The errors wrap
// ErrInvalidFilter too.
func (s *Store) AddOtherDevice(ctx context.Context, id string, publish, subscribe []string) (secret string, err error) {
	if len(publish) == 0 {
		return "", fmt.Errorf("add device: %w: none to publish to", ErrInvalidFilter)
	}
	if err := checkRules(publish, subscribe); err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return s.addDevice(ctx, id, sorted(publish), sorted(subscribe))
}

func (s *Store) addDevice(ctx context.Context, id string, publish, subscribe []string) (secret string, err error) {
	if err := CheckID(id); err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	secret, c := newSecret(Account{Name: id, Role: RoleDevice, Publish: publish, Subscribe: subscribe,
		Created: s.options.Now().UnixMilli()})
	err = s.changeAccount(ctx, id, func(before *credential) (*credential, error) {
		if before != nil {
			return nil, before.inTheWayOf(RoleDevice)
		}
		return c, s.insertDevice(c)
	})
	if err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return secret, nil
}

// insertDevice writes the account of a device, which may have been heard of before.
func (s *Store) insertDevice(c *credential) error {
	id := c.account.Name
	if err := s.notBehind(id); err != nil {
		return err
	}
	if _, known := s.state.devices[id]; !known {
		if _, err := s.createDevice(id); err != nil {
			return err
		}
	}
	err := s.w.insertAccount.run(id, string(RoleDevice), algorithmSHA256, c.salt, c.hash, c.account.Created, int64(0), "")
	if err != nil || slices.Equal(c.account.Publish, deviceTopics) && slices.Equal(c.account.Subscribe, deviceTopics) {
		return err
	}
	return s.insertRules(c)
}

// inTheWayOf is the error of adding an account whose name c has.
func (c *credential) inTheWayOf(role Role) error {
	if c.account.Role == role {
		return ErrExists
	}
	return fmt.Errorf("%w %s", ErrOtherRole, c.account.Role)
}

// RotateDevice gives a device a new secret; the old one ends at once. The error wraps ErrNotFound.
func (s *Store) RotateDevice(ctx context.Context, id string) (secret string, err error) {
	err = s.changeAccount(ctx, id, func(before *credential) (after *credential, err error) {
		if before == nil || before.account.Role != RoleDevice {
			return nil, ErrNotFound
		}
		secret, after = newSecret(before.account)
		return after, s.w.updateSecret.run(algorithmSHA256, after.salt, after.hash, s.options.Now().UnixMilli(), id)
	})
	if err != nil {
		return "", fmt.Errorf("rotate secret of device: %w", err)
	}
	return secret, nil
}

// RemoveDevice deletes the account of a device and ends what it serves; its readings and counters stay, and what was a plant's stays
// that plant's. The error wraps ErrNotFound.
func (s *Store) RemoveDevice(ctx context.Context, id string) error {
	err := s.removeAccount(ctx, id, RoleDevice, func() error {
		return garden.Forget(writing{s.w}, id, s.options.Now().UnixMilli())
	})
	if err != nil {
		return fmt.Errorf("remove device: %w", err)
	}
	_ = s.garden.Reload(ctx) // readers are told
	return nil
}

// removeAccount deletes an account, after what is to be done with what is its.
func (s *Store) removeAccount(ctx context.Context, name string, role Role, before func() error) error {
	return s.changeAccount(ctx, name, func(c *credential) (*credential, error) {
		if c == nil || c.account.Role != role {
			return nil, ErrNotFound
		}
		if err := before(); err != nil {
			return nil, err
		}
		return nil, s.w.dropAccount.run(name)
	})
}

// changeAccount runs change on what is known of an account, nil if nothing is, in a transaction. change writes to the
// file and returns what is known from then on; nil means that the account is gone.
func (s *Store) changeAccount(ctx context.Context, name string, change func(before *credential) (after *credential, err error)) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	var accounts map[string]credential
	err := s.transact(func() error {
		accounts = maps.Clone(*s.accounts.Load())
		var before *credential
		if c, known := accounts[name]; known {
			before = &c
		}
		after, err := change(before)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if after == nil {
			delete(accounts, name)
		} else {
			accounts[name] = *after
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.accounts.Store(&accounts)
	return nil
}

// loadDevice completes what was read of a device's account. One without rules uses its own topics.
func (c *credential) loadDevice(publish, subscribe string) error {
	a := &c.account
	if err := errors.Join(json.Unmarshal([]byte(publish), &a.Publish), json.Unmarshal([]byte(subscribe), &a.Subscribe)); err != nil {
		return err
	}
	if len(a.Publish)+len(a.Subscribe) == 0 {
		a.Publish, a.Subscribe = deviceTopics, deviceTopics
	}
	a.Publish, a.Subscribe = sorted(a.Publish), sorted(a.Subscribe)
	return nil
}

// newSecret draws a secret for a device.
func newSecret(account Account) (secret string, c *credential) {
	secret = base64.RawURLEncoding.EncodeToString(random(secretBytes))
	salt := random(saltBytes)
	return secret, &credential{account: account, salt: salt, hash: hash(salt, []byte(secret))}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

func hash(salt, secret []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(secret)
	return h.Sum(nil)
}

// nobody stands in for an unknown name, so that an answer takes the same time as for a device.
var nobody = credential{salt: make([]byte, saltBytes), hash: make([]byte, sha256.Size)}

// Authenticate returns the account if name and password are right. For devices it reads memory
// only, and so it does for a user whose right password it has seen since the start. Until then each password for a user costs a
// slow hash, one at a time in the whole process, for which logins wait as w says; nothing else waits for that.
//
// An unknown name costs what a device costs. How long an answer takes thus tells that a user of that name exists. Names
// are no secrets in MQTT; a slow hash for any name that a stranger makes up would give him all of a Pi's CPU, and people
// who log in would wait behind him.
func (s *Store) Authenticate(name string, password []byte, w Wait) (Account, bool) {
	c, known := (*s.accounts.Load())[name]
	if !known {
		c, known = nobody, false
	}
	var right bool
	if c.password != nil {
		right = s.checkPassword(name, c.password, password, w)
	} else {
		right = subtle.ConstantTimeCompare(hash(c.salt, password), c.hash) == 1
	}
	if !known || !right {
		return Account{}, false
	}
	return c.account, true
}

// DevicesSince returns how many devices have an account, and how many of them got the secret that they have, and with it what else a
// device is told, at since or later.
func (s *Store) DevicesSince(ctx context.Context, since time.Time) (all, told int64, err error) {
	err = s.each(ctx, func(scan func(...any) error) error { return scan(&all, &told) },
		`SELECT count(*), coalesce(sum(max(created, rotated) >= ?), 0) FROM account WHERE role = ?`, since.UnixMilli(), string(RoleDevice))
	if err != nil {
		return 0, 0, fmt.Errorf("count devices: %w", explain(err))
	}
	return all, told, nil
}

// Account returns the account of that name. It reads memory only.
func (s *Store) Account(name string) (Account, bool) {
	c, known := (*s.accounts.Load())[name]
	return c.account, known
}

func (s *Store) loadAccounts(ctx context.Context) error {
	accounts := make(map[string]credential)
	err := s.each(ctx, func(scan func(...any) error) error {
		var algorithm, publish, subscribe string
		var c credential
		a := &c.account
		err := scan(&a.Name, &a.Role, &a.Created, &a.Admin, &a.WebRole, &algorithm, &c.salt, &c.hash, &publish, &subscribe)
		if err != nil {
			return err
		}
		if algorithm == algorithmPassword {
			err = c.loadUser(publish, subscribe)
		} else {
			err = c.loadDevice(publish, subscribe)
		}
		accounts[a.Name] = c
		return err
	}, `SELECT name, role, created, admin, web_role, algorithm, salt, hash,
		(SELECT json_group_array(filter) FROM rule WHERE account = name AND action = 'publish'),
		(SELECT json_group_array(filter) FROM rule WHERE account = name AND action = 'subscribe')
		FROM account WHERE algorithm IN (?, ?)`, algorithmSHA256, algorithmPassword)
	if err != nil {
		return fmt.Errorf("load accounts: %w", err)
	}
	s.accounts.Store(&accounts)
	return errors.Join(s.garden.Reload(ctx), s.people.Reload(ctx), s.changed(ctx))
}

// PurgeDevice removes every trace of a device that has no account any more: readings, quarantine entries, name and counters,
// which go on to count for no device, so that the equation holds. It returns how many messages of readings that were. It works
// in small transactions, as DeleteBefore does. ErrNotFound: no such device. ErrExists: it has an account.
func (s *Store) PurgeDevice(ctx context.Context, name string) (deleted int64, err error) {
	fail := func(err error) (int64, error) { return deleted, fmt.Errorf("purge device %q: %w", name, err) }
	about, err := s.Device(ctx, name)
	switch {
	case err != nil:
		return fail(err)
	case name == "":
		return fail(ErrNotFound)
	case about.Registered:
		return fail(fmt.Errorf("its account %w", ErrExists))
	}
	s.state.mu.RLock()
	d := s.state.devices[name]
	s.state.mu.RUnlock()
	if d == nil { // somebody else was faster
		return fail(ErrNotFound)
	}
	for due := []int64{d.id}; len(due) > 0; {
		var rows int64
		if rows, due, err = s.deleteChunk(ctx, due, math.MaxInt64); err != nil {
			return fail(err)
		}
		deleted += rows
	}
	if err := s.freeing(ctx, func() error { return s.flushOne(name) }); err != nil {
		return fail(err)
	}
	rows, err := s.deleteBlocks(ctx, d, math.MaxInt64)
	if deleted += rows; err != nil {
		return fail(err)
	}
	for again := true; again; {
		if again, err = s.purgeEntries(ctx, d.id); err != nil {
			return fail(err)
		}
	}
	if err := s.purgeHours(ctx, d.id); err != nil {
		return fail(err)
	}
	if err := s.forgetDevice(ctx, name); err != nil {
		return fail(err)
	}
	return deleted, nil
}

// flushOne puts what the tail has of a device into blocks.
func (s *Store) flushOne(name string) error {
	d, known := s.state.devices[name] // another one after a reload
	if !known {
		return nil
	}
	return s.flushDevices([]*device{d})
}

// purgeEntries deletes some of what a device has in the quarantine; again tells that there may be more.
func (s *Store) purgeEntries(ctx context.Context, id int64) (again bool, err error) {
	if err := s.acquire(ctx); err != nil {
		return false, err
	}
	defer s.release()
	err = s.transact(func() error {
		if err := s.countEntries(); err != nil {
			return err
		}
		entries, err := oldEntries(s.w.oldestOf, id, int64(evictEntries))
		again = len(entries) == evictEntries
		for _, e := range entries {
			if err := s.w.deleteEntry.run(e.id); err != nil {
				return err
			}
			s.tx.quarantine.next -= e.size
			s.tx.quarantine.nextEntries--
		}
		return err
	})
	return again, err
}

// forgetDevice deletes what is left of a device when its readings and entries are gone. What has come meanwhile goes too.
func (s *Store) forgetDevice(ctx context.Context, name string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	d, known := s.state.devices[name]
	if !known {
		return nil
	}
	if _, registered := (*s.accounts.Load())[name]; registered {
		return fmt.Errorf("its account %w", ErrExists) // again, since we looked
	}
	s.state.disownRefused(name)
	err := s.transact(func() error {
		nobody := s.state.devices[""]
		s.touch(nobody)
		nobody.next.counts.plus(d.counts)
		nobody.next.dropped += min(d.dropped, math.MaxInt64-nobody.next.dropped)
		s.tx.quarantine = quarantineSize{} // to be counted anew
		for _, q := range s.w.forget {
			if err := q.run(d.id); err != nil {
				return err
			}
		}
		_, _, _, err := s.deleteSomeBlocks(d, math.MaxInt64, math.MinInt64) // of what has come meanwhile
		return err
	})
	if err != nil {
		return err
	}
	_ = errors.Join(s.changed(ctx), s.garden.Reload(ctx)) // readers are told
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.bind(d, Behind{})
	delete(s.state.devices, name)
	delete(s.state.byID, d.id)
	s.tail.Load().Drop(d.id) // its records of the journal are nobody's
	return nil
}

// purgeStatements take a device out of every table, those that point to others first.
type purgeStatements struct {
	forget [23]*statement
}

func (q *purgeStatements) all() (list []compile) {
	for i, text := range [len(q.forget)]string{
		`DELETE FROM reading WHERE device = ?`,
		`DELETE FROM newest WHERE device = ?`,
		`DELETE FROM sql_series WHERE device = ?`,
		`DELETE FROM sql_device WHERE device = ?`,
		`DELETE FROM sql_due WHERE device = ?`,
		`DELETE FROM sql_kept WHERE device = ?`,
		`DELETE FROM calibration WHERE device = ?`,
		`DELETE FROM void WHERE device = ?`,
		`DELETE FROM assignment WHERE device = ?`,
		`DELETE FROM registration WHERE device = ?`,
		`DELETE FROM quarantine WHERE device = ?`,
		`DELETE FROM quarantine_summary WHERE device = ?`,
		`DELETE FROM boot WHERE device = ?`,
		`DELETE FROM gateway WHERE device = ?`,
		`DELETE FROM skipped WHERE device = ?`,
		`DELETE FROM original WHERE device = ?`,
		// What a damaged file that is still searched has of it is not to come back (regain.go), and its id not to be another's.
		`DELETE FROM salvage_device WHERE device = ?`,
		`INSERT INTO salvage_device (salvage, device, expected, found) SELECT id, ?, -1, 0 FROM salvage WHERE finished = 0`,
		`DELETE FROM sqlite_sequence WHERE name = 'device' AND seq < ?`,
		`INSERT INTO sqlite_sequence (name, seq) SELECT 'device', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'device')`,
		`UPDATE metric SET device = 0 WHERE device = ?`,
		`DELETE FROM counter WHERE device = ?`,
		`DELETE FROM device WHERE id = ?`,
	} {
		list = append(list, compile{&q.forget[i], text})
	}
	return list
}
