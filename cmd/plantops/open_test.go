package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
)

// The server was started in the directory, with a relative path.
func TestCommandSaysWhenThePathToTheServerIsTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", control.MaxSocketPathBytes))
	require.NoError(t, os.Mkdir(dir, 0o700))
	lock, err := control.AcquireLock(context.Background(), dir, 0)
	require.NoError(t, err)
	defer lock.Release()
	var told strings.Builder
	code := run(t.Context(), []string{"device", "add", "bed-1", "--data-dir", dir}, &app{stderr: &told, now: time.Now})
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, told.String(), "by a relative path")
}
