//go:build linux

package outside_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../../.." // of the repository

// byName runs .ci/test-by-name.
func byName(t *testing.T, args ...string) (said string, err error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(root, ".ci", "test-by-name"), args...).CombinedOutput()
	return string(out), err
}

func TestTestsByNameFailWhenANameFitsNone(t *testing.T) {
	const small = "./broker/brokertest/logtest"
	said, err := byName(t, "TestLog", "--", small)
	require.NoError(t, err, said)
	assert.Contains(t, said, "--- PASS: TestLog")
	for what, args := range map[string][]string{
		"no test":            {"TestOfNobody", "--", small},
		"no benchmark":       {"BenchmarkOfNobody", "--", small},
		"none for one of it": {"TestLog", "TestOfNobody", "--", small},
		"no package":         {"TestLog", "--", "./nowhere"},
		"no name":            {"--", small},
	} {
		said, err := byName(t, args...)
		assert.Error(t, err, "%s: %s", what, said)
	}
}

// What "make torture" and "make bench" name must be there, or they fail after minutes.
func TestMakeNamesTestsThatExist(t *testing.T) {
	command := exec.CommandContext(t.Context(), "make", "-n", "torture", "bench", "esp32")
	command.Dir = root
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "MAKE") { // what a make around this test says to those below it
			command.Env = append(command.Env, setting)
		}
	}
	out, err := command.Output()
	require.NoError(t, err)
	calls := regexp.MustCompile(`(?m)\.ci/test-by-name (.*) -- .* (\./\S*)$`).FindAllStringSubmatch(string(out), -1)
	require.Len(t, calls, 4, "%s", out)
	for _, call := range calls {
		declared := functions(t, filepath.Join(root, strings.TrimSuffix(call[2], "...")))
		for name := range strings.FieldsSeq(call[1]) {
			assert.True(t, strings.Contains(declared, "\nfunc "+name), "no %s in %s", name, call[2])
		}
	}
	assert.NotContains(t, string(out), "go test", "it says ok to nothing")
}

// functions is the text of all tests at and below a folder.
func functions(t *testing.T, folder string) string {
	t.Helper()
	var text strings.Builder
	require.NoError(t, filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		some, err := os.ReadFile(path)
		text.Write(some)
		return err
	}))
	return text.String()
}
