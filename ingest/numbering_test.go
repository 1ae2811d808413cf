package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// What a device without time sends again after a broken connection is one reading, dated by its age.
func TestReadingsOfADeviceWithoutTimeAreStoredOnce(t *testing.T) {
	s, db := serve(t, nil), storetest.Open(t)
	start(t, options(s), db)
	s.awaitSubscriptions(1)
	for _, age := range []int{100_000, 160_000} {
		s.publish(telemetryTopic, fmt.Sprintf(`{"ph":7,"boot_id":"k3","sequence":1,"age_ms":%d}`, age), 1)
	}
	s.publish(telemetryTopic, `{"ph":7,"boot_id":"k3","sequence":2,"age_ms":0,"dropped":5}`, 1)
	require.Eventually(t, func() bool {
		c, err := db.Totals(t.Context())
		require.NoError(t, err)
		return c == store.Counts{Stored: 2, Duplicate: 1}
	}, patience, time.Millisecond)
	d, err := db.Device(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Equal(t, int64(5), d.Dropped)
	var ages []int64
	for r, err := range db.Readings(t.Context(), store.Query{}) {
		require.NoError(t, err)
		assert.Equal(t, store.FromAge, r.TimeSource)
		ages = append(ages, r.Received-r.Time)
	}
	assert.Equal(t, []int64{100_000, 0}, ages)
}
