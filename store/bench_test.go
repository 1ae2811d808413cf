package store_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/pack"
	"github.com/plantops/plantops/store/storetest"
)

// BenchmarkAppend stores messages of five metrics, devices in turn, and reports what one message costs: time, CPU time of
// the whole process (checkpoints included, waiting for the disk not) and allocations.
func BenchmarkAppend(b *testing.B) {
	for _, devices := range []int{10, 1000} {
		for _, size := range []int{1, 33, 1000} {
			b.Run(fmt.Sprintf("devices=%d/batch=%d", devices, size), func(b *testing.B) {
				benchmarkAppend(b, devices, size, store.Telemetry)
			})
		}
	}
}

// BenchmarkAppendBad is a flood of bad payloads for a quarantine that is full, to compare with BenchmarkAppend.
func BenchmarkAppendBad(b *testing.B) {
	for _, devices := range []int{10, 1000} {
		b.Run(fmt.Sprintf("devices=%d/batch=1000", devices), func(b *testing.B) {
			benchmarkAppend(b, devices, 1000, store.Bad)
		})
	}
}

func benchmarkAppend(b *testing.B, devices, size int, kind store.Kind) {
	s := storetest.OpenWith(b, store.Options{QuarantineBytes: 1 << 20, QuarantineAge: 100 * 365 * 24 * time.Hour})
	names := make([]string, devices)
	for i := range names {
		names[i] = fmt.Sprintf("bed-%d", i)
	}
	var batch []store.Message
	var outcomes []store.Outcome
	values := make([]store.Value, 5*size)
	payload := []byte(`{"soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800,"battery":NaN}`)
	sent := 0
	next := func(n int) {
		batch = batch[:0]
		for i := range n {
			at := 1_767_787_200_000 + int64(sent/devices)*10_000
			v := values[5*i : 5*i+5]
			v[0] = store.Value{Metric: "soil_moisture", Value: float64(sent%1000) / 10}
			v[1] = store.Value{Metric: "temperature", Value: float64(sent%317) / 10}
			v[2] = store.Value{Metric: "humidity", Value: float64(sent % 100)}
			v[3] = store.Value{Metric: "light_level", Value: float64(sent % 2000)}
			v[4] = store.Value{Metric: "battery", Value: 3.7}
			batch = append(batch, store.Message{
				Kind: kind, Device: names[sent%devices], Topic: "devices/bed/telemetry", Time: at, Received: at, Values: v,
				Payload: payload, Reason: "not JSON",
			})
			sent++
		}
	}
	var memory, after runtime.MemStats
	runtime.ReadMemStats(&memory)
	cpu, written := cpuTime(b), writtenBytes(b)
	b.ResetTimer()
	for done := 0; done < b.N; done += size {
		next(min(size, b.N-done))
		var err error
		outcomes, err = s.Append(b.Context(), batch, outcomes[:0])
		require.NoError(b, err)
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/msg")
	b.ReportMetric(float64(writtenBytes(b)-written)/float64(b.N), "disk-B/msg")
	b.ReportMetric(float64(after.Mallocs-memory.Mallocs)/float64(b.N), "allocs/msg")
	b.ReportMetric(float64(after.TotalAlloc-memory.TotalAlloc)/float64(b.N), "B/msg")
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// writtenBytes is what this process has had written to disk, as the kernel counts it; 0 where it does not.
func writtenBytes(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	_, err = fmt.Sscan(rest, &n)
	require.NoError(b, err)
	return n
}

// BenchmarkRows is the layout that the store had before: a row for each message in a table clustered by device and time, and one
// with the counters of each device, in a transaction for each batch that SQLite syncs. To be compared with BenchmarkAppend.
func BenchmarkRows(b *testing.B) {
	for _, devices := range []int{10, 1000} {
		for _, size := range []int{1, 33, 1000} {
			b.Run(fmt.Sprintf("devices=%d/batch=%d", devices, size), func(b *testing.B) { benchmarkRows(b, devices, size) })
		}
	}
}

func benchmarkRows(b *testing.B, devices, size int) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "rows.db")+
		"?_pragma=page_size(1024)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=wal_autocheckpoint(4096)&_pragma=cache_size(-8000)")
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE reading (device INTEGER, time INTEGER, received INTEGER, flags INTEGER, body BLOB, given TEXT, PRIMARY KEY (device, time)) WITHOUT ROWID;
		CREATE TABLE counter (device INTEGER PRIMARY KEY, stored INTEGER, rows INTEGER, last_seen INTEGER, last_reading INTEGER)`)
	require.NoError(b, err)
	conn, err := db.Conn(b.Context())
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close()) }()
	cpu, written, sent := cpuTime(b), writtenBytes(b), 0
	b.ResetTimer()
	require.NoError(b, conn.Raw(func(raw any) error {
		c := raw.(driver.Conn)
		statement := func(text string) func(values ...driver.Value) {
			stmt, err := c.Prepare(text)
			require.NoError(b, err)
			args := make([]driver.NamedValue, 0, 8)
			return func(values ...driver.Value) {
				args = args[:0]
				for i, v := range values {
					args = append(args, driver.NamedValue{Ordinal: i + 1, Value: v})
				}
				_, err := stmt.(driver.StmtExecContext).ExecContext(b.Context(), args)
				require.NoError(b, err)
			}
		}
		begin, commit := statement(`BEGIN IMMEDIATE`), statement(`COMMIT`)
		insert := statement(`INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?, ?, ?)`)
		count := statement(`INSERT INTO counter VALUES (?1, ?2, ?2, ?3, ?3) ON CONFLICT (device) DO UPDATE SET stored = stored + ?2, rows = rows + ?2, last_seen = ?3, last_reading = ?3`)
		var body []byte
		touched := map[int64]int64{}
		for done := 0; done < b.N; done += size {
			begin()
			clear(touched)
			at := int64(0)
			for range min(size, b.N-done) {
				at = 1_767_787_200_000 + int64(sent/devices)*10_000
				device := int64(sent % devices)
				body = pack.Append(body[:0], []block.Value{{Metric: 1, Value: float64(sent%1000) / 10}, {Metric: 2, Value: float64(sent%317) / 10},
					{Metric: 3, Value: float64(sent % 100)}, {Metric: 4, Value: float64(sent % 2000)}, {Metric: 5, Value: 3.7}})
				insert(device, at, at, int64(0), body, nil)
				touched[device]++
				sent++
			}
			for device, n := range touched {
				count(device, n, at)
			}
			commit()
		}
		return nil
	}))
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/msg")
	b.ReportMetric(float64(writtenBytes(b)-written)/float64(b.N), "disk-B/msg")
}

// feed is a journal.Source that hands out one batch after the other.
type feed struct {
	next func() *journal.Batch
	done chan error
}

func (f *feed) Take() *journal.Batch           { return f.next() }
func (f *feed) Done(_ *journal.Batch, e error) { f.done <- e }
func (f *feed) Rewrite()                       {}

// BenchmarkBroker commits what a broker hands over, one batch a time: 1,000 entries for one session, one for each of 1,000, and
// the acknowledgement of what the batch 100 before held with it.
func BenchmarkBroker(b *testing.B) {
	for _, c := range []struct {
		name               string
		sessions, messages int
	}{{"1000 entries for 1 session", 1, 1000}, {"1 entry for 1000 sessions", 1000, 1}, {"1 entry for 1 session", 1, 1}} {
		b.Run(c.name, func(b *testing.B) { benchmarkBroker(b, c.sessions, c.messages) })
	}
}

func benchmarkBroker(b *testing.B, sessions, messages int) {
	s := storetest.Open(b)
	number := int64(0)
	batch := func() *journal.Batch {
		number++
		last := uint64(number) * uint64(messages)
		c := &journal.Batch{Number: number, Messages: make([]byte, 120*messages)}
		for id := range journal.SessionID(sessions) {
			c.Queues = append(c.Queues, journal.Queue{
				Session: id + 1, First: last - uint64(messages) + 1, Last: last, Messages: messages, Bytes: 100, Entries: make([]byte, 8*messages),
			})
			if number > 100 {
				c.Trims = append(c.Trims, journal.Trim{Session: id + 1, Before: last - 100*uint64(messages)})
			}
		}
		return c
	}
	f := &feed{done: make(chan error, 1)}
	var waiting *journal.Batch
	f.next = func() *journal.Batch {
		next := waiting
		waiting = nil
		return next
	}
	run := func(c *journal.Batch) {
		waiting = c
		s.Announce()
		require.NoError(b, <-f.done)
	}
	s.Attach(f)
	for range 100 {
		run(batch())
	}
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		run(batch())
	}
	rows := float64(b.N * max(sessions, messages))
	b.ReportMetric(float64(cpuTime(b)-cpu)/rows, "cpu-ns/entry")
	require.NoError(b, s.Detach(b.Context()))
}

// counted takes the state and forgets it.
type counted struct{ sessions, subscriptions, waiting, retained int }

func (c *counted) Session(journal.Session) error           { c.sessions++; return nil }
func (c *counted) Subscription(journal.Subscription) error { c.subscriptions++; return nil }
func (c *counted) Waiting(journal.Waiting) error           { c.waiting++; return nil }
func (c *counted) Retained(journal.Retained) error         { c.retained++; return nil }

// BenchmarkLoad opens and loads what a large house leaves: 100,000 retained messages, and 10,000 sessions away with two
// subscriptions and ten messages each, which came in ten batches.
func BenchmarkLoad(b *testing.B) {
	const sessions, topics = 10_000, 100_000
	path := filepath.Join(b.TempDir(), "plantops.db")
	s, err := store.Open(b.Context(), store.Options{Path: path})
	require.NoError(b, err)
	var waiting *journal.Batch
	f := &feed{done: make(chan error, 1)}
	f.next = func() *journal.Batch {
		next := waiting
		waiting = nil
		return next
	}
	s.Attach(f)
	for round := range uint64(10) {
		c := &journal.Batch{Number: int64(round + 1), Messages: make([]byte, 1200)}
		for id := range journal.SessionID(sessions) {
			if round == 0 {
				c.Sessions = append(c.Sessions, journal.Session{ID: id + 1, Client: fmt.Sprint("client-", id), Account: "anna", State: make([]byte, 80)})
				for n := range 2 {
					c.Subscriptions = append(c.Subscriptions, journal.Subscription{Session: id + 1, Filter: fmt.Sprintf("house/room-%d/%d/#", id, n), Options: []byte{1, 0, 0}})
				}
			}
			c.Queues = append(c.Queues, journal.Queue{Session: id + 1, First: round + 1, Last: round + 1, Messages: 1, Bytes: 100, Entries: make([]byte, 10)})
		}
		for n := range topics / 10 {
			c.Retained = append(c.Retained, journal.Retained{Topic: fmt.Sprintf("house/room-%d/device-%d", round, n), Account: "anna", Message: make([]byte, 120)})
		}
		waiting = c
		s.Announce()
		require.NoError(b, <-f.done)
	}
	require.NoError(b, s.Detach(b.Context()))
	require.NoError(b, s.Close())
	var load time.Duration
	for b.Loop() {
		s, err := store.Open(b.Context(), store.Options{Path: path})
		require.NoError(b, err)
		began := time.Now()
		var got counted
		_, err = s.Load(b.Context(), &got)
		require.NoError(b, err)
		load += time.Since(began)
		require.Equal(b, counted{sessions, 2 * sessions, sessions, topics}, got)
		require.NoError(b, s.Close())
	}
	b.ReportMetric(load.Seconds()*1000/float64(b.N), "load-ms")
}

// BenchmarkRead reads a queue of 300,000 entries from its beginning to its end, as a session that comes back does: 1 MB a time.
func BenchmarkRead(b *testing.B) {
	for _, perBatch := range []int{10, 1000} {
		b.Run(fmt.Sprintf("%d entries a batch", perBatch), func(b *testing.B) {
			const entries = 300_000
			s := storetest.Open(b)
			var waiting []*journal.Batch
			f := &feed{done: make(chan error, 1)}
			f.next = func() *journal.Batch {
				if len(waiting) == 0 {
					return nil
				}
				next := waiting[0]
				waiting = waiting[1:]
				return next
			}
			for last := uint64(perBatch); last <= entries; last += uint64(perBatch) {
				waiting = append(waiting, &journal.Batch{
					Number: int64(last), Messages: make([]byte, 120*perBatch),
					Queues: []journal.Queue{{Session: 1, First: last - uint64(perBatch) + 1, Last: last, Messages: perBatch, Entries: make([]byte, 8*perBatch)}},
				})
			}
			n := len(waiting)
			s.Attach(f)
			for range n {
				s.Announce()
				require.NoError(b, <-f.done)
			}
			require.NoError(b, s.Detach(b.Context()))
			var list []journal.Stored
			for b.Loop() {
				read := 0
				for after := uint64(0); ; {
					var err error
					list, err = s.Read(b.Context(), 1, after, 1<<20, list[:0])
					require.NoError(b, err)
					if len(list) == 0 {
						break
					}
					read += len(list)
					after = list[len(list)-1].Last
				}
				require.Equal(b, n, read)
			}
		})
	}
}
