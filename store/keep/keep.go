// Package keep is the pure part of how long readings of which device are kept: of a list of rules the first that fits counts.
package keep

import (
	"slices"
	"time"
)

// Rule says how long readings of some devices are kept.
type Rule struct {
	Device string        // a pattern: * stands for any text, also none; everything else for itself
	Keep   time.Duration // 0: for ever
}

// Fits reports whether the rule is for a device, unless one before it is.
func (r Rule) Fits(device string) bool { return match(r.Device, device) }

// Rules are in the order in which they are asked.
type Rules []Rule

// Of returns the index of the rule that counts for a device; len(r): none does.
func (r Rules) Of(device string) int {
	if i := slices.IndexFunc(r, func(one Rule) bool { return one.Fits(device) }); i >= 0 {
		return i
	}
	return len(r)
}

// Patterns are what decides which devices each rule counts for.
func (r Rules) Patterns() []string {
	list := make([]string, len(r))
	for i := range r {
		list[i] = r[i].Device
	}
	return list
}

// match goes back to the last * only: what that one takes more, no earlier one needs to. So it takes the product of both lengths at most.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, from := -1, 0 // the last *, and what of the name follows what it stands for
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
