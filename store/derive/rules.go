// Package derive is what is done to readings when they are read: values are corrected by calibrations, what was voided is left
// out, and derived metrics are computed of what the device sent. What is stored stays as it came. It knows readings as columns
// (package history), and nothing of where they and the rules are kept.
package derive

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Rules are all calibrations, voided ranges and derived metrics there are. They do not change, and are safe for concurrent use.
type Rules struct {
	devices map[string]*deviceRules
	derived []Derived // each after those that it needs
}

// deviceRules are those of one device.
type deviceRules struct {
	calibrations map[string][]Calibration // by metric, in order of From, each From once
	voids        []Void                   // none that is undone
}

// New checks the rules and sorts them. Of calibrations of one metric from the same time, the one with the highest version counts.
func New(calibrations []Calibration, voids []Void, derived []Derived) (*Rules, error) {
	r := &Rules{devices: map[string]*deviceRules{}}
	for _, c := range calibrations {
		if err := c.Check(); err != nil {
			return nil, err
		}
		d := r.device(c.Device)
		d.calibrations[c.Metric] = append(d.calibrations[c.Metric], c)
	}
	for _, d := range r.devices {
		for metric, list := range d.calibrations {
			slices.SortStableFunc(list, func(a, b Calibration) int {
				return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(b.Version, a.Version))
			})
			d.calibrations[metric] = slices.CompactFunc(list, func(a, b Calibration) bool { return a.From == b.From })
		}
	}
	for _, v := range voids {
		if err := v.Check(); err != nil {
			return nil, err
		}
		if v.Undone == 0 {
			r.device(v.Device).voids = append(r.device(v.Device).voids, v)
		}
	}
	var err error
	r.derived, err = inOrder(derived)
	return r, err
}

func (r *Rules) device(name string) *deviceRules {
	d := r.devices[name]
	if d == nil {
		d = &deviceRules{calibrations: map[string][]Calibration{}}
		r.devices[name] = d
	}
	return d
}

// inOrder puts each derived metric after those that it needs.
func inOrder(list []Derived) (sorted []Derived, err error) {
	byName := map[string]*Derived{}
	for i := range list {
		d := &list[i]
		if err := d.Check(); err != nil {
			return nil, err
		}
		if byName[d.Name] != nil {
			return nil, fmt.Errorf("derived metric %q is there twice", d.Name)
		}
		byName[d.Name] = d
	}
	const running, done = 1, 2
	state := map[string]int{}
	var visit func(d *Derived) error
	visit = func(d *Derived) error {
		switch state[d.Name] {
		case running:
			return fmt.Errorf("derived metric %q needs itself", d.Name)
		case done:
			return nil
		}
		state[d.Name] = running
		for _, input := range d.Inputs() {
			if other := byName[input]; other != nil {
				if err := visit(other); err != nil {
					return err
				}
			}
		}
		state[d.Name] = done
		sorted = append(sorted, *d)
		return nil
	}
	for i := range list {
		if err := visit(&list[i]); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

func (r *Rules) derivedOf(name string) *Derived {
	for i := range r.derived {
		if r.derived[i].Name == name {
			return &r.derived[i]
		}
	}
	return nil
}

// Stored returns what is to be read to know some metrics: they and what they are derived from. None stands for all.
func (r *Rules) Stored(metrics []string) []string {
	if len(metrics) == 0 {
		return nil
	}
	all := slices.Clone(metrics)
	for i := 0; i < len(all); i++ {
		if d := r.derivedOf(all[i]); d != nil {
			for _, input := range d.Inputs() {
				if !slices.Contains(all, input) {
					all = append(all, input)
				}
			}
		}
	}
	return all
}

// Start returns from when on readings are to be read to know some metrics (none: all) from a time on, UTC ms: earlier, where the light
// of a day is added up.
func (r *Rules) Start(metrics []string, from int64, place *time.Location) int64 {
	for _, name := range r.Stored(metrics) {
		if d := r.derivedOf(name); d != nil && d.Kind == LightIntegral {
			return lightStart(from, place)
		}
	}
	if len(metrics) == 0 && slices.ContainsFunc(r.derived, func(d Derived) bool { return d.Kind == LightIntegral }) {
		return lightStart(from, place)
	}
	return from
}

// Lines says of a metric of a device how it follows from what is stored between two times, UTC ms, both included: by lines, one after
// the other, of one stored metric, so that summaries of that give summaries of it (history.Bucket.Linear). Without any line it is
// that metric as it is stored. It is false where single readings must be looked at: where something is voided, a calibration
// is a table or begins in between, or a derived metric is more than a line of one other.
func (r *Rules) Lines(device, metric string, first, last int64) (source string, lines []Line, ok bool) {
	d := r.devices[device]
	if d != nil && slices.ContainsFunc(d.voids, func(v Void) bool { return v.overlaps(metric, first, last) }) {
		return "", nil, false
	}
	derived := r.derivedOf(metric)
	if derived == nil {
		lines, ok = d.lines(metric, first, last)
		return metric, lines, ok
	}
	if derived.Kind != Linear || len(derived.Terms) != 1 {
		return "", nil, false
	}
	term := derived.Terms[0]
	if source, lines, ok = r.Lines(device, term.Metric, first, last); !ok {
		return "", nil, false
	}
	return source, append(lines, Line{term.Factor, derived.Constant}), true
}

// lines are those of a stored metric that has one calibration in a time, or none.
func (d *deviceRules) lines(metric string, first, last int64) ([]Line, bool) {
	if d == nil {
		return nil, true
	}
	list := d.calibrations[metric]
	at := periodAt(list, first)
	switch {
	case at != periodAt(list, last):
		return nil, false
	case at < 0 || len(list[at].Points) == 0:
		return nil, true
	}
	line, ok := list[at].Line()
	return []Line{line}, ok
}
