package store

import (
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/hourly"
)

// asked are the rows of an answer to another program, which opens the file itself.
func asked(t *testing.T, path, query string, args ...any) (rows []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	answer, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err)
	columns, err := answer.Columns()
	require.NoError(t, err)
	values, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		to[i] = &values[i]
	}
	for answer.Next() {
		require.NoError(t, answer.Scan(to...))
		rows = append(rows, fmt.Sprintln(values...))
		rows[len(rows)-1] = rows[len(rows)-1][:len(rows[len(rows)-1])-1]
	}
	require.NoError(t, answer.Err())
	return rows
}

// panel is what a panel of Grafana asks, with the time that it shows in milliseconds: docs/sql.md.
const panel = `SELECT time, device || ' ' || metric AS metric, avg AS value FROM hourly
	WHERE metric = 'temperature' AND time >= $1 / 1000 AND time < $2 / 1000 ORDER BY time, device`

const hours = `SELECT time, device, metric, min, avg, max, count FROM hourly ORDER BY time, device, metric`

type tablesTest struct {
	*Store
	t    *testing.T
	path string
	now  time.Time
}

// tablesFrom is 2026-01-07 12:00 UTC.
var tablesFrom = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC)

func openTables(t *testing.T) *tablesTest {
	s := &tablesTest{t: t, path: filepath.Join(t.TempDir(), "plants.db"), now: tablesFrom}
	s.open()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *tablesTest) open() {
	db, err := Open(s.t.Context(), Options{Path: s.path, Now: func() time.Time { return s.now }})
	require.NoError(s.t, err)
	s.Store = db
}

// send stores a value of a device, minutes after noon.
func (s *tablesTest) send(device string, minute int, metric string, value float64) {
	s.t.Helper()
	at := tablesFrom.Add(time.Duration(minute) * time.Minute).UnixMilli()
	outcomes := make([]Outcome, 1)
	_, err := s.Append(s.t.Context(), []Message{{Device: device, Topic: "plants/" + device, Time: at, Received: at,
		Values: []Value{{Metric: metric, Value: value}}, Payload: []byte("x")}}, outcomes)
	require.NoError(s.t, err)
	require.Equal(s.t, Stored, outcomes[0])
}

// write is a pass, minutes after noon.
func (s *tablesTest) write(minute int, o TableOptions) {
	s.t.Helper()
	s.now = tablesFrom.Add(time.Duration(minute) * time.Minute)
	require.NoError(s.t, s.WriteTables(s.t.Context(), o))
}

func TestOtherProgramsReadHoursOfTheLiveFile(t *testing.T) {
	s := openTables(t)
	hourly := TableOptions{Hourly: true}
	for i := range 6 {
		s.send("bed-1", i*20, "temperature", 20+float64(i)/10)
		s.send("bed-2", i*20, "temperature", 1.0/3)
	}
	s.send("bed-1", 10, "humidity", 60)
	s.write(121, hourly)
	want := []string{
		"1767787200 bed-1 humidity 60 60 60 1",
		"1767787200 bed-1 temperature 20 20.1 20.2 3",
		"1767787200 bed-2 temperature 0.3333333333333333 0.3333333333333333 0.3333333333333333 3",
		"1767790800 bed-1 temperature 20.3 20.4 20.5 3",
		"1767790800 bed-2 temperature 0.3333333333333333 0.3333333333333333 0.3333333333333333 3",
	}
	assert.Equal(t, want, asked(t, s.path, hours))
	assert.Equal(t, []string{"1767787200 bed-1 temperature 20.1", "1767787200 bed-2 temperature 0.3333333333333333"},
		asked(t, s.path, panel, tablesFrom.UnixMilli(), tablesFrom.Add(time.Hour).UnixMilli()))
	assert.Equal(t, []string{"bed-1 humidity", "bed-1 temperature", "bed-2 temperature"}, asked(t, s.path, `SELECT device, metric FROM metrics ORDER BY 1, 2`))
	assert.Equal(t, []string{"bed-1 1767787800000 humidity 60", "bed-1 1767793200000 temperature 20.5", "bed-2 1767793200000 temperature 0.3333333333333333"},
		asked(t, s.path, `SELECT * FROM latest ORDER BY device, metric`))
	assert.Equal(t, []string{"bed-1 1767787200000 0 1767787800000 1767793200000", "bed-2 1767787200000 0 1767793200000 1767793200000"},
		asked(t, s.path, `SELECT device, created, registered, last_seen, last_reading FROM devices ORDER BY device`))

	// What changes nothing writes nothing; what comes late is added.
	version := asked(t, s.path, `SELECT computed FROM sql_state`)
	s.write(122, hourly)
	assert.Equal(t, version, asked(t, s.path, `SELECT computed FROM sql_state`))
	s.send("bed-1", 30, "temperature", 30)
	assert.Equal(t, []string{"1"}, asked(t, s.path, `SELECT count(*) FROM sql_due`), "it is late")
	s.write(123, hourly)
	want[1] = "1767787200 bed-1 temperature 20 22.575 30 4"
	assert.Equal(t, want, asked(t, s.path, hours))
	assert.Equal(t, []string{"0"}, asked(t, s.path, `SELECT count(*) FROM sql_due`))

	// So it is in blocks, and after a start.
	require.NoError(t, compacted(t.Context(), s.Store))
	s.send("bed-1", 31, "temperature", 31)
	crash(t, s.Store)
	s.open()
	s.send("bed-2", 150, "temperature", 5)
	s.write(181, hourly)
	want[1] = "1767787200 bed-1 temperature 20 24.26 31 5"
	assert.Equal(t, append(want, "1767794400 bed-2 temperature 5 5 5 1"), asked(t, s.path, hours))

	// Hours that were made anew are the same.
	before := asked(t, s.path, hours)
	s.write(182, TableOptions{})
	assert.Empty(t, asked(t, s.path, hours))
	require.NoError(t, s.Close())
	s.open()
	s.write(183, hourly)
	assert.Equal(t, before, asked(t, s.path, hours))

	_, err := s.PurgeDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Len(t, asked(t, s.path, hours), 3)
	assert.Equal(t, []string{"3"}, asked(t, s.path, `SELECT count(*) FROM sql_hourly`))
	require.NoError(t, s.Check(t.Context()))
}

func TestHoursThatAreNotOverAreThereSoon(t *testing.T) {
	s := openTables(t)
	s.send("bed-1", 1, "temperature", 20)
	s.write(2, TableOptions{Hourly: true})
	assert.Len(t, asked(t, s.path, hours), 1, "the first pass has them")
	s.send("bed-1", 3, "temperature", 21)
	for pass := range tablesOpen {
		s.write(3+5*pass, TableOptions{Hourly: true})
	}
	assert.Equal(t, []string{"1767787200 bed-1 temperature 20 20.5 21 2"}, asked(t, s.path, hours))
}

// What is written again and again wears the disk out: of many devices the latest values come in turns, and hours when they are over.
func TestLatestValuesOfManyDevicesAreWrittenInTurns(t *testing.T) {
	s := openTables(t)
	const devices = tablesPasses*tablesDevices + 20
	send := func(minute int) {
		batch := make([]Message, devices)
		for i := range batch {
			batch[i] = telemetry(fmt.Sprint("bed-", i), tablesFrom.Add(time.Duration(minute)*time.Minute).UnixMilli(), Value{"temperature", float64(minute)})
		}
		mustAppend(s.t, s.Store, batch...)
	}
	behind := func(minute int) (n int) {
		require.Len(t, asked(t, s.path, `SELECT device FROM latest`), devices)
		return len(asked(t, s.path, `SELECT device FROM latest WHERE value < $1`, minute))
	}
	hourly := TableOptions{Hourly: true}
	send(1)
	s.write(2, hourly)
	assert.Zero(t, behind(1), "the first pass writes all")
	assert.Len(t, asked(t, s.path, hours), devices)
	for pass := range tablesPasses {
		send(5 + 4*pass)
		s.write(6+4*pass, hourly)
	}
	assert.Zero(t, behind(5), "each had its turn")
	assert.Equal(t, devices-(devices+tablesPasses-1)/tablesPasses, behind(5+4*(tablesPasses-1)), "one in so many passes")
	assert.Len(t, asked(t, s.path, `SELECT count FROM hourly WHERE count = 1`), devices, "an hour that is not over")

	// New ones do not wait for their turn.
	s.send("new", 54, "temperature", 54)
	s.send("bed-0", 54, "humidity", 60)
	send(55)
	s.write(60, hourly)
	assert.Equal(t, []string{"new 54"}, asked(t, s.path, `SELECT device, value FROM latest WHERE device = 'new'`))
	assert.Len(t, asked(t, s.path, `SELECT count FROM hourly WHERE count = 14`), devices)
	assert.Equal(t, []string{"60"}, asked(t, s.path, `SELECT avg FROM hourly WHERE device = 'bed-0' AND metric = 'humidity'`))
}

func TestHoursMayOutliveTheirReadings(t *testing.T) {
	s := openTables(t)
	keep := TableOptions{Hourly: true, Keep: 24 * time.Hour}
	for i := range 4 {
		s.send("bed-1", i*30, "temperature", float64(i))
	}
	s.write(121, keep)
	before := asked(t, s.path, hours)
	require.Len(t, before, 2)
	_, err := s.DeleteBefore(t.Context(), tablesFrom.Add(45*time.Minute))
	require.NoError(t, err)
	s.send("bed-1", 50, "temperature", 99) // its hour is not whole any more
	s.write(122, keep)
	assert.Equal(t, before, asked(t, s.path, hours))
	require.NoError(t, s.Close())
	s.open()
	s.write(123, keep)
	assert.Equal(t, before, asked(t, s.path, hours))
	s.write(26*60, keep)
	assert.Equal(t, before[1:], asked(t, s.path, hours), "and they go in their time")

	_, err = s.DeleteBefore(t.Context(), tablesFrom.Add(3*time.Hour))
	require.NoError(t, err)
	s.write(26*60+5, TableOptions{Hourly: true})
	assert.Empty(t, asked(t, s.path, hours), "or with their readings")
	assert.Empty(t, asked(t, s.path, `SELECT * FROM latest`))
}

func TestHoursFollowReadingsThatAreDatedAnew(t *testing.T) {
	s := openTables(t)
	at := tablesFrom.UnixMilli()
	_, err := s.Append(t.Context(), []Message{{Device: "bed-1", Topic: "plants/bed-1", Received: at, TimeSource: FromArrival, ClockUnsure: true,
		ClockLine: 1, Values: []Value{{Metric: "temperature", Value: 20}}}}, make([]Outcome, 1))
	require.NoError(t, err)
	s.write(61, TableOptions{Hourly: true})
	require.Len(t, asked(t, s.path, hours), 1)
	_, err = s.Redate(t.Context(), 1, 5*time.Hour)
	require.NoError(t, err)
	s.write(6*60+1, TableOptions{Hourly: true})
	assert.Equal(t, []string{"1767805200 bed-1 temperature 20 20 20 1"}, asked(t, s.path, hours))
}

// A file that is made anew has no hours but those that can be computed, and says which ones it has not.
func TestHoursThatADamagedFileTakesAlongAreNamed(t *testing.T) {
	s := openTables(t)
	keep := TableOptions{Hourly: true, Keep: 24 * time.Hour}
	for i := range 4 {
		s.send("bed-1", i*60, "temperature", float64(i))
	}
	s.write(241, keep)
	_, err := s.DeleteBefore(t.Context(), tablesFrom.Add(2*time.Hour))
	require.NoError(t, err)
	require.Len(t, asked(t, s.path, hours), 4)
	require.NoError(t, s.Close())
	content, err := os.ReadFile(s.path)
	require.NoError(t, err)
	content[strings.Index(string(content), "hash      BLOB")] ^= 1 // of the schema
	require.NoError(t, os.WriteFile(s.path, content, 0o600))
	s.open()
	list, err := s.Salvages(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "hourly values from 2026-01-07 to 2026-01-07 whose readings were deleted", list[0].Lost)
	require.NoError(t, s.regainAll(t.Context()))
	s.write(242, keep)
	assert.Len(t, asked(t, s.path, hours), 2)
}

// The hours of the others must not be forgotten when a device is purged while they are computed.
func TestHoursAreComputedBesideAPurge(t *testing.T) {
	s := openTables(t)
	s.send("bed-1", 1, "temperature", 20)
	s.send("bed-2", 1, "temperature", 21)
	s.now = tablesFrom.Add(61 * time.Minute)
	pass := tablePass{s: s.Store, ctx: t.Context(), options: TableOptions{Hourly: true}, end: math.MaxInt64}
	w := hourWindow{span: hourly.Around(tablesFrom.UnixMilli(), tablesFrom.UnixMilli())}
	require.NoError(t, pass.takeWindow(&w))
	require.Len(t, w.devices, 2)
	_, err := s.PurgeDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.ErrorIs(t, pass.writeHours(&w), ErrNotFound)
	s.write(62, TableOptions{Hourly: true})
	assert.Equal(t, []string{"1767787200 bed-2 temperature 21 21 21 1"}, asked(t, s.path, hours))
	assert.Equal(t, []string{fmt.Sprint(tablesFrom.UnixMilli())}, asked(t, s.path, `SELECT computed FROM sql_state`))
}

// A panel of one device must not read the hours of all.
func TestHoursOfOneDeviceAreFoundByTheirKey(t *testing.T) {
	s := openTables(t)
	plan := fmt.Sprint(asked(t, s.path, `EXPLAIN QUERY PLAN SELECT time, avg FROM hourly WHERE device = 'bed-1' AND metric = 'temperature' AND time >= 5`))
	assert.Contains(t, plan, "SEARCH sql_hourly USING PRIMARY KEY (hour=? AND series=?)")
	assert.NotContains(t, plan, "SCAN")
}

func TestNumbersOfHoursAreExact(t *testing.T) {
	s := openTables(t)
	values := []float64{0.1, -0.001, 1013.25, 2147483.647, 2147483.648, math.MaxFloat64, math.SmallestNonzeroFloat64, 1e-9, 123456.789, 65535, 0.30000000000000004}
	for i, v := range values {
		s.send("bed-1", i*60, "x", v)
	}
	s.write(len(values)*60, TableOptions{Hourly: true})
	for i, v := range values {
		rows := asked(t, s.path, `SELECT min = $1, max = $1, abs(avg - $1) <= 5e-6 FROM hourly WHERE time = $2`, v, tablesFrom.Unix()+int64(i)*3600)
		assert.Equal(t, []string{"1 1 1"}, rows, "%v", v)
	}
}

// BenchmarkTables says what the tables for other programs cost: four hours of 1,000 devices that send 4 metrics every 5 minutes, one
// commit and one pass for each 5 minutes. One operation is all of that.
func BenchmarkTables(b *testing.B) {
	for _, c := range []struct {
		name string
		pass bool
		TableOptions
	}{{"none", false, TableOptions{}}, {"latest", true, TableOptions{}}, {"hourly", true, TableOptions{Hourly: true}}} {
		b.Run(c.name, func(b *testing.B) {
			const devices, steps = 1000, 48
			for range b.N {
				now := tablesFrom
				path := filepath.Join(b.TempDir(), "plants.db")
				s, err := Open(b.Context(), Options{Path: path, Now: func() time.Time { return now }})
				require.NoError(b, err)
				before := written(b)
				random := rand.New(rand.NewPCG(1, 2))
				batch, outcomes := make([]Message, devices), make([]Outcome, devices)
				for range steps {
					for d := range batch {
						at := now.UnixMilli() + int64(d)
						name := fmt.Sprintf("bed-%d", d)
						batch[d] = Message{Device: name, Topic: "plants/" + name, Time: at, Received: at + 20, Values: []Value{
							{"temperature", 20 + float64(random.IntN(50))/10}, {"humidity", 50 + float64(random.IntN(2000))/100},
							{"battery", 3.5 + float64(random.IntN(50))/100}, {"light", float64(random.IntN(60000))}}}
					}
					_, err := s.Append(b.Context(), batch, outcomes)
					require.NoError(b, err)
					now = now.Add(5 * time.Minute)
					if c.pass {
						require.NoError(b, s.WriteTables(b.Context(), c.TableOptions))
					}
				}
				require.NoError(b, s.Close())
				info, err := os.Stat(path)
				require.NoError(b, err)
				b.ReportMetric(float64(info.Size())/devices/steps, "kept-B/reading")
				b.ReportMetric(float64(written(b)-before)/devices/steps, "written-B/reading")
			}
		})
	}
}

// written is how many bytes this process has written, to files too that are gone.
func written(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(text), "wchar: ")
	_, err = fmt.Sscan(rest, &n)
	require.NoError(b, err)
	return n
}
