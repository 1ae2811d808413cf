package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func pastMessage(device string, at int64, values ...Value) Message {
	return Message{Kind: History, Device: device, Time: at, Received: noon, Values: values}
}

func TestHistoryIsStoredCountedAndProvesNoLife(t *testing.T) {
	s := openTest(t, Options{})
	old := noon - 9*365*24*3600*1000
	one := pastMessage("bed-1", old, Value{"temperature", 20.5})
	assert.Equal(t, []Outcome{Stored, Duplicate}, mustAppend(t, s, one, one))

	d, err := s.Device(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Zero(t, d.LastSeen)
	assert.Equal(t, old, d.LastReading)
	assert.Equal(t, Counts{Stored: 1, Duplicate: 1}, d.Counts)
	assert.Equal(t, time.Time{}, s.NewestArrival())

	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 21}))
	mustAppend(t, s, pastMessage("bed-1", old+1, Value{"temperature", 21}))
	d, err = s.Device(t.Context(), "bed-1")
	require.NoError(t, err)
	assert.Equal(t, noon, d.LastSeen, "what is known of a device that lives stays")
	assert.Equal(t, noon, d.LastReading)
}

func TestHistoryThatCannotBeStoredIsNeitherCountedNorQuarantined(t *testing.T) {
	s := openTest(t, Options{})
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 20.5}))
	many := make([]Value, maxMetrics+1)
	assert.Equal(t, []Outcome{Conflicting, Partly, Unfit, Unfit, NoRoom}, mustAppend(t, s,
		pastMessage("bed-1", noon, Value{"temperature", 20.6}),
		pastMessage("bed-1", noon, Value{"temperature", 20.6}, Value{"ph", 6}),
		pastMessage("a/b", noon, Value{"temperature", 20.6}),
		pastMessage("bed-1", noon, Value{"", 20.6}),
		pastMessage("bed-1", noon, many...)))
	assert.Empty(t, entries(t, s))
	assert.Equal(t, Counts{Stored: 2}, totals(t, s))
	latest, err := s.Latest(t.Context(), "bed-1")
	require.NoError(t, err)
	require.Len(t, latest, 2)
	assert.Equal(t, 20.5, latest[1].Value)
}
