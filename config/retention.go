package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// RetentionRule says how long readings of some devices are kept.
type RetentionRule struct {
	Device string // a pattern: * stands for any text
	Metric string // none: readings are kept by device
	Keep   time.Duration
}

// noKeep is what Keep has where nothing is said: to forget it is no reason to keep readings for ever.
const noKeep = time.Duration(-1)

// retentionText is the rules as a person would say them.
func retentionText(rules []RetentionRule) string {
	list := make([]string, len(rules))
	for i, r := range rules {
		list[i] = r.Device + ": " + formatDuration(r.Keep)
	}
	return strings.Join(list, ", ")
}

// retentionRules reads store.retention_rules: a list whose items are keys and values.
func (f *file) retentionRules(key, node *yaml.Node, s setting) (any, bool) {
	list := make([]RetentionRule, len(node.Content))
	for i, item := range node.Content {
		path := fmt.Sprintf("%s[%d]", s.path, i)
		f.sources[path] = f.line(item)
		list[i].Keep = noKeep
		if item.Kind != yaml.MappingNode {
			f.problem(item, path, "", "must have the keys device and keep")
			continue
		}
		f.fill(item, path, reflect.ValueOf(&list[i]).Elem())
	}
	f.sources[s.path] = f.line(key)
	return list, true
}

// maxRetentionRules bounds what is looked up for each device.
const maxRetentionRules = 100

func (v *validator) retentionRules() {
	list := v.config.Store.RetentionRules
	if len(list) > maxRetentionRules {
		v.refuse("store.retention_rules", "must have at most %d items", maxRetentionRules)
	}
	for i, r := range list {
		c := itemCheck{v, fmt.Sprintf("store.retention_rules[%d]", i)}
		switch {
		case r.Metric != "":
			c.refuse("metric", r.Metric, "cannot be: readings are kept by device, all metrics of it for the same time; remove it")
		case r.Device == "" || len(r.Device) > 256:
			c.refuse("device", r.Device, "must be the name of a device, in which * stands for any text, for example greenhouse-*")
		case slices.ContainsFunc(list[:i], func(o RetentionRule) bool { return o.Device == r.Device }):
			c.refuse("device", r.Device, "is there twice, and the first counts; remove one")
		}
		switch {
		case r.Keep == noKeep:
			c.refuse("keep", "", "must say how long, for example 90d; 0 is for ever")
		case r.Keep != 0 && (r.Keep < time.Hour || r.Keep > 100*365*day):
			c.refuse("keep", formatDuration(r.Keep), "must be 0 (for ever) or from 1h to %s", formatDuration(100*365*day))
		}
	}
}
