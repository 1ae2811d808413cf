package mosquitto

import (
	"strings"

	"github.com/plantops/plantops/broker/topic"
)

// aclFilters are the topic filters that Mosquitto takes in an ACL file: they say which topics, so $share means nothing.
var aclFilters = topic.Filters{Unshared: true}

// overlap reports whether some topic may match both filters. A level that holds %c can be anything, since the client id
// is not known; %u was replaced before.
func overlap(a, b string) bool { return topic.Overlap(anyClient(a, b), anyClient(b, a)) }

// anyClient returns a filter for whatever client id, for comparing with other: a client id can also begin with $, where
// a wildcard does not reach [MQTT-4.7.2-1].
func anyClient(filter, other string) string {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if strings.Contains(level, "%c") {
			levels[i] = "+"
		}
	}
	if strings.HasPrefix(filter, "%c") && strings.HasPrefix(other, "$") {
		levels[0], _, _ = strings.Cut(other, "/")
	}
	return strings.Join(levels, "/")
}
