package broker_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
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

// declaredRefusals reads the reasons of all variables of type Refusal out of package refusal, and the names of the tests of
// broker and of the packages below. Nobody else has words of his own.
func declaredRefusals(t *testing.T) (found map[string]string, tests map[string]bool) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	below, err := filepath.Glob("*/*.go")
	require.NoError(t, err)
	words := map[string]string{} // of the errors of package topic
	found, tests = map[string]string{}, map[string]bool{}
	reasons := map[string]ast.Expr{}
	for _, name := range append(names, below...) {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		isTest := strings.HasSuffix(name, "_test.go")
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				tests[n.Name.Name] = tests[n.Name.Name] || isTest
			case *ast.ValueSpec:
				for i, value := range n.Values {
					if reason := reasonIn(value); reason != nil && !isTest {
						reasons[n.Names[i].Name] = reason
					} else if text := firstText(value); file.Name.Name == "topic" && text != "" {
						words["topic."+n.Names[i].Name+".Error"] = text
					}
				}
			case *ast.CompositeLit:
				text, ok := reasonIn(n).(*ast.BasicLit)
				assert.False(t, ok && !isTest && file.Name.Name != "refusal", "%s: %v belongs into package refusal", name, text)
			}
			return true
		})
	}
	for name, reason := range reasons {
		if found[name] = firstText(reason); found[name] == "" {
			found[name] = words[selected(reason)]
		}
		assert.NotEmpty(t, found[name], name)
	}
	return found, tests
}

// reasonIn returns what a literal of type Refusal gives as its reason; nil for everything else.
func reasonIn(e ast.Node) ast.Expr {
	literal, ok := e.(*ast.CompositeLit)
	if !ok || literal.Type == nil {
		return nil
	}
	name, _ := literal.Type.(*ast.Ident)
	if of, ok := literal.Type.(*ast.SelectorExpr); ok {
		name = of.Sel
	}
	if name == nil || name.Name != "Refusal" {
		return nil
	}
	for _, element := range literal.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok && pair.Key.(*ast.Ident).Name == "Reason" {
			return pair.Value
		}
	}
	return nil
}

// firstText is the first string in an expression, or "".
func firstText(e ast.Expr) (text string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && text == "" {
			text, _ = strconv.Unquote(literal.Value)
		}
		return text == ""
	})
	return text
}

// selected is the package, the name and the method of a call such as topic.ErrInvalid.Error().
func selected(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.CallExpr:
		return selected(e.Fun)
	case *ast.SelectorExpr:
		return selected(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}
