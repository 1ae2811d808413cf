package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/people"
)

// bounds are a band. Both are in it.
type bounds struct {
	Min *float64 `json:"min" required:"false"`
	Max *float64 `json:"max" required:"false"`
}

// thresholds are the four of the old API. Those of other metrics are in metrics, which is new.
type thresholds struct {
	SoilMoisture *bounds           `json:"soil_moisture" required:"false" nullable:"false"`
	Temperature  *bounds           `json:"temperature" required:"false" nullable:"false"`
	Humidity     *bounds           `json:"humidity" required:"false" nullable:"false"`
	LightLevel   *bounds           `json:"light_level" required:"false" nullable:"false"`
	Metrics      map[string]bounds `json:"metrics,omitempty" required:"false" doc:"those of other metrics, by name"`
}

// four are the metrics of the old API.
var four = []string{"soil_moisture", "temperature", "humidity", "light_level"}

// of is the place of one of the four.
func (t *thresholds) of(metric string) **bounds {
	switch metric {
	case "soil_moisture":
		return &t.SoilMoisture
	case "temperature":
		return &t.Temperature
	case "humidity":
		return &t.Humidity
	case "light_level":
		return &t.LightLevel
	}
	return nil
}

// list is what is kept of them.
func (t *thresholds) list() (list []garden.Threshold) {
	add := func(metric string, b *bounds) {
		if b != nil && (b.Min != nil || b.Max != nil) {
			list = append(list, garden.Threshold{Metric: metric, Min: b.Min, Max: b.Max})
		}
	}
	for _, metric := range four {
		add(metric, *t.of(metric))
	}
	for metric, b := range t.Metrics {
		add(metric, &b)
	}
	return list
}

// thresholdsOf returns nil where there are none.
func thresholdsOf(list []garden.Threshold) *thresholds {
	if len(list) == 0 {
		return nil
	}
	t := &thresholds{}
	for _, one := range list {
		b := bounds{one.Min, one.Max}
		if at := t.of(one.Metric); at != nil {
			*at = &b
			continue
		}
		if t.Metrics == nil {
			t.Metrics = map[string]bounds{}
		}
		t.Metrics[one.Metric] = b
	}
	return t
}

type position struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// plant is one as the old API has it, with its zone.
type plant struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Species    *string        `json:"species"`
	Thresholds *thresholds    `json:"thresholds"`
	Position   *position      `json:"position"`
	Created    control.Moment `json:"created_at"`
	Latest     *record        `json:"latest_telemetry"`
	Devices    int            `json:"device_count"`
	Zone       *string        `json:"zone_id"`
}

type plantList struct {
	Plants []plant `json:"plants"`
	Total  int     `json:"total" doc:"of all, not of the page"`
}

type newPlant struct {
	Name       string      `json:"name" minLength:"1"`
	Species    *string     `json:"species" required:"false"`
	Thresholds *thresholds `json:"thresholds" required:"false"`
	Zone       *string     `json:"zone_id" required:"false"`
}

type plantChange struct {
	Name       *string     `json:"name" required:"false" minLength:"1"`
	Species    *string     `json:"species" required:"false"`
	Thresholds *thresholds `json:"thresholds" required:"false" doc:"the four take the place of all four; with metrics, all of all"`
	Zone       *string     `json:"zone_id" required:"false" doc:"empty: in none"`
}

func plantOperations() []operation {
	id := path("id", "of a plant")
	missing := []int{http.StatusNotFound}
	one := []*huma.Param{id}
	at := Prefix + "/plants/{id}"
	return []operation{
		{method: http.MethodPost, path: Prefix + "/plants", tag: tagPlants, needs: people.Operator, summary: "Add a plant", body: newPlant{}, answer: plant{},
			status: http.StatusCreated, errors: []int{http.StatusConflict}, do: (*call).addPlant},
		{method: http.MethodGet, path: Prefix + "/plants", tag: tagPlants, needs: people.Viewer, summary: "Plants, newest first", params: paging(),
			answer: plantList{}, do: (*call).plants},
		{method: http.MethodGet, path: at, tag: tagPlants, needs: people.Viewer, summary: "One plant, with its newest record", params: one, answer: plant{},
			errors: missing, do: (*call).plant},
		{method: http.MethodPut, path: at, tag: tagPlants, needs: people.Operator, summary: "Change a plant", about: "What is absent or null stays as it is.",
			params: one, body: plantChange{}, answer: plant{}, errors: missing, do: (*call).changePlant},
		{method: http.MethodPut, path: at + "/position", tag: tagPlants, needs: people.Operator, summary: "Say where a plant stands on a plan", params: one,
			body: position{}, answer: plant{}, errors: missing, do: (*call).movePlant},
		{method: http.MethodDelete, path: at, tag: tagPlants, needs: people.Operator, summary: "Take a plant away",
			about: "Its devices serve nothing then, and its readings stay.", params: one, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Store.Garden().DeletePlant(c, c.text("id"))
			}},
		{method: http.MethodGet, path: at + "/devices", tag: tagPlants, needs: people.Viewer, summary: "The devices that serve a plant now", params: one,
			answer: deviceList{}, errors: missing, do: (*call).plantDevices},
		{method: http.MethodGet, path: at + "/history", tag: tagPlants, needs: people.Viewer, summary: "The records of a plant, newest first, at most 10000",
			params: append(one, query("hours", "so far back", integer(1, 168, 24))), answer: recordList{}, errors: missing, do: (*call).history},
		{method: http.MethodPost, path: at + "/health-check", tag: tagPlants, needs: people.Viewer, summary: "What rules say of a plant", params: one,
			answer: checkup{}, errors: missing, do: (*call).checkPlant},
		{method: http.MethodGet, path: at + "/care-plan", tag: tagPlants, needs: people.Viewer, summary: "Not here", params: one, do: noModel},
		{method: http.MethodPost, path: at + "/analyze", tag: tagPlants, needs: people.Viewer, summary: "Not here", params: one, do: noModel},
		{method: http.MethodGet, path: Prefix + "/settings/llm", tag: tagSystem, needs: people.Viewer, summary: "Not here", do: noModel},
		{method: http.MethodPut, path: Prefix + "/settings/llm", tag: tagSystem, needs: people.Viewer, summary: "Not here", do: noModel},
		{method: http.MethodPost, path: Prefix + "/settings/llm/test", tag: tagSystem, needs: people.Viewer, summary: "Not here", do: noModel},
	}
}

// noModel answers what the old system asked a language model.
func noModel(*call) (any, error) {
	return nil, refuse(http.StatusNotFound, "this version asks no language model: there are no care plans and no settings for one; the health check by rules is POST "+Prefix+"/plants/ID/health-check")
}

// planted is the plan, and a plant in it that is not deleted.
func (c *call) planted() (*garden.Plan, garden.Plant, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, garden.Plant{}, err
	}
	p, known := plan.Plant(c.text("id"))
	if !known || p.Deleted != 0 {
		return nil, p, refuse(http.StatusNotFound, "there is no such plant")
	}
	return plan, p, nil
}

// view opens what is stored now, and closes it behind do.
func (c *call) view(do func(history.View) error) error {
	return c.read(c, c.heavy, func() error {
		v, err := c.Store.View(c)
		if err != nil {
			return err
		}
		defer func() { _ = v.Close() }() // what it could say, do has said
		return do(v)
	})
}

// shown is a plant as it is answered, without its newest record.
func (c *call) shown(plan *garden.Plan, p *garden.Plant) plant {
	out := plant{ID: p.ID, Name: p.Name, Species: optional(p.Species), Zone: optional(p.Zone), Thresholds: thresholdsOf(p.Thresholds),
		Created: control.Moment(p.Created), Devices: len(plan.Serving(p.ID, c.now()))}
	if p.Position != nil {
		out.Position = &position{p.Position.X, p.Position.Y}
	}
	return out
}

// optional is nil for what is empty.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// changed answers with a plant that was changed.
func (c *call) changed(p garden.Plant, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	return c.shown(plan, &p), nil
}

func (c *call) addPlant() (any, error) {
	asked := bodyOf[newPlant](c)
	p := garden.Plant{Name: asked.Name}
	plantChange{Species: asked.Species, Thresholds: asked.Thresholds, Zone: asked.Zone}.apply(&p)
	return c.changed(c.Store.Garden().AddPlant(c, p))
}

func (a plantChange) apply(p *garden.Plant) {
	if a.Name != nil {
		p.Name = *a.Name
	}
	if a.Species != nil {
		p.Species = *a.Species
	}
	if a.Thresholds != nil {
		list := a.Thresholds.list()
		if a.Thresholds.Metrics == nil { // an old client knows the four only
			for _, t := range p.Thresholds {
				if !slices.Contains(four, t.Metric) {
					list = append(list, t)
				}
			}
		}
		p.Thresholds = list
	}
	if a.Zone != nil {
		p.Zone = *a.Zone
	}
}

func (c *call) changePlant() (any, error) {
	return c.changed(c.Store.Garden().ChangePlant(c, c.text("id"), func(p *garden.Plant) error {
		bodyOf[plantChange](c).apply(p)
		return nil
	}))
}

func (c *call) movePlant() (any, error) {
	to := bodyOf[position](c)
	return c.changed(c.Store.Garden().ChangePlant(c, c.text("id"), func(p *garden.Plant) error {
		p.Position = &garden.Position{X: to.X, Y: to.Y}
		return nil
	}))
}

func (c *call) plants() (any, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	all := plan.Plants()
	out := plantList{[]plant{}, len(all)}
	err = c.view(func(v history.View) error {
		latest, err := plan.LatestAll(c, v)
		for _, p := range page(c, all) {
			one := c.shown(plan, &p)
			one.Latest = newestRecord(latest[p.ID], p.ID)
			out.Plants = append(out.Plants, one)
		}
		return err
	})
	return out, err
}

func (c *call) plant() (any, error) {
	plan, p, err := c.planted()
	if err != nil {
		return nil, err
	}
	out := c.shown(plan, &p)
	err = c.view(func(v history.View) error {
		latest, err := plan.Latest(c, v, p.ID)
		out.Latest = newestRecord(latest, p.ID)
		return err
	})
	return out, err
}

func (c *call) plantDevices() (any, error) {
	plan, p, err := c.planted()
	if err != nil {
		return nil, err
	}
	s, err := c.seen()
	if err != nil {
		return nil, err
	}
	serving := plan.Serving(p.ID, c.now())
	list, err := s.list(func(d *store.Device) bool { return slices.Contains(serving, d.ID) })
	return deviceList{list, len(list)}, err
}

func (c *call) history() (any, error) {
	plan, p, err := c.planted()
	if err != nil {
		return nil, err
	}
	records := []record{}
	err = c.view(func(v history.View) (err error) {
		records, err = plantRecords(c, plan.History(v, p.ID), p.ID, c.now()-int64(c.number("hours"))*day/24)
		return err
	})
	return recordList{records, len(records)}, err
}

var _ context.Context = (*call)(nil)
