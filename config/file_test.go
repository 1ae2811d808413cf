package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const nobody = 65534

// As in "sudo -u plantops plantops status", called in one's own home.
func TestFolderThatCannotBeEnteredIsNoReasonToStop(t *testing.T) {
	if dir := os.Getenv("PLANTOPS_TEST_FOLDER"); dir != "" {
		inClosedFolder(t, dir)
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plantops.yaml"), []byte("nonsense: true\n"), 0o600))
	require.NoError(t, os.Chmod(dir, 0o700))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	// In a process of its own: it stays in the folder, and root becomes nobody.
	cmd := exec.Command(os.Args[0], "-test.run=^TestFolderThatCannotBeEnteredIsNoReasonToStop$", "-test.v")
	cmd.Env = append(os.Environ(), "PLANTOPS_TEST_FOLDER="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS")
}

func inClosedFolder(t *testing.T, dir string) {
	require.NoError(t, os.Chdir(dir))
	if os.Getuid() == 0 {
		require.NoError(t, syscall.Setgroups(nil))
		require.NoError(t, syscall.Setgid(nobody))
		require.NoError(t, syscall.Setuid(nobody))
	} else {
		require.NoError(t, os.Chmod(dir, 0))
	}
	_, err := os.Stat("plantops.yaml")
	require.ErrorIs(t, err, os.ErrPermission)

	loaded, err := Load("", nil, nil)
	require.NoError(t, err)
	assert.Contains(t, loaded.NotSearched, "this user may not enter the current folder")
	assert.Contains(t, loaded.NotSearched, "plantops.yaml")
	assert.NotEqual(t, "plantops.yaml", loaded.Path)

	_, err = Load("plantops.yaml", nil, nil)
	require.ErrorIs(t, err, os.ErrPermission, "a file that is named must be there")
}

// A file that is there and cannot be read is not passed over: it was meant.
func TestFileThatCannotBeReadIsAnErrorAlsoWhenNobodyNamedIt(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("plantops.yaml", 0o700)) // also for root
	_, err := Load("", nil, nil)
	require.ErrorContains(t, err, "read configuration: ")
}
