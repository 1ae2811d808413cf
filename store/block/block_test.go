package block

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

func sample() []Reading {
	return []Reading{
		{Time: march, Received: march + 40, Values: []Value{{1, 21.5}, {2, math.Copysign(0, -1)}}},
		{Time: march + 60000, Received: march + 60000 - 7, Flags: 2, Given: "yesterday", Values: []Value{{1, math.MaxFloat64}, {9, 5e-324}}},
		{Time: march + 60000, Received: march + 90000, Values: []Value{{2, -1e-7}}},
	}
}

func TestABlockGivesBackItsReadings(t *testing.T) {
	var e Encoder
	key := Key(Month(march), 77, 3)
	m, summary, body, err := e.Encode(key, sample())
	require.NoError(t, err)
	assert.Equal(t, Meta{key, 3, march, march + 60000}, m)
	var d Decoder
	require.NoError(t, d.Decode(m, body))
	for i, r := range sample() {
		assert.Equal(t, r, d.Reading(i, nil))
	}
	s, err := DecodeSummary(m, summary)
	require.NoError(t, err)
	assert.Equal(t, []uint32{1, 2, 9}, d.Metrics())
	assert.Len(t, s.Metrics, 3)
	m.Key++
	assert.ErrorIs(t, d.Decode(m, body), ErrDamaged)
}

func TestACommitGivesBackItsReadingsAndChanges(t *testing.T) {
	c := Commit{Stamp: 12345}
	for i, r := range sample() {
		c.Readings = append(c.Readings, Entry{int64(i), r})
	}
	c.Changes = []Change{{Device: 4, Mask: 0b101, Values: []int64{-1, march}, Text: "skipped"}}
	b := AppendCommit([]byte("before"), 9, &c)
	var r CommitReader
	require.NoError(t, r.Reset(9, b[len("before"):]))
	assert.Equal(t, c.Stamp, r.Stamp())
	for i := 0; r.Next(); i++ {
		assert.Equal(t, c.Readings[i], *r.Entry())
	}
	for i := 0; r.NextChange(); i++ {
		assert.Equal(t, c.Changes[i], *r.Change())
	}
	require.NoError(t, r.Err())
	assert.ErrorIs(t, r.Reset(8, b[len("before"):]), ErrDamaged)
}

func TestKeysAreInOrderOfMonthDeviceAndNumber(t *testing.T) {
	month, device, number := SplitKey(Key(-3, 5, 65535))
	assert.Equal(t, []int64{-3, 5, 65535}, []int64{month, device, int64(number)})
	assert.Less(t, Key(-1, 1<<24-1, 65535), Key(0, 0, 0))
	assert.Less(t, Key(7, 5, 65535), Key(7, 6, 0))
	for _, ms := range []int64{0, -1, march, march - 1} {
		month := Month(ms)
		assert.LessOrEqual(t, MonthStart(month), ms)
		assert.Greater(t, MonthStart(month+1), ms)
	}
	assert.Equal(t, int64(674), Month(march))
}
