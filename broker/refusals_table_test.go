package broker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whoever adds a refusal says above how it is driven, or why it is not.
func TestTheTableOfRefusalsIsComplete(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range refusedInEveryWay {
		covered[c.reason] = true
	}
	declared, tests := declaredRefusals(t)
	for reason, test := range notDriven {
		assert.False(t, covered[reason], reason)
		assert.True(t, tests[test] || strings.HasPrefix(test, "none: "), "%s exists", test)
		covered[reason] = true
	}
	require.Greater(t, len(declared), 40)
	for name, reason := range declared {
		assert.True(t, covered[reason], "%s %q: add a row to refusedInEveryWay", name, reason)
	}
}

// declaredRefusals reads the reasons of all refuse* variables and reason* constants out of the package, and the names of
// its tests and of those below.
func declaredRefusals(t *testing.T) (found map[string]string, tests map[string]bool) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	below, err := filepath.Glob("*/*.go")
	require.NoError(t, err)
	values := map[string]ast.Expr{} // those of packages below with the package in front
	found, tests = map[string]string{}, map[string]bool{}
	for _, name := range append(names, below...) {
		prefix := ""
		if dir := filepath.Dir(name); dir != "." {
			prefix = dir + "."
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				tests[d.Name.Name] = strings.HasSuffix(name, "_test.go")
			case *ast.GenDecl:
				if strings.HasSuffix(name, "_test.go") {
					continue
				}
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
						for i, name := range v.Names {
							values[prefix+name.Name] = v.Values[i]
						}
					}
				}
			}
		}
	}
	for name, value := range values {
		if isRefusal.MatchString(name) {
			found[name] = wordsOf(t, values, value)
		}
	}
	return found, tests
}

var isRefusal = regexp.MustCompile("^(refuse|reason)[A-Z]")

// wordsOf is the first text in an expression, through other names, also those of packages below.
func wordsOf(t *testing.T, values map[string]ast.Expr, e ast.Expr) (words string) {
	t.Helper()
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind == token.STRING && words == "" {
				text, err := strconv.Unquote(n.Value)
				require.NoError(t, err)
				words = text
			}
		case *ast.Ident:
			if value := values[n.Name]; value != nil && words == "" {
				words = wordsOf(t, values, value)
			}
		case *ast.SelectorExpr:
			if of, ok := n.X.(*ast.Ident); ok && words == "" {
				if value := values[of.Name+"."+n.Sel.Name]; value != nil {
					words = wordsOf(t, values, value)
				}
			}
		}
		return words == ""
	})
	return words
}
