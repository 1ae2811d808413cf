// Package topictest is what tests hold package topic, and whoever relies on it, against.
package topictest

import "strings"

// naiveMatch is [MQTT-4.7] word for word, over levels.
func naiveMatch(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] != "+" && filter[0] != topic[0]:
		return false
	}
	return naiveMatch(filter[1:], topic[1:])
}

// Matches reports whether a filter matches a topic name, both well formed, as [MQTT-4.7] says it.
func Matches(filter, topic string) bool {
	f, l := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	return naiveMatch(f, l) || f[len(f)-1] == "#" && naiveMatch(f[:len(f)-1], l)
}

// Universe is every topic of up to four levels over letters of which one is in no filter.
func Universe() []string {
	letters := []string{"a", "b", "", "fresh"}
	var all []string
	last := append([]string{"$a"}, letters...)
	for range 4 {
		all = append(all, last...)
		var next []string
		for _, topic := range last {
			for _, letter := range letters {
				next = append(next, topic+"/"+letter)
			}
		}
		last = next
	}
	return all
}
