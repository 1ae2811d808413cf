package config

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
)

// problem is one thing that is wrong with the configuration.
type problem struct {
	key    string // "" when it is about the file as a whole
	value  string // as printed; "" when there is nothing to show
	source string // "plantops.yaml:14", "MQTT_PORT", "flag --log-level"; "" when unknown
	remedy string // what is wrong, and what would be accepted
}

// Error returns "key: value (source): remedy".
func (p problem) Error() string {
	var b strings.Builder
	b.WriteString(p.key)
	if p.value != "" {
		b.WriteString(": " + p.value)
	}
	switch {
	case p.key == "":
		b.WriteString(p.source)
	case p.source != "":
		b.WriteString(" (" + p.source + ")")
	}
	return b.String() + ": " + p.remedy
}

// join returns all problems as one error, one a line; nil when there are none.
func join(problems []problem) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// shown returns text fit for one line of an error: quoted when it would be
// hard to see where it begins and ends, and cut when it is long.
func shown(text string) string {
	const most = 80
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == unicode.ReplacementChar }
	if text == "" || strings.ContainsFunc(text, odd) {
		return strconv.Quote(text)
	}
	return text
}

// shown is the text of a value as a problem may print it: never a secret.
func (s setting) shown(text string) string {
	if s.secret() {
		return redacted
	}
	return shown(text)
}

// Nearest returns the candidate that is most like word, and false when none is near enough to be a slip of the fingers.
func Nearest(word string, candidates []string) (string, bool) {
	best, least := "", len(word)/3+1
	for _, c := range candidates {
		if max(len(c)-len(word), len(word)-len(c)) >= least {
			continue // the distance is at least that
		}
		if d := distance(word, c); d < least {
			best, least = c, d
		}
	}
	return best, best != ""
}

// distance is the number of letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
