package mosquitto

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker/topic"
)

// A rule that is taken over although a denial meets it for some client would allow more than Mosquitto does.
func TestRulesOverlapWhenTheyDoForSomeClient(t *testing.T) {
	var filters []string
	levels := []string{"a", "%c", "x%c", "$x", "+", "#"}
	for _, first := range levels {
		filters = append(filters, first)
		for _, second := range levels {
			filters = append(filters, first+"/"+second)
		}
	}
	for _, one := range filters {
		for _, other := range filters {
			if aclFilters.Fault(one) != topic.Faultless || aclFilters.Fault(other) != topic.Faultless {
				continue
			}
			for _, client := range []string{"a", "xa", "z", "$x"} {
				fill := strings.NewReplacer("%c", client)
				if topic.Overlap(fill.Replace(one), fill.Replace(other)) {
					assert.True(t, overlap(one, other), "overlap(%q, %q) with %%c = %s", one, other, client)
				}
			}
			if !strings.Contains(one+other, "%c") {
				assert.Equal(t, topic.Overlap(one, other), overlap(one, other), "overlap(%q, %q)", one, other)
			}
		}
	}
}

func TestAClientIDCanBeAnything(t *testing.T) {
	assert.True(t, overlap("clients/%c/#", "clients/bed-1/x"))
	assert.True(t, overlap("clients/x%c", "clients/xyz"))
	assert.True(t, overlap("%c/x", "$any/x"))
	assert.False(t, overlap("%c/x", "$any/y"))
	assert.False(t, topic.Covers("clients/%c/#", "clients/+/x"))
	assert.True(t, topic.Covers("clients/+/#", "clients/%c/x"))
	assert.True(t, topic.Covers("clients/%c/#", "clients/%c/x"))
}
