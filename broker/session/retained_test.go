package session

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/broker/topic"
)

func TestFilterMatchesTopic(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"a/b", "a", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false}, {"#", "a/b", true},
		{"+", "a", true}, {"+", "a/b", false}, {"+/+", "/a", true}, {"/+", "/a", true}, {"+", "/a", false},
		{"+/#", "one", true}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"a/+", "a", false}, {"a/+", "a/", true},
		{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"$SYS/+", "$SYS/x", true}, {"a/+/#", "a", false},
	} {
		t.Run(c.filter+" "+c.topic, func(t *testing.T) {
			assert.Equal(t, c.want, topic.Matches(c.filter, c.topic))
			var r Retained
			require.Equal(t, Stored, r.Set(&Message{Topic: c.topic, Payload: []byte("x")}, nil))
			assert.Len(t, r.Next(Match(c.filter), 10, nil), map[bool]int{true: 1}[c.want], "the store agrees")
		})
	}
}

// drawTopic and drawFilter make names that often meet.
func drawTopic(t *rapid.T) string {
	return rapid.StringMatching(`(\$s|[ab]|)(/([abc]|)){0,3}`).Filter(func(s string) bool { return s != "" }).Draw(t, "topic")
}

func drawFilter(t *rapid.T) string {
	return rapid.StringMatching(`((\$s|[ab+]|)(/([abc+]|)){0,3}(/#)?|#)`).Filter(func(s string) bool { return s != "" }).Draw(t, "filter")
}

// A paused and resumed walk gives exactly what stayed and matches, once; what
// comes or goes meanwhile may or may not be given.
func TestWalkGivesWhatMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Retained
		model := map[string]bool{}
		owners := []*Owner{nil, {}, {}}
		change := func() string {
			topic := drawTopic(t)
			payload := rapid.SampledFrom([]string{"x", "x", ""}).Draw(t, "payload")
			o := rapid.SampledFrom(owners).Draw(t, "owner")
			r.Set(&Message{Topic: topic, Payload: []byte(payload)}, o)
			delete(model, topic)
			if payload != "" {
				model[topic] = true
			}
			return topic
		}
		for range rapid.IntRange(0, 30).Draw(t, "topics") {
			change()
		}
		filter, c, changed := "", Everything(), map[string]bool{}
		if !rapid.Bool().Draw(t, "everything") {
			filter = drawFilter(t)
			c = Match(filter)
		}
		var got []string
		for !c.Done() {
			limit := rapid.IntRange(1, 4).Draw(t, "limit")
			found := r.Next(c, limit, nil)
			require.LessOrEqual(t, len(found), limit)
			for _, m := range found {
				require.True(t, model[m.Topic], "%s is in the store when given", m.Topic)
				got = append(got, m.Topic)
			}
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 {
				changed[change()] = true
			}
		}
		for name := range model {
			matches := filter == "" || topic.Matches(filter, name)
			if !changed[name] {
				require.Equal(t, matches, slices.Contains(got, name), "%s for %s", name, filter)
			}
			require.Equal(t, name, r.Get(name).Topic)
		}
		slices.Sort(got)
		require.Equal(t, got, slices.Compact(slices.Clone(got)), "nothing twice")
		require.Equal(t, len(model), r.Len())
		for topic := range model {
			r.Set(&Message{Topic: topic}, nil)
		}
		require.Zero(t, r.Bytes())
		require.Equal(t, []*Owner{nil, {}, {}}, owners, "nobody is charged for what is gone")
		require.Empty(t, r.root.children, "empty branches are pruned")
	})
}

func TestWalkIsBoundedWhereNothingMatches(t *testing.T) {
	var r Retained
	for i := range 3 * visitsPerCall {
		r.Set(&Message{Topic: fmt.Sprintf("d%05d/other", i), Payload: []byte("x")}, nil)
	}
	c := Match("+/wanted")
	assert.Empty(t, r.Next(c, 10, nil))
	assert.False(t, c.Done())
	r.Set(&Message{Topic: "zzz/wanted", Payload: []byte("x")}, nil)
	var got []Kept
	for !c.Done() {
		got = r.Next(c, 10, got)
	}
	assert.Len(t, got, 1)
}

func TestRetainedLimits(t *testing.T) {
	one := new(Owner)
	set := func(r *Retained, topic, payload string) Keeping {
		return r.Set(&Message{Topic: topic, Payload: []byte(payload)}, one)
	}
	r := Retained{MaxMessages: 2}
	assert.Equal(t, Stored, set(&r, "a", "1"))
	assert.Equal(t, Stored, set(&r, "b", "1"))
	assert.Equal(t, StoreFull, set(&r, "c", "1"))
	assert.Equal(t, Stored, r.Set(&Message{Topic: "$SYS/x", Payload: []byte("1")}, nil), "the broker's own is in no bound")
	assert.Equal(t, Stored, r.Set(&Message{Topic: "$SYS/x"}, nil))
	assert.Equal(t, Stored, set(&r, "a", "2"), "replacing needs no room")
	assert.Equal(t, Stored, set(&r, "b", ""))
	assert.Equal(t, Stored, set(&r, "c", "1"))
	assert.Nil(t, r.Get("b"))

	r = Retained{MaxBytes: 1000}
	assert.Equal(t, StoreFull, set(&r, "a", string(make([]byte, 1000))))
	assert.Empty(t, r.root.children)
}

func TestEachOwnerHasItsOwnLimits(t *testing.T) {
	one, two := new(Owner), new(Owner)
	set := func(r *Retained, o *Owner, topic, payload string) Keeping {
		return r.Set(&Message{Topic: topic, Payload: []byte(payload)}, o)
	}
	r := Retained{MaxOwned: 1}
	assert.Equal(t, Stored, set(&r, one, "a", "1"))
	assert.Equal(t, OwnerFull, set(&r, one, "b", "1"))
	assert.Equal(t, Stored, set(&r, two, "b", "1"))
	assert.Equal(t, OwnerFull, set(&r, two, "a", "2"), "what belongs to another is charged to who replaces it")
	assert.Equal(t, Stored, set(&r, two, "b", ""))
	assert.Equal(t, Stored, set(&r, two, "a", "2"))
	assert.Equal(t, []int{0, 0, 1}, []int{one.Messages, one.Bytes, two.Messages})
	two.Gone = true
	assert.Equal(t, OwnerGone, set(&r, two, "a", "3"))
	assert.Equal(t, OwnerGone, set(&r, two, "a", ""), "it may not remove either")
	assert.Equal(t, "2", string(r.Get("a").Payload))

	r = Retained{MaxOwnedBytes: 1000}
	assert.Equal(t, Stored, set(&r, one, "a", string(make([]byte, 700))))
	assert.Equal(t, OwnerFull, set(&r, one, "a", string(make([]byte, 800))))
	assert.Equal(t, Stored, set(&r, one, "a", "less"))
	assert.Equal(t, Stored, set(&r, one, "a", ""))
	assert.Zero(t, one.Bytes)
}

// What the bounds are about is memory: a topic of many levels is a chain of nodes.
func TestADeepTopicIsChargedForItsLevels(t *testing.T) {
	var m runtime.MemStats
	heap := func() int {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	var r Retained
	const n = 5000
	before := heap()
	for i := range n {
		r.Set(&Message{Topic: fmt.Sprintf("%d", i) + strings.Repeat("/x", 31), Payload: []byte("x")}, nil)
	}
	assert.Less(t, heap()-before, r.Bytes()*5/4)
	for i := range n {
		r.Set(&Message{Topic: fmt.Sprintf("%d", i) + strings.Repeat("/x", 31)}, nil)
	}
	assert.Zero(t, r.Bytes())
}

func TestSweepRemovesWhatIsStale(t *testing.T) {
	var r Retained
	for _, topic := range []string{"$SYS/x", "a/b", "a"} {
		r.Set(&Message{Topic: topic, Payload: []byte("1")}, nil)
	}
	assert.Equal(t, 2, r.Sweep(Everything(), func(k Kept) bool { return k.Topic != "a/b" }))
	assert.Equal(t, 1, r.Len())
	assert.NotNil(t, r.Get("a/b"))
}

// What others have put into the store does not keep an owner from its share.
func TestAnOwnerHasItsShareOfAFullStore(t *testing.T) {
	r := Retained{MaxMessages: 3, MaxBytes: 10_000, Assured: 2, AssuredBytes: 2000}
	var many, one Owner
	set := func(topic string, bytes int, o *Owner) Keeping {
		return r.Set(&Message{Topic: topic, Payload: make([]byte, bytes)}, o)
	}
	for i := range 3 {
		require.Equal(t, Stored, set(fmt.Sprint("many/", i), 3000, &many))
	}
	assert.Equal(t, StoreFull, set("many/3", 1, &many))
	assert.Equal(t, StoreFull, set("one/large", 3000, &one))
	assert.Equal(t, Stored, set("one/0", 100, &one))
	assert.Equal(t, Stored, set("one/1", 100, &one))
	assert.Equal(t, StoreFull, set("one/2", 100, &one))
	assert.Equal(t, StoreFull, set("one/1", 3000, &one), "what is there may not grow above it")
	assert.Equal(t, Stored, set("one/1", 90, &one))
}
