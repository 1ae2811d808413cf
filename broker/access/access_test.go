package access

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/broker/topic/topictest"
)

func TestNames(t *testing.T) {
	for _, name := range []string{"bed-1", "plantops_backend", "Gewächshaus 2", "mqttjs_a1b2", strings.Repeat("x", 64)} {
		assert.True(t, ValidName(name, MaxUserBytes), name)
	}
	for _, name := range []string{"", "+", "bed#1", "bed/1", "$SYS", "%u", "a\x00", "a\nb", "a\u0085", "\xff", strings.Repeat("x", 65)} {
		assert.False(t, ValidName(name, MaxUserBytes), "%q", name)
	}
}

func TestRights(t *testing.T) {
	device := RightsOf(Account{Name: "bed-1", Publish: []string{"devices/%u/#"}, Subscribe: []string{"devices/%u/#", "replies/%c"}}, "esp-7")
	admin := RightsOf(Account{Name: "boss", Subscribe: []string{"#"}, Admin: true}, "laptop")
	viewer := RightsOf(Account{Name: "eve", Subscribe: []string{"#", "$SYS/#"}}, "laptop")
	nobody := RightsOf(Account{Name: "nobody"}, "nobody")

	assert.True(t, device.MayPublish("devices/bed-1/telemetry"))
	assert.False(t, device.MayPublish("devices/bed-2/telemetry"))
	assert.False(t, device.MayPublish("devices/bed-11/telemetry"))
	assert.False(t, device.MayPublish("replies/esp-7"), "a rule for reading allows no publishing")
	assert.True(t, device.MayRead("replies/esp-7"))
	assert.False(t, device.MayRead("replies/+"))
	assert.True(t, device.MayRead("$share/group/devices/bed-1/#"), "$share gives the verdict of the bare filter")
	assert.False(t, device.MayRead("$share/group/devices/bed-2/#"))
	assert.False(t, device.MayRead("$share/devices/bed-1/#"), "the filter here is bed-1/#")
	assert.False(t, device.MayRead("$SHARE/group/devices/bed-1/#"))

	assert.True(t, admin.MayRead("$SYS/broker/version"))
	assert.True(t, admin.MayRead("$share/g/$SYS/#"))
	assert.False(t, viewer.MayRead("$SYS/broker/version"), "$SYS is for administrators, whatever the rules say")
	assert.False(t, viewer.MayRead("$share/g/$SYS/#"))
	assert.False(t, nobody.MayPublish("a"))
	assert.False(t, nobody.MayRead("a"))
}

func TestANameNeverWidensARule(t *testing.T) {
	topics := rapid.SampledFrom(topictest.Universe())
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOf(rapid.SampledFrom([]rune("ab+#/$%uc"))).Draw(t, "name")
		topic := topics.Draw(t, "topic")
		if !ValidName(name, MaxUserBytes) {
			return
		}
		r := RightsOf(Account{Name: name, Publish: []string{"%u/#"}}, name)
		if first, _, _ := strings.Cut(topic, "/"); r.MayPublish(topic) && first != name {
			t.Fatalf("%q may publish %q", name, topic)
		}
	})
}

func FuzzFilters(f *testing.F) {
	f.Add("devices/bed-1/#", "$share/g/devices/+/x")
	f.Fuzz(func(t *testing.T, allowed, asked string) {
		r := Rights{subscribe: []string{allowed}}
		if topic.CheckFilter(asked, 32) == nil && r.MayRead(asked) && strings.HasPrefix(asked, topic.SystemPrefix+"/") {
			t.Fatalf("%q let a stranger read %q", allowed, asked)
		}
		if topic.Check(asked, 32) == nil && topic.Covers(allowed, asked) != topictest.Matches(allowed, asked) && topic.CheckFilter(allowed, 32) == nil {
			t.Fatalf("covers(%q, %q)", allowed, asked)
		}
	})
}
