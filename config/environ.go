package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// prefix begins the variables that are ours by name alone.
const prefix = "PLANTOPS_"

// layer is what one source of settings, the environment or the flags, sets.
type layer struct {
	values   map[string]any
	sources  map[string]string
	problems []problem
	warnings []string
}

func newLayer() *layer {
	return &layer{values: map[string]any{}, sources: map[string]string{}}
}

// candidate is one variable that would set a key.
type candidate struct {
	variable string
	text     string
	fromFile bool
}

// parseEnviron reads "NAME=value" strings as os.Environ returns them. An empty
// variable counts as unset: compose files pass those on.
func parseEnviron(environ []string) *layer {
	l := newLayer()
	vars := map[string]string{}
	for _, entry := range environ {
		if name, text, ok := strings.Cut(entry, "="); ok {
			vars[name] = text
		}
	}
	var known []string
	for _, s := range settings {
		known = append(known, s.variables()...)
		known = append(known, s.fileVariables()...)
		l.variable(s, vars)
	}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if !strings.HasPrefix(name, prefix) || vars[name] == "" || slices.Contains(known, name) {
			continue
		}
		warning := name + ": no setting has this variable; it is ignored"
		if k, ok := Nearest(name, known); ok {
			warning += fmt.Sprintf("; did you mean %s?", k)
		}
		l.warnings = append(l.warnings, warning)
	}
	return l
}

// variable sets one key from the variables that it has. When several are set
// they must agree: which one wins would be a guess.
func (l *layer) variable(s setting, vars map[string]string) {
	var found []candidate
	for _, name := range s.variables() {
		if vars[name] != "" {
			found = append(found, candidate{variable: name, text: vars[name]})
		}
	}
	for _, name := range s.fileVariables() {
		if vars[name] == "" {
			continue
		}
		text, err := readSecret(vars[name])
		if err != nil {
			l.problems = append(l.problems, problem{key: s.path, source: name, remedy: err.Error()})
			continue
		}
		found = append(found, candidate{variable: name, text: text, fromFile: true})
	}
	if len(found) == 0 {
		return
	}
	for _, other := range found[1:] {
		if other.fromFile != found[0].fromFile || !s.same(other.text, found[0].text) {
			l.problems = append(l.problems, problem{key: s.path, source: other.variable,
				remedy: fmt.Sprintf("is also set by %s, differently; unset one of them", found[0].variable)})
			return
		}
	}
	l.set(s, found[0].text, found[0].variable)
}

// set parses the text and takes it.
func (l *layer) set(s setting, text, source string) {
	v, err := s.parse(text)
	if err != nil {
		l.problems = append(l.problems, problem{key: s.path, value: s.shown(text), source: source, remedy: err.Error()})
		return
	}
	l.values[s.path], l.sources[s.path] = v, source
}

// same reports whether two texts set the key to the same value.
func (s setting) same(a, b string) bool {
	x, errX := s.parse(a)
	y, errY := s.parse(b)
	if errX != nil || errY != nil {
		return a == b
	}
	return fmt.Sprintf("%q", x) == fmt.Sprintf("%q", y)
}

// readSecret returns what a file holds without the newline that editors and
// echo leave at its end.
func readSecret(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w; name a readable file that holds the secret", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("%s is empty; put the secret into it, or do not name it", path)
	}
	return text, nil
}

// parseFlags reads settings given on the command line: key to text.
func parseFlags(flags map[string]string) *layer {
	l := newLayer()
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		source := "flag --" + strings.NewReplacer(".", "-", "_", "-").Replace(key)
		s, ok := find(key)
		if !ok {
			l.problems = append(l.problems, problem{key: key, source: source, remedy: "no such setting" + suggestion(key)})
			continue
		}
		l.set(s, flags[key], source)
	}
	return l
}
