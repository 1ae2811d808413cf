package api

import (
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

type zone struct {
	ID      string         `json:"id"`
	Kind    garden.Kind    `json:"kind" enum:"room,bench,bed,tank,other"`
	Name    string         `json:"name"`
	Created control.Moment `json:"created_at"`
	Plants  []string       `json:"plants" doc:"ids"`
}

type zoneList struct {
	Zones []zone `json:"zones"`
	Total int    `json:"total"`
}

type newZone struct {
	Kind string `json:"kind" enum:"room,bench,bed,tank,other" required:"false"`
	Name string `json:"name" minLength:"1"`
}

type zoneChange struct {
	Kind *string `json:"kind" enum:"room,bench,bed,tank,other" required:"false"`
	Name *string `json:"name" required:"false" minLength:"1"`
}

type assignment struct {
	ID     string         `json:"id"`
	Device string         `json:"device_id"`
	Plant  string         `json:"plant_id"`
	Metric *string        `json:"metric" doc:"null: every one that no other assignment of the device names"`
	Since  control.Moment `json:"since" doc:"included"`
	Until  control.Moment `json:"until" doc:"not included; null: still"`
}

type assignmentList struct {
	Assignments []assignment `json:"assignments"`
}

type newAssignment struct {
	Device string         `json:"device_id" minLength:"1"`
	Plant  string         `json:"plant_id" minLength:"1"`
	Metric *string        `json:"metric" required:"false"`
	Since  control.Moment `json:"since" required:"false" doc:"null: now"`
	Until  control.Moment `json:"until" required:"false" doc:"null: from then on"`
}

func gardenOperations() []operation {
	id := []*huma.Param{path("id", "of a zone")}
	missing := []int{http.StatusNotFound}
	at := Prefix + "/zones"
	return []operation{
		{method: http.MethodGet, path: at, tag: tagPlaces, needs: people.Viewer, summary: "Zones, newest first", answer: zoneList{}, do: (*call).zones},
		{method: http.MethodPost, path: at, tag: tagPlaces, needs: people.Operator, summary: "Add a zone", body: newZone{}, answer: zone{}, status: http.StatusCreated,
			errors: []int{http.StatusConflict}, do: (*call).addZone},
		{method: http.MethodGet, path: at + "/{id}", tag: tagPlaces, needs: people.Viewer, summary: "One zone", params: id, answer: zone{}, errors: missing, do: (*call).zone},
		{method: http.MethodPut, path: at + "/{id}", tag: tagPlaces, needs: people.Operator, summary: "Change a zone", params: id, body: zoneChange{}, answer: zone{},
			errors: missing, do: (*call).changeZone},
		{method: http.MethodDelete, path: at + "/{id}", tag: tagPlaces, needs: people.Operator, summary: "Delete a zone, with its notes", about: "Its plants are in none then.",
			params: id, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Store.Garden().DeleteZone(c, c.text("id"))
			}},
		{method: http.MethodGet, path: Prefix + "/assignments", tag: tagPlaces, needs: people.Viewer, summary: "Which device serves which plant, and did",
			params: []*huma.Param{query("device", "only of this one", text()), query("plant", "only of this one", text()), query("now", "only what holds now", flag())},
			answer: assignmentList{}, do: (*call).assignments},
		{method: http.MethodPost, path: Prefix + "/assignments", tag: tagPlaces, needs: people.Operator, summary: "A device serves a plant, with a metric or all, for a time",
			about: "Others of that device and metric give way for that time.", body: newAssignment{}, answer: assignment{}, status: http.StatusCreated,
			errors: missing, do: (*call).assign},
		{method: http.MethodDelete, path: Prefix + "/assignments/{id}", tag: tagPlaces, needs: people.Operator, summary: "End an assignment now",
			params: []*huma.Param{path("id", "of an assignment")}, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Store.Garden().Unassign(c, c.text("id"))
			}},
	}
}

func zoneOf(plan *garden.Plan, z *garden.Zone) zone {
	out := zone{z.ID, z.Kind, z.Name, control.Moment(z.Created), []string{}}
	for _, p := range plan.PlantsIn(z.ID) {
		out.Plants = append(out.Plants, p.ID)
	}
	return out
}

func (c *call) zones() (any, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	all := plan.Zones()
	out := zoneList{[]zone{}, len(all)}
	for _, z := range all {
		out.Zones = append(out.Zones, zoneOf(plan, &z))
	}
	return out, nil
}

func (c *call) zone() (any, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	z, known := plan.Zone(c.text("id"))
	if !known {
		return nil, refuse(http.StatusNotFound, "there is no such zone")
	}
	return zoneOf(plan, &z), nil
}

// zoneNow answers with a zone that was changed.
func (c *call) zoneNow(z garden.Zone, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	return zoneOf(plan, &z), nil
}

func (c *call) addZone() (any, error) {
	asked := bodyOf[newZone](c)
	z := garden.Zone{Kind: garden.Kind(asked.Kind), Name: asked.Name}
	if z.Kind == "" {
		z.Kind = garden.Room
	}
	return c.zoneNow(c.Store.Garden().AddZone(c, z))
}

func (c *call) changeZone() (any, error) {
	asked := bodyOf[zoneChange](c)
	return c.zoneNow(c.Store.Garden().ChangeZone(c, c.text("id"), func(z *garden.Zone) error {
		if asked.Kind != nil {
			z.Kind = garden.Kind(*asked.Kind)
		}
		if asked.Name != nil {
			z.Name = *asked.Name
		}
		return nil
	}))
}

func assignmentOf(a *garden.Assignment) assignment {
	return assignment{a.ID, a.Device, a.Plant, optional(a.Metric), control.Moment(a.Since), control.Moment(a.Until)}
}

func (c *call) assignments() (any, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	device, plant := c.text("device"), c.text("plant")
	var list []garden.Assignment
	switch {
	case device != "":
		list = plan.OfDevice(device)
	case plant != "":
		list = plan.Assignments(plant)
	default:
		for _, p := range plan.Plants() {
			list = append(list, plan.Assignments(p.ID)...)
		}
	}
	out := assignmentList{[]assignment{}}
	for _, a := range list {
		if (plant == "" || a.Plant == plant) && (!c.flag("now") || a.Covers(c.now())) {
			out.Assignments = append(out.Assignments, assignmentOf(&a))
		}
	}
	return out, nil
}

func (c *call) assign() (any, error) {
	asked := bodyOf[newAssignment](c)
	a := garden.Assignment{Device: asked.Device, Plant: asked.Plant, Since: int64(asked.Since), Until: int64(asked.Until)}
	if asked.Metric != nil {
		a.Metric = *asked.Metric
	}
	a, err := c.Store.Garden().Assign(c, a)
	return assignmentOf(&a), err
}

// note is a note, or an event.
type note struct {
	ID      string          `json:"id"`
	Plant   *string         `json:"plant_id"`
	Zone    *string         `json:"zone_id"`
	Time    control.Moment  `json:"time" doc:"of what it is about"`
	Kind    garden.NoteKind `json:"kind" enum:"note,watered,fed,repotted,other"`
	Text    string          `json:"text"`
	Author  *string         `json:"author" doc:"null: the program"`
	Created control.Moment  `json:"created_at"`
}

type noteList struct {
	Notes []note `json:"notes"`
	Total int    `json:"total" doc:"of all, not of the page"`
}

type newNote struct {
	Plant *string        `json:"plant_id" required:"false"`
	Zone  *string        `json:"zone_id" required:"false"`
	Time  control.Moment `json:"time" required:"false" doc:"null: now"`
	Kind  string         `json:"kind" enum:"note,watered,fed,repotted,other" required:"false"`
	Text  string         `json:"text" required:"false"`
}

type noteChange struct {
	Time control.Moment `json:"time" required:"false"`
	Kind *string        `json:"kind" enum:"note,watered,fed,repotted,other" required:"false"`
	Text *string        `json:"text" required:"false"`
}

func noteOperations() []operation {
	id := []*huma.Param{path("id", "of a note")}
	missing := []int{http.StatusNotFound}
	at := Prefix + "/notes"
	return []operation{
		{method: http.MethodGet, path: at, tag: tagPlaces, needs: people.Viewer, summary: "Notes and events, newest first",
			params: append(paging(), query("plant", "only of this one", text()), query("zone", "only of this one", text()),
				query("kind", "only these: note, watered, fed, repotted, other", texts()), query("from", "from then on, as in readings", text()),
				query("to", "before then", text())), answer: noteList{}, do: (*call).notes},
		{method: http.MethodPost, path: at, tag: tagPlaces, needs: people.Operator, summary: "Note something of a plant or a zone, or what was done to it",
			body: newNote{}, answer: note{}, status: http.StatusCreated, errors: missing, do: (*call).addNote},
		{method: http.MethodGet, path: at + "/{id}", tag: tagPlaces, needs: people.Viewer, summary: "One note", params: id, answer: note{}, errors: missing,
			do: func(c *call) (any, error) { return c.noteNow(c.Store.Garden().Note(c, c.text("id"))) }},
		{method: http.MethodPut, path: at + "/{id}", tag: tagPlaces, needs: people.Operator, summary: "Change a note", params: id, body: noteChange{}, answer: note{},
			errors: missing, do: (*call).changeNote},
		{method: http.MethodDelete, path: at + "/{id}", tag: tagPlaces, needs: people.Operator, summary: "Delete a note", params: id, status: http.StatusNoContent,
			errors: missing, do: func(c *call) (any, error) { return nil, c.Store.Garden().DeleteNote(c, c.text("id")) }},
	}
}

func (c *call) noteNow(n garden.Note, err error) (any, error) {
	return noteOf(&n), err
}

func noteOf(n *garden.Note) note {
	return note{n.ID, optional(n.Plant), optional(n.Zone), control.Moment(n.Time), n.Kind, n.Text, optional(n.Author), control.Moment(n.Created)}
}

func (c *call) notes() (any, error) {
	q := garden.NoteQuery{Plant: c.text("plant"), Zone: c.text("zone"), Limit: max(c.number("limit"), 1), Offset: c.number("offset")}
	for _, kind := range c.texts("kind") {
		if !slices.Contains(garden.NoteKinds, garden.NoteKind(kind)) {
			return nil, unfit("kind", "use note, watered, fed, repotted or other")
		}
		q.Kinds = append(q.Kinds, garden.NoteKind(kind))
	}
	var err error
	if q.From, err = c.instant("from", time.UTC); err != nil {
		return nil, err
	}
	if q.To, err = c.instant("to", time.UTC); err != nil {
		return nil, err
	}
	list, total, err := c.Store.Garden().Notes(c, q)
	out := noteList{[]note{}, total}
	for i := range list[:min(len(list), c.number("limit"))] {
		out.Notes = append(out.Notes, noteOf(&list[i]))
	}
	return out, err
}

func (c *call) addNote() (any, error) {
	asked := bodyOf[newNote](c)
	n := garden.Note{Time: int64(asked.Time), Kind: garden.NoteKind(asked.Kind), Text: asked.Text, Author: c.name}
	if n.Kind == "" {
		n.Kind = garden.NotePlain
	}
	if asked.Plant != nil {
		n.Plant = *asked.Plant
	}
	if asked.Zone != nil {
		n.Zone = *asked.Zone
	}
	return c.noteNow(c.Store.Garden().AddNote(c, n))
}

func (c *call) changeNote() (any, error) {
	asked := bodyOf[noteChange](c)
	return c.noteNow(c.Store.Garden().ChangeNote(c, c.text("id"), func(n *garden.Note) error {
		if asked.Time != 0 {
			n.Time = int64(asked.Time)
		}
		if asked.Kind != nil {
			n.Kind = garden.NoteKind(*asked.Kind)
		}
		if asked.Text != nil {
			n.Text = *asked.Text
		}
		return nil
	}))
}
