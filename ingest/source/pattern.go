package source

import (
	"errors"
	"slices"
	"strings"

	"github.com/plantops/plantops/broker/topic"
)

// pattern is the levels of a topic. Each is a level as it is, or
//
//	{device}   the device's name
//	{device+}  the device's name, of one or more levels
//	{metric}   the metric, which does not begin with $; of several of them the names with dots between
//	{metric+}  the metric, of one or more levels
//	*END       anything that ends so: the beginning is the metric
//	+END       anything that ends so
//	+          any level
//	#          any number of levels, at the end
//
// At most one level stands for several.
type pattern []string

func parse(text string) pattern { return strings.Split(text, "/") }

func (p pattern) filter() string {
	filter := make([]string, 0, len(p))
	for _, level := range p {
		switch {
		case level == "#", several(level):
			return strings.Join(append(filter, "#"), "/")
		case level == "{device}", level == "{metric}", strings.HasPrefix(level, "*"), strings.HasPrefix(level, "+"):
			level = "+"
		}
		filter = append(filter, level)
	}
	return strings.Join(filter, "/")
}

func several(level string) bool { return level == "{device+}" || level == "{metric+}" }

// match takes the levels of a topic apart. A name of several levels keeps its slashes, a metric gets dots.
func (p pattern) match(levels []string) (device, metric string, fits bool) {
	for i, level := range p {
		switch {
		case level == "#":
			return device, metric, true
		case len(levels) == 0:
			return "", "", false
		}
		taken := 1
		if several(level) {
			if taken = len(levels) - (len(p) - i - 1); taken < 1 {
				return "", "", false
			}
		}
		text := strings.Join(levels[:taken], "/")
		switch level {
		case "+":
		case "{device}", "{device+}":
			device = text
		case "{metric}", "{metric+}":
			if strings.HasPrefix(text, "$") {
				return "", "", false
			}
			metric = under(metric, strings.ReplaceAll(text, "/", "."))
		default:
			open := level != "" && (level[0] == '*' || level[0] == '+')
			if !open && text != level || open && !strings.HasSuffix(text, level[1:]) {
				return "", "", false
			}
			if open && level[0] == '*' {
				metric = under(metric, strings.TrimSuffix(text, level[1:]))
			}
		}
		levels = levels[taken:]
	}
	return device, metric, len(levels) == 0
}

// under is a path below another one.
func under(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// parseOwn reads what a person wrote. Wildcards may stand where MQTT has them.
func parseOwn(text string) (pattern, error) {
	p := parse(text)
	devices := 0
	for i, level := range p {
		switch {
		case level == "#" && i < len(p)-1:
			return nil, errors.New(topic.FaultHash.String())
		case level == "{device}":
			devices++
		case level == "{metric}":
		case strings.ContainsAny(level, "{}*"):
			return nil, errors.New("{device} and {metric} stand for a whole level each; there is nothing else in braces, and no *")
		}
	}
	if devices > 1 {
		return nil, errors.New("{device} can be there once only")
	}
	if fault := (topic.Filters{NoControl: true, NoDollar: true, Unshared: true}).Fault(p.filter()); fault != topic.Faultless {
		return nil, errors.New(fault.String())
	}
	if topic.Overlap(p.filter(), "devices/#") {
		return nil, errors.New("topics below devices/ are those of devices, and need no source")
	}
	return p, nil
}

func (p pattern) has(level string) bool { return slices.Contains(p, level) }
