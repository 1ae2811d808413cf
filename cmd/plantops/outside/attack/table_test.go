package attack_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestV19OurPackagesLeaveMemoryToTheCompiler(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Imports}}", "github.com/plantops/plantops/...").Output()
	require.NoError(t, err)
	require.Greater(t, strings.Count(string(out), "\n"), 10)
	for line := range strings.Lines(string(out)) {
		name, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		assert.NotContains(t, strings.Fields(strings.Trim(imports, "[]")), "unsafe", name)
		assert.NotContains(t, strings.Fields(strings.Trim(imports, "[]")), "C", name)
	}
}

// README's table of attacks names every class, and for each one tests that exist and can be selected by the class, or
// says that it is not for a test.
func TestReadmeNamesATestForEveryClassOfAttack(t *testing.T) {
	readme, err := os.ReadFile("../../../../docs/security.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "| Class | Attack | Defence | Tests |\n|---|---|---|---|\n")
	require.True(t, found, "README has the head of the table")
	table, _, _ := strings.Cut(rest, "\n\n")

	exists := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	declared := regexp.MustCompile(`(?m)^func (TestV\w+)\(t \*testing\.T\)`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			exists[match[1]] = true
		}
	}
	named := regexp.MustCompile("`(TestV\\w+)`")
	rows := strings.Split(table, "\n")
	require.Len(t, rows, 22)
	for i, row := range rows {
		class := fmt.Sprintf("V%02d", i+1)
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		require.Len(t, cells, 4, row)
		assert.Equal(t, class, cells[0])
		tests := named.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			assert.Contains(t, cells[3], "no test: ", "%s says why", class)
		}
		for _, match := range tests {
			assert.True(t, strings.HasPrefix(match[1], "Test"+class), "%s selects %s", class, match[1])
			assert.True(t, exists[match[1]], "%s exists", match[1])
			delete(exists, match[1])
		}
	}
	assert.Empty(t, exists, "tests of attacks that README does not name")
}
