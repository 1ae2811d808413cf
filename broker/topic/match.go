package topic

import "strings"

// Matches reports whether a filter matches a topic name. Both are well formed, and the filter is not a shared one.
func Matches(filter, topic string) bool { return Covers(filter, topic) }

// Covers reports whether every topic that asked matches is matched by allowed too. Both are filters; a topic name is
// a filter without wildcards, so Covers(filter, topic) is the ordinary match. Wildcards in the first level do not
// reach topics that begin with $ [MQTT-4.7.2-1].
func Covers(allowed, asked string) bool {
	if allowed == "+/#" {
		allowed = "#" // the same topics: # takes in its parent level
	}
	if aside(allowed, asked) {
		return false
	}
	for {
		a, aRest, aMore := strings.Cut(allowed, "/")
		if a == "#" {
			return true
		}
		b, bRest, bMore := strings.Cut(asked, "/")
		if b == "#" || a != "+" && a != b {
			return false
		}
		if !bMore {
			return !aMore || aRest == "#"
		}
		if !aMore {
			return false
		}
		allowed, asked = aRest, bRest
	}
}

// Overlap reports whether some topic is matched by both filters.
func Overlap(one, other string) bool {
	if aside(one, other) || aside(other, one) {
		return false
	}
	for {
		a, aRest, aMore := strings.Cut(one, "/")
		b, bRest, bMore := strings.Cut(other, "/")
		switch {
		case a == "#" || b == "#":
			return true
		case a != b && a != "+" && b != "+":
			return false
		case !aMore && !bMore:
			return true
		case !aMore:
			return bRest == "#"
		case !bMore:
			return aRest == "#"
		}
		one, other = aRest, bRest
	}
}

// aside reports whether other is about topics that begin with $, which a wildcard in the first level of filter does not reach.
func aside(filter, other string) bool {
	return strings.HasPrefix(other, "$") && filter != "" && (filter[0] == '+' || filter[0] == '#')
}
