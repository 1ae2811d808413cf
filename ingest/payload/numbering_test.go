package payload

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

var arrival = time.Date(2026, 1, 7, 12, 0, 0, 0, time.UTC).UnixMilli()

func TestWhatADeviceWithoutTimeSays(t *testing.T) {
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

		skipped []string
	}{
		"all four":                     {`"boot_id":"7fA_-","sequence":41,"age_ms":1500,"dropped":3`, 1500, store.FromAge, number("7fA_-", 41, 3), ph, nil},
		"no age":                       {`"boot_id":"x","sequence":0`, 0, store.FromArrival, number("x", 0, 0), ph, nil},
		"an age and no number":         {`"age_ms":0,"dropped":2`, 0, store.FromAge, number("", 0, 2), ph, nil},
		"a boot id and no number":      {`"boot_id":"x"`, 0, store.FromArrival, store.Numbering{}, ph, nil},
		"a number and no boot id":      {`"age_ms":1,"sequence":4`, 1, store.FromAge, store.Numbering{}, ph, nil},
		"neither boot id nor age":      {`"sequence":4`, 0, store.FromArrival, store.Numbering{}, with("sequence", 4), nil},
		"a metric of another device":   {`"dropped":4`, 0, store.FromArrival, store.Numbering{}, with("dropped", 4), nil},
		"written as text":              {`"boot_id":12,"sequence":"41","age_ms":"1500"`, 1500, store.FromAge, number("12", 41, 0), ph, nil},
		"largest number":               {`"boot_id":"x","sequence":9223372036854775807`, 0, store.FromArrival, number("x", 9223372036854775807, 0), ph, nil},
		"a number beyond":              {`"boot_id":"x","sequence":9223372036854775808`, 0, store.FromArrival, store.Numbering{}, ph, []string{"sequence"}},
		"negative and broken":          {`"boot_id":"x","sequence":-1,"age_ms":-5,"dropped":-1`, 0, store.FromArrival, store.Numbering{}, ph, []string{"sequence", "dropped", "age_ms"}},
		"a fraction":                   {`"boot_id":"x","sequence":1.5,"age_ms":2e3`, 2000, store.FromAge, store.Numbering{}, ph, []string{"sequence"}},
		"null":                         {`"boot_id":null,"sequence":null,"age_ms":null`, 0, store.FromArrival, store.Numbering{}, ph, nil},
		"boot id of 32":                {`"boot_id":"01234567890123456789012345678901","sequence":1`, 0, store.FromArrival, number("01234567890123456789012345678901", 1, 0), ph, nil},
		"boot id of 33":                {`"boot_id":"012345678901234567890123456789012","sequence":1`, 0, store.FromArrival, store.Numbering{}, ph, []string{"boot_id"}},
		"boot id of other letters":     {`"boot_id":"a b","sequence":1`, 0, store.FromArrival, store.Numbering{}, ph, []string{"boot_id"}},
		"oldest":                       {fmt.Sprintf(`"age_ms":%d`, sure), sure, store.FromAge, store.Numbering{}, ph, nil},
		"older than can be":            {fmt.Sprintf(`"boot_id":"x","sequence":1,"age_ms":%d`, sure+1), 0, store.FromArrivalImpossible, number("x", 1, 0), ph, nil},
		"a time beside it":             {`"age_ms":1500,"timestamp":1767783600`, 3_600_000, store.FromDevice, store.Numbering{}, ph, nil},
		"a time that cannot be":        {`"timestamp":17,"age_ms":1500`, 1500, store.FromAge, store.Numbering{}, ph, nil},
		"null for a time":              {`"timestamp":null,"age_ms":1500`, 1500, store.FromAge, store.Numbering{}, ph, nil},
		"neither time nor age can be":  {`"age_ms":9e15,"timestamp":17`, 0, store.FromArrivalImpossible, store.Numbering{}, ph, nil},
		"a boot id and a foolish time": {`"boot_id":"x","timestamp":17`, 0, store.FromArrivalImpossible, store.Numbering{}, ph, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewReader().Telemetry([]byte(`{"ph":7,`+tt.fields+`}`), Arrival{Time: arrival})
			require.Empty(t, c.Reason)
			require.Len(t, c.Parts, 1)
			m := c.Parts[0]
			var skipped []string
			for _, s := range c.Skipped {
				skipped = append(skipped, s.Field)
			}
			assert.Equal(t, tt.skipped, skipped)
			assert.Equal(t, arrival-tt.age, m.Time)
			assert.Equal(t, tt.source, m.TimeSource)
			assert.Equal(t, tt.number, m.Numbering)
			assert.Equal(t, tt.values, m.Values)
		})
	}
}

func TestAgeIsBelievedWhileOurClockIsNot(t *testing.T) {
	at := func(payload string) store.Part {
		c := NewReader().Telemetry([]byte(payload), Arrival{Time: 60_000, Unsure: true})
		require.Len(t, c.Parts, 1)
		return c.Parts[0]
	}
	p := at(`{"ph":7,"age_ms":3600000}`)
	assert.Equal(t, store.FromAge, p.TimeSource)
	assert.Equal(t, int64(60_000-3_600_000), p.Time, "before 1970, to be put right with the time of arrival")
	p = at(`{"ph":7,"age_ms":999999999999}`)
	assert.Equal(t, store.FromArrivalImpossible, p.TimeSource)
	assert.Equal(t, "age_ms 999999999999", p.Given)
}
