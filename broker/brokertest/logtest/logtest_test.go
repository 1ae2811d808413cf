package logtest_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker/brokertest/logtest"
)

func TestLogKeepsTheNewestLines(t *testing.T) {
	all, some := &logtest.Log{}, &logtest.Log{Keep: 20}
	for i := range 100 {
		fmt.Fprintf(all, "line %d\n", i)
		fmt.Fprintf(some, "line %d\n", i)
	}
	assert.Len(t, all.Lines(), 100)
	assert.Equal(t, []string{"line 7", "line 17", "line 27"}, all.Lines("line", "7")[:3])
	assert.Equal(t, "line 98\nline 99\n", some.String())
}
