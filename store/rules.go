package store

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds on the rules of an account: each is looked at for every topic that a client uses for the first time.
const (
	maxRules       = 1000
	maxFilterBytes = 1024
)

// CheckFilter tells whether a rule may have this topic filter: MQTT's wildcards where MQTT has them, no topic that begins
// with $, and %u and %c for the names of the account and of the client. The error wraps ErrInvalidFilter.
func CheckFilter(filter string) error {
	why := ""
	switch {
	case filter == "" || len(filter) > maxFilterBytes:
		why = fmt.Sprintf("it has %d bytes, 1 to %d are allowed", len(filter), maxFilterBytes)
	case !utf8.ValidString(filter):
		why = "it is not valid UTF-8"
	case strings.ContainsFunc(filter, unicode.IsControl):
		why = "control characters are not allowed"
	case strings.HasPrefix(filter, "$share/"):
		why = "a rule names topics: leave out $share/GROUP/, who may subscribe to them may do so in a group"
	case strings.HasPrefix(filter, "$"):
		why = "topics that begin with $ are not for rules; administrators read $SYS"
	default:
		why = wildcardFault(filter)
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w %.80q: %s", ErrInvalidFilter, filter, why)
}

// wildcardFault says which wildcard stands where MQTT does not allow it, "" if none does [MQTT-4.7.1].
func wildcardFault(filter string) string {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return "# must be the last level"
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return "+ and # must be a level of their own, as in a/+/b or a/#"
		}
	}
	return ""
}

// checkRules judges all rules of an account.
func checkRules(publish, subscribe []string) error {
	if n := len(publish) + len(subscribe); n > maxRules {
		return fmt.Errorf("%w: %d of them, at most %d are allowed", ErrInvalidFilter, n, maxRules)
	}
	for _, filters := range [][]string{publish, subscribe} {
		for _, filter := range filters {
			if err := CheckFilter(filter); err != nil {
				return err
			}
		}
	}
	return nil
}
