package broker

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whoever adds a file says in the package comment what is in it.
func TestThePackageCommentsNameEveryFile(t *testing.T) {
	for _, dir := range []string{".", "access", "network", "refusal", "session", "topic", "validate"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		var comment string
		var files []string
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.PackageClauseOnly)
			require.NoError(t, err)
			comment += file.Doc.Text()
			if filepath.Base(name) != "doc.go" { // it is the comment
				files = append(files, filepath.Base(name))
			}
		}
		if len(files) == 1 { // there is nothing to look for
			files = nil
		}
		assert.LessOrEqual(t, len(files), 30, dir)
		for _, name := range files {
			assert.Regexp(t, `(^|[ \t\n(])`+strings.ReplaceAll(name, ".", `\.`), comment, "%s", dir)
		}
		named := 0
		for _, word := range strings.FieldsFunc(comment, func(r rune) bool { return strings.ContainsRune(" \t\n,;:()", r) }) {
			if word = strings.TrimRight(word, "."); strings.HasSuffix(word, ".go") {
				_, err := os.Stat(filepath.Join(dir, word))
				_, above := os.Stat(word) // a package may name a file of broker's
				assert.True(t, err == nil || above == nil, "%s names %s, which is not there", dir, word)
				named++
			}
		}
		assert.GreaterOrEqual(t, named, len(files), dir)
	}
}
