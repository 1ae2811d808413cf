package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/control"
)

func TestAClockThatTheServerDoubtsIsAFailure(t *testing.T) {
	var r Report
	Patient{Now: time.Now}.checkClock(&r, &control.Status{ClockDoubt: "it jumped by 9h0m0s"})
	require.Len(t, r.Checks, 1)
	assert.Equal(t, Fail, r.Checks[0].State)
	assert.Contains(t, r.Checks[0].Found, "it jumped by 9h0m0s")

	r = Report{}
	Patient{Now: time.Now}.checkClock(&r, &control.Status{})
	require.Len(t, r.Checks, 1)
	assert.NotEqual(t, Fail, r.Checks[0].State)
}
