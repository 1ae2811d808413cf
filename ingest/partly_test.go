package ingest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// halving is a sink that stores the first half of each batch that has several messages.
type halving struct{ stored []string }

func (h *halving) Append(_ context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	n := (len(batch) + 1) / 2
	for _, m := range batch[:n] {
		h.stored = append(h.stored, m.Device)
		outcomes = append(outcomes, store.Stored)
	}
	if n < len(batch) {
		return outcomes, fmt.Errorf("%w: %w", store.ErrPartly, errors.New("disk full"))
	}
	return outcomes, nil
}

func TestWhatIsStoredOfABatchIsNotOfferedAgain(t *testing.T) {
	sink := &halving{}
	s, err := New(Options{Host: "localhost", Port: 1, ClientID: "c", Topics: []string{"#"}, MaxBatch: 1, StallTimeout: patience}, sink)
	require.NoError(t, err)
	outcomes, err := s.append(t.Context(), []store.Message{{Device: "a"}, {Device: "b"}, {Device: "c"}}, []store.Outcome{store.Proved})
	require.NoError(t, err)
	assert.Equal(t, []store.Outcome{store.Proved, store.Stored, store.Stored, store.Stored}, outcomes)
	assert.Equal(t, []string{"a", "b", "c"}, sink.stored)
}
