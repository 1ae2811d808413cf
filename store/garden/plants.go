package garden

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

const selectPlant = `SELECT id, name, species, zone, x, y, created, deleted FROM plant`

func plantOf(v []any) Plant {
	p := Plant{ID: text(v[0]), Name: text(v[1]), Species: text(v[2]), Zone: text(v[3]), Created: number(v[6]), Deleted: number(v[7])}
	if x, y := float(v[4]), float(v[5]); x != nil && y != nil {
		p.Position = &Position{*x, *y}
	}
	return p
}

// readPlant reads a plant that is there.
func readPlant(rows Rows, id string) (p Plant, err error) {
	found := false
	err = rows.Each(func(v []any) error {
		p, found = plantOf(v), true
		return nil
	}, selectPlant+` WHERE id = ? AND deleted IS NULL`, id)
	if err == nil && !found {
		err = ErrNotFound
	}
	if err != nil {
		return p, err
	}
	err = rows.Each(func(v []any) error {
		p.Thresholds = append(p.Thresholds, Threshold{text(v[0]), float(v[1]), float(v[2])})
		return nil
	}, `SELECT metric, min, max FROM threshold WHERE plant = ? ORDER BY metric`, id)
	return p, err
}

// AddPlant returns the plant with its id.
func (k *Keeper) AddPlant(ctx context.Context, p Plant) (Plant, error) {
	p = p.clone()
	p.ID, p.Created, p.Deleted = newID(), k.now(), 0
	if err := p.Check(); err != nil {
		return Plant{}, err
	}
	err := k.change(ctx, "add plant", func(rows Rows) error {
		if err := errors.Join(room(rows, "plant", maxPlants), zoneIsThere(rows, p.Zone)); err != nil {
			return err
		}
		if _, err := rows.Run(`INSERT INTO plant (id, name, created) VALUES (?, ?, ?)`, p.ID, p.Name, p.Created); err != nil {
			return err
		}
		return writePlant(rows, &p)
	})
	return p, err
}

// ChangePlant changes a plant, but for its id and its times; change gets it as it is. An error of change is returned, and nothing is
// changed.
func (k *Keeper) ChangePlant(ctx context.Context, id string, change func(*Plant) error) (p Plant, err error) {
	err = k.change(ctx, fmt.Sprintf("change plant %.40q", id), func(rows Rows) (err error) {
		if p, err = readPlant(rows, id); err != nil {
			return err
		}
		before := p
		if err := change(&p); err != nil {
			return err
		}
		p.ID, p.Created, p.Deleted = before.ID, before.Created, 0
		if err := p.Check(); err != nil {
			return err
		}
		if p.Zone != before.Zone {
			if err := zoneIsThere(rows, p.Zone); err != nil {
				return err
			}
		}
		return writePlant(rows, &p)
	})
	return p, err
}

func zoneIsThere(rows Rows, id string) error {
	if id == "" {
		return nil
	}
	n, err := count(rows, `SELECT count(*) FROM zone WHERE id = ?`, id)
	if err == nil && n == 0 {
		err = &InvalidError{"plant", "zone", fmt.Sprintf("there is no zone %.40q", id)}
	}
	return err
}

// writePlant writes what may change of a plant.
func writePlant(rows Rows, p *Plant) error {
	var x, y any
	if p.Position != nil {
		x, y = p.Position.X, p.Position.Y
	}
	_, err := rows.Run(`UPDATE plant SET name = ?, species = ?, zone = ?, x = ?, y = ? WHERE id = ?`, p.Name, null(p.Species), null(p.Zone), x, y, p.ID)
	if err == nil {
		_, err = rows.Run(`DELETE FROM threshold WHERE plant = ?`, p.ID)
	}
	for i := range p.Thresholds {
		if err == nil {
			t := &p.Thresholds[i]
			_, err = rows.Run(`INSERT INTO threshold (plant, metric, min, max) VALUES (?, ?, ?, ?)`, p.ID, t.Metric, nullFloat(t.Min), nullFloat(t.Max))
		}
	}
	return err
}

// SetThreshold puts a threshold of a plant in the place of that of its metric; without bounds it is taken away.
func (k *Keeper) SetThreshold(ctx context.Context, plant string, t Threshold) (Plant, error) {
	if err := t.Check(); err != nil {
		return Plant{}, err
	}
	return k.ChangePlant(ctx, plant, func(p *Plant) error {
		p.Thresholds = slices.DeleteFunc(p.Thresholds, func(old Threshold) bool { return old.Metric == t.Metric })
		if t.Min != nil || t.Max != nil {
			p.Thresholds = append(p.Thresholds, t)
		}
		return nil
	})
}

// DeletePlant takes a plant away. Its assignments end now, and what was its stays its: Plan knows it as deleted.
func (k *Keeper) DeletePlant(ctx context.Context, id string) error {
	now := k.now()
	return k.change(ctx, fmt.Sprintf("delete plant %.40q", id), func(rows Rows) error {
		if err := changedOne(rows.Run(`UPDATE plant SET deleted = max(?, created) WHERE id = ? AND deleted IS NULL`, now, id)); err != nil {
			return err
		}
		return end(rows, `plant = ?1`, id, now)
	})
}

// PurgePlant deletes all that is known of a plant, deleted before or not: its assignments, thresholds and notes. Readings stay with their
// devices.
func (k *Keeper) PurgePlant(ctx context.Context, id string) error {
	return k.change(ctx, fmt.Sprintf("purge plant %.40q", id), func(rows Rows) error {
		return changedOne(rows.Run(`DELETE FROM plant WHERE id = ?`, id)) // the rest goes with it
	})
}
