// Package people is who may use the web page and its API: roles, bearer tokens of programs, and the sessions of people who are logged in.
// Secrets are drawn here, given once and kept as hashes: they are 256 random bits, so a fast hash does. Passwords, accounts and what a
// role may do are not known here.
package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What callers tell apart.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("exists already")
	ErrMany        = errors.New("too many")
	ErrInvalidName = errors.New("invalid name")
	ErrInvalidRole = errors.New("invalid role")
)

// Role is what somebody may do on the page and in the API; "" is nothing.
type Role string

// The roles. Each may do what those before it may.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Admin    Role = "admin"
)

// Roles are all of them, in order.
var Roles = []Role{Viewer, Operator, Admin}

// May reports whether a role is the needed one or more.
func (r Role) May(needed Role) bool {
	have, need := slices.Index(Roles, r), slices.Index(Roles, needed)
	return have >= 0 && need >= 0 && have >= need
}

// CheckRole tells whether there is such a role; "" is none. The error wraps ErrInvalidRole.
func CheckRole(r Role) error {
	if !slices.Contains(Roles, r) {
		return fmt.Errorf("%w %.40q: it is viewer, operator or admin", ErrInvalidRole, r)
	}
	return nil
}

// Rows is the database inside a transaction. Values are nil, int64, float64, string and []byte.
type Rows = interface {
	Run(text string, values ...any) (changed int64, err error)
	Each(row func(values []any) error, text string, values ...any) error
}

// Database is who lends the tables.
type Database interface {
	// Change runs do in a transaction, and has it on disk when it returns nil. It may run it twice, the second time as if the first had not been.
	Change(ctx context.Context, do func(Rows) error) error
	// ChangeSoon is Change without that: a power cut may take it back.
	ChangeSoon(ctx context.Context, do func(Rows) error) error
	// Read runs do on what is stored at one moment. It may run it again where it did not come to its end: the database was made anew.
	Read(ctx context.Context, do func(Rows) error) error
}

// Options say how people are kept.
type Options struct {
	Now      func() time.Time
	Unsure   func() bool             // Now is not to be trusted: nothing expires
	Check    func(name string) error // whether a token may have the name
	ReadOnly bool                    // another process may write: what was read is not kept
}

// touchEvery is how often it is written down that somebody was seen.
const touchEvery = time.Minute

// secretBytes are drawn for tokens and cookies.
const secretBytes = 32

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func hash(salt []byte, secret string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// What a row has in place of a value of its kind is nothing.
func text(v any) string  { s, _ := v.(string); return s }
func number(v any) int64 { n, _ := v.(int64); return n }
func blob(v any) []byte  { b, _ := v.([]byte); return b }

// count is a number that a query answers.
func count(rows Rows, query string, values ...any) (n int64, err error) {
	err = rows.Each(func(v []any) error {
		n = number(v[0])
		return nil
	}, query, values...)
	return n, err
}
