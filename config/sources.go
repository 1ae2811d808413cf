package config

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

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

// fill puts the keys of a mapping into the fields of a struct, which are called the same in lower case, or as their tag says.
func (f *file) fill(node *yaml.Node, path string, into reflect.Value) {
	known := make([]string, into.NumField())
	for i := range known {
		field := into.Type().Field(i)
		known[i] = cmp.Or(field.Tag.Get("key"), strings.ToLower(field.Name))
	}
	var seen []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := slices.Index(known, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || !isPlainKey(key.Value):
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
	item := strings.HasSuffix(path, "]") // of a list whose problems name the item
	if item {
		f.sources[path+"."+key.Value] = f.line(key)
	}
	if into.Kind() == reflect.Slice {
		if node.Kind != yaml.SequenceNode {
			f.problem(key, path, "", key.Value+" must be a list")
			return
		}
		into.Set(reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content)))
		for i, one := range node.Content {
			inner, to := path, into.Index(i)
			if item {
				inner = fmt.Sprintf("%s.%s[%d]", path, key.Value, i)
				f.sources[inner] = f.line(one)
			}
			if some, ok := to.Addr().Interface().(interface{ setDefaults() }); ok {
				some.setDefaults()
			}
			if one.Kind != yaml.MappingNode {
				f.problem(one, inner, "", fmt.Sprintf("each item of %s must have keys such as %s", key.Value, fieldNames(to.Type())))
				continue
			}
			f.fill(one, inner, to)
		}
		return
	}
	empty := node.Value == "" && !(item && node.ShortTag() == "!!str")
	if node.Kind != yaml.ScalarNode || isNull(node) || empty {
		f.problem(key, path, "", key.Value+" has no value; write one or remove the line")
		return
	}
	value := shown(node.Value)
	if into.Type() == reflect.TypeFor[Secret]() {
		value = redacted
	}
	refuse := func(why string) { f.problem(key, path, value, key.Value+" "+why) }
	switch {
	case into.Kind() == reflect.Float64:
		number, err := strconv.ParseFloat(node.Value, 64)
		if err != nil || math.IsNaN(number) || math.IsInf(number, 0) || strings.ContainsAny(node.Value, "xX_") {
			refuse("must be a number, such as 0.1")
			return
		}
		into.SetFloat(number)
	case into.Kind() == reflect.Bool:
		yes, err := parseBool(node.Value)
		if err != nil {
			refuse(err.Error())
			return
		}
		into.SetBool(yes)
	case into.Kind() == reflect.Int:
		number, err := parseInt(node.Value)
		if err != nil {
			refuse(err.Error())
			return
		}
		into.SetInt(int64(number))
	case into.Type() == reflect.TypeFor[time.Duration]():
		duration, err := parseDuration(node.Value)
		if err != nil {
			refuse(err.Error())
			return
		}
		into.SetInt(int64(duration))
	case node.ShortTag() != "!!str" && into.Type() != reflect.TypeFor[versionName]():
		refuse("is not text to YAML; put the value in quotes")
	case !printable(node.Value):
		refuse("must be text without control characters")
	default:
		into.SetString(node.Value)
	}
}

// fieldNames are the first two keys of an item, for an example.
func fieldNames(item reflect.Type) string {
	return strings.ToLower(item.Field(0).Name) + " and " + strings.ToLower(item.Field(1).Name)
}
