package keep

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// naive tries everything that a * may stand for.
func naive(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] != '*':
		return name != "" && name[0] == pattern[0] && naive(pattern[1:], name[1:])
	}
	for i := 0; i <= len(name); i++ {
		if naive(pattern[1:], name[i:]) {
			return true
		}
	}
	return false
}

func TestAPatternFitsWhatTheNaiveOneFits(t *testing.T) {
	text := func(letters string, most int) *rapid.Generator[string] {
		return rapid.StringOfN(rapid.RuneFrom([]rune(letters)), 0, most, -1)
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern, name := text("ab*ü", 6).Draw(t, "pattern"), text("ab*ü", 9).Draw(t, "name")
		assert.Equal(t, naive(pattern, name), Rule{Device: pattern}.Fits(name), "%q %q", pattern, name)
	})
}

func TestTheFirstRuleThatFitsCounts(t *testing.T) {
	rules := Rules{{Device: "bed-1"}, {Device: "bed-*"}, {Device: "*-1"}}
	for device, want := range map[string]int{"bed-1": 0, "bed-10": 1, "bed-": 1, "pump-1": 2, "pump-2": 3, "": 3, "Bed-1": 2} {
		assert.Equal(t, want, rules.Of(device), device)
	}
	assert.Zero(t, Rules(nil).Of("bed-1"))
	assert.Equal(t, []string{"bed-1", "bed-*", "*-1"}, rules.Patterns())
}
