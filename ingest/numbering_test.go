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

func TestDecodeWhatADeviceWithoutTimeSays(t *testing.T) {
	ph := []store.Value{{Metric: "ph", Value: 7}}
	with := func(metric string, value float64) []store.Value {
		return []store.Value{{Metric: "ph", Value: 7}, {Metric: metric, Value: value}}
	}
	number := func(boot string, sequence, dropped int64) store.Numbering {
		return store.Numbering{Boot: boot, Sequence: sequence, Dropped: dropped}
	}
	sure := arrival - earliest
	for name, tt := range map[string]struct {
		fields string
		age    int64
		source store.TimeSource
		number store.Numbering
		values []store.Value
	}{
		"all four":                     {`"boot_id":"7fA_-","sequence":41,"age_ms":1500,"dropped":3`, 1500, store.FromAge, number("7fA_-", 41, 3), ph},
		"no age":                       {`"boot_id":"x","sequence":0`, 0, store.FromArrival, number("x", 0, 0), ph},
		"an age and no number":         {`"age_ms":0,"dropped":2`, 0, store.FromAge, number("", 0, 2), ph},
		"a boot id and no number":      {`"boot_id":"x"`, 0, store.FromArrival, store.Numbering{}, ph},
		"a number and no boot id":      {`"age_ms":1,"sequence":4`, 1, store.FromAge, store.Numbering{}, ph},
		"neither boot id nor age":      {`"sequence":4`, 0, store.FromArrival, store.Numbering{}, with("sequence", 4)},
		"a metric of another device":   {`"dropped":4`, 0, store.FromArrival, store.Numbering{}, with("dropped", 4)},
		"written as text":              {`"boot_id":12,"sequence":"41","age_ms":"1500"`, 1500, store.FromAge, number("12", 41, 0), ph},
		"largest number":               {`"boot_id":"x","sequence":9223372036854775807`, 0, store.FromArrival, number("x", 9223372036854775807, 0), ph},
		"a number beyond":              {`"boot_id":"x","sequence":9223372036854775808`, 0, store.FromArrival, store.Numbering{}, ph},
		"negative and broken":          {`"boot_id":"x","sequence":-1,"age_ms":-5,"dropped":-1`, 0, store.FromArrival, store.Numbering{}, ph},
		"a fraction":                   {`"boot_id":"x","sequence":1.5,"age_ms":2e3`, 2000, store.FromAge, store.Numbering{}, ph},
		"null":                         {`"boot_id":null,"sequence":null,"age_ms":null`, 0, store.FromArrival, store.Numbering{}, ph},
		"boot id of 32":                {`"boot_id":"01234567890123456789012345678901","sequence":1`, 0, store.FromArrival, number("01234567890123456789012345678901", 1, 0), ph},
		"boot id of 33":                {`"boot_id":"012345678901234567890123456789012","sequence":1`, 0, store.FromArrival, store.Numbering{}, ph},
		"boot id of other letters":     {`"boot_id":"a b","sequence":1`, 0, store.FromArrival, store.Numbering{}, ph},
		"oldest":                       {fmt.Sprintf(`"age_ms":%d`, sure), sure, store.FromAge, store.Numbering{}, ph},
		"older than can be":            {fmt.Sprintf(`"boot_id":"x","sequence":1,"age_ms":%d`, sure+1), 0, store.FromArrivalImpossible, number("x", 1, 0), ph},
		"a time beside it":             {`"age_ms":1500,"timestamp":1767783600`, 3_600_000, store.FromDevice, store.Numbering{}, ph},
		"a time that cannot be":        {`"timestamp":17,"age_ms":1500`, 1500, store.FromAge, store.Numbering{}, ph},
		"null for a time":              {`"timestamp":null,"age_ms":1500`, 1500, store.FromAge, store.Numbering{}, ph},
		"neither time nor age can be":  {`"age_ms":9e15,"timestamp":17`, 0, store.FromArrivalImpossible, store.Numbering{}, ph},
		"a boot id and a foolish time": {`"boot_id":"x","timestamp":17`, 0, store.FromArrivalImpossible, store.Numbering{}, ph},
	} {
		t.Run(name, func(t *testing.T) {
			m := Decode(telemetryTopic, []byte(`{"ph":7,`+tt.fields+`}`), arrival, false)
			require.Empty(t, m.Reason)
			assert.Equal(t, arrival-tt.age, m.Time)
			assert.Equal(t, tt.source, m.TimeSource)
			assert.Equal(t, tt.number, m.Numbering)
			assert.Equal(t, tt.values, m.Values)
		})
	}
}

func TestAgeIsBelievedWhileOurClockIsNot(t *testing.T) {
	m := Decode(telemetryTopic, []byte(`{"ph":7,"age_ms":3600000}`), 60_000, true)
	assert.Equal(t, store.FromAge, m.TimeSource)
	assert.Equal(t, int64(60_000-3_600_000), m.Time, "before 1970, to be put right with the time of arrival")
	m = Decode(telemetryTopic, []byte(`{"ph":7,"age_ms":999999999999}`), 60_000, true)
	assert.Equal(t, store.FromArrivalImpossible, m.TimeSource)
}

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
