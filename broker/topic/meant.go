package topic

import (
	"slices"
	"strings"
)

const (
	meantLevels = 8  // a topic of more levels is nobody's slip
	meantBytes  = 32 // nor a level that long

	// What a difference costs. Two missing or foreign levels are another topic.
	costCase   = 1 // upper and lower case
	costEmpty  = 1 // a slash too many
	costLetter = 2 // one letter
	costLevel  = 5 // a level missing or too many
	costMost   = 6
)

// Meant returns the topic that one of the filters takes in and that comes nearest to a topic that none does: other case,
// a letter or two, a slash or a level too many, a level missing. It is empty when nothing is near. Levels that the filter
// leaves open are those of the topic.
func Meant(name string, filters []string) string {
	levels := strings.Split(name, "/")
	if len(levels) > meantLevels {
		return ""
	}
	best, cost := "", costMost+1
	for _, filter := range filters {
		if strings.Contains(filter, "#") || strings.HasPrefix(filter, "$") {
			continue
		}
		ours := strings.Split(filter, "/")
		if !resemble(levels, ours) {
			continue
		}
		if meant, c := fit(levels, ours, costMost); c < cost {
			best, cost = strings.Join(meant, "/"), c
		}
	}
	return best
}

// resemble reports whether a topic has something of what a filter says in words: "+/status/+" is near to every topic of two
// levels, but nobody who wrote "foo/bar" meant it.
func resemble(levels, filter []string) bool {
	return slices.ContainsFunc(filter, func(word string) bool {
		return word != "+" && slices.ContainsFunc(levels, func(level string) bool { return near(level, word) <= costMost })
	})
}

// fit changes the levels into a topic that the filter takes in, for less than left; a cost above costMost means that it
// cannot. What it may spend bounds how far it looks.
func fit(levels, filter []string, left int) (meant []string, cost int) {
	none := costMost + 1
	switch {
	case left < 0:
		return nil, none
	case len(filter) == 0:
		cost = 0
		for _, level := range levels {
			cost += dropping(level)
		}
		return nil, cost
	case len(levels) == 0:
		return nil, none // what is missing at the end, nobody knows
	}
	cost = none
	try := func(first string, levels, filter []string, c int) {
		rest, more := fit(levels, filter, left-c)
		if c += more; c >= cost {
			return
		}
		if cost = c; first == "" {
			meant = rest
		} else {
			meant = append([]string{first}, rest...)
		}
	}
	level := filter[0]
	if level == "+" {
		level = levels[0]
	}
	try(level, levels[1:], filter[1:], near(levels[0], filter[0]))
	try("", levels[1:], filter, dropping(levels[0]))
	if filter[0] != "+" {
		try(level, levels, filter[1:], costLevel)
	}
	return meant, cost
}

func dropping(level string) int {
	if level == "" {
		return costEmpty
	}
	return costLevel
}

// near returns what it costs to take a level for that of a filter.
func near(level, filter string) int {
	switch {
	case level == "":
		return costMost + 1
	case filter == "+", level == filter:
		return 0
	case strings.EqualFold(level, filter):
		return costCase
	case len(level) > meantBytes:
		return costMost + 1
	}
	letters := distance(strings.ToLower(level), strings.ToLower(filter))
	if 2*letters > len(filter) { // of a short word nothing would be left
		return costMost + 1
	}
	return costLetter * letters
}

// distance counts the letters to change, add or take away to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
