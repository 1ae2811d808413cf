package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

func TestSimulatedPace(t *testing.T) {
	valid := simulateFlags{devices: 6, every: 10 * time.Second}
	for name, c := range map[string]struct {
		change func(*simulateFlags)
		every  bool
		want   time.Duration
		err    string
	}{
		"as devices do":            {func(*simulateFlags) {}, false, 10 * time.Second, ""},
		"a count is sent at once":  {func(f *simulateFlags) { f.count = 600 }, false, 0, ""},
		"a count at a given pace":  {func(f *simulateFlags) { f.count = 600 }, true, 10 * time.Second, ""},
		"as fast as possible":      {func(f *simulateFlags) { f.rate = "max" }, false, 0, ""},
		"a rate of all devices":    {func(f *simulateFlags) { f.rate = "3" }, false, 2 * time.Second, ""},
		"both":                     {func(f *simulateFlags) { f.rate = "max" }, true, 0, "not both"},
		"a rate that is none":      {func(f *simulateFlags) { f.rate = "NaN" }, false, 0, "--rate NaN"},
		"a rate of one in an age":  {func(f *simulateFlags) { f.rate = "1e-12" }, false, 0, "--rate 1e-12: too low"},
		"an unknown listener":      {func(f *simulateFlags) { f.listener = "quic" }, false, 0, "--listener quic"},
		"more devices than ports":  {func(f *simulateFlags) { f.devices = 70_000 }, false, 0, "--devices 70000"},
		"a time that goes nowhere": {func(f *simulateFlags) { f.every = 0 }, true, 0, "--every 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			f := valid
			c.change(&f)
			got, err := f.interval(c.every)
			if c.err != "" {
				assert.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestSimulatedMessagesAreReadings(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for minutes := range 72 * 6 {
		at := day.Add(time.Duration(minutes) * 10 * time.Minute)
		payload, err := json.Marshal(sample(minutes%7, at))
		require.NoError(t, err)
		m := ingest.Decode("devices/sim-1/telemetry", payload, at.UnixMilli(), false)
		require.Equal(t, store.Telemetry, m.Kind, m.Reason)
		assert.Equal(t, at.UnixMilli(), m.Time)
		for _, v := range m.Values {
			switch v.Metric {
			case "soil_moisture", "humidity":
				assert.True(t, v.Value > 20 && v.Value < 100, "%s", payload)
			case "light_level":
				assert.GreaterOrEqual(t, v.Value, 0.0)
			}
		}
	}
}
