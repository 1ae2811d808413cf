// Package topic is the syntax of MQTT topic names and topic filters: what is well formed, what a filter matches and what
// it covers. It knows the standard library only, and every package of ours may import it; who may use a topic is judged elsewhere.
// Everything stands in topic.go.
package topic

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Why a topic or a filter cannot be used at all, whoever asks. Access is judged elsewhere.
var (
	ErrInvalid       = errors.New("invalid topic")
	ErrTooDeep       = errors.New("too many topic levels")
	ErrReserved      = errors.New("reserved topic")
	ErrFilterInvalid = errors.New("invalid topic filter")
	ErrFilterTooDeep = errors.New("too many filter levels")
)

// First levels with a meaning of their own.
const (
	SharePrefix  = "$share"
	SystemPrefix = "$SYS"
	// InternalPrefix begins the topics on which the program speaks to itself.
	InternalPrefix = "$plantops"
)

// Check judges the name that a message is published to. It must not hold wildcards, which is also what keeps
// Covers honest: a topic without wildcards is a filter that matches only itself.
func Check(topic string, maxLevels int) error {
	switch {
	case topic == "" || !utf8.ValidString(topic) || strings.ContainsAny(topic, "+#\x00"):
		return ErrInvalid
	case Levels(topic) > maxLevels:
		return ErrTooDeep
	case topic[0] == '$':
		return ErrReserved
	}
	return nil
}

// CheckFilter judges what a client subscribes to or unsubscribes from, a shared subscription included [MQTT-4.7.1, 4.8.2].
func CheckFilter(filter string, maxLevels int) error {
	if filter == "" || !utf8.ValidString(filter) || strings.Contains(filter, "\x00") {
		return ErrFilterInvalid
	}
	bare, err := Unshare(filter)
	if err != nil {
		return err
	}
	if Levels(bare) > maxLevels {
		return ErrFilterTooDeep
	}
	for rest, more := bare, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return ErrFilterInvalid
		}
	}
	return nil
}

// Unshare returns FILTER of $share/GROUP/FILTER, and any other filter as it is. mochi takes $SHARE for $share, so
// every other spelling of it is refused: it would be judged as one thing and used as another.
func Unshare(filter string) (string, error) {
	first, rest, more := strings.Cut(filter, "/")
	if !strings.EqualFold(first, SharePrefix) {
		return filter, nil
	}
	group, bare, hasFilter := strings.Cut(rest, "/")
	if first != SharePrefix || !more || !hasFilter || bare == "" || group == "" || strings.ContainsAny(group, "+#") {
		return "", ErrFilterInvalid
	}
	return bare, nil
}

// Covers reports whether every topic that asked matches is matched by allowed too. Both are filters; a topic name is
// a filter without wildcards, so Covers(filter, topic) is the ordinary match. Wildcards in the first level do not
// reach topics that begin with $ [MQTT-4.7.2-1].
func Covers(allowed, asked string) bool {
	if allowed == "+/#" {
		allowed = "#" // the same topics: # takes in its parent level
	}
	if strings.HasPrefix(asked, "$") && strings.ContainsAny(allowed[:min(1, len(allowed))], "+#") {
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

// Levels counts the levels of a name or a filter: "a/b" has two, and so has "/".
func Levels(topic string) int { return strings.Count(topic, "/") + 1 }
