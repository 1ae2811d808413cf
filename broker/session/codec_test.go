package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is written of a queue is read again, but for the tokens, and only what is above a number.
func TestEntriesAreReadAsTheyWereWritten(t *testing.T) {
	moment := Moment{Now: time.Now(), Wall: time.Now()}
	rapid.Check(t, func(t *rapid.T) {
		var entries []Entry
		messages := []*Message{{Topic: "a", Payload: []byte("1"), QoS: 1}, {Topic: "b/c", Retain: true, QoS: 2}}
		seq := uint64(0)
		for range rapid.IntRange(1, 6).Draw(t, "entries") {
			seq += uint64(rapid.IntRange(1, 300).Draw(t, "step"))
			entries = append(entries, Entry{Seq: seq, Message: rapid.SampledFrom(messages).Draw(t, "message"),
				QoS: byte(rapid.IntRange(1, 2).Draw(t, "qos")), Retain: rapid.Bool().Draw(t, "retain"),
				SubscriptionIDs: rapid.SliceOfN(rapid.Uint32Range(1, 1000), 0, 3).Draw(t, "ids"),
				Group:           rapid.SampledFrom([]string{"", "", "$share/g/a/#"}).Draw(t, "group")})
		}
		pack := NewPack(moment)
		blob := AppendEntries(nil, entries, pack)
		after := uint64(rapid.IntRange(0, int(seq)).Draw(t, "after"))
		read, err := ReadEntries(nil, blob, pack.Bytes, after, moment)
		require.NoError(t, err)
		var want []Entry
		for _, e := range entries {
			if e.Seq > after {
				want = append(want, e)
			}
		}
		require.Len(t, read, len(want))
		for i, e := range read {
			require.Equal(t, want[i].Message.Topic, e.Message.Topic)
			require.ElementsMatch(t, want[i].SubscriptionIDs, e.SubscriptionIDs)
			e.Message, e.SubscriptionIDs = want[i].Message, want[i].SubscriptionIDs
			require.Equal(t, want[i], e)
		}
	})
}
