package garden

import (
	"context"
	"fmt"
	"strings"
)

const selectNote = `SELECT id, time, kind, text, author, created, plant, zone FROM note`

func noteOf(v []any) Note {
	return Note{ID: text(v[0]), Time: number(v[1]), Kind: NoteKind(text(v[2])), Text: text(v[3]), Author: text(v[4]), Created: number(v[5]),
		Plant: text(v[6]), Zone: text(v[7])}
}

// NoteQuery selects notes.
type NoteQuery struct {
	Plant, Zone   string // ids; "": any
	Kinds         []NoteKind
	From, To      int64 // UTC ms, of what they are about; From is included, To is not; To zero means no end
	Limit, Offset int   // of the newest first; no limit: 100
}

// where is the condition of a query, and its values.
func (q *NoteQuery) where() (condition string, values []any) {
	parts := []string{`time >= ?`}
	values = []any{q.From}
	and := func(part string, list ...any) {
		parts, values = append(parts, part), append(values, list...)
	}
	if q.To != 0 {
		and(`time < ?`, q.To)
	}
	if q.Plant != "" {
		and(`plant = ?`, q.Plant)
	}
	if q.Zone != "" {
		and(`zone = ?`, q.Zone)
	}
	if len(q.Kinds) > 0 {
		var kinds []any
		for _, kind := range q.Kinds {
			kinds = append(kinds, string(kind))
		}
		and(`kind IN (?`+strings.Repeat(`, ?`, len(kinds)-1)+`)`, kinds...)
	}
	return ` WHERE ` + strings.Join(parts, ` AND `), values
}

// defaultNotes is how many notes are given to who does not say.
const defaultNotes = 100

// Notes returns the notes that a query selects, the newest first, and how many there are without limit and offset.
func (k *Keeper) Notes(ctx context.Context, q NoteQuery) (list []Note, total int, err error) {
	where, values := q.where()
	if q.Limit <= 0 {
		q.Limit = defaultNotes
	}
	err = k.db.Read(ctx, func(rows Rows) error {
		list = []Note{}
		n, err := count(rows, `SELECT count(*) FROM note`+where, values...)
		if total = int(n); err != nil {
			return err
		}
		return rows.Each(func(v []any) error {
			list = append(list, noteOf(v))
			return nil
		}, selectNote+where+` ORDER BY time DESC, created DESC, id LIMIT ? OFFSET ?`, append(values, int64(q.Limit), int64(max(q.Offset, 0)))...)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read notes: %w", err)
	}
	return list, total, nil
}

// Note returns one.
func (k *Keeper) Note(ctx context.Context, id string) (n Note, err error) {
	err = k.db.Read(ctx, func(rows Rows) error {
		n, err = readNote(rows, id)
		return err
	})
	if err != nil {
		err = fmt.Errorf("note %.40q: %w", id, err)
	}
	return n, err
}

func readNote(rows Rows, id string) (n Note, err error) {
	found := false
	err = rows.Each(func(v []any) error {
		n, found = noteOf(v), true
		return nil
	}, selectNote+` WHERE id = ?`, id)
	if err == nil && !found {
		err = ErrNotFound
	}
	return n, err
}

// AddNote returns the note with its id. Without a time it is about now.
func (k *Keeper) AddNote(ctx context.Context, n Note) (Note, error) {
	n.ID, n.Created = newID(), k.now()
	if n.Time == 0 {
		n.Time = n.Created
	}
	if err := n.Check(); err != nil {
		return Note{}, err
	}
	err := k.write(ctx, "add note", func(rows Rows) error {
		if err := room(rows, "note", maxNotes); err != nil {
			return err
		}
		if n.Plant != "" {
			if _, err := readPlant(rows, n.Plant); err != nil {
				return fmt.Errorf("plant %.40q: %w", n.Plant, err)
			}
		} else if there, err := count(rows, `SELECT count(*) FROM zone WHERE id = ?`, n.Zone); err != nil || there == 0 {
			return fmt.Errorf("zone %.40q: %w", n.Zone, changedOne(there, err))
		}
		_, err := rows.Run(`INSERT INTO note (id, time, kind, text, author, created, plant, zone) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			n.ID, n.Time, string(n.Kind), n.Text, n.Author, n.Created, null(n.Plant), null(n.Zone))
		return err
	})
	return n, err
}

// ChangeNote changes time, kind and text of a note; change gets it as it is. An error of change is returned, and nothing is changed.
func (k *Keeper) ChangeNote(ctx context.Context, id string, change func(*Note) error) (n Note, err error) {
	err = k.write(ctx, fmt.Sprintf("change note %.40q", id), func(rows Rows) (err error) {
		if n, err = readNote(rows, id); err != nil {
			return err
		}
		before := n
		if err := change(&n); err != nil {
			return err
		}
		n.ID, n.Plant, n.Zone, n.Author, n.Created = before.ID, before.Plant, before.Zone, before.Author, before.Created
		if err := n.Check(); err != nil {
			return err
		}
		_, err = rows.Run(`UPDATE note SET time = ?, kind = ?, text = ? WHERE id = ?`, n.Time, string(n.Kind), n.Text, id)
		return err
	})
	return n, err
}

// DeleteNote deletes one.
func (k *Keeper) DeleteNote(ctx context.Context, id string) error {
	return k.write(ctx, fmt.Sprintf("delete note %.40q", id), func(rows Rows) error {
		return changedOne(rows.Run(`DELETE FROM note WHERE id = ?`, id))
	})
}

// write is change for what is in no plan.
func (k *Keeper) write(ctx context.Context, what string, do func(Rows) error) error {
	if err := k.db.Change(ctx, do); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
