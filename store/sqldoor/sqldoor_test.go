package sqldoor

import (
	"context"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/storetest"
)

// noon is 2026-01-07 12:00 UTC.
const noon = int64(1_767_787_200_000)

// watched is a view that tells what was asked of it.
type watched struct {
	history.View
	asked *[]history.Query
	extra error // of each scan
}

func (w watched) Scan(ctx context.Context, q history.Query) iter.Seq2[*history.Chunk, error] {
	*w.asked = append(*w.asked, q)
	return func(yield func(*history.Chunk, error) bool) {
		if w.extra != nil && !yield(nil, w.extra) {
			return
		}
		for c, err := range w.View.Scan(ctx, q) {
			if !yield(c, err) {
				return
			}
		}
	}
}

type setting struct {
	*Door
	store   *store.Store
	path    string
	asked   []history.Query
	extra   error
	damaged []error
}

// open makes a database of two devices, with a reading a minute for two hours, and a door to it while it may be written.
func open(t *testing.T) *setting {
	t.Helper()
	s := &setting{path: filepath.Join(t.TempDir(), "plants.db")}
	s.store = storetest.OpenWith(t, store.Options{Path: s.path})
	var batch []store.Message
	for _, device := range []string{"bed-1", "bed-2"} {
		for i := range int64(120) {
			at := noon + i*60_000
			batch = append(batch, message(device, at, map[string]float64{"humidity": float64(i), "temperature": 20 + float64(i)/10}))
		}
	}
	_, err := s.store.Append(t.Context(), batch, make([]store.Outcome, len(batch)))
	require.NoError(t, err)
	s.Door, err = Open(t.Context(), Options{Path: s.path, Damaged: func(d *history.DamagedError) { s.damaged = append(s.damaged, d) },
		View: func(ctx context.Context) (history.View, error) {
			v, err := s.store.View(ctx)
			return watched{v, &s.asked, s.extra}, err
		}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

// ask returns the rows of an answer as text.
func (s *setting) ask(ctx context.Context, text string) (rows []string, err error) {
	statement, err := Statement(text)
	if err != nil {
		return nil, err
	}
	s.asked = nil
	err = s.Query(ctx, statement, func([]string) error { return nil }, func(values []any) error {
		rows = append(rows, strings.TrimSuffix(fmt.Sprintln(values...), "\n"))
		return nil
	})
	return rows, err
}

func TestConditionsAreTakenOver(t *testing.T) {
	s := open(t)
	for name, c := range map[string]struct {
		where string
		rows  int
		asked history.Query
	}{
		"device and times":     {`device = 'bed-1' AND time >= 1767787260000 AND time < 1767787320000`, 2, history.Query{Devices: []string{"bed-1"}, From: noon + 60_000, To: noon + 120_001}},
		"more than":            {`time > 1767787260000 AND metric = 'humidity'`, 236, history.Query{Metrics: []string{"humidity"}, From: noon + 60_000}},
		"between":              {`device = 'bed-2' AND time BETWEEN 1767787260000 AND 1767787320000`, 4, history.Query{Devices: []string{"bed-2"}, From: noon + 60_000, To: noon + 120_001}},
		"exactly":              {`time = 1767787260000`, 4, history.Query{From: noon + 60_000, To: noon + 60_001}},
		"a number with digits": {`device = 'bed-1' AND time > 1767787259999.5 AND time < 1767787260000.5`, 2, history.Query{Devices: []string{"bed-1"}, From: noon + 59_999, To: noon + 60_002}},
		"a text is no time":    {`device = 'bed-1' AND time > 'x'`, 0, history.Query{Devices: []string{"bed-1"}, From: math.MinInt64}},
		"of a value":           {`device = 'bed-1' AND value > 118`, 1, history.Query{Devices: []string{"bed-1"}, From: math.MinInt64}},
		"before 1970":          {`time < -5`, 0, history.Query{From: math.MinInt64, To: -4}},
		"at 1970":              {`time <= -1`, 0, history.Query{From: math.MinInt64, To: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := s.ask(t.Context(), `SELECT device, time, metric, value FROM reading WHERE `+c.where)
			require.NoError(t, err)
			assert.Len(t, rows, c.rows)
			assert.Equal(t, []history.Query{c.asked}, s.asked)
		})
	}
	for name, where := range map[string]string{"null": `time = NULL`, "contrary": `time > 5 AND time < 3`} {
		rows, err := s.ask(t.Context(), `SELECT * FROM reading WHERE `+where)
		require.NoError(t, err, name)
		assert.Empty(t, rows, name)
		assert.Empty(t, s.asked, name)
	}
	rows, err := s.ask(t.Context(), `SELECT * FROM reading WHERE device = 'nobody'`)
	require.NoError(t, err)
	assert.Empty(t, rows)
}

func TestAnswersAreThoseOfTheReadings(t *testing.T) {
	s := open(t)
	for text, want := range map[string][]string{
		`SELECT count(*), min(value), max(value) FROM reading WHERE metric = 'humidity'`: {"240 0 119"},
		`SELECT device, metric, value FROM latest ORDER BY device, metric`: {
			"bed-1 humidity 119", "bed-1 temperature 31.9", "bed-2 humidity 119", "bed-2 temperature 31.9"},
		`SELECT value FROM latest WHERE device = 'bed-2' AND metric = 'temperature'`:                                  {"31.9"},
		`SELECT count(*) FROM latest WHERE device = 'nobody'`:                                                         {"0"},
		`SELECT device, count(*) FROM reading WHERE device IN ('bed-2', 'bed-1', 'x') GROUP BY device`:                {"bed-1 240", "bed-2 240"},
		`SELECT value FROM reading WHERE device = 'bed-1' AND metric = 'humidity' ORDER BY time DESC LIMIT 2;`:        {"119", "118"},
		`SELECT time/3600000*3600 AS hour, count(*) FROM reading WHERE device = 'bed-1' GROUP BY hour ORDER BY hour`:  {"1767787200 120", "1767790800 120"},
		`SELECT datetime(time/1000, 'unixepoch') FROM reading WHERE device = 'bed-1' AND metric = 'humidity' LIMIT 1`: {"2026-01-07 12:00:00"},
		`SELECT a.value + b.value FROM reading a JOIN reading b ON b.device = 'bed-2' AND b.time = a.time AND b.metric = a.metric
			WHERE a.device = 'bed-1' AND a.metric = 'humidity' AND a.time < 1767787320000`: {"0", "2"},
		`WITH hot AS (SELECT * FROM reading WHERE device = 'bed-1' AND value > 118) SELECT count(*) FROM hot`: {"1"},
	} {
		rows, err := s.ask(t.Context(), text)
		require.NoError(t, err, text)
		assert.Equal(t, want, rows, text)
	}
}

func TestInOrderOfTimeNothingIsSorted(t *testing.T) {
	s := open(t)
	for text, sorted := range map[string]bool{
		`SELECT value FROM reading WHERE device = 'bed-1' ORDER BY time`:                                 false,
		`SELECT value FROM reading WHERE device = 'bed-1' ORDER BY device, time, metric`:                 false,
		`SELECT value FROM reading ORDER BY device, time`:                                                false,
		`SELECT value FROM reading WHERE device = 'bed-1' ORDER BY time DESC`:                            true,
		`SELECT value FROM reading ORDER BY time`:                                                        true,
		`SELECT value FROM reading WHERE device = 'bed-1' ORDER BY metric`:                               true,
		`SELECT value FROM reading WHERE device = 'bed-1' AND metric = 'humidity' ORDER BY metric, time`: false,
	} {
		rows, err := s.ask(t.Context(), `EXPLAIN QUERY PLAN `+text)
		require.NoError(t, err, text)
		assert.Equal(t, sorted, strings.Contains(strings.Join(rows, "\n"), "TEMP B-TREE"), "%s: %s", text, rows)
	}
	times, err := s.ask(t.Context(), `SELECT time FROM reading WHERE device = 'bed-1' ORDER BY time`)
	require.NoError(t, err)
	assert.True(t, slices.IsSorted(times))
}

// Nothing that is asked may change anything, in the database or beside it.
func TestNothingCanBeWritten(t *testing.T) {
	s := open(t)
	other := filepath.Join(t.TempDir(), "other.db")
	attacks := []string{
		`INSERT INTO device (id, name, created) VALUES (99, 'x', 0)`,
		`INSERT INTO reading VALUES ('x', 1, 'y', 2, 3)`,
		`WITH x AS (SELECT 1) INSERT INTO device (id, name, created) SELECT 99, 'x', 0 FROM x`,
		`WITH x AS (SELECT 1) INSERT INTO reading SELECT 'x', 1, 'y', 2, 3 FROM x`,
		`WITH x AS (SELECT 1) UPDATE device SET name = 'x'`,
		`WITH x AS (SELECT 1) DELETE FROM account`,
		`WITH x AS (SELECT 1) DELETE FROM temp.sqlite_schema`,
		`UPDATE sqlite_schema SET sql = ''`, `DROP TABLE device`, `DROP TABLE temp.reading`, `CREATE TABLE x (y)`, `CREATE TEMP TABLE x (y)`,
		`ATTACH '` + other + `' AS other`, `VACUUM`, `VACUUM INTO '` + other + `'`, `REINDEX`, `ANALYZE`, `BEGIN EXCLUSIVE`, `DETACH main`,
		`PRAGMA query_only = 0`, `PRAGMA writable_schema = 1`, `PRAGMA journal_mode = delete`, `PRAGMA user_version = 99`, `PRAGMA temp_store_directory = '/'`,
		`SELECT load_extension('/lib/x.so')`, `SELECT writefile('` + other + `', 'x')`, `SELECT fts3_tokenizer('x', 'y')`,
		`SELECT * FROM pragma_query_only(0)`, `SELECT * FROM pragma_journal_mode('delete')`,
		`SELECT 1; DELETE FROM device`, `SELECT 1; PRAGMA query_only = 0; DELETE FROM device`, `SELECT 1 /* ; */ ; ATTACH '` + other + `' AS o`,
		`EXPLAIN SELECT 1; DELETE FROM device`, "SELECT '1''; --'; DELETE FROM device", "-- SELECT\nDELETE FROM device", "/* SELECT */ DELETE FROM device",
		"SELECT [;]\x00; DELETE FROM device", ``, `;`, `-- nothing`,
	}
	before, err := s.ask(t.Context(), `SELECT name, sql FROM sqlite_schema UNION ALL SELECT id, name FROM device`)
	require.NoError(t, err)
	for _, attack := range attacks {
		_, err := s.ask(t.Context(), attack)
		assert.Error(t, err, attack)
		// And what Statement takes for reading, the connection would refuse.
		if statement := strings.TrimSpace(attack); statement != "" && !strings.HasPrefix(statement, "PRAGMA") && !strings.HasPrefix(statement, "BEGIN") {
			_ = s.Query(t.Context(), statement, func([]string) error { return nil }, func([]any) error { return nil })
		}
	}
	for _, pragma := range []string{`PRAGMA query_only = 0`, `PRAGMA writable_schema = 1`} { // were they let through
		_ = s.Query(t.Context(), pragma, func([]string) error { return nil }, func([]any) error { return nil })
	}
	for _, attack := range attacks {
		_ = s.Query(t.Context(), attack, func([]string) error { return nil }, func([]any) error { return nil })
	}
	assert.NoFileExists(t, other)
	after, err := s.ask(t.Context(), `SELECT name, sql FROM sqlite_schema UNION ALL SELECT id, name FROM device`)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	_, err = s.store.Append(t.Context(), []store.Message{message("bed-1", noon-1, map[string]float64{"ph": 6})}, make([]store.Outcome, 1))
	assert.NoError(t, err, "the one that writes goes on")
}

func TestStatementsAreOneThatReads(t *testing.T) {
	for text, want := range map[string]string{
		" select 1 ; ":                                  "select 1 ",
		"SELECT ';' AS [a;b], `c;` -- ; end":            "SELECT ';' AS [a;b], `c;` -- ; end",
		"VALUES (1);;":                                  "VALUES (1)",
		"/* a; */ EXPLAIN SELECT 1 /* open":             "/* a; */ EXPLAIN SELECT 1 /* open",
		"with x as (select 1) select * from x; -- done": "with x as (select 1) select * from x",
	} {
		got, err := Statement(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
	}
	_, err := Statement("DELETE FROM device")
	assert.ErrorIs(t, err, ErrWrites)
	assert.ErrorContains(t, err, "DELETE")
}

func FuzzStatement(f *testing.F) {
	f.Add("SELECT 1; -- x")
	f.Fuzz(func(t *testing.T, text string) {
		if one, err := Statement(text); err == nil { // what it returns it takes again
			again, err := Statement(one)
			require.NoError(t, err)
			assert.Equal(t, strings.TrimSpace(one), again)
		}
	})
}

func TestDamageIsToldAndNotTheEnd(t *testing.T) {
	s := open(t)
	s.extra = &history.DamagedError{Device: "bed-0", From: 1, To: 2, Cause: os.ErrInvalid}
	rows, err := s.ask(t.Context(), `SELECT count(*) FROM reading`)
	require.NoError(t, err)
	assert.Equal(t, []string{"480"}, rows)
	require.Len(t, s.damaged, 1)
	assert.ErrorIs(t, s.damaged[0], history.ErrDamaged)

	s.extra = os.ErrDeadlineExceeded
	_, err = s.ask(t.Context(), `SELECT count(*) FROM reading`)
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	s.extra = nil
	_, err = s.ask(t.Context(), `SELECT count(*) FROM reading`)
	assert.NoError(t, err, "the next one has nothing to do with it")
}

func TestAMistakeIsNamed(t *testing.T) {
	s := open(t)
	for text, want := range map[string]string{
		`SELECT nobody FROM reading`:             "no such column: nobody",
		`SELECT * FROM readings`:                 "no such table: readings",
		`SELEC`:                                  "SELEC",
		`SELECT FROM`:                            `near "FROM": syntax error`,
		`SELECT "temperature" FROM reading`:      `no such column: "temperature"`,
		`SELECT sum(value FROM reading`:          "syntax error",
		`SELECT load_extension('x') FROM metric`: "not authorized",
	} {
		_, err := s.ask(t.Context(), text)
		assert.ErrorContains(t, err, want, text)
	}
}

func TestALongQueryEndsWithItsContext(t *testing.T) {
	for name, text := range map[string]string{
		"before its first row": `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`,
		"in a table":           `SELECT 1 UNION ALL SELECT count(*) FROM reading a, reading b, reading c, reading d`,
		"between two rows": `SELECT 1 UNION ALL SELECT * FROM (
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000) SELECT count(*) FROM n)`, // it goes on
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			ctx, cancel := context.WithCancel(t.Context())
			began := time.AfterFunc(100*time.Millisecond, cancel)
			defer began.Stop()
			rows, err := s.ask(ctx, text)
			assert.ErrorIs(t, err, context.Canceled)
			assert.LessOrEqual(t, len(rows), 1)
		})
	}
}

// message is one of a device, with all its values of one time.
func message(device string, at int64, values map[string]float64) store.Message {
	m := store.Message{Kind: store.Telemetry, Device: device, Topic: "plants/" + device, Time: at, Received: at + 5}
	for metric, v := range values {
		m.Values = append(m.Values, store.Value{Metric: metric, Value: v})
	}
	return m
}
