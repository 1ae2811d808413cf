package progress

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBarShowsHowFarItIsAndGoesAway(t *testing.T) {
	var out strings.Builder
	now := time.UnixMilli(0)
	b := New(&out, func() time.Time { return now })
	b.Set(0, "a line that is long")
	b.Set(0.1, "not drawn: too early")
	now = now.Add(10 * time.Second)
	b.Set(0.25, "12 readings")
	now = now.Add(time.Second)
	b.Tell("checking", 3, 4)
	b.End()
	b.Set(0.5, "not drawn: it has ended")
	assert.Equal(t, "\r[                        ]   0 %  a line that is long"+
		"\r[======                  ]  25 %  12 readings, 30s left"+
		"\r[==================      ]  75 %  checking, 4s left    "+
		"\r"+strings.Repeat(" ", 51)+"\r", out.String())

	var none *Bar
	none.Set(1, "")
	none.End()
}
