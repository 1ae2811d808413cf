package mosquitto

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// matches is the rule of MQTT in the plainest form [MQTT 5, 4.7].
func matches(filter, topic string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(n) || level != "+" && level != n[i] {
			return false
		}
	}
	return len(f) == len(n)
}

// Over all filters and topics of up to three levels of a small alphabet.
func TestCoversAndOverlapFollowFromWhatIsMatched(t *testing.T) {
	grow := func(from, levels []string) []string {
		var out []string
		for _, f := range from {
			for _, l := range levels {
				out = append(out, f+"/"+l)
			}
		}
		return out
	}
	all := func(levels []string) []string {
		two := grow(levels, levels)
		return append(append(append([]string{}, levels...), two...), grow(two, levels)...)
	}
	topics := all([]string{"a", "b", "", "$x"})
	topics = append(topics, grow(topics, []string{"z"})...) // deeper than any filter
	filters := []string{}
	for _, f := range all([]string{"a", "$x", "+", "#"}) {
		if validFilter(f) {
			filters = append(filters, f)
		}
	}
	for _, a := range filters {
		for _, b := range filters {
			both, all := false, true
			for _, topic := range topics {
				both = both || matches(a, topic) && matches(b, topic)
				all = all && (matches(a, topic) || !matches(b, topic))
			}
			if covers(a, b) && !all {
				t.Errorf("%q does not cover %q", a, b)
			}
			if both && !overlap(a, b) {
				t.Errorf("%q and %q overlap", a, b)
			}
			if !both && overlap(a, b) {
				t.Errorf("%q and %q do not overlap", a, b)
			}
		}
	}
}

func TestAClientIDCanBeAnything(t *testing.T) {
	assert.True(t, overlap("clients/%c/#", "clients/bed-1/x"))
	assert.True(t, overlap("clients/x%c", "clients/xyz"))
	assert.False(t, covers("clients/%c/#", "clients/+/x"))
	assert.True(t, covers("clients/+/#", "clients/%c/x"))
	assert.True(t, covers("clients/%c/#", "clients/%c/x"))
}
