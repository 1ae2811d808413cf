package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// Callers branch on these errors, and a person reads the same text with and without a server.
func TestErrorsKeepTheirIdentityOverTheSocket(t *testing.T) {
	r := startServer(t)
	r.addDevice(t, "bed-1")
	_, there := r.control.AddDevice(context.Background(), "bed-1")
	_, here := r.server.AddDevice(context.Background(), "bed-1")
	assert.ErrorIs(t, there, store.ErrExists)
	assert.Equal(t, here.Error(), there.Error())
	assert.ErrorIs(t, r.control.RemoveDevice(context.Background(), "bed-9"), store.ErrNotFound)
	for _, id := range []string{"a/b", "a?b/../c"} {
		_, err := r.control.AddDevice(context.Background(), id)
		assert.ErrorIs(t, err, store.ErrInvalidID, id)
		assert.Equal(t, exitUsage, exitCode(err))
	}
	for _, id := range []string{".", ".."} { // odd, though good; no part of a path
		_, err := r.control.AddDevice(context.Background(), id)
		require.NoError(t, err, id)
		_, err = r.control.RotateDevice(context.Background(), id)
		require.NoError(t, err, id)
		require.NoError(t, r.control.RemoveDevice(context.Background(), id), id)
	}
}
