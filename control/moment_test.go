package control

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMomentSurvivesJSON(t *testing.T) {
	for _, m := range []Moment{0, 1, 1767787200123} {
		text, err := json.Marshal(m)
		require.NoError(t, err)
		var back Moment
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, m, back, "%s", text)
	}
	text, err := json.Marshal(Moment(1767787200123))
	require.NoError(t, err)
	assert.Equal(t, `"2026-01-07T12:00:00.123Z"`, string(text))
}
