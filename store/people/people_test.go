package people

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestARoleMayWhatThoseBeforeItMay(t *testing.T) {
	for i, r := range Roles {
		for k, needed := range Roles {
			assert.Equal(t, i >= k, r.May(needed), "%s, %s", r, needed)
		}
	}
	assert.False(t, Role("").May(Viewer))
	assert.False(t, Role("root").May(Viewer))
	assert.False(t, Admin.May(""), "what needs no known role is nobody's")
}
