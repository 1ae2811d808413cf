package control

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/storetest"
)

// twoMessages are one of bed-1 with two metrics, received long ago, and one of bed-2.
func twoMessages() History {
	return History{Devices: []string{"bed-1", "bed-2"}, Metrics: []string{"ph", "temperature"}, Device: []int{0, 1},
		Time: []int64{1e12, 2e12}, Received: []int64{1e12 + 5, 0}, Count: []int{2, 1}, Metric: []int{0, 1, 0}, Value: []float64{6.5, 20, 7}}
}

func TestHistoryOverTheSocketIsStoredOnceAndItsPlaceRemembered(t *testing.T) {
	db := storetest.Open(t)
	now := time.UnixMilli(3e12)
	s := New(Options{Store: db, Now: func() time.Time { return now }})
	path := filepath.Join(t.TempDir(), "s")
	socket, err := Listen(path, s, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- socket.Run(t.Context()) }()
	client, err := Dial(t.Context(), path)
	require.NoError(t, err)

	h := twoMessages()
	h.Place = HistoryPlace{Key: "file", Text: "line 7"}
	got, err := client.ImportHistory(t.Context(), h)
	require.NoError(t, err)
	assert.Equal(t, HistoryOutcome{[]store.Outcome{store.Stored, store.Stored}}, got)
	got, err = client.ImportHistory(t.Context(), h)
	require.NoError(t, err)
	assert.Equal(t, HistoryOutcome{[]store.Outcome{store.Duplicate, store.Duplicate}}, got)
	place, err := client.HistoryPlace(t.Context(), "file")
	require.NoError(t, err)
	assert.Equal(t, "line 7", place)

	h.Value[0], h.Value[2] = 6.6, 8
	h.Metrics = append(h.Metrics, "lux")
	h.Metric[1] = 2
	got, err = client.ImportHistory(t.Context(), h)
	require.NoError(t, err)
	assert.Equal(t, HistoryOutcome{[]store.Outcome{store.Partly, store.Conflicting}}, got)

	var received []int64
	for r, err := range db.Readings(t.Context(), store.Query{Metrics: []string{"ph"}}) {
		require.NoError(t, err)
		received = append(received, r.Received)
	}
	assert.Equal(t, []int64{1e12 + 5, now.UnixMilli()}, received)
}

func TestHistoryWhoseColumnsDoNotFitIsRefusedWhole(t *testing.T) {
	db := storetest.Open(t)
	s := New(Options{Store: db})
	for name, spoil := range map[string]func(*History){
		"no such device":         func(h *History) { h.Device[1] = 2 },
		"no such metric":         func(h *History) { h.Metric[2] = -1 },
		"more values than all":   func(h *History) { h.Count[1] = 2 },
		"fewer than none":        func(h *History) { h.Count[1] = -1 },
		"a time too many":        func(h *History) { h.Time = append(h.Time, 1) },
		"a value too few":        func(h *History) { h.Value = h.Value[:2] },
		"one arrival, two times": func(h *History) { h.Received = h.Received[:1] },
	} {
		h := twoMessages()
		spoil(&h)
		_, err := s.ImportHistory(t.Context(), h)
		assert.ErrorIs(t, err, errHistory, name)
	}
	devices, err := db.Devices(t.Context())
	require.NoError(t, err)
	assert.Empty(t, devices)
}

func TestEquationKnowsOfHistories(t *testing.T) {
	s := New(Options{Store: storetest.Open(t)})
	h := twoMessages()
	_, err := s.ImportHistory(t.Context(), h)
	require.NoError(t, err)
	h.Value[2] = 8 // a conflict counts nowhere
	_, err = s.ImportHistory(t.Context(), h)
	require.NoError(t, err)
	in := s.imports.addTo(broker.IngestStats{Received: 5, Devices: map[string]broker.DeviceStats{"bed-1": {Received: 4}}})
	assert.Equal(t, broker.IngestStats{Received: 8, Devices: map[string]broker.DeviceStats{"bed-1": {Received: 6}, "bed-2": {Received: 1}}}, in)
}

func TestStepsOfAHistoryFitTheirTime(t *testing.T) {
	var i imports
	assert.Equal(t, minHistoryStep, i.nextStep())
	i.took(minHistoryStep, time.Microsecond)
	assert.Equal(t, 2*minHistoryStep, i.nextStep())
	i.took(maxHistoryStep, historyStep/4)
	assert.Equal(t, maxHistoryStep, i.nextStep())
	i.took(maxHistoryStep, 2*historyStep)
	assert.Equal(t, maxHistoryStep/2, i.nextStep())
	i.took(minHistoryStep, time.Minute)
	assert.Equal(t, minHistoryStep, i.nextStep())
}
