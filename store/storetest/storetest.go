// Package storetest opens stores for tests.
package storetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

// Open returns an empty store in a temporary directory. When the test ends its integrity is checked, unless the test has
// closed it, and it is closed.
func Open(t testing.TB) *store.Store {
	t.Helper()
	return OpenWith(t, store.Options{})
}

// OpenWith is Open with options; a path that is not set is a temporary one.
func OpenWith(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "plantops.db")
	}
	s, err := store.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { closeChecked(t, s) })
	return s
}

func closeChecked(t testing.TB, s *store.Store) {
	t.Helper()
	assert.NoError(t, s.Check(context.Background()))
	assert.NoError(t, s.Close())
}
