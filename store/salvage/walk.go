package salvage

// Damage is what was lost on the way.
type Damage struct {
	Pages []uint32 // that could not be read at all
	Rows  int      // that could not be read, on pages that could
}

// Any reports whether anything was lost.
func (d Damage) Any() bool { return len(d.Pages) > 0 || d.Rows > 0 }

// Walk is one pass over a file: trees first, then what is left.
type Walk struct {
	f    *File
	seen []bool // by page
}

// Walk begins a pass.
func (f *File) Walk() *Walk { return &Walk{f: f, seen: make([]bool, f.pages+1)} }

// Tree gives every row that can be reached from a root page to yield, in no order. When yield fails it ends with that
// error; damage is no error.
func (w *Walk) Tree(root uint32, yield func(Row) error) (Damage, error) {
	var lost Damage
	var tree byte // which kind this is, once known
	for todo := []uint32{root}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n < uint32(len(w.seen)) && w.seen[n] {
			continue // damage can make two pages point to one
		}
		c, err := w.f.read(n)
		if err == nil && tree != 0 && tree != c.tree() {
			err = ErrUnreadable // a pointer that leads to another tree
		}
		if err != nil {
			lost.Pages = append(lost.Pages, n)
			continue // not seen: what is below it is looked for later
		}
		tree = c.tree()
		w.mark(n, c)
		lost.Rows += c.lost
		todo = append(todo, c.children...)
		for _, row := range c.rows {
			if err := yield(row); err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

func (w *Walk) mark(n uint32, c content) {
	w.seen[n] = true
	for _, page := range c.overflow {
		w.seen[page] = true // read before: there is such a page
	}
}

// Rest gives the rows of all pages that no tree led to and that are not free: what stood below a damaged page. table says
// whether the page belongs to a table with a rowid. What was deleted there is not distinguished when the list of free pages
// is damaged (FreeListDamaged). It looks at every page of the file, which may take long: when yield fails it ends with that
// error.
func (w *Walk) Rest(yield func(table bool, row Row) error) (Damage, error) {
	var lost Damage
	free, _ := w.f.freePages()
	for n := uint32(1); n <= w.f.pages; n++ {
		if w.seen[n] || free.has(n) {
			continue
		}
		c, err := w.f.read(n)
		if err != nil {
			continue // an overflow page, or one that Tree has named
		}
		w.mark(n, c)
		lost.Rows += c.lost
		for _, row := range c.rows {
			if err := yield(c.tree() == tableLeaf, row); err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

// Table is a table as the schema names it.
type Table struct {
	Name, SQL string
	Root      uint32
}

// Tables returns the tables and indexes that the schema names. Where the schema is damaged some are missing, and lost says
// so.
func (w *Walk) Tables() (tables []Table, lost Damage) {
	lost, _ = w.Tree(1, func(row Row) error { // columns: type, name, table, root, sql
		if len(row.Values) < 5 {
			return nil
		}
		name, _ := row.Values[1].(string)
		root, _ := row.Values[3].(int64)
		sql, _ := row.Values[4].(string)
		if root > 0 && root <= int64(w.f.pages) {
			tables = append(tables, Table{Name: name, SQL: sql, Root: uint32(root)})
		}
		return nil
	})
	return tables, lost
}

// Scan reads the pages from one on in the order of the file, whatever points to them, and gives the rows of each that has
// some and is not free to yield. It ends when yield says so. Rows that cannot be read are passed over: a count of what
// should be there is the only way to know, since a page that goes on from another looks like a damaged one.
func (f *File) Scan(from uint32, yield func(page uint32, table bool, rows []Row) bool) {
	free, _ := f.freePages()
	for n := max(from, 1); n <= f.pages; n++ {
		if free.has(n) {
			continue
		}
		if c, err := f.read(n); err == nil && len(c.rows) > 0 && !yield(n, c.tree() == tableLeaf, c.rows) {
			return
		}
	}
}
