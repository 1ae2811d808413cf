package mosquitto

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// order is that of the sections and keys in plantops.yaml.
var order = []string{"data_dir", "listeners.tcp", "listeners.tls", "listeners.websocket", "certs", "mqtt", "bridges", "limits",
	"log"}

// set notes a setting; the first for a key stays.
func (t *translator) set(key string, value any, from string) {
	if _, known := t.settings[key]; !known {
		t.settings[key] = Setting{Key: key, Value: value, From: from}
	}
}

func (t *translator) sortedSettings() []Setting {
	rank := func(key string) int {
		return slices.IndexFunc(order, func(section string) bool { return key == section || strings.HasPrefix(key, section+".") })
	}
	// "enabled" stands before "address", as everywhere in the documents.
	within := func(key string) string { return strings.ReplaceAll(key, ".enabled", ".") }
	return slices.SortedFunc(maps.Values(t.settings), func(a, b Setting) int {
		return cmp.Or(cmp.Compare(rank(a.Key), rank(b.Key)), cmp.Compare(within(a.Key), within(b.Key)))
	})
}

// WriteYAML writes settings as plantops.yaml, each with the line that it comes from. Those of one section must stand
// together.
func WriteYAML(w io.Writer, settings []Setting) error {
	out := bufio.NewWriter(w)
	var open []string // sections that the last line was in
	for _, s := range settings {
		names := strings.Split(s.Key, ".")
		sections, key := names[:len(names)-1], names[len(names)-1]
		shared := 0
		for shared < len(sections) && shared < len(open) && sections[shared] == open[shared] {
			shared++
		}
		for depth := shared; depth < len(sections); depth++ {
			fmt.Fprintf(out, "%s%s:\n", strings.Repeat("  ", depth), sections[depth])
		}
		open = sections
		if list, ok := s.Value.([]Bridge); ok {
			lines, err := bridgeLines(list, json.Marshal)
			if err != nil {
				return fmt.Errorf("write setting %s: %w", s.Key, err)
			}
			fmt.Fprintf(out, "%s:  # %s\n%s", s.Key, printable(s.From), lines)
			continue
		}
		value, err := json.Marshal(s.Value) // what JSON is for texts, numbers and lists, YAML is too
		if err != nil {
			return fmt.Errorf("write setting %s: %w", s.Key, err)
		}
		line := fmt.Sprintf("%s%s: %s", strings.Repeat("  ", len(sections)), key, value)
		if s.From != "" {
			line += "  # " + printable(s.From)
		}
		fmt.Fprintln(out, line)
	}
	return out.Flush()
}
