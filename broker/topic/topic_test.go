package topic

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/broker/topic/topictest"
)

func TestTopicNames(t *testing.T) {
	for topic, want := range map[string]error{
		"devices/bed-1/telemetry":         nil,
		"/":                               nil,
		strings.Repeat("a/", 31) + "a":    nil,
		"":                                ErrInvalid,
		"devices/+/telemetry":             ErrInvalid,
		"devices/#":                       ErrInvalid,
		"devices/\x00":                    ErrInvalid,
		"devices/\xff":                    ErrInvalid,
		strings.Repeat("a/", 32) + "a":    ErrTooDeep,
		"$SYS/broker/version":             ErrReserved,
		"$share/group/devices/bed-1/data": ErrReserved,
	} {
		assert.Equal(t, want, Check(topic, 32), topic)
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
		"":                             ErrFilterInvalid,
		"devices/#/telemetry":          ErrFilterInvalid,
		"devices/bed#":                 ErrFilterInvalid,
		"devices/+bed":                 ErrFilterInvalid,
		"devices/\x00":                 ErrFilterInvalid,
		"\xff":                         ErrFilterInvalid,
		"$share":                       ErrFilterInvalid,
		"$share/group":                 ErrFilterInvalid,
		"$share/group/":                ErrFilterInvalid,
		"$share//devices/#":            ErrFilterInvalid,
		"$share/+/devices/#":           ErrFilterInvalid,
		"$SHARE/group/devices/bed-2/#": ErrFilterInvalid,
		strings.Repeat("/", 65000):     ErrFilterTooDeep,
	} {
		assert.Equal(t, want, CheckFilter(filter, 32), "%.40q", filter)
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
		assert.Equal(t, c.want, Covers(c.allowed, c.asked), name)
	}
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
	topics := topictest.Universe()
	rapid.Check(t, func(t *rapid.T) {
		allowed, asked := drawFilter.Draw(t, "allowed"), drawFilter.Draw(t, "asked")
		want := true
		for _, topic := range topics {
			if topictest.Matches(asked, topic) && !topictest.Matches(allowed, topic) {
				want = false
				break
			}
		}
		if Covers(allowed, asked) != want {
			t.Fatalf("Covers(%q, %q) = %v", allowed, asked, !want)
		}
	})
}

func TestCoversOfATopicIsTheOrdinaryMatch(t *testing.T) {
	topics := rapid.SampledFrom(topictest.Universe())
	rapid.Check(t, func(t *rapid.T) {
		filter, topic := drawFilter.Draw(t, "filter"), topics.Draw(t, "topic")
		if topic != "" && Covers(filter, topic) != topictest.Matches(filter, topic) {
			t.Fatalf("Covers(%q, %q) = %v", filter, topic, Covers(filter, topic))
		}
	})
}
