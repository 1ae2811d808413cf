package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/outbox"
	"github.com/plantops/plantops/store/people"
)

// What stands where, and who may use the web page, is kept by packages of their own in tables that are lent to them: what they write
// goes through the one writer, as everything else.

// WebRole is what somebody may do on the web page and in its API.
type WebRole = people.Role

// Garden keeps plants, zones, which device serves which plant, thresholds, notes, and what devices told when they registered.
func (s *Store) Garden() *garden.Keeper { return s.garden }

// People keeps bearer tokens and sessions of the web page.
func (s *Store) People() *people.Keeper { return s.people }

// Outbox keeps alerts, and what is to be told of them.
func (s *Store) Outbox() *outbox.Keeper { return outbox.NewKeeper(lent{s}, s.options.Now) }

func (s *Store) keep() {
	o := &s.options
	s.garden = garden.NewKeeper(lent{s}, garden.Options{Now: o.Now, ReadOnly: o.ReadOnly})
	s.people = people.NewKeeper(lent{s}, people.Options{Now: o.Now, Unsure: o.Unsure, Check: CheckID, ReadOnly: o.ReadOnly})
}

// lent is the database as it is lent.
type lent struct{ s *Store }

// Change implements garden.Database, outbox.Database and people.Database.
func (l lent) Change(ctx context.Context, do func(garden.Rows) error) error {
	return l.s.lend(ctx, do, false)
}

// ChangeSoon implements outbox.Database and people.Database.
func (l lent) ChangeSoon(ctx context.Context, do func(people.Rows) error) error {
	return l.s.lend(ctx, do, true)
}

func (s *Store) lend(ctx context.Context, do func(garden.Rows) error, lazy bool) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	return s.transact(func() error {
		s.tx.lazy = lazy
		return do(writing{s.w})
	})
}

// Read implements garden.Database, outbox.Database and people.Database.
func (l lent) Read(ctx context.Context, do func(garden.Rows) error) error {
	for {
		db := l.s.db.Load()
		err := l.s.lendToRead(ctx, db, do)
		if err != nil && l.s.db.Load() != db {
			continue // it was made anew
		}
		return explain(err)
	}
}

func (s *Store) lendToRead(ctx context.Context, db *sql.DB, do func(garden.Rows) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return s.suspect(err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	return do(reading{ctx, s, tx})
}

// writing is the running write transaction.
type writing struct{ w *writer }

// Run implements garden.Rows.
func (r writing) Run(text string, values ...any) (changed int64, err error) {
	q, err := r.w.statement(text)
	if err != nil {
		return 0, err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the statement has said
	result, err := q.exec(driverValues(values)...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Each implements garden.Rows.
func (r writing) Each(row func(values []any) error, text string, values ...any) error {
	q, err := r.w.statement(text)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	var list []any
	return q.query(func(values []driver.Value) error {
		list = list[:0]
		for _, v := range values {
			list = append(list, v)
		}
		return row(list)
	}, driverValues(values)...)
}

func driverValues(values []any) []driver.Value {
	list := make([]driver.Value, len(values))
	for i, v := range values {
		list[i] = v
	}
	return list
}

// reading is a read transaction.
type reading struct {
	ctx context.Context
	s   *Store
	tx  *sql.Tx
}

// Run implements garden.Rows. Who reads writes nothing.
func (r reading) Run(string, ...any) (int64, error) {
	return 0, errors.New("this transaction only reads")
}

// Each implements garden.Rows.
func (r reading) Each(row func(values []any) error, text string, values ...any) error {
	var list, to []any
	rows, err := r.tx.QueryContext(r.ctx, text, values...)
	if err != nil {
		return r.s.suspect(err)
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	list = make([]any, len(columns))
	for i := range list {
		to = append(to, &list[i])
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		if err := row(list); err != nil {
			return err
		}
	}
	return r.s.suspect(rows.Err())
}

// RegisterDevice makes the account of a device that registers by itself, or gives the one that has its hardware address another secret: the
// old one ends at once. The secret cannot be had again. The error may be a *garden.InvalidError.
func (s *Store) RegisterDevice(ctx context.Context, r garden.Registration) (device, secret string, err error) {
	fail := func(err error) (string, string, error) { return "", "", fmt.Errorf("register device: %w", err) }
	if err := r.Check(); err != nil {
		return fail(err)
	}
	for range registerAttempts {
		known, err := s.garden.RegistrationOf(ctx, r.MAC)
		if r.Device = known.Device; errors.Is(err, ErrNotFound) {
			r.Device, err = garden.NewDeviceID(), nil
		}
		if err != nil {
			return fail(err)
		}
		secret, err = s.register(ctx, r)
		if errors.Is(err, errChanged) {
			continue // somebody with the same address was faster, or it was removed
		}
		if err != nil {
			return fail(err)
		}
		return r.Device, secret, nil
	}
	return fail(errChanged)
}

// registerAttempts is how often somebody else may come first with the same address.
const registerAttempts = 10

// register is RegisterDevice for a device that is known by its address, or not. errChanged: that is not so any more.
func (s *Store) register(ctx context.Context, r garden.Registration) (secret string, err error) {
	now := s.options.Now().UnixMilli()
	err = s.changeAccount(ctx, r.Device, func(before *credential) (after *credential, err error) {
		rows, owner := writing{s.w}, ""
		err = rows.Each(func(v []any) error {
			owner, _ = v[0].(string)
			return nil
		}, `SELECT device.name FROM registration JOIN device ON device.id = registration.device WHERE mac = ?`, r.MAC)
		switch {
		case err != nil:
			return nil, err
		case owner != "" && owner != r.Device, owner == "" && before != nil:
			return nil, errChanged
		case before == nil:
			if err := garden.RoomToRegister(rows); err != nil {
				return nil, err
			}
			secret, after = newSecret(Account{Name: r.Device, Role: RoleDevice, Publish: deviceTopics, Subscribe: deviceTopics, Created: now})
			err = s.insertDevice(after)
		default:
			secret, after = newSecret(before.account)
			err = s.w.updateSecret.run(algorithmSHA256, after.salt, after.hash, now, r.Device)
		}
		if err != nil {
			return nil, err
		}
		return after, garden.Register(rows, r, now)
	})
	return secret, err
}

// letsIn reports whether a table says who may do what: a row of it that may have been deleted is not to come back.
func letsIn(table string) bool {
	switch table {
	case "account", "rule", "api_token", "web_session":
		return true
	}
	return false
}

// rememberGarden writes what is in memory of tables that have lost something.
func (c *carrier) rememberGarden() error {
	rows := writing{c.to.w}
	for _, name := range []string{"zone", "plant", "threshold", "assignment"} {
		if t := c.table(name); t.damaged || t.refused > 0 {
			if err := c.memory.garden.Remember(rows); err != nil {
				return err
			}
			break
		}
	}
	return c.memory.people.Remember(rows)
}

// completeGarden makes what belongs together whole again after tables have lost rows. Plants and zones come back without their names, so
// that what is theirs stays theirs.
func (c *carrier) completeGarden(ctx context.Context) error {
	const plants = `FROM (SELECT plant FROM threshold UNION SELECT plant FROM assignment UNION SELECT plant FROM note WHERE plant IS NOT NULL)
		WHERE plant NOT IN (SELECT id FROM plant)`
	const zones = `FROM (SELECT zone FROM plant WHERE zone IS NOT NULL UNION SELECT zone FROM note WHERE zone IS NOT NULL)
		WHERE zone NOT IN (SELECT id FROM zone)`
	for _, step := range []struct{ what, from, mend string }{
		{"names of plants", plants, `INSERT INTO plant (id, name, created) SELECT plant, 'salvaged-' || substr(plant, 1, 8), 0 ` + plants},
		{"names of zones", zones, `INSERT INTO zone (id, kind, name, created) SELECT zone, 'other', 'salvaged-' || substr(zone, 1, 8), 0 ` + zones},
	} {
		n, err := c.to.w.number(`SELECT count(*) ` + step.from)
		if err == nil && n > 0 {
			c.lost = append(c.lost, fmt.Sprintf("%d %s", n, step.what))
			err = c.to.w.run(ctx, step.mend)
		}
		if err != nil {
			return err
		}
	}
	return c.to.w.run(ctx, `DELETE FROM web_session WHERE account NOT IN (SELECT name FROM account)`)
}
