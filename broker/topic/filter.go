package topic

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is the longest name or filter that MQTT can write [MQTT 5, 1.5.4].
const MaxBytes = 65535

// Filters says which topic filters a place takes. The zero value takes what a client may subscribe to [MQTT-4.7.1, 4.8.2]:
// 1 to MaxBytes bytes of UTF-8 without NUL, wildcards where they may stand, and $share/GROUP/FILTER.
type Filters struct {
	MaxLevels int  // of FILTER in a shared subscription; 0: no limit
	MaxBytes  int  // 0: MaxBytes
	NoControl bool // no control characters at all, which would break a line of a log
	NoDollar  bool // nothing that begins with $, shared subscriptions included
	Unshared  bool // $share means nothing: the filter says which topics, not how they are subscribed to
}

// Fault is why a place does not take a filter.
type Fault uint8

// The faults, in the order in which they are looked for.
const (
	Faultless Fault = iota
	FaultSize
	FaultUTF8
	FaultControl
	FaultDollar
	FaultShare
	FaultLevels
	FaultHash
	FaultWildcard
)

// String says what is wrong, after "FILTER: ".
func (f Fault) String() string {
	return [...]string{
		Faultless:     "nothing is wrong",
		FaultSize:     "it is empty or too long",
		FaultUTF8:     "it is not valid UTF-8",
		FaultControl:  "control characters are not allowed",
		FaultDollar:   "topics that begin with $ are not allowed",
		FaultShare:    "a shared subscription is $share/GROUP/FILTER, in lower case and without wildcards in GROUP",
		FaultLevels:   "it has too many levels",
		FaultHash:     "# must be the last level",
		FaultWildcard: "+ and # must be a level of their own, as in a/+/b or a/#",
	}[f]
}

// Fault returns the first fault of a filter, Faultless when the place takes it.
func (f Filters) Fault(filter string) Fault {
	most := f.MaxBytes
	if most == 0 {
		most = MaxBytes
	}
	switch {
	case filter == "" || len(filter) > most:
		return FaultSize
	case !utf8.ValidString(filter):
		return FaultUTF8
	case strings.Contains(filter, "\x00") || f.NoControl && strings.ContainsFunc(filter, unicode.IsControl):
		return FaultControl
	case f.NoDollar && filter[0] == '$':
		return FaultDollar
	}
	if !f.Unshared {
		bare, err := Unshare(filter)
		if err != nil {
			return FaultShare
		}
		filter = bare
	}
	if f.MaxLevels > 0 && Levels(filter) > f.MaxLevels {
		return FaultLevels
	}
	return wildcardFault(filter)
}

// wildcardFault looks for a wildcard where MQTT does not allow it [MQTT-4.7.1].
func wildcardFault(filter string) Fault {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return FaultHash
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return FaultWildcard
		}
	}
	return Faultless
}

// CheckFilter judges what a client subscribes to or unsubscribes from, a shared subscription included. The error is
// ErrFilterInvalid or ErrFilterTooDeep.
func CheckFilter(filter string, maxLevels int) error {
	switch (Filters{MaxLevels: maxLevels}).Fault(filter) {
	case Faultless:
		return nil
	case FaultLevels:
		return ErrFilterTooDeep
	}
	return ErrFilterInvalid
}

// Shared reports whether a filter that Filters took begins with $share/GROUP/.
func Shared(filter string) bool { return strings.HasPrefix(filter, SharePrefix+"/") }

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
