package store

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Another libc than the one that the driver was made for crashes on 32-bit ARM, hours after the start.
func TestLibcIsTheVersionThatTheDriverNames(t *testing.T) {
	module := func(path string) (m struct{ Version, GoMod string }) {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-json", path).Output()
		require.NoError(t, err, "go list -m %s", path)
		require.NoError(t, json.Unmarshal(out, &m))
		return m
	}
	text, err := os.ReadFile(module("modernc.org/sqlite").GoMod)
	require.NoError(t, err)
	wanted := regexp.MustCompile(`modernc\.org/libc (v\S+)`).FindSubmatch(text)
	require.NotNil(t, wanted, "sqlite's go.mod names libc")
	assert.Equal(t, string(wanted[1]), module("modernc.org/libc").Version)
}
