package route

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/broker/topic/topictest"
)

// naive is the table as a list: what the tree must come to.
type naive map[string]map[int]Options // by filter and subscriber

type got struct {
	others, own string
}

func show(o Offer, wanted bool) string {
	if !wanted {
		return "nothing"
	}
	ids := slices.Clone(o.IDs)
	slices.Sort(ids)
	return fmt.Sprint(o.QoS, o.RetainAsPublished, ids)
}

func (n naive) match(name string) map[int]got {
	type both struct {
		others, own Offer
		ownWanted   bool
	}
	found := map[int]*both{}
	for filter, all := range n {
		if !topictest.Matches(filter, name) {
			continue
		}
		for who, o := range all {
			if found[who] == nil {
				found[who] = &both{}
			}
			found[who].others.add(o)
			if !o.NoLocal {
				found[who].own.add(o)
				found[who].ownWanted = true
			}
		}
	}
	out := map[int]got{}
	for who, b := range found {
		out[who] = got{show(b.others, true), show(b.own, b.ownWanted)}
	}
	return out
}

func matches(t require.TestingT, r *Route[int]) map[int]got {
	out := map[int]got{}
	for i := range r.To {
		m := &r.To[i]
		require.NotContains(t, out, m.Who, "a subscriber stands twice in a route")
		own, wanted := m.Own()
		require.Equal(t, wanted, m.WantsOwn())
		out[m.Who] = got{show(m.Offer(), true), show(own, wanted)}
	}
	return out
}

// Routes that are kept, and are brought up to date now and then, say at each time what a list of all subscriptions says; what
// they cost is told by Grew to the byte, and when all have gone nothing is left.
func TestTableSaysWhatAListSays(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "", "$x"})
	filterLevel := rapid.SampledFrom([]string{"a", "b", "", "+", "+", "$x"})
	rapid.Check(t, func(t *rapid.T) {
		charged := map[int]int{}
		table := Table[int]{Grew: func(who, bytes int) { charged[who] += bytes }}
		list := naive{}
		routes := map[string]*Route[int]{}
		subscribers := rapid.SampledFrom([]int{2, 5, 40}).Draw(t, "subscribers")
		filter := func() string {
			levels := rapid.SliceOfN(filterLevel, 1, 4).Draw(t, "filter")
			if rapid.Bool().Draw(t, "open") {
				levels = append(levels, "#")
			}
			if len(levels) > 1 && rapid.IntRange(0, 9).Draw(t, "bare #") == 0 {
				return "#"
			}
			if f := strings.Join(levels, "/"); f != "" {
				return f
			}
			return "/"
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 1, 1, 30, 300}).Draw(t, "times") {
					who, f := rapid.IntRange(1, subscribers).Draw(t, "who"), filter()
					o := Options{QoS: byte(rapid.IntRange(0, 2).Draw(t, "qos")), NoLocal: rapid.Bool().Draw(t, "no local"),
						RetainAsPublished: rapid.Bool().Draw(t, "as published"), ID: uint32(rapid.IntRange(0, 3).Draw(t, "id"))}
					before, existed := list[f][who]
					require.Equal(t, !existed || before != o, table.Subscribe(who, f, o))
					if list[f] == nil {
						list[f] = map[int]Options{}
					}
					list[f][who] = o
				}
			},
			"unsubscribe": func(t *rapid.T) {
				who, f := rapid.IntRange(1, subscribers).Draw(t, "who"), filter()
				_, existed := list[f][who]
				require.Equal(t, existed, table.Unsubscribe(who, f))
				delete(list[f], who)
			},
			"leave": func(t *rapid.T) {
				who := rapid.IntRange(1, subscribers).Draw(t, "who")
				for f, all := range list {
					_, existed := all[who]
					require.Equal(t, existed, table.Unsubscribe(who, f))
					delete(all, who)
				}
			},
			"route": func(t *rapid.T) {
				name := strings.Join(rapid.SliceOfN(level, 1, 4).Draw(t, "topic"), "/")
				if routes[name] == nil {
					routes[name] = &Route[int]{Topic: name}
				}
				before := matches(t, routes[name])
				changed := table.Refresh(routes[name])
				require.Equal(t, list.match(name), matches(t, routes[name]))
				if !changed {
					require.Equal(t, before, matches(t, routes[name]))
				}
				require.False(t, table.Refresh(routes[name]))
			},
			"": func(t *rapid.T) {
				sum, want := 0, map[int]int{}
				for _, r := range routes {
					bytes := 0
					for i := range r.To {
						bytes += r.To[i].bytes()
						want[r.To[i].Who] += r.To[i].bytes()
					}
					require.Equal(t, bytes, r.Bytes())
					sum += bytes
				}
				for who, bytes := range charged {
					require.Equal(t, want[who], bytes)
				}
			},
		})
		for f, all := range list {
			for who := range all {
				table.Unsubscribe(who, f)
			}
		}
		require.Equal(t, node[int]{}, table.root, "levels that nobody is subscribed to")
		for _, r := range routes {
			table.Refresh(r)
			require.Empty(t, r.To)
			require.Zero(t, r.Bytes())
		}
	})
}

func FuzzTableMatches(f *testing.F) {
	for _, seed := range []string{"a/b\na/+/#\n#\n+/b", "$a/b\n#\n+/b\n$a/#", "/\n+/+\n/#\n+", "a\na/#\na/+/#"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, rest, _ := strings.Cut(text, "\n")
		if topic.Check(name, 64) == topic.ErrInvalid {
			return
		}
		var table Table[string]
		var want []string
		for filter := range strings.SplitSeq(rest, "\n") {
			if topic.CheckFilter(filter, 64) != nil || topic.Shared(filter) {
				continue
			}
			if table.Subscribe(filter, filter, Options{QoS: 1}) && topic.Matches(filter, name) {
				want = append(want, filter)
			}
		}
		r := Route[string]{Topic: name}
		table.Refresh(&r)
		var found []string
		for i := range r.To {
			found = append(found, r.To[i].Who)
		}
		assert.ElementsMatch(t, want, found)
	})
}

// Whoever has subscribed before a Refresh began is in the route, whatever others do meanwhile.
func TestRoutesAreRightWhileOthersSubscribe(t *testing.T) {
	var table Table[int]
	var others sync.WaitGroup
	stop := make(chan struct{})
	for i := range 3 {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				who := 1000 + i*100 + n%50
				table.Subscribe(who, "a/+", Options{QoS: 1})
				table.Subscribe(who, fmt.Sprint("b/", n%100), Options{})
				table.Unsubscribe(who, "a/+")
			}
		})
	}
	r := Route[int]{Topic: "a/b"}
	has := func(who int) bool {
		return slices.ContainsFunc(r.To, func(m Match[int]) bool { return m.Who == who })
	}
	for who := range 2000 {
		who %= 900
		table.Subscribe(who, "a/#", Options{})
		table.Refresh(&r)
		require.True(t, has(who))
		table.Unsubscribe(who, "a/#")
		table.Refresh(&r)
		require.False(t, has(who))
	}
	close(stop)
	others.Wait()
}

// One subscription that changes touches only what its filter matches, and there only that subscriber's part.
func TestAChangeCostsWhatChanged(t *testing.T) {
	var table Table[int]
	for who := range 1000 {
		table.Subscribe(who, "a/b", Options{QoS: 1})
	}
	r := Route[int]{Topic: "a/b"}
	require.True(t, table.Refresh(&r))
	first := &r.To[0]
	assert.False(t, table.Subscribe(1, "a/b", Options{QoS: 1}), "it says the same again")
	assert.False(t, table.Refresh(&r))
	require.True(t, table.Subscribe(1, "c/#", Options{QoS: 1}))
	assert.False(t, table.Refresh(&r), "it is about other topics")
	require.True(t, table.Subscribe(1, "+/b", Options{QoS: 2}))
	assert.True(t, table.Refresh(&r))
	assert.Same(t, first, &r.To[0], "the others' parts stay")
	allocated := testing.AllocsPerRun(100, func() {
		table.Subscribe(2000, "c/d", Options{QoS: 1})
		table.Unsubscribe(2000, "c/d")
		table.Refresh(&r)
	})
	assert.Less(t, allocated, 12.0)
	at := slices.IndexFunc(r.To, func(m Match[int]) bool { return m.Who == 1 })
	assert.Equal(t, Offer{QoS: 2}, r.To[at].Offer())
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint("filters=", n), func(b *testing.B) {
			var table Table[int]
			for i := range n {
				table.Subscribe(i, fmt.Sprintf("devices/%d/+/#", i), Options{QoS: 1})
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := Route[int]{Topic: "devices/0/sensors/t"}
				table.Refresh(&r)
			}
		})
	}
}

func BenchmarkFindSubscribers(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		for _, filters := range []int{1, 3} {
			b.Run(fmt.Sprintf("subscribers=%d/filters=%d", n, filters), func(b *testing.B) {
				var table Table[int]
				for i := range n {
					for _, f := range []string{"devices/#", "devices/+/sensors/t", "#"}[:filters] {
						table.Subscribe(i, f, Options{QoS: 1})
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					r := Route[int]{Topic: "devices/0/sensors/t"}
					table.Refresh(&r)
				}
			})
		}
	}
}

func BenchmarkRefresh(b *testing.B) {
	for name, filter := range map[string]string{"elsewhere": "c/d", "matching": "a/+"} {
		b.Run(name, func(b *testing.B) {
			var table Table[int]
			for who := range 1000 {
				table.Subscribe(who, "a/b", Options{QoS: 1})
			}
			r := Route[int]{Topic: "a/b"}
			for i := 0; b.Loop(); i++ {
				table.Subscribe(5000, filter, Options{QoS: byte(i & 1)})
				table.Refresh(&r)
			}
		})
	}
}

func BenchmarkSubscribe(b *testing.B) {
	var table Table[int]
	for i := range 10_000 {
		table.Subscribe(i, fmt.Sprintf("devices/%d/+/#", i), Options{QoS: 1})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Subscribe(-1, "devices/77/a/b/c", Options{QoS: 1})
		table.Unsubscribe(-1, "devices/77/a/b/c")
	}
}

// No change is forgotten when there are just as many as a table remembers, or more.
func TestARouteIsRightAfterSoManyChanges(t *testing.T) {
	for others := recentChanges - 2; others <= recentChanges+2; others++ {
		var table Table[int]
		for who := range 2 * recentChanges {
			table.Subscribe(who, "a/b", Options{})
		}
		r := Route[int]{Topic: "a/b"}
		table.Refresh(&r)
		table.Subscribe(-1, "a/b", Options{})
		for i := range others {
			table.Subscribe(-1, "c/d", Options{ID: uint32(i + 1)})
		}
		table.Refresh(&r)
		assert.True(t, slices.ContainsFunc(r.To, func(m Match[int]) bool { return m.Who == -1 }), "%d others", others)
	}
}
