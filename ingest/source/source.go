// Package source knows the topics and payloads of other people's programs: Tasmota, Shelly, Zigbee2MQTT and their like, and
// those that a configuration describes. It says which topics to subscribe to, what a message on one of them is, which device
// it is of, and how its payload is to be read. It is pure. What becomes of a message is for others to decide.
package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/ingest/payload"
)

// Config describes one source: a preset, whose Name and Base may be changed, or one's own, with a Name and a Topic.
type Config struct {
	Preset string // see Presets; empty: one's own
	Name   string // the first part of its devices' ids; empty: that of the preset
	Base   string // levels in front of the preset's topics; empty: what the program does by default

	Topic        string // with {device} and {metric} for a level each, + and # as in a filter
	Availability string // topic of online and offline, with {device}; empty: none
	Device       string // path of the device's name in the payload; empty: the topic has it
	Value        string // path of the readings in the payload; empty: the whole of it
	Time         string // path of the time in the payload; empty: the usual names
	Fields       []Field
}

// Field changes one field of a payload.
type Field struct {
	From   string  // its path
	To     string  // the metric; empty: as it is
	Scale  float64 // 0 is 1
	Offset float64 // added after Scale
	Unit   string  // that it is sent in, see Units; it stands for Scale and Offset
}

// Kind says what the messages of a topic are.
type Kind uint8

const (
	Nothing      Kind = iota // nobody reads them
	Reading                  // readings
	Availability             // online or offline
	Ignored                  // of a program whose topics are read, but nothing for us
)

// Set is a list of sources. Nil is an empty one. It is safe for concurrent use.
type Set struct {
	rules   []rule
	filters []string
	names   []string
	grants  map[string]Grant
}

// Grant is what an account may do, as topic filters.
type Grant struct{ Publish, Subscribe []string }

// rule is one kind of topics of a source.
type rule struct {
	source  string
	pattern pattern
	kind    Kind
	read    *payload.Rules
	device  [][]string // paths of the device's name in the payload: those that are there, with a slash between them

	// paths of a name for people in the payload: the first that is there. What device or the topic says tells devices apart.
	shown [][]string
	// attributes: a payload that is no object is a value, and the last level of the device's name is the metric.
	attributes bool
}

// Compile checks the sources and puts them together. The error joins everything that is wrong, as "NAME: what".
func Compile(list []Config) (*Set, error) {
	s := &Set{grants: make(map[string]Grant)}
	var errs []error
	for i := range list {
		c := list[i]
		name := c.Name
		if name == "" {
			name = c.Preset
		}
		rules, err := compile(c, name)
		if err == nil && slices.Contains(s.names, name) {
			err = errors.New("there is another source of this name; give one of them a name of its own")
		}
		if err != nil {
			if name == "" {
				name = fmt.Sprintf("number %d", i+1)
			}
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		s.names = append(s.names, name)
		s.rules = append(s.rules, rules...)
		s.grants[name] = grant(c, rules)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, r := range s.rules {
		if r.kind != Ignored {
			s.subscribe(r.pattern.filter())
		}
	}
	return s, nil
}

// subscribe adds a filter unless another one covers it, and takes out those that it covers.
func (s *Set) subscribe(filter string) {
	for _, there := range s.filters {
		if topic.Covers(there, filter) {
			return
		}
	}
	s.filters = append(slices.DeleteFunc(s.filters, func(there string) bool { return topic.Covers(filter, there) }), filter)
}

// Filters returns the topic filters to subscribe to. None covers another one.
func (s *Set) Filters() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.filters)
}

// Names returns the sources in order.
func (s *Set) Names() []string {
	if s == nil {
		return nil
	}
	return slices.Clone(s.names)
}

// Match is what a topic says.
type Match struct {
	Kind   Kind
	Source string
	Device string // as the topic writes it; empty: the payload has it
	Metric string // path in front of those in the payload
	rule   *rule
}

// Match finds what messages on a topic are: by the first source, and of its topics the first, that fits. One that ignores them
// leaves them to the sources after it.
func (s *Set) Match(name string) Match {
	if s == nil {
		return Match{}
	}
	ignored := Match{}
	levels := strings.Split(name, "/")
	skip := ""
	for i := range s.rules {
		r := &s.rules[i]
		if r.source == skip {
			continue
		}
		device, metric, fits := r.pattern.match(levels)
		switch {
		case !fits:
		case r.kind == Ignored:
			skip = r.source
			if ignored.Kind == Nothing {
				ignored = Match{Kind: Ignored, Source: r.source, rule: r}
			}
		default:
			return Match{Kind: r.kind, Source: r.source, Device: device, Metric: metric, rule: r}
		}
	}
	return ignored
}

// Understands reports whether some topic of a filter is one that a source reads.
func (s *Set) Understands(filter string) bool {
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.filters, func(ours string) bool { return topic.Overlap(ours, filter) })
}
