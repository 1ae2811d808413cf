package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store/salvage"
)

// carrier carries rows of a damaged file over to a new one.
type carrier struct {
	from string // path of the damaged file
	to   *Store

	memory   *Store // that had the file open; what is in it may help
	recalled recalled

	restTime time.Duration

	tables []*carried
	last   map[string]int64 // the highest id that the old file gave out, by table
	lost   []string
}

// carried is a table of the new file.
type carried struct {
	name    string
	rowid   bool
	columns []column // in the order in which a record has them
	insert  []*statement
	rows    int
	damaged bool
	refused int // that a tree had and the schema does not accept
}

type column struct {
	name, kind string
	null       bool
	alias      bool // of the rowid: the record has no value of its own
}

// notCarried are the tables that do not come along with the small ones.
func notCarried(name string) bool {
	return name == "reading" || name == "block" || strings.HasPrefix(name, "sql_") || strings.HasPrefix(name, "sqlite_")
}

// run carries everything but blocks and rows of readings over, in one transaction, and returns in words what is missing.
func (c *carrier) run(ctx context.Context, old string, cause error, now time.Time) (lost string, err error) {
	f, err := salvage.Open(c.from, pageBytes)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	if c.tables, err = c.schema(ctx); err != nil {
		return "", err
	}
	w := c.to.w
	defer c.closeStatements()
	if err := c.unlogged(ctx); err != nil {
		return "", err
	}
	if err := w.run(ctx, `PRAGMA foreign_keys = off; BEGIN IMMEDIATE`); err != nil {
		return "", err
	}
	for _, t := range c.tables {
		if err := w.run(ctx, `DELETE FROM `+t.name); err != nil {
			return "", err
		}
	}
	if err := c.walk(f); err != nil {
		return "", err
	}
	if !c.ours(f) {
		return "", errors.New("nothing in it is of this program")
	}
	if err := errors.Join(c.complete(ctx), c.rememberTail(ctx)); err != nil {
		return "", err
	}
	counted, err := c.count()
	if err != nil {
		return "", err
	}
	lost = strings.Join(c.lost, "; ")
	if err := c.note(now, cause, old, lost, f.Pages(), counted); err != nil {
		return "", err
	}
	return lost, w.run(ctx, `COMMIT`)
}

// unlogged makes the new file one without a write-ahead log until the database is opened again: devices wait, and each page
// would be written twice. What is broken off is begun anew, so it also needs no sync before the end.
func (c *carrier) unlogged(ctx context.Context) error {
	if err := c.to.db.Load().Close(); err != nil { // as long as it reads, the log stays
		return err
	}
	q, err := c.to.w.statement(`PRAGMA journal_mode = memory`)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }() // what Close could say, the query has said
	mode := ""
	err = q.query(func(row []driver.Value) error {
		mode, _ = row[0].(string)
		return nil
	})
	if err == nil && mode != "memory" {
		err = fmt.Errorf("journal mode %q", mode)
	}
	if err != nil {
		return err
	}
	return c.to.w.run(ctx, `PRAGMA synchronous = off`)
}

// ours reports whether the damaged file is one of ours: a file of something else is not to be replaced.
func (c *carrier) ours(f *salvage.File) bool {
	for _, t := range c.tables {
		if t.rows > 0 {
			return true
		}
	}
	return f.ApplicationID() == ApplicationID
}

// schema says which tables the new file has and how their records look.
func (c *carrier) schema(ctx context.Context) (tables []*carried, err error) {
	err = c.to.each(ctx, func(scan func(...any) error) error {
		t := &carried{}
		var without int
		err := scan(&t.name, &without)
		t.rowid = without == 0
		tables = append(tables, t)
		return err
	}, `SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'`)
	tables = slices.DeleteFunc(tables, func(t *carried) bool { return notCarried(t.name) })
	for _, t := range tables {
		if err != nil {
			return nil, err
		}
		err = c.to.each(ctx, func(scan func(...any) error) error {
			var col column
			var required, key int
			err := scan(&col.name, &col.kind, &required, &key)
			col.null, col.alias = required == 0, t.rowid && key == 1 && col.kind == "INTEGER"
			t.columns = append(t.columns, col)
			return err
			// A table without rowid keeps the columns of its key first.
		}, `SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY CASE WHEN ? OR pk = 0 THEN 1000 ELSE pk END, cid`, t.name, t.rowid)
	}
	return tables, err
}

// walk goes through the trees that the schema names, and where something is missing through the rest of the file.
func (c *carrier) walk(f *salvage.File) error {
	w := f.Walk()
	named, damage := w.Tables()
	missing := damage.Any()
	schemaDamaged := missing
	if missing {
		c.lost = append(c.lost, "the schema, so that rows were told apart by their shape")
	}
	names := map[string]int64{}
	for _, t := range c.tables {
		i := slices.IndexFunc(named, func(n salvage.Table) bool { return n.Name == t.name })
		if t.damaged = schemaDamaged; i < 0 {
			continue // damaged, or of a later schema
		}
		damage, err := w.Tree(named[i].Root, func(row salvage.Row) error { return c.insert(t, row) })
		if err != nil {
			return err
		}
		if t.refused > 0 && !c.remembers(t.name) {
			c.lost = append(c.lost, fmt.Sprintf("%d rows of table %s that make no sense", t.refused, t.name))
		}
		if damage.Any() {
			if t.damaged = true; c.remembers(t.name) {
				continue
			}
			missing = true
			c.lost = append(c.lost, fmt.Sprintf("what stood on %d pages and in %d single rows of table %s", len(damage.Pages), damage.Rows, t.name))
		}
	}
	if err := errors.Join(c.sequence(w, named), c.loseHours(w, named)); err != nil {
		return err
	}
	for _, index := range named { // also to know that their pages are no table's
		if c.table(index.Name) != nil || notCarried(index.Name) && !strings.HasPrefix(index.Name, autoIndex) {
			continue
		}
		table, _, _ := strings.Cut(strings.TrimPrefix(index.Name, autoIndex), "_")
		if _, err := w.Tree(index.Root, func(row salvage.Row) error { return c.nameOf(table, row, names) }); err != nil {
			return err
		}
	}
	if missing {
		if err := c.rest(f, w); err != nil {
			return err
		}
	}
	if err := c.remember(); err != nil {
		return err
	}
	return c.insertNames(names)
}

// restTime bounds the search of the whole file, for which devices wait: they must not do so for more than ten seconds in all.
const restTime = 5 * time.Second

var errEnough = errors.New("searched long enough")

// rest looks for what stood below damaged pages. An account that may have been removed does not come back, unless the first
// page is damaged: then that may be any, and without accounts no device could send anything.
func (c *carrier) rest(f *salvage.File, w *salvage.Walk) error {
	until, mayBeDeleted, doubted, old := time.Now().Add(c.restTime), f.FreeListDamaged(), 0, 0
	hide := mayBeDeleted && (f.ApplicationID() != 0 || c.remembers("account"))
	_, err := w.Rest(func(table bool, row salvage.Row) error {
		if time.Now().After(until) {
			return errEnough
		}
		t := c.tableOf(table, row)
		if t == nil {
			return nil
		}
		if mayBeDeleted && letsIn(t.name) {
			if doubted++; hide {
				return nil
			}
		}
		if mayBeDeleted && f.ApplicationID() != 0 && strings.HasPrefix(t.name, brokerPrefix) {
			old++
			return nil
		}
		return c.insert(t, row)
	})
	if errors.Is(err, errEnough) {
		c.lost = append(c.lost, fmt.Sprintf("what the search of the whole file did not find in %v", c.restTime))
		err = nil
	}
	if old > 0 {
		c.lost = append(c.lost, fmt.Sprintf("%d rows of the broker's state, which may have been deleted before", old))
	}
	switch {
	case c.remembers("account"): // all of them are there
	case doubted > 0 && hide:
		c.lost = append(c.lost, fmt.Sprintf("%d accounts or rules, which may have been removed before: the list of free pages is damaged too", doubted))
	case doubted > 0:
		c.lost = append(c.lost, "which accounts and rules were removed, so that some may be back: look through them")
	}
	return err
}

// autoIndex begins the names of indexes that SQLite makes for UNIQUE; the table follows.
const autoIndex = "sqlite_autoindex_"

func (c *carrier) table(name string) *carried {
	for _, t := range c.tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

// insert carries one row over. One that the schema does not accept is lost: it is damaged.
func (c *carrier) insert(t *carried, row salvage.Row) error {
	row = t.modern(row)
	if len(row.Values) > len(t.columns) || !t.fits(row) || !t.isWhole(row) {
		t.refused++
		return nil
	}
	q, err := c.insertion(t, len(row.Values))
	if err != nil {
		return err
	}
	values := make([]driver.Value, len(row.Values))
	for i, v := range row.Values {
		if values[i] = v; t.columns[i].alias {
			values[i] = row.RowID
		}
	}
	if result, err := q.exec(values...); err == nil {
		n, _ := result.RowsAffected()
		t.rows += int(n)
		t.refused += 1 - int(n)
	} else if code(err) == codeFull || code(err) == codeIO {
		return err
	} else {
		t.refused++
	}
	return nil
}

// insertion is the statement for rows of n columns: those written before a column was added have fewer.
func (c *carrier) insertion(t *carried, n int) (*statement, error) {
	for len(t.insert) < len(t.columns)+1 {
		t.insert = append(t.insert, nil)
	}
	if t.insert[n] == nil {
		names := make([]string, n)
		for i := range names {
			names[i] = t.columns[i].name
		}
		text := fmt.Sprintf(`INSERT OR IGNORE INTO %s (%s) VALUES (?%s)`, t.name, strings.Join(names, ", "), strings.Repeat(", ?", n-1))
		var err error
		if t.insert[n], err = c.to.w.statement(text); err != nil {
			return nil, err
		}
	}
	return t.insert[n], nil
}

func (c *carrier) closeStatements() {
	for _, t := range c.tables {
		for _, q := range t.insert {
			if q != nil {
				_ = q.stmt.Close() // what Close could say, the insertion has said
			}
		}
	}
}

// least is how many columns a row of the table has at least: those that came later are not in the rows that were there.
func (t *carried) least() int {
	switch t.name {
	case "counter":
		return 8
	case "account":
		return 8
	}
	return len(t.columns)
}

// modern gives a row of an account that an earlier version wrote the order that the columns have now, without what is gone.
func (t *carried) modern(row salvage.Row) salvage.Row {
	v := row.Values
	if t.name != "account" || len(v) < 7 || len(v) > 9 {
		return row
	}
	if _, isText := v[2].(string); !isText { // the algorithm; today admin stands there
		return row
	}
	admin, rotated := any(int64(0)), any(int64(0))
	if len(v) > 7 {
		admin = v[7]
	}
	if len(v) > 8 {
		rotated = v[8]
	}
	row.Values = []any{v[0], v[1], admin, v[2], v[3], v[4], v[5], rotated}
	return row
}

// fits reports whether a row can be one of the table.
func (t *carried) fits(row salvage.Row) bool {
	for i, v := range row.Values {
		col := t.columns[i]
		ok := v == nil && (col.null || col.alias)
		switch v.(type) {
		case int64:
			ok = col.kind == "INTEGER" && !col.alias || col.kind == "REAL" // which is kept as an integer where it is whole
		case float64:
			ok = col.kind == "REAL"
		case string:
			ok = col.kind == "TEXT"
		case []byte:
			ok = col.kind == "BLOB"
		}
		if !ok {
			return false
		}
	}
	return true
}

// firstTime is earlier than any time of this project, in UTC milliseconds: what is larger is no id.
const firstTime = 1_000_000_000_000

// tableOf says which table a row belongs to that no tree led to; nil when it is not certain.
func (c *carrier) tableOf(rowid bool, row salvage.Row) (found *carried) {
	for _, t := range c.tables {
		row := t.modern(row)
		if t.rowid != rowid || len(row.Values) > len(t.columns) || len(row.Values) < t.least() || !t.fits(row) {
			continue
		}
		if t.name == "device" || t.name == "metric" { // id, name, and a time or a device
			last, _ := row.Values[len(row.Values)-1].(int64)
			if isTime := last >= firstTime || row.RowID == 0; isTime != (t.name == "device") {
				continue
			}
		}
		if !rowid && (len(t.columns) == 2 || t.name == "salvage_device") {
			return nil // indexes look like this
		}
		if found != nil {
			return nil
		}
		found = t
	}
	return found
}

// nameOf keeps what the index of unique names has, for a table that lost rows.
func (c *carrier) nameOf(table string, row salvage.Row, names map[string]int64) error {
	if len(row.Values) != 2 || table != "device" && table != "metric" {
		return nil
	}
	name, isName := row.Values[0].(string)
	id, isID := row.Values[1].(int64)
	if isName && isID {
		names[table+" "+name] = id
	}
	return nil
}

// insertNames brings back devices and metrics that only their index knows.
func (c *carrier) insertNames(names map[string]int64) error {
	q, err := c.to.w.statement(`INSERT OR IGNORE INTO device (id, name, created) VALUES (?, ?, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }()
	m, err := c.to.w.statement(`INSERT OR IGNORE INTO metric (id, name, device) VALUES (?, ?, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = m.stmt.Close() }()
	for key, id := range names {
		table, name, _ := strings.Cut(key, " ")
		if there, err := c.settleName(table, name, id); err != nil {
			return err
		} else if there {
			continue
		}
		if table == "device" {
			err = errors.Join(err, q.run(id, name))
		} else {
			err = errors.Join(err, m.run(id, name))
		}
	}
	return err
}

// ofDevices are the devices that something is known of.
const ofDevices = `SELECT device FROM counter UNION SELECT device FROM metric UNION SELECT device FROM quarantine
	UNION SELECT device FROM quarantine_summary UNION SELECT device FROM boot UNION SELECT device FROM skipped UNION SELECT device FROM original
	UNION SELECT device FROM assignment UNION SELECT device FROM registration`

// complete makes what belongs together whole again and says what could not be found.
func (c *carrier) complete(ctx context.Context) error {
	w := c.to.w
	for _, step := range []struct{ what, count, mend string }{
		{"accounts", `SELECT count(*) FROM rule WHERE account NOT IN (SELECT name FROM account)`,
			`DELETE FROM rule WHERE account NOT IN (SELECT name FROM account)`},
		{"devices", `SELECT count(*) FROM (` + ofDevices + `) WHERE device NOT IN (SELECT id FROM device)`,
			`INSERT OR IGNORE INTO device (id, name, created) SELECT DISTINCT device, CASE device WHEN 0 THEN '' ELSE 'salvaged-' || device END, 0
			FROM (SELECT 0 AS device UNION ` + ofDevices + `)`},
		{"counters of devices", `SELECT count(*) FROM device WHERE id NOT IN (SELECT device FROM counter)`,
			`INSERT INTO counter (device) SELECT id FROM device WHERE id NOT IN (SELECT device FROM counter)`},
	} {
		n, err := w.number(step.count)
		if err == nil {
			err = w.run(ctx, step.mend)
		}
		if err != nil {
			return fmt.Errorf("complete the new database: %w", err)
		}
		if n > 0 {
			c.lost = append(c.lost, fmt.Sprintf("%d %s", n, step.what))
		}
	}
	if err := errors.Join(c.completeBroker(ctx), c.completeGarden(ctx)); err != nil {
		return fmt.Errorf("complete the broker's state and the garden in the new database: %w", err)
	}
	return c.setSequence(ctx)
}

// note writes down what is still to be done, and how many rows each device should have then.
func (c *carrier) note(now time.Time, cause error, old, lost string, pages uint32, counted []*countedDevice) error {
	q, err := c.to.w.statement(`INSERT INTO salvage (begun, cause, source, lost, page, pages, finished) VALUES (?, ?, ?, ?, 1, ?, 0)`)
	if err != nil {
		return err
	}
	defer func() { _ = q.stmt.Close() }()
	result, err := q.exec(now.UnixMilli(), cause.Error(), old, lost, int64(pages))
	if err != nil {
		return err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return err
	}
	return c.writeCounts(id, counted)
}
