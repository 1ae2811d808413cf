package people

import (
	"context"
	"fmt"
	"time"
)

// maxSessions is how many one account has; another ends the one that was seen least recently.
const maxSessions = 50

// Session is somebody who is logged in. The cookie is not kept.
type Session struct {
	Account                string
	Created, Seen, Expires int64 // UTC ms; Seen to the minute
}

func sessionOf(v []any) Session {
	return Session{Account: text(v[0]), Created: number(v[1]), Seen: number(v[2]), Expires: number(v[3])}
}

// MakeSession logs an account in for a time, and returns the cookie, which cannot be had again. The error wraps ErrNotFound where there is no
// such account.
func (k *Keeper) MakeSession(ctx context.Context, account string, lifetime time.Duration) (cookie string, s Session, err error) {
	cookie = newSecret()
	now := k.now()
	s = Session{Account: account, Created: now, Seen: now, Expires: now + lifetime.Milliseconds()}
	err = k.db.Change(ctx, func(rows Rows) error {
		n, err := count(rows, `SELECT count(*) FROM account WHERE name = ?`, account)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err == nil {
			_, err = rows.Run(`DELETE FROM web_session WHERE hash IN
				(SELECT hash FROM web_session WHERE account = ? ORDER BY seen DESC LIMIT -1 OFFSET ?)`, account, int64(maxSessions-1))
		}
		if err == nil {
			_, err = rows.Run(`INSERT INTO web_session (hash, account, created, seen, expires) VALUES (?, ?, ?, ?, ?)`,
				hash(nil, cookie), account, s.Created, s.Seen, s.Expires)
		}
		return err
	})
	if err != nil {
		return "", Session{}, fmt.Errorf("log in %.80q: %w", account, err)
	}
	return cookie, s, nil
}

// Session returns that of a cookie. The error wraps ErrNotFound where there is none, or none any more.
func (k *Keeper) Session(ctx context.Context, cookie string) (s Session, err error) {
	found := false
	err = k.db.Read(ctx, func(rows Rows) error {
		found = false
		return rows.Each(func(v []any) error {
			s, found = sessionOf(v), true
			return nil
		}, `SELECT account, created, seen, expires FROM web_session WHERE hash = ?`, hash(nil, cookie))
	})
	switch {
	case err != nil:
		return Session{}, fmt.Errorf("read session: %w", err)
	case !found, !k.options.Unsure() && s.Expires <= k.now():
		return Session{}, fmt.Errorf("session: %w", ErrNotFound)
	}
	return s, nil
}

// Touch notes that the account of a cookie was seen, where that was not noted for a minute, and lets the session last for a time from now; 0
// leaves its end as it is.
func (k *Keeper) Touch(ctx context.Context, cookie string, s Session, lifetime time.Duration) error {
	now := k.now()
	if now-s.Seen < touchEvery.Milliseconds() || k.options.Unsure() {
		return nil
	}
	expires := s.Expires
	if lifetime > 0 {
		expires = now + lifetime.Milliseconds()
	}
	err := k.db.ChangeSoon(ctx, func(rows Rows) error {
		_, err := rows.Run(`UPDATE web_session SET seen = ?, expires = ? WHERE hash = ?`, now, expires, hash(nil, cookie))
		return err
	})
	if err != nil {
		return fmt.Errorf("note that %.80q was seen: %w", s.Account, err)
	}
	return nil
}

// Sessions returns those of an account that have not expired, the one that was seen last first.
func (k *Keeper) Sessions(ctx context.Context, account string) (list []Session, err error) {
	after := k.now()
	if k.options.Unsure() {
		after = 0
	}
	err = k.db.Read(ctx, func(rows Rows) error {
		list = nil
		return rows.Each(func(v []any) error {
			list = append(list, sessionOf(v))
			return nil
		}, `SELECT account, created, seen, expires FROM web_session WHERE account = ? AND expires > ? ORDER BY seen DESC`, account, after)
	})
	if err != nil {
		return nil, fmt.Errorf("read sessions of %.80q: %w", account, err)
	}
	return list, nil
}

// EndSession logs out who has a cookie. There need not be anybody.
func (k *Keeper) EndSession(ctx context.Context, cookie string) error {
	return k.end(ctx, "log out", `DELETE FROM web_session WHERE hash = ?`, hash(nil, cookie))
}

// EndSessions logs an account out everywhere.
func (k *Keeper) EndSessions(ctx context.Context, account string) error {
	return k.end(ctx, fmt.Sprintf("log out %.80q", account), `DELETE FROM web_session WHERE account = ?`, account)
}

func (k *Keeper) end(ctx context.Context, what, text string, value any) error {
	err := k.db.Change(ctx, func(rows Rows) error {
		_, err := rows.Run(text, value)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Expire deletes the sessions whose time is over, and returns how many there were. While the clock is unsure there are none.
func (k *Keeper) Expire(ctx context.Context) (n int64, err error) {
	if k.options.Unsure() {
		return 0, nil
	}
	now, due := k.now(), int64(0)
	err = k.db.Read(ctx, func(rows Rows) (err error) { // mostly nothing is to be written
		due, err = count(rows, `SELECT count(*) FROM web_session WHERE expires <= ?`, now)
		return err
	})
	if err == nil && due > 0 {
		err = k.db.Change(ctx, func(rows Rows) (err error) {
			n, err = rows.Run(`DELETE FROM web_session WHERE expires <= ?`, now)
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("delete expired sessions: %w", err)
	}
	return n, nil
}
