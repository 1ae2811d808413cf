package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	statementRow  = regexp.MustCompile(`(?m)^\| (MQTT-[\d.]+-\d+) \| (.+) \| (.+) \|$`)
	testReference = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.(Test\\w+)`")
	scriptFile    = regexp.MustCompile("`(deploy/interop/[\\w.-]+)`")
)

// Every normative statement of both standards stands in docs/mqtt.md once, with tests that exist or with why there is none.
func TestEveryStatementOfTheStandardHasATestOrAReason(t *testing.T) {
	_, rest, found := strings.Cut(document(t, "docs/mqtt.md"), "\n## MQTT 3.1.1\n")
	require.True(t, found)
	third, fifth, found := strings.Cut(rest, "\n## MQTT 5.0\n")
	require.True(t, found)
	for version, section := range map[string]string{"3.1.1": third, "5.0": fifth} {
		var there []string
		for _, row := range statementRow.FindAllStringSubmatch(section, -1) {
			there = append(there, row[1])
			assertCovered(t, version+" "+row[1], row[3])
		}
		want := strings.Fields(document(t, "cmd/plantops/testdata/statements-"+version+".txt"))
		assert.ElementsMatch(t, want, there, "MQTT %s", version)
		assert.Equal(t, strings.Count(section, "\n| MQTT-"), len(there), "rows of MQTT %s that are written otherwise", version)
	}
}

func assertCovered(t *testing.T, statement, by string) {
	t.Helper()
	tests, scripts := testReference.FindAllStringSubmatch(by, -1), scriptFile.FindAllStringSubmatch(by, -1)
	for _, test := range tests {
		assert.True(t, hasTest(t, test[1], test[2]), "%s: there is no %s in %s", statement, test[2], test[1])
	}
	for _, script := range scripts {
		assert.FileExists(t, filepath.Join(repository, script[1]), statement)
	}
	if len(tests)+len(scripts) == 0 {
		assert.Regexp(t, `client's duty|not applicable: \w|\*\*not verified\*\*: \w`, by, statement)
	}
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, folder, "*_test.go"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T) {") {
			return true
		}
	}
	return false
}
