package topic

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var read = []string{"devices/+/telemetry", "devices/+/telemetry/+", "devices/+/heartbeat", "$share/g/devices/+/telemetry", "a/#"}

func TestMeant(t *testing.T) {
	for name, want := range map[string]string{
		"devices/bed-1/Telemetry":                            "devices/bed-1/telemetry",
		"devices/bed-1/TELEMETRY/Temperature":                "devices/bed-1/telemetry/Temperature",
		"Devices/bed-1/telemetry":                            "devices/bed-1/telemetry",
		"devices/bed-1/telemetri":                            "devices/bed-1/telemetry",
		"devices/bed-1/telemtry":                             "devices/bed-1/telemetry",
		"device/bed-1/telemetry":                             "devices/bed-1/telemetry",
		"devices/bed-1/HeartBeats":                           "devices/bed-1/heartbeat",
		"devices/bed-1//telemetry":                           "devices/bed-1/telemetry",
		"/devices/bed-1/telemetry":                           "devices/bed-1/telemetry",
		"devices/bed-1/telemetry/":                           "devices/bed-1/telemetry",
		"devices/bed-1/temperature":                          "devices/bed-1/telemetry/temperature",
		"devices/bed-1/sensor/telemetry":                     "devices/bed-1/telemetry",
		"devices/bed-1/telemetry/bme/x":                      "devices/bed-1/telemetry/bme",
		"devices/bed-1/commands/pump":                        "",
		"devices/bed-1":                                      "",
		"zigbee2mqtt/bed-1":                                  "",
		"":                                                   "",
		strings.Repeat("a/", 500):                            "",
		"devices/bed-1/" + strings.Repeat("x", 500) + "/y/z": "",
	} {
		assert.Equal(t, want, Meant(name, read), name)
	}
}

// Other people's programs have filters that are mostly +, words in capitals, and short ones.
func TestMeantAmongSources(t *testing.T) {
	filters := append([]string{"tele/+/SENSOR", "tele/+/STATE", "+/status/+", "+/online", "homie/+/+/+", "v3/+/devices/+/up"}, read...)
	for name, want := range map[string]string{
		"foo/bar":                "",
		"stat/kitchen/RESULT":    "",
		"x/y/z":                  "",
		"tele/kitchen/sensor":    "tele/kitchen/SENSOR",
		"tele/kitchen/SENSR":     "tele/kitchen/SENSOR",
		"tele/kitchen/sensors":   "tele/kitchen/SENSOR",
		"plug/Status/switch:0":   "plug/status/switch:0",
		"plug/statsu/switch:0":   "plug/status/switch:0",
		"v3/app/devices/soil/UP": "v3/app/devices/soil/up",
		"v3/app/devices/soil/ab": "",
		"devices/bed-1/temp":     "devices/bed-1/telemetry/temp",
	} {
		assert.Equal(t, want, Meant(name, filters), name)
	}
}

// FuzzMeant states: what is meant is a topic that one of the filters takes in.
func FuzzMeant(f *testing.F) {
	for _, seed := range []string{"devices/bed-1/Telemetry", "/devices//bed-1/temperature", "a/b/c/d/e/f/g/h", "devices/+/x", "\xff/x/y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		meant := Meant(name, read)
		if meant == "" || strings.ContainsAny(name, "+#") {
			return
		}
		taken := false
		for _, filter := range read[:3] {
			taken = taken || Covers(filter, meant)
		}
		require.True(t, taken, "%q for %q", meant, name)
	})
}
