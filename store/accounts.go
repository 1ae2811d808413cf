package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role says what kind of client an account is for.
type Role string

const (
	RoleDevice  Role = "device"
	RoleBackend Role = "backend"
	RoleUser    Role = "user"
)

// Account is who may log in, and with which topics. In the filters %u stands for the account's name and %c for the
// client id.
type Account struct {
	Name               string
	Role               Role
	Publish, Subscribe []string
	Created            int64 // UTC ms
	Disabled           bool  // Authenticate refuses it
}

// What a device may do: speak and listen below its own topic.
var deviceTopics = []string{"devices/%u/#"}

// reserved names belong to the backend of this program.
var reserved = []string{"plantops_backend", "plantops-ingest"}

const (
	algorithmSHA256 = "sha256" // of salt and secret: enough for secrets of 256 random bits, and cheap on a Pi
	secretBytes     = 32
	saltBytes       = 16
	maxIDBytes      = 64
)

type credential struct {
	account    Account
	salt, hash []byte
}

// CheckID tells whether id can name a device: 1 to 64 bytes of UTF-8, no control characters, none of + # / $ %, no space
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

// AddDevice creates the account of a device and returns its secret, which cannot be had again. The errors wrap
// ErrInvalidID or ErrExists.
func (s *Store) AddDevice(ctx context.Context, id string) (secret string, err error) {
	err = CheckID(id)
	if err == nil {
		secret, err = s.changeAccount(ctx, id, s.addDevice)
	}
	if err != nil {
		return "", fmt.Errorf("add device: %w", err)
	}
	return secret, nil
}

func (s *Store) addDevice(id string, c *credential) (*credential, error) {
	if c != nil {
		return nil, ErrExists
	}
	if _, known := s.state.devices[id]; !known {
		if _, err := s.createDevice(id); err != nil {
			return nil, err
		}
	}
	created := s.options.Now().UnixMilli()
	c = &credential{account: Account{Name: id, Role: RoleDevice, Created: created}, salt: random(saltBytes)}
	c.account.Publish, c.account.Subscribe = deviceTopics, deviceTopics
	return c, s.w.insertAccount.run(id, string(RoleDevice), algorithmSHA256, c.salt, []byte{}, created)
}

// RotateDevice gives a device a new secret; the old one ends at once. The error wraps ErrNotFound.
func (s *Store) RotateDevice(ctx context.Context, id string) (secret string, err error) {
	secret, err = s.changeAccount(ctx, id, func(_ string, c *credential) (*credential, error) {
		if c == nil || c.account.Role != RoleDevice {
			return nil, ErrNotFound
		}
		return &credential{account: c.account, salt: random(saltBytes)}, nil
	})
	if err != nil {
		return "", fmt.Errorf("rotate secret of device: %w", err)
	}
	return secret, nil
}

// RemoveDevice deletes the account of a device; its readings and counters stay. The error wraps ErrNotFound.
func (s *Store) RemoveDevice(ctx context.Context, id string) error {
	_, err := s.changeAccount(ctx, id, func(_ string, c *credential) (*credential, error) {
		if c == nil || c.account.Role != RoleDevice {
			return nil, ErrNotFound
		}
		return nil, s.w.dropAccount.run(id)
	})
	if err != nil {
		return fmt.Errorf("remove device: %w", err)
	}
	return nil
}

// changeAccount runs change on what is known of an account, nil if nothing is, in a transaction. The account that it
// returns gets a new secret; nil means that the account is gone.
func (s *Store) changeAccount(ctx context.Context, name string,
	change func(name string, c *credential) (*credential, error),
) (secret string, err error) {
	if err := s.acquire(ctx); err != nil {
		return "", err
	}
	defer s.release()
	var after map[string]credential
	err = s.transact(func() error {
		after = maps.Clone(*s.accounts.Load())
		var before *credential
		if c, known := after[name]; known {
			before = &c
		}
		c, err := change(name, before)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if c == nil {
			delete(after, name)
			return nil
		}
		secret = base64.RawURLEncoding.EncodeToString(random(secretBytes))
		c.hash = hash(c.salt, []byte(secret))
		after[name] = *c
		return s.w.updateSecret.run(algorithmSHA256, c.salt, c.hash, name)
	})
	if err != nil {
		return "", err
	}
	s.accounts.Store(&after)
	return secret, nil
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

// nobody stands in for an unknown name, so that an answer takes the same time.
var nobody = credential{salt: make([]byte, saltBytes), hash: make([]byte, sha256.Size)}

// Authenticate returns the account if name and password are right and it is not disabled. It reads memory only.
func (s *Store) Authenticate(name string, password []byte) (Account, bool) {
	c, known := (*s.accounts.Load())[name]
	if !known {
		c = nobody
	}
	right := subtle.ConstantTimeCompare(hash(c.salt, password), c.hash) == 1
	if !known || !right || c.account.Disabled {
		return Account{}, false
	}
	return c.account, true
}

// Account returns the account of that name. It reads memory only.
func (s *Store) Account(name string) (Account, bool) {
	c, known := (*s.accounts.Load())[name]
	return c.account, known
}

func (s *Store) loadAccounts(ctx context.Context) error {
	accounts := make(map[string]credential)
	err := s.each(ctx, func(scan func(...any) error) error {
		var c credential
		a := &c.account
		err := scan(&a.Name, &a.Role, &a.Created, &a.Disabled, &c.salt, &c.hash)
		if a.Role == RoleDevice {
			a.Publish, a.Subscribe = deviceTopics, deviceTopics
		}
		accounts[a.Name] = c
		return err
	}, `SELECT name, role, created, disabled, salt, hash FROM account WHERE algorithm = ?`, algorithmSHA256)
	if err != nil {
		return fmt.Errorf("load accounts: %w", err)
	}
	s.accounts.Store(&accounts)
	return nil
}
