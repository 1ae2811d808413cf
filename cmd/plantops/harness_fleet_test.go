//go:build linux

package main_test

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

	"github.com/plantops/plantops/store"
)

// fleet is the devices of a test.
type fleet struct {
	t       *testing.T
	epoch   time.Time // of reading 0 of every device
	devices []*device
	running sync.WaitGroup
}

// newFleet makes count devices that together have rate readings a second: MQTT 3.1.1 and 5, QoS 1 and 2 in turn.
// register returns secrets for their ids: in.register or in.add.
func newFleet(in *installation, count int, rate float64, register func(ids ...string) map[string]string) *fleet {
	in.t.Helper()
	epoch := time.Now().Add(-time.Hour).Truncate(time.Second)
	f := &fleet{t: in.t, epoch: epoch}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("bed-%d", i+1)
		f.devices = append(f.devices, &device{
			id: ids[i], version: 4 + byte(i%2), qos: 1 + byte(i/2%2), rate: rate / float64(count),
			address: in.tcp, epoch: epoch,
		})
	}
	secrets := register(ids...)
	for _, d := range f.devices {
		d.secret = secrets[d.id]
	}
	return f
}

// overTLS moves every so many-th group of four devices, which has all mixtures, to the TLS listener. The server must
// have made its certificates.
func (f *fleet) overTLS(in *installation, every int) {
	config := in.clientTLS()
	for i, d := range f.devices {
		if i/4%every == every-1 {
			d.address, d.tls = in.tls, config
		}
	}
}

// start starts the devices; they run until the end of the test or until drain.
func (f *fleet) start() {
	ctx, cancel := context.WithCancel(f.t.Context())
	for _, d := range f.devices {
		f.running.Go(func() { d.run(ctx) })
	}
	f.t.Cleanup(func() {
		cancel()
		f.running.Wait()
	})
}

// drain lets the devices send what is due and returns when everything is acknowledged.
func (f *fleet) drain(bound time.Duration) {
	f.t.Helper()
	for _, d := range f.devices {
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
		s := f.snapshot()
		require.Fail(f.t, "the devices could not get rid of their readings", "%d of %d acknowledged after %s; %v",
			s.acknowledged, s.sent, bound, s.faults)
	}
}

// fleetSnapshot holds sums, and what each device knows.
type fleetSnapshot struct {
	snapshot
	each []snapshot
}

func (f *fleet) snapshot() fleetSnapshot {
	var sum fleetSnapshot
	for _, d := range f.devices {
		s := d.snapshot()
		sum.sent += s.sent
		sum.acknowledged += s.acknowledged
		sum.connections += s.connections
		sum.sentAway += s.sentAway
		sum.faults = append(sum.faults, s.faults...)
		sum.each = append(sum.each, s)
	}
	return sum
}

// stored is what a database holds.
type stored struct {
	epoch   time.Time
	times   map[string]map[int64]int // by device: how often each time is there
	rows    int
	strange []string // readings that nobody sent
}

func (f *fleet) nothingStored() *stored {
	return &stored{epoch: f.epoch, times: make(map[string]map[int64]int)}
}

func (s *stored) add(id, metric string, time int64, value float64) {
	if s.times[id] == nil {
		s.times[id] = make(map[int64]int)
	}
	s.times[id][time]++
	s.rows++
	if metric != metricName || value != float64(time-s.epoch.UnixMilli()) {
		s.strange = append(s.strange, fmt.Sprintf("%s %s %d %v", id, metric, time, value))
	}
}

// readCSV asks the readings command.
func readCSV(in *installation, f *fleet) *stored {
	in.t.Helper()
	lines := csv.NewReader(bytes.NewReader(in.run("readings", "--format", "csv")))
	header, err := lines.Read()
	require.NoError(in.t, err)
	require.Equal(in.t, []string{"time", "device", "metric", "value"}, header)
	found := f.nothingStored()
	for {
		line, err := lines.Read()
		if err == io.EOF {
			return found
		}
		require.NoError(in.t, err)
		at, err := time.Parse(time.RFC3339, line[0])
		require.NoError(in.t, err)
		value, err := strconv.ParseFloat(line[3], 64)
		require.NoError(in.t, err)
		found.add(line[1], line[2], at.UnixMilli(), value)
	}
}

// readStore opens a database that no server uses, checks it and reads it. That as many rows are there as were counted
// is part of the check.
func readStore(ctx context.Context, path string, f *fleet) (found *stored, err error) {
	db, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return nil, err
	}
	found = f.nothingStored()
	for r, err := range db.Readings(ctx, store.Query{}) {
		if err != nil {
			return nil, err
		}
		found.add(r.Device, r.Metric, r.Time, r.Value)
	}
	counts, err := db.Totals(ctx)
	if err == nil && counts.Stored != int64(found.rows) {
		err = fmt.Errorf("%d messages are counted as stored, %d are there", counts.Stored, found.rows)
	}
	return found, err
}

// missing counts the acknowledged readings that are not there, and rows that are there more than once. It names the
// first few of both.
func (s fleetSnapshot) missing(found *stored) (lost, twice int, examples []string) {
	for _, d := range s.each {
		for number := 1; number <= d.sent; number++ {
			count := found.times[d.device.id][d.device.time(number)]
			switch {
			case count == 0 && d.received[number]:
				lost++
			case count > 1:
				twice++
			default:
				continue
			}
			if len(examples) < 5 {
				examples = append(examples, fmt.Sprintf("%s (MQTT version %d, QoS %d): reading %d is there %d times",
					d.device.id, d.device.version, d.device.qos, number, count))
			}
		}
	}
	return lost, twice, examples
}

// verify is the promise: what was acknowledged is there, exactly once. It logs the numbers.
func (s fleetSnapshot) verify(t *testing.T, by string, found *stored) {
	t.Helper()
	lost, twice, examples := s.missing(found)
	t.Logf("%s: %d sent, %d acknowledged, %d stored; %d acknowledged readings lost, %d duplicate rows; %d connections",
		by, s.sent, s.acknowledged, found.rows, lost, twice, s.connections)
	assert.Zero(t, lost, "acknowledged readings lost: %q", examples)
	assert.Zero(t, twice, "duplicate rows: %q", examples)
	assert.Empty(t, found.strange, "readings that nobody sent")
	assert.Empty(t, s.faults)
	assert.NotZero(t, s.acknowledged)
}

// verifyDrained checks the running server after drain: every reading is stored, once, and accounted for.
func verifyDrained(in *installation, f *fleet) messageCounts {
	in.t.Helper()
	s := f.snapshot()
	assert.Equal(in.t, s.sent, s.acknowledged, "acknowledged after everything was")
	s.verify(in.t, "plantops readings", readCSV(in, f))
	counts := in.counts()
	in.t.Logf("status: %+v", counts)
	sum := counts.Stored + counts.Duplicate + counts.Quarantined + counts.Refused + counts.Pending
	assert.Equal(in.t, sum, counts.Received, "the equation")
	assert.Zero(in.t, counts.Difference)
	assert.Zero(in.t, counts.Pending)
	assert.Zero(in.t, counts.Quarantined)
	assert.Zero(in.t, counts.Refused)
	assert.EqualValues(in.t, s.sent, counts.Stored, "counted as stored")
	return counts
}
