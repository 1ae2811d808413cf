package mosquitto

import (
	"strings"
	"unicode/utf8"
)

// validFilter judges a topic filter as Mosquitto judges those in an ACL file.
func validFilter(filter string) bool {
	if filter == "" || len(filter) > 65535 || !utf8.ValidString(filter) || strings.Contains(filter, "\x00") {
		return false
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && i < len(levels)-1 {
			return false
		}
	}
	return true
}

// A level that holds %c can be anything, since the client id is not known; %u was replaced before.
func open(level string) bool { return level == "+" || strings.Contains(level, "%c") }

// aside reports whether one filter is about topics that begin with $ and the other cannot be: wildcards in the first
// level do not reach them [MQTT-4.7.2-1].
func aside(a, b string) bool {
	return strings.HasPrefix(a, "$") != strings.HasPrefix(b, "$") && !strings.HasPrefix(a, "%c") && !strings.HasPrefix(b, "%c")
}

// overlap reports whether some topic may match both filters.
func overlap(a, b string) bool {
	if aside(a, b) {
		return false
	}
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; ; i++ {
		switch {
		case i < len(x) && x[i] == "#", i < len(y) && y[i] == "#":
			return true
		case i == len(x) || i == len(y):
			return len(x) == len(y)
		case x[i] != y[i] && !open(x[i]) && !open(y[i]):
			return false
		}
	}
}

// covers reports whether every topic that asked matches is matched by filter too.
func covers(filter, asked string) bool {
	if aside(filter, asked) {
		return false
	}
	x, y := strings.Split(filter, "/"), strings.Split(asked, "/")
	for i := 0; ; i++ {
		switch {
		case i < len(x) && x[i] == "#":
			return true
		case i == len(x) || i == len(y):
			return len(x) == len(y)
		case y[i] == "#", x[i] != "+" && x[i] != y[i]:
			return false
		}
	}
}
