// Package topic is the syntax of MQTT topic names and topic filters: what is well formed, what a filter matches and what
// it covers. It knows the standard library only, so that whoever handles topics can import it; who may use one is judged
// elsewhere. Where a place takes other filters than the next one does, the difference is a field of Filters.
//
// topic.go judges names, filter.go filters; match.go says what a filter matches and covers, meant.go which topic somebody may
// have meant.
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

// Levels counts the levels of a name or a filter: "a/b" has two, and so has "/".
func Levels(topic string) int { return strings.Count(topic, "/") + 1 }
