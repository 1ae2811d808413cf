package intake

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

var now = time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC)

func write(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// target is a store with who imports into it.
func target(t *testing.T) (*store.Store, *control.Server) {
	t.Helper()
	db := storetest.OpenWith(t, store.Options{Now: func() time.Time { return now }})
	return db, control.New(control.Options{Store: db, Now: func() time.Time { return now }})
}

func run2(t *testing.T, o Options) *Report {
	t.Helper()
	if o.Now.IsZero() {
		o.Now = now
	}
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	return report
}

func stock(t *testing.T, db *store.Store) (list []string) {
	t.Helper()
	for r, err := range db.Readings(t.Context(), store.Query{}) {
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s %s %s %v", control.Moment(r.Time), r.Device, r.Metric, r.Value))
	}
	return list
}

// lineProtocol are n times of two fields of each device, one field after the other.
func lineProtocol(devices, n int) string {
	var b strings.Builder
	for d := range devices {
		for f, field := range []string{"ph", "temperature"} {
			for i := range n {
				fmt.Fprintf(&b, "air,device=bed-%d %s=%d %d\n", d, field, 10*f+i, 1704067200+300*i)
			}
		}
	}
	return b.String()
}

func TestImportStoresOnceWhatADryRunTells(t *testing.T) {
	path := write(t, "x.lp", lineProtocol(3, 10)+"bad\nair,device=bed-0 s=\"text\" 1704067200\n")
	db, to := target(t)
	dry := run2(t, Options{Path: path, Known: map[string]struct{}{"bed-1": {}}})
	assert.Equal(t, int64(60), dry.Readings)
	assert.Equal(t, 3, dry.Devices)
	assert.Equal(t, []string{"bed-0", "bed-2"}, dry.New)
	assert.Len(t, dry.TakenOver, 6)
	assert.Equal(t, []Left{{"air,device=bed-0 s", "texts are no readings", 1}}, dry.LeftOut)
	assert.Equal(t, []RejectedLine{{61, "no fields", "bad"}}, dry.Shown)
	assert.False(t, dry.Applied)
	assert.Empty(t, stock(t, db))

	first := run2(t, Options{Path: path, Target: to, window: 7})
	assert.Equal(t, int64(60), first.Stored)
	assert.Zero(t, first.Known)
	all := stock(t, db)
	assert.Len(t, all, 60)
	assert.Equal(t, "2024-01-01T00:45:00.000Z bed-2 temperature 19", all[59])

	second := run2(t, Options{Path: path, Target: to})
	assert.Zero(t, second.Continued)
	assert.Zero(t, second.Stored)
	assert.Equal(t, int64(60), second.Known)
	assert.Equal(t, all, stock(t, db))
}

// failing fails after some calls, as a kill would.
type failing struct {
	Target
	left int
}

var errKilled = errors.New("killed")

func (f *failing) ImportHistory(ctx context.Context, h control.History) (control.HistoryOutcome, error) {
	if f.left--; f.left < 0 {
		return control.HistoryOutcome{}, errKilled
	}
	return f.Target.ImportHistory(ctx, h)
}

func TestImportGoesOnWhereItStopped(t *testing.T) {
	text := lineProtocol(2, 50)
	plain, packed := write(t, "x.lp", text), filepath.Join(t.TempDir(), "x.lp.gz")
	file, err := os.Create(packed)
	require.NoError(t, err)
	zip := gzip.NewWriter(file)
	_, err = zip.Write([]byte(text))
	require.NoError(t, errors.Join(err, zip.Close(), file.Close()))

	for _, path := range []string{plain, packed} {
		db, to := target(t)
		killed := 0
		var last *Report
		for n := 3; ; n++ { // each time it gets a bit further
			report, err := Run(t.Context(), Options{Path: path, Target: &failing{to, n}, Now: now, window: 20})
			if last = report; err == nil {
				break
			}
			require.ErrorIs(t, err, errKilled)
			killed++
		}
		assert.Greater(t, killed, 1)
		assert.NotZero(t, last.Continued)
		assert.Less(t, last.Readings, int64(200))
		assert.Len(t, stock(t, db), 200)
		assert.Zero(t, run2(t, Options{Path: path, Target: to}).Continued, "it is finished")
	}
}

func TestChangedFileIsReadFromItsStart(t *testing.T) {
	path := write(t, "x.lp", lineProtocol(1, 50))
	_, to := target(t)
	_, err := Run(t.Context(), Options{Path: path, Target: &failing{to, 4}, Now: now, window: 20})
	require.ErrorIs(t, err, errKilled)
	stopped, err := Run(t.Context(), Options{Path: path, Target: &failing{to, 1}, Now: now, window: 20})
	require.ErrorIs(t, err, errKilled)
	require.NotZero(t, stopped.Continued)

	stopped, err = Run(t.Context(), Options{Path: path, Target: &failing{to, 1}, Now: now, window: 20, FromStart: true})
	require.ErrorIs(t, err, errKilled)
	assert.Zero(t, stopped.Continued)
	stopped, err = Run(t.Context(), Options{Path: path, Target: &failing{to, 1}, Now: now, window: 20, Read: histories.Options{Metric: "{field}"}})
	require.ErrorIs(t, err, errKilled)
	assert.Zero(t, stopped.Continued, "read in another way")
	require.NoError(t, os.WriteFile(path, []byte(lineProtocol(1, 51)), 0o600))
	assert.Zero(t, run2(t, Options{Path: path, Target: to}).Continued)
}

func TestConflictsAreRejectedByLine(t *testing.T) {
	db, to := target(t)
	run2(t, Options{Path: write(t, "a.csv", "time,device,metric,value\n2024-01-01T00:00:00Z,a,ph,6\n"), Target: to})
	var all strings.Builder
	path := write(t, "b.csv", "time,device,ph,ec\n2024-01-01T00:00:00Z,a,7,1\n2024-01-01T00:00:01Z,a,6,1\n2024-01-01T00:00:01Z,a,6,2\n2024-01-01T00:00:00Z,a,8,\n")
	report := run2(t, Options{Path: path, Target: to, Rejects: &all})
	assert.Equal(t, int64(3), report.Rejected)
	var lines []int64
	for _, r := range report.Shown {
		lines = append(lines, r.Line)
		assert.Contains(t, r.Reason, "another value")
	}
	assert.ElementsMatch(t, []int64{2, 4, 5}, lines)
	assert.Equal(t, []string{"2024-01-01T00:00:00.000Z a ec 1", "2024-01-01T00:00:00.000Z a ph 6", "2024-01-01T00:00:01.000Z a ec 1", "2024-01-01T00:00:01.000Z a ph 6"}, stock(t, db))
	assert.Equal(t, int64(3), report.Stored)
	assert.Equal(t, 4, strings.Count(all.String(), "\n"))
	assert.Contains(t, all.String(), "a ph = 7")
	for q, err := range db.Quarantine(t.Context(), 0) {
		assert.Fail(t, "an entry in quarantine", "%v %v", q, err)
	}
}

func TestTimesThatCannotBeAreRejectedAndStrangersLeftOut(t *testing.T) {
	path := write(t, "a.csv", "time,device,metric,value\n5,a,ph,6\n2001-01-01T00:00:00Z,a,ph,6\n2024-06-30T00:00:00Z,a,ph,6\n2024-06-30T00:00:00Z,b,ph,6\n2024-07-01T00:00:59Z,a,ph,6\n2024-07-01T00:02:00Z,a,ph,6\n")
	report := run2(t, Options{Path: path, Keep: func(string) time.Duration { return 365 * 24 * time.Hour }, Known: map[string]struct{}{"a": {}}, OnlyKnown: true})
	assert.Equal(t, int64(2), report.Readings)
	assert.Equal(t, []Left{{"b ph", "there is no device b", 1}}, report.LeftOut)
	var why []string
	for _, r := range report.Shown {
		why = append(why, fmt.Sprintf("%d %.16s", r.Line, r.Reason))
	}
	assert.Equal(t, []string{"2 before 1990: is ", "3 older than store", "7 in the future"}, why)
	forEver := run2(t, Options{Path: path})
	assert.Equal(t, int64(4), forEver.Readings)
}

func TestOwnDatabaseIsReadWithItsTimesOfArrival(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	other, err := store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	for i := range int64(30) {
		_, err = other.Append(t.Context(), []store.Message{{Device: "bed-1", Topic: "t", Time: 1704067200000 + i, Received: 1704067205000,
			Values: []store.Value{{Metric: "ph", Value: 6.5}, {Metric: "ec", Value: float64(i)}}}}, nil)
		require.NoError(t, err)
	}
	require.NoError(t, other.Close())
	db, to := target(t)
	m, err := histories.ReadMap(nil, strings.NewReader("ph,,acidity\n"))
	require.NoError(t, err)
	report := run2(t, Options{Path: path, Target: to, window: 10, Read: histories.Options{Map: m}})
	assert.Equal(t, "PlantOps database", report.Format)
	assert.Equal(t, int64(60), report.Stored)
	latest, err := db.Latest(t.Context(), "bed-1")
	require.NoError(t, err)
	require.Len(t, latest, 2)
	assert.Equal(t, store.Reading{Device: "bed-1", Metric: "acidity", Time: 1704067200029, Value: 6.5, Received: 1704067205000}, latest[0])
}

func TestFileThatCannotBeTakenSaysWhatWouldHelp(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unclear":  {"a,b\n1,2\n", "cannot be told"},
		"a folder": {"", "not a regular file"},
		"UTF-16":   {"\xff\xfea", "UTF-16"},
	} {
		path := write(t, "x", c.text)
		if c.text == "" {
			path = filepath.Dir(path)
		}
		report, err := Run(t.Context(), Options{Path: path, Now: now})
		assert.Nil(t, report)
		assert.ErrorContains(t, err, c.want, name)
	}
	_, err := Run(t.Context(), Options{Path: "nowhere"})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestOptionsAreTheSameInEveryRun(t *testing.T) {
	options := func() histories.Options {
		zone, err := time.LoadLocation("UTC")
		require.NoError(t, err)
		return histories.Options{Zone: zone, Map: histories.NewMap(map[string]string{"a": "b", "c": "d"}), CheckDevice: store.CheckID}
	}
	assert.Equal(t, optionsText(options()), optionsText(options()))
	assert.NotContains(t, optionsText(options()), "0x")
}

func TestImportStopsWhenItIsTold(t *testing.T) {
	_, to := target(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := Run(ctx, Options{Path: write(t, "x.lp", lineProtocol(1, 5)), Target: to, Now: now})
	assert.ErrorIs(t, err, context.Canceled)
	assert.NotNil(t, report)
}
