//go:build linux

package fleet

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/store"
)

// Fleet is the devices of a test.
type Fleet struct {
	T       *testing.T
	Epoch   time.Time // of reading 0 of every device
	Devices []*Device
	running sync.WaitGroup
}

// New makes count devices that together have rate readings a second: MQTT 3.1.1 and 5, QoS 1 and 2 in turn.
// register returns secrets for their ids: in.Register or in.Add.
func New(in *program.Installation, count int, rate float64, register func(ids ...string) map[string]string) *Fleet {
	in.T.Helper()
	epoch := time.Now().Add(-time.Hour).Truncate(time.Second)
	f := &Fleet{T: in.T, Epoch: epoch}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("bed-%d", i+1)
		f.Devices = append(f.Devices, &Device{
			ID: ids[i], Version: 4 + byte(i%2), QoS: 1 + byte(i/2%2), Rate: rate / float64(count),
			Through: door.Door{Kind: "tcp", Address: in.TCP}, Epoch: epoch,
		})
	}
	secrets := register(ids...)
	for _, d := range f.Devices {
		d.Secret = secrets[d.ID]
	}
	return f
}

// OverTLS moves every so many-th group of four devices, which has all mixtures, to the TLS listener. The server must
// have made its certificates.
func (f *Fleet) OverTLS(in *program.Installation, every int) {
	config := in.ClientTLS()
	for i, d := range f.Devices {
		if i/4%every == every-1 {
			d.Through = door.Door{Kind: "tls", Address: in.TLS, TLS: config}
		}
	}
}

// Start starts the devices; they run until the end of the test or until Drain.
func (f *Fleet) Start() {
	ctx, cancel := context.WithCancel(f.T.Context())
	for _, d := range f.Devices {
		f.running.Go(func() { d.run(ctx) })
	}
	f.T.Cleanup(func() {
		cancel()
		f.running.Wait()
	})
}

// Storm ends all connections at once, without a word. Everybody is back as soon as possible.
func (f *Fleet) Storm() {
	for _, d := range f.Devices {
		d.mu.Lock()
		if d.cut != nil {
			d.cut()
		}
		d.mu.Unlock()
	}
}

// Drain lets the devices send what is due and returns when everything is acknowledged.
func (f *Fleet) Drain(bound time.Duration) {
	f.T.Helper()
	for _, d := range f.Devices {
		d.finish()
	}
	done := make(chan struct{})
	go func() {
		f.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(bound):
		s := f.Snapshot()
		require.Fail(f.T, "the devices could not get rid of their readings", "%d of %d acknowledged after %s; %v",
			s.Acknowledged, s.Sent, bound, s.Faults)
	}
}

// Summary holds sums, and what each device knows.
type Summary struct {
	Snapshot
	Each []Snapshot
}

// Snapshot is what all devices know at this moment.
func (f *Fleet) Snapshot() Summary {
	var sum Summary
	for _, d := range f.Devices {
		s := d.snapshot()
		sum.Sent += s.Sent
		sum.Acknowledged += s.Acknowledged
		sum.Connections += s.Connections
		sum.SentAway += s.SentAway
		sum.Faults = append(sum.Faults, s.Faults...)
		sum.Each = append(sum.Each, s)
	}
	return sum
}

// Stored is what a database holds.
type Stored struct {
	epoch   time.Time
	Times   map[string]map[int64]int // by device: how often each time is there
	Rows    int
	Strange []string // readings that nobody sent
}

// NothingStored is what a database holds before anything is added.
func (f *Fleet) NothingStored() *Stored {
	return &Stored{epoch: f.Epoch, Times: make(map[string]map[int64]int)}
}

// Add is a row of the database; time is in milliseconds.
func (s *Stored) Add(id, metric string, time int64, value float64) {
	if s.Times[id] == nil {
		s.Times[id] = make(map[int64]int)
	}
	s.Times[id][time]++
	s.Rows++
	if metric != MetricName || value != float64(time-s.epoch.UnixMilli()) {
		s.Strange = append(s.Strange, fmt.Sprintf("%s %s %d %v", id, metric, time, value))
	}
}

// ReadCSV asks the readings command.
func ReadCSV(in *program.Installation, f *Fleet) *Stored {
	in.T.Helper()
	lines := csv.NewReader(bytes.NewReader(in.Run("readings", "--format", "csv")))
	header, err := lines.Read()
	require.NoError(in.T, err)
	require.Equal(in.T, []string{"time", "device", "metric", "value"}, header)
	found := f.NothingStored()
	for {
		line, err := lines.Read()
		if err == io.EOF {
			return found
		}
		require.NoError(in.T, err)
		at, err := time.Parse(time.RFC3339, line[0])
		require.NoError(in.T, err)
		value, err := strconv.ParseFloat(line[3], 64)
		require.NoError(in.T, err)
		found.Add(line[1], line[2], at.UnixMilli(), value)
	}
}

// ReadStore opens a database that no server uses, checks it and reads it. That as many rows are there as were counted
// is part of the check.
func ReadStore(ctx context.Context, path string, f *Fleet) (found *Stored, err error) {
	db, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return nil, err
	}
	found = f.NothingStored()
	for r, err := range db.Readings(ctx, store.Query{}) {
		if err != nil {
			return nil, err
		}
		found.Add(r.Device, r.Metric, r.Time, r.Value)
	}
	counts, err := db.Totals(ctx)
	if err == nil && counts.Stored != int64(found.Rows) {
		err = fmt.Errorf("%d messages are counted as stored, %d are there", counts.Stored, found.Rows)
	}
	return found, err
}

// missing counts the acknowledged readings that are not there, and rows that are there more than once. It names the
// first few of both.
func (s Summary) missing(found *Stored) (lost, twice int, examples []string) {
	for _, d := range s.Each {
		for number := 1; number <= d.Sent; number++ {
			count := found.Times[d.Device.ID][d.Device.Time(number)]
			switch {
			case count == 0 && d.Received[number]:
				lost++
			case count > 1:
				twice++
			default:
				continue
			}
			if len(examples) < 5 {
				examples = append(examples, fmt.Sprintf("%s (MQTT version %d, QoS %d): reading %d is there %d times",
					d.Device.ID, d.Device.Version, d.Device.QoS, number, count))
			}
		}
	}
	return lost, twice, examples
}

// Verify is the promise: what was acknowledged is there, exactly once. It logs the numbers.
func (s Summary) Verify(t *testing.T, by string, found *Stored) {
	t.Helper()
	lost, twice, examples := s.missing(found)
	t.Logf("%s: %d sent, %d acknowledged, %d stored; %d acknowledged readings lost, %d duplicate rows; %d connections",
		by, s.Sent, s.Acknowledged, found.Rows, lost, twice, s.Connections)
	assert.Zero(t, lost, "acknowledged readings lost: %q", examples)
	assert.Zero(t, twice, "duplicate rows: %q", examples)
	assert.Empty(t, found.Strange, "readings that nobody sent")
	assert.Empty(t, s.Faults)
	assert.NotZero(t, s.Acknowledged)
}

// VerifyDrained checks the running server after Drain: every reading is stored, once, and accounted for.
func VerifyDrained(in *program.Installation, f *Fleet) program.MessageCounts {
	in.T.Helper()
	s := f.Snapshot()
	assert.Equal(in.T, s.Sent, s.Acknowledged, "acknowledged after everything was")
	s.Verify(in.T, "plantops readings", ReadCSV(in, f))
	counts := in.Counts()
	in.T.Logf("status: %+v", counts)
	sum := counts.Stored + counts.Duplicate + counts.Quarantined + counts.Refused + counts.Pending
	assert.Equal(in.T, sum, counts.Received, "the equation")
	assert.Zero(in.T, counts.Difference)
	assert.Zero(in.T, counts.Pending)
	assert.Zero(in.T, counts.Quarantined)
	assert.Zero(in.T, counts.Refused)
	assert.EqualValues(in.T, s.Sent, counts.Stored, "counted as stored")
	return counts
}
