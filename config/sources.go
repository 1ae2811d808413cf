package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is a program of other people whose messages are read. What may be in it, ingest/source knows.
type Source struct {
	Preset       string
	Name         string
	Base         string
	Topic        string
	Availability string
	Device       string
	Value        string
	Time         string
	Fields       []SourceField
}

// SourceField changes one field of its payloads.
type SourceField struct {
	From, To, Unit string
	Scale, Offset  float64
}

// parseSources reads the names of presets, as a variable has them.
func parseSources(text string) ([]Source, error) {
	names, err := parseList(text)
	if err != nil {
		return nil, err
	}
	sources := make([]Source, len(names))
	for i, name := range names {
		sources[i].Preset = name
	}
	return sources, nil
}

// sourceNames are the sources as a person calls them.
func sourceNames(sources []Source) string {
	names := make([]string, len(sources))
	for i, s := range sources {
		if names[i] = s.Name; names[i] == "" {
			names[i] = s.Preset
		}
	}
	return strings.Join(names, ", ")
}

// sources reads ingest.sources: a list whose items are the name of a preset, or keys and values.
func (f *file) programs(key, node *yaml.Node, s setting) (any, bool) {
	list := make([]Source, len(node.Content))
	before := len(f.problems)
	for i, item := range node.Content {
		switch {
		case item.Kind == yaml.ScalarNode && item.ShortTag() == "!!str" && item.Value != "":
			list[i].Preset = item.Value
		case item.Kind == yaml.MappingNode:
			f.fill(item, s.path, reflect.ValueOf(&list[i]).Elem())
		default:
			f.problem(item, s.path, "", "each item must be the name of a preset, or have keys such as preset, name and topic")
		}
	}
	if len(f.problems) > before {
		return nil, false
	}
	f.sources[s.path] = f.line(key)
	return list, true
}

// fill puts the keys of a mapping into the fields of a struct, which are called the same in lower case.
func (f *file) fill(node *yaml.Node, path string, into reflect.Value) {
	known := make([]string, into.NumField())
	for i := range known {
		known[i] = strings.ToLower(into.Type().Field(i).Name)
	}
	var seen []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := slices.Index(known, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || !plainKey.MatchString(key.Value):
			f.problem(key, path, "", "has something here that is not a key; write key: value")
		case at < 0:
			remedy := fmt.Sprintf("an item has no %s; it may have %s", key.Value, strings.Join(known, ", "))
			if meant, ok := Nearest(key.Value, known); ok {
				remedy = fmt.Sprintf("an item has no %s; did you mean %s?", key.Value, meant)
			}
			f.problem(key, path, "", remedy)
		case slices.Contains(seen, key.Value):
			f.problem(key, path, "", key.Value+" is here twice in one item; remove one")
		default:
			f.fillOne(key, value, path, into.Field(at))
		}
		seen = append(seen, key.Value)
	}
}

func (f *file) fillOne(key, node *yaml.Node, path string, into reflect.Value) {
	if into.Kind() == reflect.Slice {
		if node.Kind != yaml.SequenceNode {
			f.problem(key, path, "", key.Value+" must be a list")
			return
		}
		into.Set(reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content)))
		for i, item := range node.Content {
			if item.Kind != yaml.MappingNode {
				f.problem(item, path, "", "each item of "+key.Value+" must have keys such as from and to")
				continue
			}
			f.fill(item, path, into.Index(i))
		}
		return
	}
	switch {
	case node.Kind != yaml.ScalarNode || isNull(node) || node.Value == "":
		f.problem(key, path, "", key.Value+" has no value; write one or remove the line")
	case into.Kind() == reflect.Float64:
		number, err := strconv.ParseFloat(node.Value, 64)
		if err == nil && (math.IsNaN(number) || math.IsInf(number, 0) || strings.ContainsAny(node.Value, "xX_")) {
			err = errors.New("no number")
		}
		if err != nil {
			f.problem(key, path, shown(node.Value), key.Value+" must be a number, such as 0.1")
			return
		}
		into.SetFloat(number)
	case node.ShortTag() != "!!str":
		f.problem(key, path, shown(node.Value), key.Value+" is not text to YAML; put the value in quotes")
	case !printable(node.Value):
		f.problem(key, path, shown(node.Value), key.Value+" must be text without control characters")
	default:
		into.SetString(node.Value)
	}
}
