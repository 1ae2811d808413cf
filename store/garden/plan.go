package garden

import (
	"cmp"
	"slices"
)

// Plan is what stands where at one moment. It does not change, and is safe for concurrent use; nobody may change what it returns.
type Plan struct {
	zones    []Zone  // newest first
	plants   []Plant // newest first, deleted ones too
	plantAt  map[string]int
	zoneAt   map[string]int
	byDevice map[string]*served
	ofPlant  map[string][]Assignment // in order of Since, then device, then metric
}

// served is what a device serves.
type served struct {
	assignments []Assignment            // in order of Since
	byMetric    map[string][]Assignment // in order of Since, without overlaps
	named       []string                // metrics that an assignment names, in order
	classes     map[string][]stretch
}

// stretch is a time in which a metric of a device belongs to one plant, or to none: "". From is included, to is not.
type stretch struct {
	from, to int64
	plant    string
}

// NewPlan makes one of all that there is. Assignments of one device and metric do not overlap; where they do, the one that begins
// later ends the other.
func NewPlan(zones []Zone, plants []Plant, assignments []Assignment) *Plan {
	p := &Plan{zones: slices.Clone(zones), plants: slices.Clone(plants), plantAt: map[string]int{}, zoneAt: map[string]int{},
		byDevice: map[string]*served{}, ofPlant: map[string][]Assignment{}}
	slices.SortFunc(p.zones, func(a, b Zone) int { return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID)) })
	slices.SortFunc(p.plants, func(a, b Plant) int { return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID)) })
	for i := range p.zones {
		p.zoneAt[p.zones[i].ID] = i
	}
	for i := range p.plants {
		p.plantAt[p.plants[i].ID] = i
	}
	assignments = slices.Clone(assignments)
	slices.SortFunc(assignments, func(a, b Assignment) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.ID, b.ID))
	})
	for _, a := range assignments {
		d := p.byDevice[a.Device]
		if d == nil {
			d = &served{byMetric: map[string][]Assignment{}, classes: map[string][]stretch{}}
			p.byDevice[a.Device] = d
		}
		d.assignments = append(d.assignments, a)
		p.ofPlant[a.Plant] = append(p.ofPlant[a.Plant], a)
		d.add(a)
	}
	for _, d := range p.byDevice {
		slices.Sort(d.named)
		d.named = slices.Compact(d.named)
		for _, metric := range append([]string{""}, d.named...) {
			d.classes[metric] = d.stretches(metric)
		}
	}
	return p
}

// add takes the next assignment.
func (d *served) add(a Assignment) {
	list := d.byMetric[a.Metric]
	if n := len(list); n > 0 && list[n-1].end() > a.Since {
		if list[n-1].Until = a.Since; list[n-1].Since == a.Since {
			list = list[:n-1]
		}
	}
	d.byMetric[a.Metric] = append(list, a)
	if a.Metric != "" {
		d.named = append(d.named, a.Metric)
	}
}

// stretches divides all time by whom a metric belongs to; "" is one that no assignment names.
func (d *served) stretches(metric string) (list []stretch) {
	named, others := d.byMetric[metric], d.byMetric[""]
	bounds := []int64{-forever}
	for _, of := range [][]Assignment{named, others} {
		for i := range of {
			bounds = append(bounds, of[i].Since, of[i].end())
		}
	}
	slices.Sort(bounds)
	bounds = append(slices.Compact(bounds), forever)
	for i, from := range bounds[:len(bounds)-1] {
		if from == forever {
			break
		}
		plant := cmp.Or(covering(named, from), covering(others, from)) // what names the metric goes before what does not
		if n := len(list); n > 0 && list[n-1].plant == plant {
			list[n-1].to = bounds[i+1]
		} else {
			list = append(list, stretch{from, bounds[i+1], plant})
		}
	}
	return list
}

// covering is the plant of the assignment that covers a time; "": none does.
func covering(list []Assignment, t int64) string {
	i, there := slices.BinarySearchFunc(list, t, func(a Assignment, t int64) int { return cmp.Compare(a.Since, t) })
	if !there {
		i--
	}
	if i < 0 || !list[i].Covers(t) {
		return ""
	}
	return list[i].Plant
}

// class is how a metric of a device is divided.
func (d *served) class(metric string) []stretch {
	if list, named := d.classes[metric]; named {
		return list
	}
	return d.classes[""]
}

// at is the stretch of a time.
func at(list []stretch, t int64) stretch {
	i, there := slices.BinarySearchFunc(list, t, func(s stretch, t int64) int { return cmp.Compare(s.from, t) })
	if !there {
		i--
	}
	return list[max(i, 0)]
}

// Owner returns the plant that a reading belongs to, "" if none: the one whose assignment covers the reading's own time; where none of that
// device and metric does, the one whose assignment covers its arrival. Both are UTC ms. So what a device buffered in the old pot stays
// with the old pot.
func (p *Plan) Owner(device, metric string, time, received int64) string {
	d := p.byDevice[device]
	if d == nil {
		return ""
	}
	return owner(d.class(metric), time, received)
}

func owner(class []stretch, time, received int64) string {
	if plant := at(class, time).plant; plant != "" {
		return plant
	}
	return at(class, received).plant
}

// Plants returns those that are there, newest first.
func (p *Plan) Plants() []Plant {
	return slices.DeleteFunc(slices.Clone(p.plants), func(one Plant) bool { return one.Deleted != 0 })
}

// AllPlants returns deleted ones too.
func (p *Plan) AllPlants() []Plant { return slices.Clone(p.plants) }

// Plant returns one, which may be deleted.
func (p *Plan) Plant(id string) (Plant, bool) {
	i, known := p.plantAt[id]
	if !known {
		return Plant{}, false
	}
	return p.plants[i], true
}

// PlantsIn returns those of a zone that are there, newest first; "": those in none.
func (p *Plan) PlantsIn(zone string) []Plant {
	return slices.DeleteFunc(p.Plants(), func(one Plant) bool { return one.Zone != zone })
}

// Zones returns all, newest first.
func (p *Plan) Zones() []Zone { return slices.Clone(p.zones) }

// Zone returns one.
func (p *Plan) Zone(id string) (Zone, bool) {
	i, known := p.zoneAt[id]
	if !known {
		return Zone{}, false
	}
	return p.zones[i], true
}

// Assignments returns those of a plant, past ones too, in order of their beginning.
func (p *Plan) Assignments(plant string) []Assignment { return slices.Clone(p.ofPlant[plant]) }

// OfDevice returns the assignments of a device, past ones too, in order of their beginning.
func (p *Plan) OfDevice(device string) []Assignment {
	if d := p.byDevice[device]; d != nil {
		return slices.Clone(d.assignments)
	}
	return nil
}

// Serving returns the devices that serve a plant at a time, UTC ms, in order of name, each once.
func (p *Plan) Serving(plant string, t int64) (devices []string) {
	for _, a := range p.ofPlant[plant] {
		if a.Covers(t) && !slices.Contains(devices, a.Device) {
			devices = append(devices, a.Device)
		}
	}
	slices.Sort(devices)
	return devices
}

// devices are those that served a plant at any time, in order of name.
func (p *Plan) devices(plant string) (list []string) {
	for _, a := range p.ofPlant[plant] {
		list = append(list, a.Device)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Page returns a part of a list: at most limit of it from offset on. A limit of 0 is none.
func Page[T any](list []T, limit, offset int) []T {
	offset = min(max(offset, 0), len(list))
	list = list[offset:]
	if limit > 0 && limit < len(list) {
		list = list[:limit]
	}
	return list
}
