package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// searched is where the file is looked for when none is named.
var searched = []string{"plantops.yaml", "/etc/plantops/plantops.yaml"}

// readFile returns the configuration file and its path, which is "" when none
// was named and none is there, and what is odd about the search.
func readFile(path string) (data []byte, found, warning string, err error) {
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, path, "", fmt.Errorf("read configuration: %w", err)
		}
		return data, path, "", nil
	}
	for _, path := range searched {
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission) && outOfReach(path):
			// As in "sudo -u plantops plantops status" from one's own home: whether there is a file nobody can tell.
			warning = fmt.Sprintf("this user may not enter the current folder, so a %s in it is not looked for; cd elsewhere, or name it with -c", path)
			continue
		case err != nil:
			return nil, path, "", fmt.Errorf("read configuration: %w", err)
		}
		return data, path, warning, nil
	}
	return nil, "", warning, nil
}

// outOfReach reports whether the file cannot even be looked at, because of the folder that it is in.
func outOfReach(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrPermission)
}

// file is the YAML file as it was written. The tree of nodes is read instead of
// decoded values, because decoding hides what was written (0123 becomes 83, a
// second key replaces the first) and where.
type file struct {
	name     string
	values   map[string]any    // accepted values, nested as in the file
	sources  map[string]string // path of an accepted value: "plantops.yaml:14"
	problems []problem
}

// parseFile reads what it can and lists every problem with the rest.
func parseFile(name string, data []byte) *file {
	f := &file{name: name, values: map[string]any{}, sources: map[string]string{}}
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := documents.Decode(&first); errors.Is(err, io.EOF) {
		return f
	} else if err != nil {
		f.syntax(err, data)
		return f
	}
	if err := documents.Decode(&second); err == nil {
		f.problem(&second, "", "", "a second document begins here; write everything in one, without ---")
	} else if !errors.Is(err, io.EOF) {
		f.syntax(err, data)
	}
	root := first.Content[0]
	switch {
	case isNull(root):
	case root.Kind == yaml.MappingNode:
		f.values = f.section(root, "")
	default:
		f.problem(root, "", "", "must consist of sections such as mqtt: and log:, each with its keys below it")
	}
	return f
}

// section reads the keys of one section, path being "" for the outermost.
func (f *file) section(node *yaml.Node, path string) map[string]any {
	values := map[string]any{}
	lines := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := key.Value
		if key.Kind != yaml.ScalarNode || !isPlainKey(name) {
			// Not repeated: it may be a secret whose colon was forgotten.
			f.problem(key, path, "", "has something here that is not a key; write key: value")
			continue
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		if line, twice := lines[name]; twice {
			f.problem(key, full, "", fmt.Sprintf("is here twice, first on line %d; remove one", line))
			continue
		}
		lines[name] = key.Line
		s, known := find(full)
		switch {
		case known && !strings.Contains(name, "."):
			if v, ok := f.setting(key, value, s); ok {
				values[name] = v
			}
		case isSection(full) && !strings.Contains(name, "."):
			if value.Kind != yaml.MappingNode {
				f.problem(key, full, "", "is a section; write its keys below it, indented, or remove the line")
				continue
			}
			values[name] = f.section(value, full)
		default:
			f.problem(key, full, "", "no such setting"+suggestion(full))
		}
	}
	return values
}

// setting reads the value of one setting; false when it is not acceptable.
func (f *file) setting(key, node *yaml.Node, s setting) (any, bool) {
	refuse := func(value, remedy string) (any, bool) {
		f.problem(key, s.path, value, remedy)
		return nil, false
	}
	_, list := s.field(new(Config)).(*[]string)
	_, programs := s.field(new(Config)).(*[]Source)
	_, bridges := s.field(new(Config)).(*[]Bridge)
	_, rules := s.field(new(Config)).(*[]RetentionRule)
	_, channels := s.field(new(Config)).(*[]AlertChannel)
	switch {
	case node.Kind == yaml.AliasNode:
		return refuse("", "is an alias; write the value itself, in quotes if it begins with *")
	case isNull(node):
		return refuse("", `has no value; write one ("" for none) or remove the line`)
	case (list || programs || bridges || rules || channels) && node.Kind != yaml.SequenceNode:
		return refuse("", "must be a list, for example [one, two]; [] for none")
	case list:
		return f.list(key, node, s)
	case programs:
		return f.programs(key, node, s)
	case bridges:
		return f.bridges(key, node, s)
	case rules:
		return f.retentionRules(key, node, s)
	case channels:
		return f.channels(key, node, s)
	case node.Kind != yaml.ScalarNode:
		return refuse("", "must be a single value")
	case strings.HasPrefix(node.ShortTag(), "!") && !strings.HasPrefix(node.ShortTag(), "!!"):
		return refuse("", "has a tag; write the value itself, in quotes if it begins with !")
	}
	v, err := s.parse(node.Value)
	if err != nil {
		return refuse(s.shown(node.Value), err.Error())
	}
	if _, text := v.(string); text && node.ShortTag() != "!!str" {
		return refuse(s.shown(node.Value), "is not text to YAML; put the value in quotes")
	}
	f.sources[s.path] = f.line(key)
	return v, true
}

func (f *file) list(key, node *yaml.Node, s setting) (any, bool) {
	items := make([]string, 0, len(node.Content))
	ok := true
	for _, item := range node.Content {
		switch {
		case item.Kind != yaml.ScalarNode:
			f.problem(item, s.path, "", "each item must be a single text")
		case isNull(item), item.Value == "":
			f.problem(item, s.path, "", "has an empty item; remove it or give it a value")
		case item.ShortTag() != "!!str":
			f.problem(item, s.path, s.shown(item.Value), "is not text to YAML; put the item in quotes")
		default:
			items = append(items, item.Value)
			continue
		}
		ok = false
	}
	if ok {
		f.sources[s.path] = f.line(key)
	}
	return items, ok
}

func (f *file) line(node *yaml.Node) string { return fmt.Sprintf("%s:%d", f.name, node.Line) }

func (f *file) problem(node *yaml.Node, key, value, remedy string) {
	f.problems = append(f.problems, problem{key: key, value: value, source: f.line(node), remedy: remedy})
}

var (
	plainKey   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)
	syntaxLine = regexp.MustCompile(`^line ([0-9]+): (.*)$`)
	noAnchor   = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
)

func isPlainKey(name string) bool { return len(name) <= 64 && plainKey.MatchString(name) }

// syntax reports what the YAML parser says about the data.
func (f *file) syntax(err error, data []byte) {
	p := problem{source: f.name, remedy: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := syntaxLine.FindStringSubmatch(p.remedy); m != nil {
		p.source, p.remedy = f.name+":"+m[1], m[2]
	} else if m := noAnchor.FindStringSubmatch(p.remedy); m != nil {
		// The parser repeats the name, and a password that begins with * is
		// read as one. It does not say the line.
		p.remedy = "a value begins with *, which is YAML for an alias; put it in quotes"
		if before, _, ok := bytes.Cut(data, []byte("*"+m[1])); ok {
			p.source = fmt.Sprintf("%s:%d", f.name, bytes.Count(before, []byte("\n"))+1)
		}
	}
	p.remedy = "is not YAML: " + p.remedy
	f.problems = append(f.problems, p)
}

// isNull reports whether the node is there without a value: "host:" or "host: null".
func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// isSection reports whether settings stand below that path.
func isSection(path string) bool {
	for _, s := range settings {
		if strings.HasPrefix(s.path, path+".") {
			return true
		}
	}
	return false
}

// suggestion ends "no such setting" with what was probably meant.
func suggestion(path string) string {
	known := make([]string, 0, 2*len(settings))
	for _, s := range settings {
		known = append(known, s.path)
		for section := parent(s.path); section != ""; section = parent(section) {
			known = append(known, section)
		}
	}
	// The right name in the wrong section beats a similar name in this one.
	last := path[strings.LastIndex(path, ".")+1:]
	for _, k := range known {
		if k == path || strings.HasSuffix("."+k, "."+last) {
			return fmt.Sprintf("; did you mean %s?%s", k, below(k))
		}
	}
	if k, ok := Nearest(path, known); ok {
		return fmt.Sprintf("; did you mean %s?", k)
	}
	return `; "plantops config show" lists every setting`
}

func below(key string) string {
	if section := parent(key); section != "" {
		return fmt.Sprintf(" It stands below %s:", strings.ReplaceAll(section, ".", ": "))
	}
	return ""
}

// parent returns the section in which a key stands: "mqtt" for "mqtt.host".
func parent(path string) string {
	if i := strings.LastIndex(path, "."); i >= 0 {
		return path[:i]
	}
	return ""
}

// readableByOthers reports whether any user of the machine may read the file.
func readableByOthers(path string) bool {
	info, err := os.Stat(filepath.Clean(path))
	return err == nil && info.Mode().Perm()&0o004 != 0
}
