package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/aside"
	"github.com/plantops/plantops/store/people"
	"github.com/plantops/plantops/store/swap"
)

const damageDevices, damageRows = 12, 60

// filledFile is a closed database with something in every table: rows enough that tables take several pages.
func filledFile(t *testing.T) string {
	s := openTest(t, Options{})
	for d := range damageDevices {
		name := fmt.Sprintf("bed-%d", d)
		_, err := s.AddDevice(t.Context(), name)
		require.NoError(t, err)
		require.NoError(t, s.AddUser(t.Context(), NewUser{Name: fmt.Sprintf("person-%d", d), Password: "correct horse", WebRole: people.Operator, Publish: []string{"a/b", "a/+/c"}, Subscribe: []string{"#"}}))
		var batch []Message
		for i := range damageRows {
			m := telemetry(name, noon+int64(i)*60_000, Value{fmt.Sprintf("metric_%d_%d", d, i%9), float64(i)}, Value{"temperature", 20 + float64(d)})
			m.Numbering = Numbering{Boot: "b", Sequence: int64(i)}
			batch = append(batch, m)
		}
		for i := range 4 {
			batch = append(batch, Message{Kind: Bad, Device: name, Topic: "devices/" + name + "/telemetry", Received: noon, Payload: bytes.Repeat([]byte("x"), 300*i), Reason: fmt.Sprintf("reason %d", i)})
		}
		mustAppend(t, s, batch...)
		s.AddRefused(name, "not allowed", 1)
	}
	for d := range damageDevices {
		someGarden(t, s, d)
	}
	for d := 0; d < damageDevices; d += 3 { // the others: in the journal, and rows
		flush(t, s, fmt.Sprintf("bed-%d", d))
		intoRows(t, s, fmt.Sprintf("bed-%d", d+1))
	}
	require.NoError(t, s.Close())
	return s.path
}

// flush puts what the tail has of devices into blocks; none: of all.
func flush(t *testing.T, s *Store, names ...string) {
	t.Helper()
	require.NoError(t, s.chunk(t.Context(), func() error {
		var list []*device
		for name, d := range s.state.devices {
			if len(names) == 0 || slices.Contains(names, name) {
				list = append(list, d)
			}
		}
		return s.flushDevices(list)
	}))
}

// intoRows makes readings of a device rows, as earlier versions wrote them.
func intoRows(t *testing.T, s *Store, name string) {
	t.Helper()
	require.NoError(t, s.chunk(t.Context(), func() error {
		d := s.state.devices[name]
		var w scratch
		list := w.read(s.tail.Load().Slice(d.id, math.MinInt64, math.MaxInt64))
		for _, r := range list {
			if _, err := s.insertRow(d, r.Time, r.Received, int64(r.Flags), r.Given, r.Values); err != nil {
				return err
			}
		}
		s.tx.flushed = append(s.tx.flushed, flushed{d, math.MinInt64, true})
		return s.writeNewest(d, list, s.journal.seq)
	}))
}

// regained opens a file and waits until everything that can be found is back.
func regained(t *testing.T, path string) (*Store, error) {
	s, err := Open(t.Context(), Options{Path: path, Now: func() time.Time { return time.UnixMilli(noon).Add(time.Hour) }})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	mustRegain(t, s)
	return s, nil
}

func mustRegain(t *testing.T, s *Store) {
	if err := s.regainAll(t.Context()); isDamage(err) { // where it keeps what is to be done: the next message mends that
		mustAppend(t, s, Message{Kind: Heartbeat, Device: "bed-1", Received: noon})
	}
	require.NoError(t, s.regainAll(t.Context()))
}

// held is what a store has: rows by device, accounts, quarantine entries.
func held(t *testing.T, s *Store) (rows map[string]int, accounts, quarantined int) {
	rows = map[string]int{}
	for r, err := range s.Readings(t.Context(), Query{Metrics: []string{"temperature"}}) {
		if damage := (*DamagedError)(nil); errors.As(err, &damage) {
			continue
		}
		require.NoError(t, err)
		rows[r.Device]++
	}
	return rows, len(*s.accounts.Load()), len(entries(t, s))
}

// pageStep is how far apart the pages are that are damaged: with the variable of flips, each is.
func pageStep() int {
	if os.Getenv(flipsVariable) != "" {
		return 1
	}
	return 3 // odd: noise and zeros take turns
}

func damage(t *testing.T, path string, good []byte, page int, fill func(i int) byte) {
	bad := bytes.Clone(good)
	for i := range pageBytes {
		bad[(page-1)*pageBytes+i] = fill(i)
	}
	require.NoError(t, os.WriteFile(path, bad, 0o600))
	for _, suffix := range []string{walSuffix, swap.SHM} {
		if err := os.Remove(path + suffix); !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
		}
	}
}

func TestADamagedPageIsSurvivedWhereverItIs(t *testing.T) {
	filled := filledFile(t)
	good, err := os.ReadFile(filled)
	require.NoError(t, err)
	whole, err := regained(t, filled)
	require.NoError(t, err)
	wholeRows, wholeAccounts, wholeEntries := held(t, whole)
	require.Len(t, wholeRows, damageDevices)
	wholeGarden := gardenOf(t, whole)
	require.Equal(t, map[string]int{"zones": damageDevices, "plants": damageDevices, "thresholds": 2 * damageDevices, "assignments": damageDevices, "note": damageDevices,
		"registration": damageDevices, "web_session": damageDevices, "api_token": damageDevices}, wholeGarden)
	random := rand.New(rand.NewPCG(1, 1))
	for page := 1; page <= len(good)/pageBytes; page += pageStep() {
		kind, fill := "noise", func(int) byte { return byte(random.Uint32()) }
		if page%2 == 0 {
			kind, fill = "zeros", func(int) byte { return 0 }
		}
		t.Run(fmt.Sprintf("page %d, %s", page, kind), func(t *testing.T) {
			path, whole := filepath.Join(t.TempDir(), "plantops.db"), 0
			damage(t, path, good, page, fill)
			s, err := regained(t, path)
			require.NoError(t, err)
			for d := range damageDevices {
				name := fmt.Sprintf("bed-%d", d)
				require.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry(name, noon+3_600_000, Value{"temperature", 1})), name)
			}
			if s.checkBlobs(t.Context()) == nil && s.Check(t.Context()) != nil { // an index that no message needed
				mustAppend(t, s, telemetry("bed-1", noon+7_200_000, Value{"temperature", 1}))
				whole = 1
			}
			require.NoError(t, s.regainAll(t.Context()))
			inBlobs := s.checkBlobs(t.Context()) // what SQLite does not see
			if inBlobs == nil {
				require.NoError(t, s.Check(t.Context()))
			}
			rows, accounts, quarantined := held(t, s)
			list, err := s.Salvages(t.Context())
			require.NoError(t, err)
			// What a reader or the check of blobs comes upon may have it made anew in a quiet moment meanwhile.
			for range 10 {
				if !slices.ContainsFunc(list, func(one Salvage) bool { return one.Finished == 0 }) {
					break
				}
				mustRegain(t, s)
				rows, accounts, quarantined = held(t, s)
				list, err = s.Salvages(t.Context())
				require.NoError(t, err)
			}
			lostRows := whole
			for name, n := range wholeRows {
				lostRows += n + 1 - rows[name]
			}
			assert.LessOrEqual(t, lostRows, 4*damageRows, "rows on one page, or records or blocks that begin there")
			assert.GreaterOrEqual(t, accounts, wholeAccounts-13, "accounts on one page")
			assert.GreaterOrEqual(t, quarantined, wholeEntries-10, "entries on one page")
			missing, lost := int64(0), ""
			for _, one := range list {
				assert.NotZero(t, one.Finished)
				lost += one.Lost
				for _, n := range one.Missing {
					missing += n
				}
			}
			if inBlobs == nil {
				assert.EqualValues(t, max(lostRows, 0), missing, "what is lost of readings is named")
			}
			if accounts < wholeAccounts || quarantined < wholeEntries {
				assert.NotEmpty(t, lost)
			}
			for what, n := range gardenOf(t, s) {
				if n < wholeGarden[what] {
					assert.NotEmpty(t, lost, what)
				}
				assert.GreaterOrEqual(t, n, wholeGarden[what]/12, "%s on one page", what)
			}
		})
	}
}

func TestAFileThatIsDamagedWhileTheServerRunsStopsNobody(t *testing.T) {
	filled := filledFile(t)
	good, err := os.ReadFile(filled)
	require.NoError(t, err)
	for page := 2; page <= len(good)/pageBytes; page += 3 {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plantops.db")
			require.NoError(t, os.WriteFile(path, good, 0o600))
			s, err := Open(t.Context(), Options{Path: path})
			require.NoError(t, err)
			defer func() { assert.NoError(t, s.Close()) }()
			execute(t, s, `PRAGMA cache_size = 0`) // what is in memory would hide the damage
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageBytes), int64(page-1)*pageBytes)
			require.NoError(t, err)
			// Not closed: that would end the locks of this process.
			defer func() { _ = file.Close() }()
			var batch []Message
			for d := range damageDevices {
				for i := range damageRows {
					batch = append(batch, telemetry(fmt.Sprintf("bed-%d", d), noon+int64(i)*60_000+1, Value{"temperature", 5}))
				}
			}
			outcomes := mustAppend(t, s, batch...)
			assert.Equal(t, len(batch), len(outcomes))
			assert.NotContains(t, outcomes, Duplicate)
			mustRegain(t, s)
			list, err := s.Salvages(t.Context())
			require.NoError(t, err)
			if len(list) > 0 {
				require.NoError(t, s.Check(t.Context()))
			}
		})
	}
}

func TestAMessageThatCannotBeStoredIsFoundAndKept(t *testing.T) {
	s := openTest(t, Options{})
	trigger := func(table string) {
		execute(t, s, `CREATE TRIGGER `+table+`_poison BEFORE INSERT ON `+table+`
			WHEN EXISTS (SELECT 1 FROM device WHERE name = 'poison') BEGIN SELECT raise(ABORT, 'no'); END`)
	}
	execute(t, s, `CREATE TRIGGER journal_poison BEFORE INSERT ON skipped WHEN NEW.first = 13 BEGIN SELECT raise(ABORT, 'no'); END`)
	var batch []Message
	for i := range 20 {
		batch = append(batch, telemetry("bed-1", int64(i), Value{"temperature", 1}))
		batch[i].Received, batch[i].Skipped = int64(i), []Skipped{{Field: fmt.Sprint(i)}}
	}
	outcomes := mustAppend(t, s, batch...)
	want := slices.Repeat([]Outcome{Stored}, 20)
	want[13] = Quarantined
	assert.Equal(t, want, outcomes)
	require.Len(t, entries(t, s), 1)
	assert.Contains(t, entries(t, s)[0].Reason, "cannot be stored")
	assert.Equal(t, Counts{Stored: 19, Quarantined: 1}, totals(t, s))

	trigger("quarantine")
	mustAppend(t, s, telemetry("poison", 1, Value{"temperature", 1}))
	again13 := telemetry("bed-1", 20, Value{"temperature", 2})
	again13.Received, again13.Skipped = 13, []Skipped{{Field: "13"}}
	assert.Equal(t, []Outcome{Quarantined}, mustAppend(t, s, again13))
	assert.Equal(t, Counts{Stored: 20, Quarantined: 2}, totals(t, s), "the side file counts")
	assert.FileExists(t, s.path+aside.Suffix)

	again := func() *Store {
		require.NoError(t, s.Close())
		var err error
		s, err = Open(context.Background(), s.options)
		require.NoError(t, err)
		return s
	}
	assert.Equal(t, Counts{Stored: 20, Quarantined: 2}, totals(t, again()), "it stays while the database refuses it")
	execute(t, s, `DROP TRIGGER quarantine_poison`)
	assert.Equal(t, Counts{Stored: 20, Quarantined: 2}, totals(t, again()))
	assert.NoFileExists(t, s.path+aside.Suffix)
	require.Len(t, entries(t, s), 2)
	assert.Equal(t, Counts{Stored: 20, Quarantined: 2}, totals(t, again()), "once")
	require.NoError(t, s.Close())
}

func TestASwapThatWasBrokenOffIsFinished(t *testing.T) {
	filled := filledFile(t)
	good, err := os.ReadFile(filled)
	require.NoError(t, err)
	for _, upTo := range []string{"linked", "log removed"} {
		t.Run(upTo, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plantops.db")
			damage(t, path, good, 2, func(int) byte { return 0x5a })
			s := &Store{options: Options{Path: path}, writing: make(chan struct{}, 1)}
			s.options.defaults()
			s.log, s.path = s.options.Log, path
			old := damagedName(path, time.UnixMilli(noon))
			_, err := s.carryOver(t.Context(), filepath.Base(old), errors.New("test"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+walSuffix, []byte("of the old file"), 0o600))
			require.NoError(t, os.Link(path, old))
			if upTo == "log removed" {
				require.NoError(t, os.Remove(path+walSuffix))
			}
			done, err := regained(t, path)
			require.NoError(t, err)
			rows, _, _ := held(t, done)
			assert.Len(t, rows, damageDevices)
			assert.NoFileExists(t, path+newSuffix)
			assert.FileExists(t, old)
		})
	}
}

func TestATruncatedFileKeepsWhatIsThere(t *testing.T) {
	filled := filledFile(t)
	require.NoError(t, os.Truncate(filled, 60*pageBytes+500))
	s, err := regained(t, filled)
	require.NoError(t, err)
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.NotEmpty(t, list[0].Missing)
	require.NoError(t, s.Check(t.Context()))
}
