package broker

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Why a topic or a filter cannot be used at all, whoever asks. Access is judged elsewhere.
var (
	errTopicInvalid  = errors.New("invalid topic")
	errTopicTooDeep  = errors.New("too many topic levels")
	errTopicReserved = errors.New("reserved topic")
	errFilterInvalid = errors.New("invalid topic filter")
	errFilterTooDeep = errors.New("too many filter levels")
)

const (
	sharePrefix  = "$share"
	systemPrefix = "$SYS"
	// internalPrefix begins the topics on which the program speaks to itself.
	internalPrefix = "$plantops"
)

// checkTopic judges the name that a message is published to. It must not hold wildcards, which is also what keeps
// covers honest: a topic without wildcards is a filter that matches only itself.
func checkTopic(topic string, maxLevels int) error {
	switch {
	case topic == "" || !utf8.ValidString(topic) || strings.ContainsAny(topic, "+#\x00"):
		return errTopicInvalid
	case levels(topic) > maxLevels:
		return errTopicTooDeep
	case topic[0] == '$':
		return errTopicReserved
	}
	return nil
}

// checkFilter judges what a client subscribes to or unsubscribes from, a shared subscription included [MQTT-4.7.1, 4.8.2].
func checkFilter(filter string, maxLevels int) error {
	if filter == "" || !utf8.ValidString(filter) || strings.Contains(filter, "\x00") {
		return errFilterInvalid
	}
	bare, err := unshare(filter)
	if err != nil {
		return err
	}
	if levels(bare) > maxLevels {
		return errFilterTooDeep
	}
	for rest, more := bare, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") || level == "#" && more {
			return errFilterInvalid
		}
	}
	return nil
}

// unshare returns FILTER of $share/GROUP/FILTER, and any other filter as it is. mochi takes $SHARE for $share, so
// every other spelling of it is refused: it would be judged as one thing and used as another.
func unshare(filter string) (string, error) {
	first, rest, more := strings.Cut(filter, "/")
	if !strings.EqualFold(first, sharePrefix) {
		return filter, nil
	}
	group, bare, hasFilter := strings.Cut(rest, "/")
	if first != sharePrefix || !more || !hasFilter || bare == "" || group == "" || strings.ContainsAny(group, "+#") {
		return "", errFilterInvalid
	}
	return bare, nil
}

// covers reports whether every topic that asked matches is matched by allowed too. Both are filters; a topic name is
// a filter without wildcards, so covers(filter, topic) is the ordinary match. Wildcards in the first level do not
// reach topics that begin with $ [MQTT-4.7.2-1].
func covers(allowed, asked string) bool {
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

func levels(topic string) int { return strings.Count(topic, "/") + 1 }
