package broker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestTopicNames(t *testing.T) {
	for topic, want := range map[string]error{
		"devices/bed-1/telemetry":         nil,
		"/":                               nil,
		strings.Repeat("a/", 31) + "a":    nil,
		"":                                errTopicInvalid,
		"devices/+/telemetry":             errTopicInvalid,
		"devices/#":                       errTopicInvalid,
		"devices/\x00":                    errTopicInvalid,
		"devices/\xff":                    errTopicInvalid,
		strings.Repeat("a/", 32) + "a":    errTopicTooDeep,
		"$SYS/broker/version":             errTopicReserved,
		"$share/group/devices/bed-1/data": errTopicReserved,
	} {
		assert.Equal(t, want, checkTopic(topic, 32), topic)
	}
}

func TestTopicFilters(t *testing.T) {
	for filter, want := range map[string]error{
		"devices/+/telemetry":          nil,
		"#":                            nil,
		"+/#":                          nil,
		"$SYS/#":                       nil,
		"$share/group/devices/#":       nil,
		strings.Repeat("+/", 31) + "#": nil,
		"$share/g/" + strings.Repeat("+/", 31) + "#": nil,
		"":                             errFilterInvalid,
		"devices/#/telemetry":          errFilterInvalid,
		"devices/bed#":                 errFilterInvalid,
		"devices/+bed":                 errFilterInvalid,
		"devices/\x00":                 errFilterInvalid,
		"\xff":                         errFilterInvalid,
		"$share":                       errFilterInvalid,
		"$share/group":                 errFilterInvalid,
		"$share/group/":                errFilterInvalid,
		"$share//devices/#":            errFilterInvalid,
		"$share/+/devices/#":           errFilterInvalid,
		"$SHARE/group/devices/bed-2/#": errFilterInvalid,
		strings.Repeat("/", 65000):     errFilterTooDeep,
	} {
		assert.Equal(t, want, checkFilter(filter, 32), "%.40q", filter)
	}
}

func TestFilterCovers(t *testing.T) {
	for name, c := range map[string]struct {
		allowed, asked string
		want           bool
	}{
		"the same topic":                        {"a/b", "a/b", true},
		"another topic":                         {"a/b", "a/c", false},
		"a deeper topic":                        {"a/b", "a/b/c", false},
		"a name that begins the same":           {"devices/u1", "devices/u12", false},
		"the parent of #":                       {"a/#", "a", true},
		"deep below #":                          {"a/#", "a/b/c", true},
		"not beside #":                          {"a/#", "ab", false},
		"+ is one level":                        {"a/+/c", "a/b/c", true},
		"+ may be empty":                        {"a/+", "a/", true},
		"+ is no level less":                    {"a/+", "a", false},
		"+ does not cover #":                    {"a/+", "a/#", false},
		"a topic does not cover +":              {"a/b", "a/+", false},
		"# covers +":                            {"a/#", "a/+/c", true},
		"# covers itself":                       {"a/#", "a/#", true},
		"+/# is #":                              {"+/#", "#", true},
		"a/+/# lacks a":                         {"a/+/#", "a/#", false},
		"wildcards do not reach $":              {"#", "$SYS/broker", false},
		"nor does +":                            {"+/broker", "$SYS/broker", false},
		"$ by name":                             {"$SYS/#", "$SYS/broker", true},
		"a rule that is empty covers nothing":   {"", "a", false},
		"an empty level is a level of its own":  {"a/b", "/a/b", false},
		"another device's filter through +":     {"devices/bed-1/#", "devices/+/telemetry", false},
		"everything is more than one device":    {"devices/bed-1/#", "#", false},
		"own filter":                            {"devices/bed-1/#", "devices/bed-1/commands/+", true},
		"the device's topic itself, as # gives": {"devices/bed-1/#", "devices/bed-1", true},
	} {
		assert.Equal(t, c.want, covers(c.allowed, c.asked), name)
	}
}

// naiveMatch is [MQTT-4.7] word for word, over levels.
func naiveMatch(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return naiveMatch(filter[1:], topic[1:])
}

func naiveMatches(filter, topic string) bool {
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	return naiveMatch(f, l) || f[len(f)-1] == "#" && naiveMatch(f[:len(f)-1], l)
}

// universe is every topic of up to four levels over letters of which one is in no filter.
func universe() []string {
	letters := []string{"a", "b", "", "fresh"}
	var all []string
	last := append([]string{"$a"}, letters...)
	for range 4 {
		all = append(all, last...)
		var next []string
		for _, topic := range last {
			for _, letter := range letters {
				next = append(next, topic+"/"+letter)
			}
		}
		last = next
	}
	return all
}

var drawFilter = rapid.Custom(func(t *rapid.T) string {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "+", "+"}), 0, 2).Draw(t, "levels")
	first := rapid.SampledFrom([]string{"a", "b", "", "+", "$a"}).Draw(t, "first")
	filter := strings.Join(append([]string{first}, levels...), "/")
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		return "#"
	case 1, 2:
		return filter + "/#"
	}
	return filter
})

func TestCoversMeansNothingLessThanEveryTopic(t *testing.T) {
	topics := universe()
	rapid.Check(t, func(t *rapid.T) {
		allowed, asked := drawFilter.Draw(t, "allowed"), drawFilter.Draw(t, "asked")
		want := true
		for _, topic := range topics {
			if naiveMatches(asked, topic) && !naiveMatches(allowed, topic) {
				want = false
				break
			}
		}
		if covers(allowed, asked) != want {
			t.Fatalf("covers(%q, %q) = %v", allowed, asked, !want)
		}
	})
}

func TestCoversOfATopicIsTheOrdinaryMatch(t *testing.T) {
	topics := rapid.SampledFrom(universe())
	rapid.Check(t, func(t *rapid.T) {
		filter, topic := drawFilter.Draw(t, "filter"), topics.Draw(t, "topic")
		if topic != "" && covers(filter, topic) != naiveMatches(filter, topic) {
			t.Fatalf("covers(%q, %q) = %v", filter, topic, covers(filter, topic))
		}
	})
}

func FuzzFilters(f *testing.F) {
	f.Add("devices/bed-1/#", "$share/g/devices/+/x")
	f.Fuzz(func(t *testing.T, allowed, asked string) {
		r := rights{subscribe: []string{allowed}}
		if checkFilter(asked, 32) == nil && r.mayRead(asked) && strings.HasPrefix(asked, systemPrefix+"/") {
			t.Fatalf("%q let a stranger read %q", allowed, asked)
		}
		if checkTopic(asked, 32) == nil && covers(allowed, asked) != naiveMatches(allowed, asked) && checkFilter(allowed, 32) == nil {
			t.Fatalf("covers(%q, %q)", allowed, asked)
		}
	})
}
