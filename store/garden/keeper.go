package garden

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
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
	// Read runs do on what is stored at one moment. It may run it again where it did not come to its end: the database was made anew.
	Read(ctx context.Context, do func(Rows) error) error
}

// Options say how a garden is kept.
type Options struct {
	Now      func() time.Time
	ReadOnly bool // another process may write: what was read is not kept
}

// Keeper keeps the garden in a database. Its methods are safe for concurrent use. Where one is not there, the error wraps ErrNotFound;
// what is not as it may be is an *InvalidError; what goes beyond a bound wraps ErrMany.
type Keeper struct {
	db      Database
	options Options

	loading sync.Mutex
	plan    atomic.Pointer[planned]
}

// planned is a plan, or why there is none.
type planned struct {
	*Plan
	err error
}

// NewKeeper returns one; it reads nothing before Reload, or before it is asked.
func NewKeeper(db Database, o Options) *Keeper { return &Keeper{db: db, options: o} }

func (k *Keeper) now() int64 { return k.options.Now().UnixMilli() }

// Plan returns what stands where now. It reads memory only, unless another process may write.
func (k *Keeper) Plan(ctx context.Context) (*Plan, error) {
	p := k.plan.Load()
	if p == nil || p.err != nil || k.options.ReadOnly {
		if err := k.Reload(ctx); err != nil {
			return nil, err
		}
		p = k.plan.Load()
	}
	return p.Plan, p.err
}

// Remembered is the plan that was read last, nil if none was.
func (k *Keeper) Remembered() *Plan {
	if p := k.plan.Load(); p != nil {
		return p.Plan
	}
	return nil
}

// Reload reads the plan anew.
func (k *Keeper) Reload(ctx context.Context) error {
	k.loading.Lock() // who reads last has what was written last
	defer k.loading.Unlock()
	p := &planned{Plan: k.Remembered()}
	if p.err = k.db.Read(ctx, func(rows Rows) error {
		plan, err := readPlan(rows)
		if err == nil {
			p.Plan = plan
		}
		return err
	}); p.err != nil {
		p.err = fmt.Errorf("read the garden: %w", p.err)
	}
	k.plan.Store(p)
	return p.err
}

// change is Change, and has readers told.
func (k *Keeper) change(ctx context.Context, what string, do func(Rows) error) error {
	if err := k.db.Change(ctx, do); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_ = k.Reload(context.WithoutCancel(ctx)) // it is stored; who asks for the plan is told
	return nil
}

// readPlan reads everything but notes.
func readPlan(rows Rows) (*Plan, error) {
	var zones []Zone
	err := rows.Each(func(v []any) error {
		zones = append(zones, zoneOf(v))
		return nil
	}, `SELECT id, kind, name, created FROM zone`)
	if err != nil {
		return nil, err
	}
	thresholds := map[string][]Threshold{}
	err = rows.Each(func(v []any) error {
		thresholds[text(v[0])] = append(thresholds[text(v[0])], Threshold{text(v[1]), float(v[2]), float(v[3])})
		return nil
	}, `SELECT plant, metric, min, max FROM threshold ORDER BY plant, metric`)
	if err != nil {
		return nil, err
	}
	var plants []Plant
	err = rows.Each(func(v []any) error {
		p := plantOf(v)
		p.Thresholds = thresholds[p.ID]
		plants = append(plants, p)
		return nil
	}, selectPlant)
	if err != nil {
		return nil, err
	}
	var assignments []Assignment
	err = rows.Each(func(v []any) error {
		assignments = append(assignments, assignmentOf(v))
		return nil
	}, selectAssignment)
	return NewPlan(zones, plants, assignments), err
}

// What a row has in place of a value of its kind is nothing.
func text(v any) string  { s, _ := v.(string); return s }
func number(v any) int64 { n, _ := v.(int64); return n }

func float(v any) *float64 {
	switch n := v.(type) {
	case float64:
		return &n
	case int64:
		f := float64(n)
		return &f
	}
	return nil
}

// null is nil for what is not there.
func null[T comparable](v T) any {
	var none T
	if v == none {
		return nil
	}
	return v
}

func nullFloat(v *float64) any {
	if v == nil {
		return nil
	}
	return *v
}

// newID is a UUID of version 4.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// count is a number that a query answers.
func count(rows Rows, query string, values ...any) (n int64, err error) {
	err = rows.Each(func(v []any) error {
		n = number(v[0])
		return nil
	}, query, values...)
	return n, err
}

// room is an error if a table has so many rows already.
func room(rows Rows, table string, most int64) error {
	n, err := count(rows, `SELECT count(*) FROM `+table)
	if err == nil && n >= most {
		err = fmt.Errorf("%w: there are %d already, which is all that are kept", ErrMany, n)
	}
	return err
}

// changedOne makes of a statement that met no row an ErrNotFound.
func changedOne(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// errNothing says that there is nothing to change.
var errNothing = errors.New("nothing to change")

// Zones

func zoneOf(v []any) Zone {
	return Zone{ID: text(v[0]), Kind: Kind(text(v[1])), Name: text(v[2]), Created: number(v[3])}
}

// AddZone returns the zone with its id.
func (k *Keeper) AddZone(ctx context.Context, z Zone) (Zone, error) {
	z.ID, z.Created = newID(), k.now()
	if err := z.Check(); err != nil {
		return Zone{}, err
	}
	err := k.change(ctx, "add zone", func(rows Rows) error {
		if err := room(rows, "zone", maxZones); err != nil {
			return err
		}
		_, err := rows.Run(`INSERT INTO zone (id, kind, name, created) VALUES (?, ?, ?, ?)`, z.ID, string(z.Kind), z.Name, z.Created)
		return err
	})
	return z, err
}

// ChangeZone changes kind and name of a zone; change gets it as it is. An error of change is returned, and nothing is changed.
func (k *Keeper) ChangeZone(ctx context.Context, id string, change func(*Zone) error) (z Zone, err error) {
	err = k.change(ctx, fmt.Sprintf("change zone %.40q", id), func(rows Rows) error {
		found := false
		err := rows.Each(func(v []any) error {
			z, found = zoneOf(v), true
			return nil
		}, `SELECT id, kind, name, created FROM zone WHERE id = ?`, id)
		if err == nil && !found {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		before := z
		if err := change(&z); err != nil {
			return err
		}
		z.ID, z.Created = before.ID, before.Created
		if err := z.Check(); err != nil {
			return err
		}
		_, err = rows.Run(`UPDATE zone SET kind = ?, name = ? WHERE id = ?`, string(z.Kind), z.Name, id)
		return err
	})
	return z, err
}

// DeleteZone deletes a zone with its notes. Its plants are in none then.
func (k *Keeper) DeleteZone(ctx context.Context, id string) error {
	return k.change(ctx, fmt.Sprintf("delete zone %.40q", id), func(rows Rows) error {
		return changedOne(rows.Run(`DELETE FROM zone WHERE id = ?`, id))
	})
}

// Remember writes the plan that was read last into a new database, where it has lost parts of it.
func (k *Keeper) Remember(rows Rows) error {
	p := k.Remembered()
	if p == nil {
		return nil
	}
	run := func(text string, values ...any) (err error) {
		_, err = rows.Run(text, values...)
		return err
	}
	for _, z := range p.zones {
		if err := run(`INSERT OR IGNORE INTO zone (id, kind, name, created) VALUES (?, ?, ?, ?)`, z.ID, string(z.Kind), z.Name, z.Created); err != nil {
			return err
		}
	}
	for i := range p.plants {
		one := &p.plants[i]
		known, err := count(rows, `SELECT count(*) FROM plant WHERE id = ?`, one.ID)
		if err == nil && known == 0 {
			err = run(`INSERT INTO plant (id, name, created, deleted) VALUES (?, ?, ?, ?)`, one.ID, one.Name, one.Created, null(one.Deleted))
		}
		if err == nil {
			err = writePlant(rows, one)
		}
		if err != nil {
			return err
		}
		for _, a := range p.ofPlant[one.ID] {
			if err := run(`INSERT OR IGNORE INTO assignment (id, device, plant, metric, since, until) SELECT ?, id, ?, ?, ?, ? FROM device WHERE name = ?`,
				a.ID, a.Plant, a.Metric, a.Since, null(a.Until), a.Device); err != nil {
				return err
			}
		}
	}
	return nil
}
