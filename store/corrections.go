package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/plantops/plantops/store/derive"
	"github.com/plantops/plantops/store/history"
)

// maxCorrections of each sort: they are all in memory while readings are read.
const maxCorrections = 10_000

var errManyCorrections = fmt.Errorf("there are %d already", maxCorrections)

// Corrections is what is done to readings when they are read. Each list is in order of coming, or of name.
type Corrections struct {
	Calibrations []derive.Calibration
	Voids        []derive.Void
	Derived      []derive.Derived
}

type correctionStatements struct {
	insertCalibration, insertVoid, undoVoid, setDerived, dropDerived *statement
}

func (q *correctionStatements) all() []compile {
	return []compile{
		{&q.insertCalibration, `INSERT INTO calibration (device, metric, version, valid_from, kind, body, created, note)
			SELECT ?1, ?2, 1 + coalesce(max(version), 0), ?3, ?4, ?5, ?6, ?7 FROM calibration WHERE device = ?1 AND metric = ?2
			HAVING (SELECT count(*) FROM calibration) < ?8 RETURNING version`},
		{&q.insertVoid, `INSERT INTO void (device, metric, first, last, reason, created)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE (SELECT count(*) FROM void) < ?7 RETURNING id`},
		{&q.undoVoid, `UPDATE void SET undone = ? WHERE id = ? AND undone = 0 RETURNING id`},
		{&q.setDerived, `INSERT INTO derived (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body`},
		{&q.dropDerived, `DELETE FROM derived WHERE name = ? RETURNING 1`},
	}
}

// Calibrate corrects a metric of a device from a time on, until the next calibration of it, and returns the calibration with the
// version that it got: of several from the same time the last one counts. The device must be known; the error is ErrNotFound
// otherwise. A derived metric has no calibration.
func (s *Store) Calibrate(ctx context.Context, c derive.Calibration) (derive.Calibration, error) {
	c.Created = s.options.Now().UnixMilli()
	err := c.Check()
	if err == nil {
		err = s.correct(ctx, c.Device, c.Metric, func(device int64, metric driver.Value) error {
			all, err := s.readCorrections(ctx)
			if err != nil {
				return err
			}
			for _, d := range all.Derived {
				if d.Name == c.Metric {
					return errors.New("it is derived: calibrate what it is derived from")
				}
			}
			body, err := json.Marshal(c.Points)
			if err != nil {
				return err
			}
			version, err := s.w.insertCalibration.number(device, metric, c.From, c.Points.Kind(), string(body), c.Created, c.Note, int64(maxCorrections))
			if err == nil && version == 0 {
				err = errManyCorrections
			}
			c.Version = int(version)
			return err
		})
	}
	if err != nil {
		return c, fmt.Errorf("calibrate %s of %s: %w", c.Metric, c.Device, err)
	}
	return c, nil
}

// Void takes readings of a device, or of one metric of it, out of what is read, and returns the range with its id. They stay
// stored. The device must be known; the error is ErrNotFound otherwise.
func (s *Store) Void(ctx context.Context, v derive.Void) (derive.Void, error) {
	v.Created, v.Undone = s.options.Now().UnixMilli(), 0
	err := v.Check()
	if err == nil {
		err = s.correct(ctx, v.Device, v.Metric, func(device int64, metric driver.Value) (err error) {
			last := v.To - 1
			if v.To == 0 {
				last = math.MaxInt64
			}
			v.ID, err = s.w.insertVoid.number(device, metric, v.From, last, v.Reason, v.Created, int64(maxCorrections))
			if err == nil && v.ID == 0 {
				err = errManyCorrections
			}
			return err
		})
	}
	if err != nil {
		return v, fmt.Errorf("void readings of %s: %w", v.Device, err)
	}
	return v, nil
}

// Unvoid takes a voided range back. ErrNotFound: there is none of that id, or not any more.
func (s *Store) Unvoid(ctx context.Context, id int64) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.transact(func() error {
		undone, err := s.w.undoVoid.number(s.options.Now().UnixMilli(), id)
		if err == nil && undone == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("voided range %d: %w", id, err)
	}
	_ = s.changed(ctx) // readers are told
	return nil
}

// correct runs change in a transaction with the ids of a device and of a metric, which need not have come yet; "" is none.
func (s *Store) correct(ctx context.Context, device, metric string, change func(device int64, metric driver.Value) error) error {
	if len(metric) > maxMetricNameBytes || !utf8.ValidString(metric) {
		return fmt.Errorf("metric %.40q: its name must be UTF-8 and at most %d bytes", metric, maxMetricNameBytes)
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.transact(func() error {
		d, known := s.state.devices[device]
		if !known || device == "" {
			return fmt.Errorf("device %q: %w", device, ErrNotFound)
		}
		if metric == "" {
			return change(d.id, nil)
		}
		id, known := s.state.metrics[metric]
		if nobody := s.state.devices[""]; !known {
			if nobody.metrics >= maxCorrections {
				return errManyCorrections
			}
			var err error
			if id, err = s.createMetric(nobody, metric); err != nil {
				return err
			}
		}
		return change(d.id, int64(id))
	})
	if err == nil {
		_ = s.changed(ctx) // readers are told
	}
	return err
}

// Derive adds a derived metric, or puts another formula in the place of the one of that name. No device may send a metric
// of its name already: ErrExists.
func (s *Store) Derive(ctx context.Context, d derive.Derived) error {
	fail := func(err error) error { return fmt.Errorf("derived metric %q: %w", d.Name, err) }
	if err := d.Check(); err != nil {
		return err
	}
	if len(d.Name) > maxMetricNameBytes {
		return fail(fmt.Errorf("its name has more than %d bytes", maxMetricNameBytes))
	}
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.transact(func() error {
		all, err := s.readCorrections(ctx)
		if err != nil {
			return err
		}
		list := []derive.Derived{d}
		for _, other := range all.Derived {
			if other.Name != d.Name {
				list = append(list, other)
			}
		}
		if len(list) > maxCorrections {
			return errManyCorrections
		}
		if _, err := derive.New(nil, nil, list); err != nil {
			return err
		}
		sent := int64(0)
		err = s.queryRow(ctx, `SELECT count(*) FROM metric WHERE name = ? AND device <> 0`, d.Name).Scan(&sent)
		if err == nil && sent > 0 {
			err = fmt.Errorf("a metric of that name, which a device sends, %w", ErrExists)
		}
		if err != nil {
			return err
		}
		return s.w.setDerived.run(d.Name, d.String())
	})
	if err != nil {
		return fail(err)
	}
	_ = s.changed(ctx) // readers are told
	return nil
}

// RemoveDerived takes a derived metric away. ErrNotFound: there is none of that name.
func (s *Store) RemoveDerived(ctx context.Context, name string) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	err := s.transact(func() error {
		there, err := s.w.dropDerived.number(name)
		if err == nil && there == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("derived metric %q: %w", name, err)
	}
	_ = s.changed(ctx) // readers are told
	return nil
}

// Corrections returns all of them, with what is undone or replaced. A row that cannot be read is ErrDamaged: readings that it was for
// would be wrong.
func (s *Store) Corrections(ctx context.Context) (Corrections, error) {
	if err := s.refresh(ctx); err != nil {
		return Corrections{}, fmt.Errorf("read corrections: %w", err)
	}
	return s.readCorrections(ctx)
}

// readCorrections asks the state for names, and so no table but those of corrections: what else is damaged is in nobody's way.
func (s *Store) readCorrections(ctx context.Context) (c Corrections, err error) {
	for _, read := range []func(context.Context, *Corrections) error{s.readCalibrations, s.readVoids, s.readDerived} {
		if err := read(ctx, &c); err != nil {
			return c, fmt.Errorf("read corrections: %w", explain(err))
		}
	}
	slices.SortStableFunc(c.Calibrations, func(a, b derive.Calibration) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Version, b.Version))
	})
	return c, nil
}

// correctionNames are those of a device and a metric (0: none); false is of a device that is not there any more.
func (s *Store) correctionNames(device, metric int64) (of, name string, known bool) {
	s.state.mu.RLock()
	defer s.state.mu.RUnlock()
	d := s.state.byID[device]
	if d == nil || metric < 0 || metric > math.MaxUint32 {
		return "", "", false
	}
	name, known = s.state.names[uint32(metric)]
	return d.name, name, known || metric == 0
}

func (s *Store) readCalibrations(ctx context.Context, c *Corrections) error {
	return s.each(ctx, func(scan func(...any) error) error {
		var one derive.Calibration
		var device, metric int64
		var body string
		err := scan(&device, &metric, &one.Version, &one.From, &body, &one.Created, &one.Note)
		known := false
		if one.Device, one.Metric, known = s.correctionNames(device, metric); err != nil || !known {
			return err
		}
		if bad := json.Unmarshal([]byte(body), &one.Points); bad != nil {
			return fmt.Errorf("%w: calibration %d of %s, %s: %w", ErrDamaged, one.Version, one.Device, one.Metric, bad)
		}
		c.Calibrations = append(c.Calibrations, one)
		return nil
	}, `SELECT device, metric, version, valid_from, body, created, note FROM calibration`)
}

func (s *Store) readVoids(ctx context.Context, c *Corrections) error {
	return s.each(ctx, func(scan func(...any) error) error {
		var one derive.Void
		var device, metric int64
		err := scan(&one.ID, &device, &metric, &one.From, &one.To, &one.Reason, &one.Created, &one.Undone)
		known := false
		if one.Device, one.Metric, known = s.correctionNames(device, metric); err != nil || !known {
			return err
		}
		if one.To == math.MaxInt64 {
			one.To = 0
		} else {
			one.To++
		}
		c.Voids = append(c.Voids, one)
		return nil
	}, `SELECT id, device, coalesce(metric, 0), first, last, reason, created, undone FROM void ORDER BY id`)
}

func (s *Store) readDerived(ctx context.Context, c *Corrections) error {
	return s.each(ctx, func(scan func(...any) error) error {
		var name, body string
		if err := scan(&name, &body); err != nil {
			return err
		}
		one, bad := derive.ParseFormula(body)
		if bad != nil {
			return fmt.Errorf("%w: derived metric %q: %w", ErrDamaged, name, bad)
		}
		c.Derived = append(c.Derived, one)
		return nil
	}, `SELECT name, body FROM derived ORDER BY name`)
}

// rules are the corrections in the form in which they are applied, or why they cannot be.
type rules struct {
	*derive.Rules
	err error
}

// none tells that readings are read as they came.
func (r *rules) none() bool { return r.err == nil && r.Empty() }

// loadRules reads the corrections. What is damaged of them is in nobody's way until readings are read.
func (s *Store) loadRules(ctx context.Context) rules {
	c, err := s.readCorrections(ctx)
	if err != nil {
		return rules{err: err}
	}
	made, err := derive.New(c.Calibrations, c.Voids, c.Derived)
	return rules{made, err}
}

// changed makes the rules those that are committed now. The error is one of the file; what a row says wrong is the readers'.
func (s *Store) changed(ctx context.Context) error {
	r := s.loadRules(ctx)
	s.rules.Store(&r)
	if code(r.err) != 0 {
		return r.err
	}
	return nil
}

// View returns what is stored now, with corrections, but to queries that are Raw. It must be closed; Close of the store closes it too.
func (s *Store) View(ctx context.Context) (history.View, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	return s.corrected(ctx, v)
}

// corrected applies the rules to a view, which it closes after an error.
func (s *Store) corrected(ctx context.Context, v *view) (history.View, error) {
	r := s.rules.Load()
	if s.options.ReadOnly { // another process may have written them
		fresh := s.loadRules(ctx)
		r = &fresh
	}
	if r.err != nil {
		_ = v.Close() // the first error is the one that matters
		return nil, fmt.Errorf("read readings: %w", r.err)
	}
	return r.View(v, time.Local), nil // days are those of where the server is
}
