package garden

import (
	"context"
	"errors"
	"fmt"
)

const selectAssignment = `SELECT assignment.id, device.name, plant, metric, since, until FROM assignment JOIN device ON device.id = assignment.device`

func assignmentOf(v []any) Assignment {
	return Assignment{ID: text(v[0]), Device: text(v[1]), Plant: text(v[2]), Metric: text(v[3]), Since: number(v[4]), Until: number(v[5])}
}

// deviceID is that of the table of devices.
func deviceID(rows Rows, device string) (int64, error) {
	id, err := count(rows, `SELECT id FROM device WHERE name = ?`, device)
	if err == nil && id == 0 {
		err = fmt.Errorf("device %.80q: %w", device, ErrNotFound)
	}
	return id, err
}

// Assign has a device serve a plant, from Since (0: now) until Until (0: from then on), and returns the assignment with its id. Others of
// that device and metric give way for that time: one that is running ends then. Where the same is said already, it stays as it is.
func (k *Keeper) Assign(ctx context.Context, a Assignment) (Assignment, error) {
	if a.Since == 0 {
		a.Since = k.now()
	}
	a.ID = newID()
	if err := a.Check(); err != nil {
		return Assignment{}, err
	}
	wanted := a
	err := k.change(ctx, "assign", func(rows Rows) error {
		a = wanted
		return assign(rows, &a)
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return a, err
}

// MoveDevice has a device serve a plant with all its metrics from now on. All that it served ends.
func (k *Keeper) MoveDevice(ctx context.Context, device, plant string) (Assignment, error) {
	wanted := Assignment{ID: newID(), Device: device, Plant: plant, Since: k.now()}
	if err := wanted.Check(); err != nil {
		return Assignment{}, err
	}
	var a Assignment
	err := k.change(ctx, "move device", func(rows Rows) error {
		a = wanted
		id, err := deviceID(rows, device)
		if err != nil {
			return err
		}
		if err := end(rows, `metric <> '' AND device = ?1`, id, a.Since); err != nil {
			return err
		}
		if err := assign(rows, &a); !errors.Is(err, errNothing) {
			return err
		}
		return nil
	})
	return a, err
}

// assign writes an assignment. errNothing: a is one that is there, and says it all.
func assign(rows Rows, a *Assignment) error {
	device, err := deviceID(rows, a.Device)
	if err != nil {
		return err
	}
	if _, err := readPlant(rows, a.Plant); err != nil {
		return fmt.Errorf("plant %.40q: %w", a.Plant, err)
	}
	var others []Assignment
	err = rows.Each(func(v []any) error {
		others = append(others, assignmentOf(v))
		return nil
	}, selectAssignment+` WHERE assignment.device = ? AND metric = ? AND since < ? AND coalesce(until, ?) > ?`, device, a.Metric, a.end(), int64(forever), a.Since)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.Plant == a.Plant && o.Since <= a.Since && o.end() >= a.end() {
			*a = o
			return errNothing
		}
	}
	if err := room(rows, "assignment", maxAssignments); err != nil {
		return err
	}
	for _, o := range others {
		if err := cut(rows, device, o, a); err != nil {
			return err
		}
	}
	return insert(rows, device, a)
}

func insert(rows Rows, device int64, a *Assignment) error {
	_, err := rows.Run(`INSERT INTO assignment (id, device, plant, metric, since, until) VALUES (?, ?, ?, ?, ?, ?)`, a.ID, device, a.Plant, a.Metric, a.Since, null(a.Until))
	return err
}

// cut takes the time of an assignment out of another.
func cut(rows Rows, device int64, o Assignment, a *Assignment) error {
	if _, err := rows.Run(`DELETE FROM assignment WHERE id = ?`, o.ID); err != nil {
		return err
	}
	before, after := o, o
	before.Until, after.Since = a.Since, a.Until
	if o.Since < a.Since {
		if err := insert(rows, device, &before); err != nil {
			return err
		}
		after.ID = newID()
	}
	if a.Until != 0 && o.end() > a.Until {
		return insert(rows, device, &after)
	}
	return nil
}

// end ends what a condition on ?1 selects at a time, UTC ms. What would begin then or later is gone.
func end(rows Rows, condition string, value any, at int64) error {
	_, err := rows.Run(`DELETE FROM assignment WHERE `+condition+` AND since >= ?2`, value, at)
	if err == nil {
		_, err = rows.Run(`UPDATE assignment SET until = ?2 WHERE `+condition+` AND (until IS NULL OR until > ?2)`, value, at)
	}
	return err
}

// Unassign ends an assignment now.
func (k *Keeper) Unassign(ctx context.Context, id string) error {
	now := k.now()
	return k.change(ctx, fmt.Sprintf("unassign %.40q", id), func(rows Rows) error {
		n, err := count(rows, `SELECT count(*) FROM assignment WHERE id = ?`, id)
		if err = changedOne(n, err); err != nil {
			return err
		}
		return end(rows, `id = ?1`, id, now)
	})
}

// UnassignDevice ends all that a device serves now. It need not serve anything.
func (k *Keeper) UnassignDevice(ctx context.Context, device string) error {
	now := k.now()
	return k.change(ctx, "unassign", func(rows Rows) error {
		id, err := deviceID(rows, device)
		if err != nil {
			return err
		}
		return end(rows, `device = ?1`, id, now)
	})
}

// Forget ends what a device serves at a time, UTC ms, and deletes what it told when it registered: it is removed. It is for the store, which has
// the keeper reload then.
func Forget(rows Rows, device string, at int64) error {
	id, err := deviceID(rows, device)
	if errors.Is(err, ErrNotFound) {
		return nil // of one that is not known there is nothing
	}
	if err != nil {
		return err
	}
	if _, err := rows.Run(`DELETE FROM registration WHERE device = ?`, id); err != nil {
		return err
	}
	return end(rows, `device = ?1`, id, at)
}
