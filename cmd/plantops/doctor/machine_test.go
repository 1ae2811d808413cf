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

func TestTimesAreForPeople(t *testing.T) {
	for took, want := range map[time.Duration]string{
		486600 * time.Nanosecond: "less than 1 ms", 2126600 * time.Nanosecond: "2 ms", 999600 * time.Microsecond: "1000 ms",
		1500 * time.Millisecond: "1.5 s", 12 * time.Second: "12.0 s",
	} {
		assert.Equal(t, want, round(took))
	}
}
