// Package outbox keeps alerts, the state of what judges them, and what is to be told of them until each channel has taken it. A change of
// the state and the messages that it comes to are one transaction, so that nothing is told twice or forgotten over a crash. What stands in
// them is not known here: bodies are text.
package outbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// ErrNotFound says that a key opens nothing, or nothing any more.
var ErrNotFound = errors.New("not found")

const (
	// mostClosed is how many alerts are kept that are over.
	mostClosed = 2000
	// mostWaiting is how many messages Waiting returns.
	mostWaiting = 200

	keyBytes    = 16
	keyLifetime = 30 * 24 * time.Hour
)

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
	// Read runs do on what is stored at one moment.
	Read(ctx context.Context, do func(Rows) error) error
}

// Keeper keeps all of it in a database. Its methods are safe for concurrent use.
type Keeper struct {
	db  Database
	now func() time.Time
}

// NewKeeper returns one; it reads nothing before it is asked.
func NewKeeper(db Database, now func() time.Time) *Keeper { return &Keeper{db, now} }

// Alert is one that is kept.
type Alert struct {
	ID             int64
	Opened, Closed int64 // UTC ms; Closed 0: it lasts
	Body           string
}

// Entry is a message on its way to a channel.
type Entry struct {
	ID       int64 // given by the keeper
	Channel  string
	Message  string // id of the message
	Body     string
	Attempts int
	Due      int64 // UTC ms
}

// Key lets whoever has it do one thing, once.
type Key struct {
	Text   string // as in an address; it cannot be had again
	Alert  int64
	Action string
}

// NewKey draws one. It opens nothing before it is kept.
func NewKey(alert int64, action string) Key {
	b := make([]byte, keyBytes)
	_, _ = rand.Read(b) // it never fails
	return Key{base64.RawURLEncoding.EncodeToString(b), alert, action}
}

// Change is what is kept at once.
type Change struct {
	State    string // "": as it was
	Alerts   []Alert
	Messages []Entry
	Keys     []Key
}

// Kept is what a start goes on with.
type Kept struct {
	State, Learned string // "": none yet
	Open           []Alert
	Last           int64 // the highest id of an alert
}

// Names of settings.
const (
	stateSetting   = "alert.state"
	learnedSetting = "alert.learned"
)

func (k *Keeper) change(ctx context.Context, what string, do func(Rows) error) error {
	if err := k.db.Change(ctx, do); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Commit keeps a change. The same again after an error that left it in doubt changes nothing more. With messages there must be a state that
// never was before.
func (k *Keeper) Commit(ctx context.Context, c Change) error {
	expires := k.now().Add(keyLifetime).UnixMilli()
	return k.change(ctx, "keep alerts", func(rows Rows) error {
		there, err := setting(rows, stateSetting)
		if err != nil || c.State != "" && there == c.State {
			return err
		}
		run := func(text string, values ...any) {
			if err == nil {
				_, err = rows.Run(text, values...)
			}
		}
		if c.State != "" {
			run(`INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)`, stateSetting, c.State)
		}
		for _, a := range c.Alerts {
			var closed any
			if a.Closed != 0 {
				closed = a.Closed
			}
			run(`INSERT OR REPLACE INTO alert (id, opened, closed, body) VALUES (?, ?, ?, ?)`, a.ID, a.Opened, closed, a.Body)
			run(`DELETE FROM alert WHERE closed IS NOT NULL AND id <= ?`, a.ID-mostClosed)
			if a.Closed != 0 {
				run(`DELETE FROM alert_key WHERE alert = ?`, a.ID)
			}
		}
		for _, m := range c.Messages {
			run(`INSERT INTO outbox (channel, message, body, attempts, due) VALUES (?, ?, ?, 0, ?)`, m.Channel, m.Message, m.Body, m.Due)
		}
		for _, key := range c.Keys {
			run(`INSERT OR REPLACE INTO alert_key (hash, alert, action, expires) VALUES (?, ?, ?, ?)`, hash(key.Text), key.Alert, key.Action, expires)
		}
		return err
	})
}

// Load returns what is kept for a start.
func (k *Keeper) Load(ctx context.Context) (kept Kept, err error) {
	err = k.db.Read(ctx, func(rows Rows) error {
		kept = Kept{}
		var err error
		if kept.State, err = setting(rows, stateSetting); err != nil {
			return err
		}
		if kept.Learned, err = setting(rows, learnedSetting); err != nil {
			return err
		}
		err = rows.Each(func(v []any) error {
			kept.Last = number(v[0])
			return nil
		}, `SELECT max(id) FROM alert`)
		if err != nil {
			return err
		}
		return rows.Each(func(v []any) error {
			kept.Open = append(kept.Open, alertOf(v))
			return nil
		}, `SELECT id, opened, closed, body FROM alert WHERE closed IS NULL ORDER BY id`)
	})
	if err != nil {
		return Kept{}, fmt.Errorf("read alerts: %w", err)
	}
	return kept, nil
}

// Learn keeps what was learned. A power cut may take it back.
func (k *Keeper) Learn(ctx context.Context, learned string) error {
	err := k.db.ChangeSoon(ctx, func(rows Rows) error {
		_, err := rows.Run(`INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)`, learnedSetting, learned)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep what was learned of devices: %w", err)
	}
	return nil
}

// Alerts returns at most limit alerts, the newest first.
func (k *Keeper) Alerts(ctx context.Context, limit int) (list []Alert, err error) {
	err = k.db.Read(ctx, func(rows Rows) error {
		list = nil
		return rows.Each(func(v []any) error {
			list = append(list, alertOf(v))
			return nil
		}, `SELECT id, opened, closed, body FROM alert ORDER BY id DESC LIMIT ?`, int64(limit))
	})
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	return list, nil
}

// Waiting returns what waits for a channel, in the order in which it goes, the first 200.
func (k *Keeper) Waiting(ctx context.Context, channel string) (list []Entry, err error) {
	err = k.db.Read(ctx, func(rows Rows) error {
		list = nil
		return rows.Each(func(v []any) error {
			list = append(list, Entry{ID: number(v[0]), Channel: channel, Message: text(v[1]), Body: text(v[2]), Attempts: int(number(v[3])), Due: number(v[4])})
			return nil
		}, `SELECT id, message, body, attempts, due FROM outbox WHERE channel = ? ORDER BY id LIMIT ?`, channel, int64(mostWaiting))
	})
	if err != nil {
		return nil, fmt.Errorf("read what waits for channel %s: %w", channel, err)
	}
	return list, nil
}

// Sent takes away what a channel has taken, or never will.
func (k *Keeper) Sent(ctx context.Context, id int64) error {
	return k.change(ctx, "note that a message was sent", func(rows Rows) error {
		_, err := rows.Run(`DELETE FROM outbox WHERE id = ?`, id)
		return err
	})
}

// Failed notes when a message is tried again.
func (k *Keeper) Failed(ctx context.Context, id int64, attempts int, due time.Time) error {
	err := k.db.ChangeSoon(ctx, func(rows Rows) error {
		_, err := rows.Run(`UPDATE outbox SET attempts = ?, due = ? WHERE id = ?`, int64(attempts), due.UnixMilli(), id)
		return err
	})
	if err != nil {
		return fmt.Errorf("note that a message is to be sent again: %w", err)
	}
	return nil
}

// Merge puts one message in the place of several. It goes when the last of them would have gone.
func (k *Keeper) Merge(ctx context.Context, ids []int64, into Entry) error {
	return k.change(ctx, "put messages together", func(rows Rows) error {
		for _, id := range ids {
			if _, err := rows.Run(`DELETE FROM outbox WHERE id = ?`, id); err != nil {
				return err
			}
		}
		_, err := rows.Run(`INSERT INTO outbox (id, channel, message, body, attempts, due) VALUES (?, ?, ?, ?, 0, ?)`, ids[len(ids)-1],
			into.Channel, into.Message, into.Body, into.Due)
		return err
	})
}

// Prune takes away what waits for channels that there are no more, and keys whose time is over.
func (k *Keeper) Prune(ctx context.Context, channels []string) error {
	there := map[string]bool{}
	for _, name := range channels {
		there[name] = true
	}
	return k.change(ctx, "take away messages for channels that are gone", func(rows Rows) error {
		var gone []string
		err := rows.Each(func(v []any) error {
			if name := text(v[0]); !there[name] {
				gone = append(gone, name)
			}
			return nil
		}, `SELECT DISTINCT channel FROM outbox`)
		for _, name := range gone {
			if err == nil {
				_, err = rows.Run(`DELETE FROM outbox WHERE channel = ?`, name)
			}
		}
		if err == nil {
			_, err = rows.Run(`DELETE FROM alert_key WHERE expires < ?`, k.now().UnixMilli())
		}
		return err
	})
}

// Use returns what a key lets its holder do, and takes it away. The error wraps ErrNotFound.
func (k *Keeper) Use(ctx context.Context, key string) (used Key, err error) {
	there := false // nobody needs to be logged in to ask: who has no key keeps no reading waiting
	err = k.db.Read(ctx, func(rows Rows) error {
		there = false
		return rows.Each(func([]any) error {
			there = true
			return nil
		}, `SELECT 1 FROM alert_key WHERE hash = ? AND expires >= ?`, hash(key), k.now().UnixMilli())
	})
	if err == nil && !there {
		err = ErrNotFound
	}
	if err != nil {
		return Key{}, err
	}
	err = k.change(ctx, "use a key", func(rows Rows) error {
		used = Key{}
		err := rows.Each(func(v []any) error {
			used = Key{Alert: number(v[0]), Action: text(v[1])}
			return nil
		}, `SELECT alert, action FROM alert_key WHERE hash = ? AND expires >= ?`, hash(key), k.now().UnixMilli())
		if err == nil && used.Action == "" {
			err = ErrNotFound
		}
		if err == nil {
			_, err = rows.Run(`DELETE FROM alert_key WHERE hash = ?`, hash(key))
		}
		return err
	})
	return used, err
}

func setting(rows Rows, name string) (value string, err error) {
	err = rows.Each(func(v []any) error {
		value = text(v[0])
		return nil
	}, `SELECT value FROM setting WHERE name = ?`, name)
	return value, err
}

func hash(key string) []byte {
	h := sha256.Sum256([]byte(key))
	return h[:]
}

func alertOf(v []any) Alert {
	return Alert{ID: number(v[0]), Opened: number(v[1]), Closed: number(v[2]), Body: text(v[3])}
}

// What a row has in place of a value of its kind is nothing.
func text(v any) string  { s, _ := v.(string); return s }
func number(v any) int64 { n, _ := v.(int64); return n }
