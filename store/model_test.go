package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/store"
)

// model says in the plainest way what a store must hold after a row of messages.
type model struct {
	readings    map[key]float64
	counts      map[string]store.Counts
	quarantined []string // payloads
	numbered    map[string]string
}

type key struct {
	device string
	time   int64
	metric string
}

func (m *model) append(msg *store.Message) (outcome store.Outcome) {
	outcome = store.Stored
	keep := false
	number, says := fmt.Sprint(msg.Device, msg.Numbering), fmt.Sprint(msg.Values)
	said, again := m.numbered[number]
	again = again && msg.Numbering.Boot != ""
	m.numbered[number] = says
	switch {
	case again && said == says:
		outcome = store.Duplicate
	case again:
		outcome, keep = store.Quarantined, true
		m.numbered[number] = said
	case msg.Kind == store.Bad:
		outcome, keep = store.Quarantined, true
	case msg.Kind == store.Telemetry && len(msg.Values) > 0:
		outcome, keep = m.appendReading(msg)
	}
	if keep {
		m.quarantined = append(m.quarantined, string(msg.Payload))
	}
	c := m.counts[msg.Device]
	switch outcome {
	case store.Stored:
		c.Stored++
	case store.Duplicate:
		c.Duplicate++
	case store.Quarantined:
		c.Quarantined++
	}
	m.counts[msg.Device] = c
	return outcome
}

func (m *model) appendReading(msg *store.Message) (outcome store.Outcome, keep bool) {
	at := msg.Time
	if msg.TimeSource != store.FromDevice {
		if msg.TimeSource != store.FromAge {
			at = msg.Received
		}
		for ; m.taken(msg.Device, at); at++ {
		}
	}
	isNew := false
	for _, v := range msg.Values {
		k := key{msg.Device, at, v.Metric}
		old, there := m.readings[k]
		switch {
		case !there:
			m.readings[k] = v.Value
			isNew = true
		case old != v.Value:
			keep = true
		}
	}
	switch {
	case isNew:
		return store.Stored, keep
	case keep:
		return store.Quarantined, true
	default:
		return store.Duplicate, false
	}
}

func (m *model) taken(device string, at int64) bool {
	for k := range m.readings {
		if k.device == device && k.time == at {
			return true
		}
	}
	return false
}

func TestStoreHoldsWhatTheModelHolds(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		o := store.Options{
			Path: filepath.Join(dir, fmt.Sprint(run, ".db")),
			Now:  func() time.Time { return time.UnixMilli(105) },
		}
		s, err := store.Open(t.Context(), o)
		require.NoError(t, err)
		want := &model{readings: map[key]float64{}, counts: map[string]store.Counts{}, numbered: map[string]string{}}
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			batch := rapid.SliceOfN(rapid.Custom(drawMessage), 0, 20).Draw(t, "batch")
			outcomes, err := s.Append(t.Context(), batch, nil)
			require.NoError(t, err)
			require.Len(t, outcomes, len(batch))
			for i := range batch {
				require.Equal(t, want.append(&batch[i]), outcomes[i], "outcome of message %d", i)
			}
			if rapid.Bool().Draw(t, "refused") {
				s.AddRefused("a", "acl", 2)
				if c, known := want.counts["a"]; known {
					c.Refused += 2
					want.counts["a"] = c
				} else {
					c = want.counts[""]
					c.Refused += 2
					want.counts[""] = c
				}
			}
			if rapid.IntRange(0, 3).Draw(t, "reopen") == 3 {
				require.NoError(t, s.Close())
				s, err = store.Open(t.Context(), o)
				require.NoError(t, err)
			}
			compare(t, want, s)
		}
		require.NoError(t, s.Check(t.Context()))
		require.NoError(t, s.Close())
	})
}

// drawMessage draws from so few devices, times, metrics and values that many messages meet.
func drawMessage(t *rapid.T) store.Message {
	m := store.Message{
		Device:     rapid.SampledFrom([]string{"a", "b", "ç"}).Draw(t, "device"),
		Kind:       rapid.SampledFrom([]store.Kind{store.Telemetry, store.Telemetry, store.Telemetry, store.Heartbeat, store.Bad}).Draw(t, "kind"),
		Time:       rapid.Int64Range(100, 104).Draw(t, "time"),
		Received:   rapid.Int64Range(100, 104).Draw(t, "received"),
		TimeSource: rapid.SampledFrom([]store.TimeSource{store.FromDevice, store.FromDevice, store.FromArrival, store.FromAge}).Draw(t, "source"),
		Payload:    []byte(rapid.StringN(0, 8, -1).Draw(t, "payload")),
	}
	m.Topic = "devices/" + m.Device + "/telemetry"
	m.Values = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) store.Value {
		return store.Value{
			Metric: rapid.SampledFrom([]string{"humidity", "ph", "temperature"}).Draw(t, "metric"),
			Value:  float64(rapid.IntRange(0, 2).Draw(t, "value")) / 10,
		}
	}), 0, 4).Draw(t, "values")
	if rapid.Bool().Draw(t, "numbered") {
		m.Numbering = store.Numbering{Boot: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "boot"), Sequence: rapid.Int64Range(0, 9).Draw(t, "sequence")}
	}
	return m
}

func compare(t require.TestingT, want *model, s *store.Store) {
	ctx := context.Background()
	got := map[key]float64{}
	last := store.Reading{}
	for r, err := range s.Readings(ctx, store.Query{}) {
		require.NoError(t, err)
		got[key{r.Device, r.Time, r.Metric}] = r.Value
		require.True(t, before(last, r), "%v comes after %v", r, last)
		last = r
	}
	require.Equal(t, want.readings, got)

	var total store.Counts
	for name, counts := range want.counts {
		d, err := s.Device(ctx, name)
		require.NoError(t, err)
		require.Equal(t, counts, d.Counts, "counts of device %q", name)
		total.Stored += counts.Stored
		total.Duplicate += counts.Duplicate
		total.Quarantined += counts.Quarantined
		total.Refused += counts.Refused
	}
	totals, err := s.Totals(ctx)
	require.NoError(t, err)
	require.Equal(t, total, totals)

	var payloads []string
	for q, err := range s.Quarantine(ctx, 0) {
		require.NoError(t, err)
		payloads = append(payloads, string(q.Payload))
	}
	require.Equal(t, want.quarantined, payloads)

	devices, err := s.Devices(ctx)
	require.NoError(t, err)
	for _, d := range devices {
		require.Contains(t, want.counts, d.ID)
	}
}

func before(a, b store.Reading) bool {
	if a.Time != b.Time {
		return a.Time < b.Time
	}
	if a.Device != b.Device {
		return strings.Compare(a.Device, b.Device) < 0
	}
	return a.Metric < b.Metric
}
