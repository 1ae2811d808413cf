package salvage_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/plantops/plantops/store/salvage"
)

const pageBytes = 1024

// makeFile makes a database with a table of each kind, values of every type and rows that go over several pages. What is in
// the log stays there when logged.
func makeFile(t testing.TB, logged bool) string {
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := sql.Open("sqlite", "file:"+path)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	exec := func(text string, args ...any) {
		_, err := db.Exec(text, args...)
		require.NoError(t, err)
	}
	exec(`PRAGMA page_size = 1024; PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0`)
	exec(`CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, note)`)
	exec(`CREATE TABLE reading (device INTEGER NOT NULL, time INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (device, time)) STRICT, WITHOUT ROWID`)
	random := rand.New(rand.NewPCG(1, 2))
	tx, err := db.Begin()
	require.NoError(t, err)
	for i := range 3000 {
		_, err := tx.Exec(`INSERT INTO reading VALUES (?, ?, ?)`, i%7, int64(1_700_000_000_000)+int64(i), bytes.Repeat([]byte{byte(i)}, random.IntN(40)))
		require.NoError(t, err)
	}
	for i := range 200 {
		note := []any{nil, int64(i) - 100, math.Pi * float64(i), "text", []byte{1, 2, 3}, int64(math.MinInt64), strings.Repeat("long ", 900)}[i%7]
		_, err := tx.Exec(`INSERT INTO person VALUES (?, ?, ?)`, i*i, fmt.Sprintf("name %d", i), note)
		require.NoError(t, err)
	}
	_, err = tx.Exec(`DELETE FROM reading WHERE device = 3`)
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	if !logged {
		exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied+suffix, content, 0o600))
	}
	return copied
}

func key(row salvage.Row) string {
	for i, value := range row.Values {
		if b, ok := value.([]byte); ok && len(b) == 0 {
			row.Values[i] = []byte{} // the driver makes nil of it
		}
	}
	return fmt.Sprintf("%d %#v", row.RowID, row.Values)
}

// rows reads everything that can be read, by table; "" has what was found without its table.
func rows(t testing.TB, path string) (map[string]map[string]bool, salvage.Damage) {
	f, err := salvage.Open(path, pageBytes)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()
	w := f.Walk()
	found, all := map[string]map[string]bool{"": {}}, salvage.Damage{}
	add := func(lost salvage.Damage) { all.Pages, all.Rows = append(all.Pages, lost.Pages...), all.Rows+lost.Rows }
	tables, lost := w.Tables()
	add(lost)
	for _, table := range tables {
		found[table.Name] = map[string]bool{}
		lost, err := w.Tree(table.Root, func(row salvage.Row) error {
			found[table.Name][key(row)] = true
			return nil
		})
		require.NoError(t, err)
		add(lost)
	}
	lost, err = w.Rest(func(_ bool, row salvage.Row) error {
		found[""][key(row)] = true
		return nil
	})
	require.NoError(t, err)
	add(lost)
	return found, all
}

func TestEveryRowOfAGoodFileIsRead(t *testing.T) {
	for _, logged := range []bool{false, true} {
		path := makeFile(t, logged)
		found, lost := rows(t, path)
		assert.False(t, lost.Any())
		db, err := sql.Open("sqlite", "file:"+path)
		require.NoError(t, err)
		for table, query := range map[string]string{"person": `SELECT id, NULL, name, note FROM person`, "reading": `SELECT 0, device, time, body FROM reading`} {
			list, err := db.Query(query)
			require.NoError(t, err)
			n := 0
			for ; list.Next(); n++ {
				row := salvage.Row{Values: make([]any, 3)}
				require.NoError(t, list.Scan(&row.RowID, &row.Values[0], &row.Values[1], &row.Values[2]))
				require.True(t, found[table][key(row)], "%s: %.100s", table, key(row))
			}
			require.NoError(t, list.Err())
			assert.Len(t, found[table], n, table)
		}
		require.NoError(t, db.Close())
		assert.Empty(t, found[""], "nothing is left over, deleted rows least of all")
	}
}

func TestADamagedPageCostsItsOwnRowsOnly(t *testing.T) {
	path := makeFile(t, false)
	whole, _ := rows(t, path)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(3, 4))
	for page := 1; page <= len(good)/pageBytes; page++ {
		bad := bytes.Clone(good)
		for i := range pageBytes {
			bad[(page-1)*pageBytes+i] = byte(random.Uint32()) * byte(page%2) // every other page is zeros
		}
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		found, _ := rows(t, path)
		for _, table := range []string{"person", "reading"} {
			missing := 0
			for row := range whole[table] {
				if !found[table][row] && !found[""][row] {
					missing++
				}
			}
			assert.LessOrEqual(t, missing, 80, "page %d of %s", page, table)
			for row := range found[table] {
				zeroed := strings.Contains(row, `long`) && strings.Contains(row, `\x00`) // inside a text: nothing tells
				require.True(t, whole[table][row] || zeroed, "page %d: %s has a row that was never there: %.100s", page, table, row)
			}
		}
	}
}

func FuzzFile(f *testing.F) {
	content, err := os.ReadFile(makeFile(f, false))
	require.NoError(f, err)
	wal, err := os.ReadFile(makeFile(f, true) + "-wal")
	require.NoError(f, err)
	f.Add(content[:8*pageBytes], wal[:8*pageBytes])
	f.Add(content[:pageBytes], []byte{})
	path := filepath.Join(f.TempDir(), "fuzz.db")
	f.Fuzz(func(t *testing.T, content, wal []byte) {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		require.NoError(t, os.WriteFile(path+"-wal", wal, 0o600))
		rows(t, path)
	})
}
