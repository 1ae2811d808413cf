package topic

import (
	"slices"
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
		if topic != "" && Matches(filter, topic) != topictest.Matches(filter, topic) {
			t.Fatalf("Matches(%q, %q) = %v", filter, topic, Matches(filter, topic))
		}
	})
}

func TestOverlapMeansATopicThatBothMatch(t *testing.T) {
	topics := topictest.Universe()
	rapid.Check(t, func(t *rapid.T) {
		one, other := drawFilter.Draw(t, "one"), drawFilter.Draw(t, "other")
		want := slices.ContainsFunc(topics, func(topic string) bool {
			return topictest.Matches(one, topic) && topictest.Matches(other, topic)
		})
		if Overlap(one, other) != want {
			t.Fatalf("Overlap(%q, %q) = %v", one, other, !want)
		}
	})
}

func TestEachOptionRefusesWhatItNames(t *testing.T) {
	for name, c := range map[string]struct {
		place  Filters
		filter string
		want   Fault
	}{
		"as long as MQTT can write":          {Filters{}, strings.Repeat("a", 65535), Faultless},
		"longer than MQTT can write":         {Filters{}, strings.Repeat("a", 65536), FaultSize},
		"longer than the place takes":        {Filters{MaxBytes: 2}, "abc", FaultSize},
		"as long as the place takes":         {Filters{MaxBytes: 2}, "ab", Faultless},
		"nothing":                            {Filters{}, "", FaultSize},
		"any depth":                          {Filters{}, strings.Repeat("/", 1000), Faultless},
		"too deep":                           {Filters{MaxLevels: 2}, "a/b/c", FaultLevels},
		"$share and its group are no levels": {Filters{MaxLevels: 2}, "$share/g/a/b", Faultless},
		"they are where $share is a topic":   {Filters{MaxLevels: 2, Unshared: true}, "$share/g/a/b", FaultLevels},
		"a line break":                       {Filters{}, "a\nb", Faultless},
		"a line break in a line of a log":    {Filters{NoControl: true}, "a\nb", FaultControl},
		"C1 control characters too":          {Filters{NoControl: true}, "a\u0085b", FaultControl},
		"NUL anywhere":                       {Filters{}, "a\x00b", FaultControl},
		"not UTF-8":                          {Filters{Unshared: true}, "a\xff", FaultUTF8},
		"$SYS":                               {Filters{}, "$SYS/#", Faultless},
		"$SYS where no $ may be":             {Filters{NoDollar: true}, "$SYS/#", FaultDollar},
		"$share where no $ may be":           {Filters{NoDollar: true}, "$share/g/#", FaultDollar},
		"a shared one without a group":       {Filters{}, "$share", FaultShare},
		"which is a topic elsewhere":         {Filters{Unshared: true}, "$share", Faultless},
		"$share in capitals":                 {Filters{}, "$SHARE/g/a", FaultShare},
		"# in the middle of a shared one":    {Filters{}, "$share/g/#/a", FaultHash},
		"# in the middle":                    {Filters{}, "a/#/b", FaultHash},
		"# in a level":                       {Filters{}, "a/b#", FaultWildcard},
		"+ in a level":                       {Filters{}, "a/+b/#", FaultWildcard},
		"patterns are levels like others":    {Filters{NoControl: true, NoDollar: true}, "%u/%c/+/#", Faultless},
	} {
		got := c.place.Fault(c.filter)
		assert.Equal(t, c.want, got, "%s: %s", name, got)
	}
}
