package people

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// tokenPrefix lets people, and programs that look for secrets where none should be, tell what a token is of.
	tokenPrefix  = "plantops_"
	tokenIDBytes = 6
	saltBytes    = 16
	maxTokens    = 1_000
)

// Token is what a program bears in place of a password. Its secret is not kept.
type Token struct {
	ID      string // public: the secret begins with it
	Name    string
	Role    Role
	Created int64 // UTC ms
	Used    int64 // UTC ms, to the minute; 0: never
}

// kept is a token as it is in memory.
type kept struct {
	Token
	salt, hash []byte
	used       atomic.Int64
}

func (t *kept) export() Token {
	out := t.Token
	out.Used = t.used.Load()
	return out
}

// Keeper keeps tokens and sessions in a database. Its methods are safe for concurrent use.
type Keeper struct {
	db      Database
	options Options

	loading sync.Mutex
	tokens  atomic.Pointer[map[string]*kept] // by id; nil: not read yet
}

// NewKeeper returns one; it reads nothing before Reload, or before it is asked.
func NewKeeper(db Database, o Options) *Keeper { return &Keeper{db: db, options: o} }

func (k *Keeper) now() int64 { return k.options.Now().UnixMilli() }

// Reload reads the tokens anew.
func (k *Keeper) Reload(ctx context.Context) error {
	k.loading.Lock() // who reads last has what was written last
	defer k.loading.Unlock()
	tokens := map[string]*kept{}
	err := k.db.Read(ctx, func(rows Rows) error {
		clear(tokens)
		return rows.Each(func(v []any) error {
			t := &kept{Token: Token{ID: text(v[0]), Name: text(v[1]), Role: Role(text(v[2])), Created: number(v[3])}, salt: blob(v[5]), hash: blob(v[6])}
			t.used.Store(number(v[4]))
			tokens[t.ID] = t
			return nil
		}, `SELECT id, name, role, created, used, salt, hash FROM api_token`)
	})
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	k.tokens.Store(&tokens)
	return nil
}

func (k *Keeper) all(ctx context.Context) (map[string]*kept, error) {
	list := k.tokens.Load()
	if list == nil || k.options.ReadOnly {
		if err := k.Reload(ctx); err != nil {
			return nil, err
		}
		list = k.tokens.Load()
	}
	return *list, nil
}

// AddToken makes a token and returns its secret, which cannot be had again. The errors wrap ErrInvalidName, ErrInvalidRole, ErrExists
// or ErrMany.
func (k *Keeper) AddToken(ctx context.Context, name string, role Role) (secret string, t Token, err error) {
	fail := func(err error) (string, Token, error) {
		return "", Token{}, fmt.Errorf("add token %.80q: %w", name, err)
	}
	if err := k.options.Check(name); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalidName, err))
	}
	if err := CheckRole(role); err != nil {
		return fail(err)
	}
	var id [tokenIDBytes]byte
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(id[:]) // it never fails
	_, _ = rand.Read(salt)
	t = Token{ID: hex.EncodeToString(id[:]), Name: name, Role: role, Created: k.now()}
	secret = tokenPrefix + t.ID + "_" + newSecret()
	err = k.db.Change(ctx, func(rows Rows) error {
		n, err := count(rows, `SELECT count(*) FROM api_token`)
		if err == nil && n >= maxTokens {
			err = fmt.Errorf("%w: there are %d already", ErrMany, n)
		}
		if err == nil {
			n, err = count(rows, `SELECT count(*) FROM api_token WHERE name = ?`, name)
		}
		if err == nil && n > 0 {
			err = ErrExists
		}
		if err != nil {
			return err
		}
		_, err = rows.Run(`INSERT INTO api_token (id, name, role, created, used, salt, hash) VALUES (?, ?, ?, ?, 0, ?, ?)`,
			t.ID, name, string(role), t.Created, salt, hash(salt, secret))
		return err
	})
	if err != nil {
		return fail(err)
	}
	_ = k.Reload(context.WithoutCancel(ctx)) // it is stored; the next start knows it
	return secret, t, nil
}

// Tokens returns all, the newest first.
func (k *Keeper) Tokens(ctx context.Context) ([]Token, error) {
	all, err := k.all(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Token, 0, len(all))
	for _, t := range all {
		list = append(list, t.export())
	}
	slices.SortFunc(list, func(a, b Token) int {
		return cmp.Or(cmp.Compare(b.Created, a.Created), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// RemoveToken ends a token at once. The error wraps ErrNotFound.
func (k *Keeper) RemoveToken(ctx context.Context, name string) error {
	err := k.db.Change(ctx, func(rows Rows) error {
		n, err := rows.Run(`DELETE FROM api_token WHERE name = ?`, name)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err == nil {
			k.tokens.Store(nil) // at once: a database that is made anew now is not given it back
		}
		return err
	})
	if err == nil && k.Reload(context.WithoutCancel(ctx)) != nil {
		k.tokens.Store(nil) // or it would go on being right; who is asked next reads again
	}
	if err != nil {
		return fmt.Errorf("remove token %.80q: %w", name, err)
	}
	return nil
}

// unknown stands in for a token that there is not, so that an answer takes the same time.
var unknown = &kept{salt: make([]byte, saltBytes), hash: make([]byte, sha256.Size)}

// Verify returns the token of a secret. It reads memory only, but once a minute writes down that the token is used.
func (k *Keeper) Verify(ctx context.Context, secret string) (Token, bool) {
	all, err := k.all(ctx)
	if err != nil {
		return Token{}, false
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(secret, tokenPrefix), "_")
	t, known := all[id]
	if !known {
		t = unknown
	}
	if right := same(hash(t.salt, secret), t.hash); !right || !known {
		return Token{}, false
	}
	k.used(ctx, t)
	return t.export(), true
}

// used notes that a token is used, where that was not noted for a minute.
func (k *Keeper) used(ctx context.Context, t *kept) {
	before, now := t.used.Load(), k.now()
	if now-before < touchEvery.Milliseconds() || k.options.ReadOnly || k.options.Unsure() || !t.used.CompareAndSwap(before, now) {
		return
	}
	err := k.db.ChangeSoon(ctx, func(rows Rows) error {
		_, err := rows.Run(`UPDATE api_token SET used = ? WHERE id = ?`, now, t.ID)
		return err
	})
	if err != nil {
		t.used.CompareAndSwap(now, before) // the next one tries again
	}
}

// Remembers reports whether tokens were read.
func (k *Keeper) Remembers() bool { return k.tokens.Load() != nil }

// Remember writes the tokens that were read last into a new database, where it has lost them.
func (k *Keeper) Remember(rows Rows) error {
	list := k.tokens.Load()
	if list == nil {
		return nil
	}
	for _, t := range *list {
		if _, err := rows.Run(`INSERT OR IGNORE INTO api_token (id, name, role, created, used, salt, hash) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Name, string(t.Role), t.Created, t.used.Load(), t.salt, t.hash); err != nil {
			return err
		}
	}
	return nil
}
