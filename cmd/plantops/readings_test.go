package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

// fullDisk is a standard output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestReadingsThatCannotBePrintedAreOneError(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "plantops.db")})
	require.NoError(t, err)
	batch := make([]store.Message, 300) // more than is printed at a time
	for i := range batch {
		batch[i] = ingest.Decode("devices/bed-1/telemetry", fmt.Appendf(nil, `{"temperature":%d}`, i), time.Now().UnixMilli(), false)
	}
	_, err = db.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	for _, format := range []string{"table", "csv", "json"} {
		var told strings.Builder
		code := run(t.Context(), []string{"readings", "--data-dir", dir, "--format", format}, &app{stdout: fullDisk{}, stderr: &told, now: time.Now})
		assert.Equal(t, exitFailed, code, format)
		assert.Equal(t, "plantops: no space left on device\n", told.String(), format)
	}
}

func TestInterruptedCommandSaysSo(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "plantops.db")})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var told strings.Builder
	code := run(ctx, []string{"readings", "--data-dir", dir}, &app{stdout: io.Discard, stderr: &told, now: time.Now})
	assert.Equal(t, exitFailed, code)
	assert.Equal(t, "plantops: interrupted\n", told.String())
}

func TestReadingsSaysThatMoreMayComeBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plantops.db")
	db, err := store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	_, err = db.Append(t.Context(), []store.Message{ingest.Decode("devices/bed-1/telemetry", []byte(`{"temperature":1}`), time.Now().UnixMilli(), false)}, nil)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	clear(content[:100])
	require.NoError(t, os.WriteFile(path, content, 0o600))
	db, err = store.Open(t.Context(), store.Options{Path: path})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	var told strings.Builder
	code := run(t.Context(), []string{"readings", "--data-dir", dir}, &app{stdout: io.Discard, stderr: &told, now: time.Now})
	assert.Zero(t, code)
	assert.Contains(t, told.String(), "readings are missing: the database was damaged")
}
