package block

import (
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestACommitGivesBackItsReadingsAndChanges(t *testing.T) {
	c := Commit{Stamp: -12345}
	for i := range 3000 { // more sets of metrics than are remembered
		at := march + int64(i%7)*1000
		r := Reading{Time: at, Received: at + 50}
		for metric := range uint32(i % 41) {
			r.Values = append(r.Values, Value{metric * uint32(1+i%3), float64(i) / []float64{1, 10, 100, 3}[i%4]})
		}
		if i%100 == 0 {
			r.Flags, r.Given = math.MaxUint32, "yesterday"
			r.Values = append(r.Values, Value{math.MaxUint32, math.Copysign(0, -1)}) // no decimal
		}
		c.Readings = append(c.Readings, Entry{int64(i*37%1000) - 3, r})
	}
	c.Changes = []Change{
		{Device: 4, Mask: 0b101, Values: []int64{-1, march}}, {Values: []int64{}}, {Device: -1, Mask: math.MaxUint32, Values: make([]int64, ValueBits)},
		{Device: c.Readings[7].Device, Of: 8, Mask: 1 << 31, Values: []int64{}}, {Device: c.Readings[2999].Device, Of: 3000, Mask: 1 << 31, Values: []int64{}},
		{Device: c.Readings[0].Device, Of: 1, Values: []int64{}},
	}
	body := AppendCommit([]byte("before"), 5, &c)[len("before"):]
	requireCommit(t, &c, body)
	var r CommitReader
	require.NoError(t, r.Reset(5, body))
	require.True(t, r.NextChange()) // past readings that were not asked for
	assert.Equal(t, c.Changes[0], *r.Change())
	requireCommit(t, &Commit{}, AppendCommit(nil, 5, &Commit{}))

	for r.NextChange() {
		if of := r.Change().Of; of > 0 {
			received, time := r.Sent(of)
			assert.Equal(t, [2]int64{c.Readings[of-1].Received, c.Readings[of-1].Time}, [2]int64{received, time})
		}
	}
}

// A journal may have records of the version before.
func TestARecordOfVersionOneIsRead(t *testing.T) {
	body, err := hex.DecodeString("010e022006d0f08eeb946750020101010fae03555555555555d53f600c025c02046e6f6f6e010100050301010180f08eeb946700" +
		"0671048c018a0150000012400109004ed2092b")
	require.NoError(t, err)
	c := Commit{
		Stamp: 7,
		Readings: []Entry{{3, Reading{Time: march, Received: march + 40, Values: []Value{{1, 21.5}, {2, 1.0 / 3}}}},
			{9, Reading{Time: march - 5, Received: march + 41, Flags: 2, Given: "noon", Values: []Value{{1, -3}}}}},
		Changes: []Change{{Device: -1, Mask: 1, Values: []int64{march}}, {Device: 3, Mask: 0b1110001, Values: []int64{70, 69, 40, 0}},
			{Device: 9, Mask: 0b1000000, Values: []int64{-5}}},
	}
	requireCommit(t, &c, body)
	requireCommit(t, &c, AppendCommit(nil, 5, &c))
}

func TestARecordIsWrittenAndReadWithoutAllocation(t *testing.T) {
	c := Commit{Stamp: 1}
	for i := range 100 {
		c.Readings = append(c.Readings, Entry{int64(i), Reading{Time: march, Received: march + 40, Values: []Value{{1, 21.5}, {2, float64(i) / 100}, {3, 1.0 / 3}}}})
	}
	body := AppendCommit(nil, 5, &c)
	var r CommitReader
	require.NoError(t, r.Reset(5, body))
	for r.Next() {
	}
	buffer := make([]byte, 0, 2*len(body))
	assert.Zero(t, testing.AllocsPerRun(10, func() {
		buffer = AppendCommit(buffer[:0], 5, &c)
		if r.Reset(5, body) != nil {
			panic("damaged")
		}
		for r.Next() {
		}
	}))
	assert.Less(t, len(body)/len(c.Readings), 20)
}
