package store

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/block"
)

// countRows looks at the readings, not at the counters.
func countRows(t *testing.T, s *Store) (n int64) {
	t.Helper()
	v, err := s.view(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, v.Close()) }()
	for name, d := range s.state.devices {
		for _, err := range v.merged(t.Context(), named{name, d.id}, math.MinInt64, math.MaxInt64) {
			require.NoError(t, err)
			n++
		}
	}
	return n
}

func TestOldReadingsAreDeletedAndStayCounted(t *testing.T) {
	s := openTest(t, Options{})
	var batch []Message
	for i := range int64(2*retentionRows + 10) { // more than one transaction for one device
		batch = append(batch, telemetry("old", noon-i, Value{"ph", 6}))
	}
	for i := range int64(retentionDevices + 10) { // more than one for the number of devices
		id := fmt.Sprint("both-", i)
		batch = append(batch, telemetry(id, noon-1, Value{"ph", 6}), telemetry(id, noon, Value{"ph", 7}), telemetry(id, noon, Value{"ph", 8}))
	}
	batch = append(batch, telemetry("new", noon+1, Value{"ph", 6}))
	mustAppend(t, s, batch...)
	before := totals(t, s)

	deleted, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon))
	require.NoError(t, err)
	const rest = 1 + retentionDevices + 10 + 1 // of "old", of "both-*", of "new"
	assert.Equal(t, int64(2*retentionRows+9+retentionDevices+10), deleted)
	assert.Equal(t, int64(rest), countRows(t, s))
	for r, err := range s.Readings(t.Context(), Query{}) {
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.Time, noon)
	}
	assert.Equal(t, before, totals(t, s), "what was counted")
	assert.Len(t, entries(t, s), retentionDevices+10, "quarantine")
	h, err := s.Health(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(rest), h.Readings)

	deleted, err = s.DeleteBefore(t.Context(), time.UnixMilli(noon))
	require.NoError(t, err)
	assert.Zero(t, deleted, "a second time")
	assert.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("old", noon-1, Value{"ph", 6})), "an old reading that comes again")
	require.NoError(t, s.Check(t.Context()))
}

func TestAppendComesBetweenTransactionsOfADeletion(t *testing.T) {
	s := openTest(t, Options{})
	const chunks = 20
	mustAppend(t, s, telemetry("old", noon-1, Value{"ph", 6}))
	intoRows(t, s, "old")
	require.NoError(t, s.chunk(t.Context(), func() error { // as an earlier version left it
		d := s.state.devices["old"]
		for i := range int64(chunks*retentionRows - 1) {
			if _, err := s.insertRow(d, noon-2-i, noon, 0, "", []block.Value{{Metric: 1, Value: 6}}); err != nil {
				return err
			}
		}
		return nil
	}))

	done := make(chan struct{})
	go func() {
		defer close(done)
		deleted, err := s.DeleteBefore(t.Context(), time.UnixMilli(noon))
		assert.NoError(t, err)
		assert.Equal(t, int64(chunks*retentionRows), deleted)
	}()
	appended := 0
	for running := true; running; {
		mustAppend(t, s, telemetry("new", noon+int64(appended), Value{"ph", 6}))
		appended++
		select {
		case <-done:
			running = false
		default:
		}
	}
	assert.GreaterOrEqual(t, appended, chunks/2, "each transaction lets a waiting one pass")
}

func TestDeletionEndsWithItsContextAndGoesOnLater(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("a", noon-1, Value{"ph", 6}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	deleted, err := s.DeleteBefore(ctx, time.UnixMilli(noon))
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, deleted)
	deleted, err = s.DeleteBefore(t.Context(), time.UnixMilli(noon))
	require.NoError(t, err)
	assert.Equal(t, int64(1), deleted)
}
