package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is written of a queue is read again, but for the tokens, and only what is above a number; a pack may be another's too.
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
		shared := rapid.Bool().Draw(t, "shared")
		pack := NewPack(moment, entries, shared)
		if shared {
			other := []Entry{{Seq: 7, Message: messages[1], QoS: 1}, {Seq: 9, Message: messages[0], QoS: 1}}
			theirs := AppendEntries(nil, other, pack)
			defer func() {
				read, err := ReadEntries(nil, theirs, pack.Bytes, 7, moment)
				require.NoError(t, err)
				require.Len(t, read, 1)
				require.Equal(t, "a", read[0].Message.Topic)
			}()
		}
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

// BenchmarkTail writes the entries of a large batch and reads them again.
func BenchmarkTail(b *testing.B) {
	moment := Moment{Now: time.Now(), Wall: time.Now()}
	const count = 5000
	entries := make([]Entry, count)
	for i := range entries {
		m := &Message{Topic: "devices/bed-1/telemetry", Payload: make([]byte, 120), Publisher: "bed-1", QoS: 1, Created: moment.Now}
		entries[i] = Entry{Seq: uint64(i + 1), Message: m, QoS: 1}
	}
	for _, queues := range []int{1, 2} {
		b.Run(fmt.Sprint("write ", queues), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pack := NewPack(moment, entries, queues > 1)
				for range queues {
					AppendEntries(nil, entries, pack)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/message")
		})
	}
	pack := NewPack(moment, entries, false)
	blob := AppendEntries(nil, entries, pack)
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		var read []Entry
		for b.Loop() {
			var err error
			read, err = ReadEntries(read[:0], blob, pack.Bytes, 0, moment)
			require.NoError(b, err)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/message")
	})
}
