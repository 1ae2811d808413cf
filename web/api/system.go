package api

import (
	"net/http"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/people"
)

// component is a part that a box cannot do without.
type component struct {
	Status  string  `json:"status" enum:"connected,disconnected"`
	Message *string `json:"message" doc:"why it is not"`
}

type health struct {
	Status     control.Health `json:"status" enum:"healthy,degraded,unhealthy" doc:"healthy: both components are connected; degraded: one; unhealthy: none"`
	Timestamp  control.Moment `json:"timestamp"`
	Version    string         `json:"version"`
	Components struct {
		Database component `json:"database"`
		MQTT     component `json:"mqtt"`
	} `json:"components"`
}

type readiness struct {
	Ready  bool `json:"ready"`
	Checks struct {
		Database bool `json:"database" doc:"readings are stored"`
		MQTT     bool `json:"mqtt" doc:"messages come in"`
	} `json:"checks"`
}

func systemOperations() []operation {
	return []operation{
		{method: http.MethodGet, path: Prefix + "/health", tag: tagSystem, summary: "How the server is, in one word", answer: health{}, do: (*call).health},
		{method: http.MethodGet, path: Prefix + "/ready", tag: tagSystem, summary: "Whether messages come in and are stored",
			about: "503 with the same answer while that is not so.", answer: readiness{}, errors: []int{http.StatusServiceUnavailable}, do: (*call).ready},
		{method: http.MethodGet, path: Prefix + "/status", tag: tagSystem, needs: people.Viewer, summary: "Everything that plantops status shows",
			answer: control.Status{}, do: func(c *call) (any, error) { return c.Server.Status(c) }},
		{method: http.MethodGet, path: Prefix + "/equation", tag: tagSystem, needs: people.Viewer, summary: "What became of every message",
			about: "received = stored + duplicate + quarantined + refused + pending. A difference is a bug.", answer: equation{}, do: (*call).equation},
	}
}

func (c *call) health() (any, error) {
	h := health{Timestamp: control.Moment(c.now()), Version: c.Version, Status: control.Healthy}
	database, mqtt := c.Server.Parts(c)
	h.Components.Database, h.Components.MQTT = componentOf(database, "readings are not stored"), componentOf(mqtt, "messages do not come in")
	switch {
	case database != nil && mqtt != nil:
		h.Status = control.Unhealthy
	case database != nil || mqtt != nil:
		h.Status = control.Degraded
	}
	return h, nil
}

// componentOf tells everybody only that a part is away: the reasons name files and addresses, and are in the status.
func componentOf(err error, words string) component {
	if err != nil {
		return component{Status: "disconnected", Message: &words}
	}
	return component{Status: "connected"}
}

func (c *call) ready() (any, error) {
	database, mqtt := c.Server.Parts(c)
	r := readiness{Ready: database == nil && mqtt == nil}
	r.Checks.Database, r.Checks.MQTT = database == nil, mqtt == nil
	if !r.Ready {
		return withStatus{http.StatusServiceUnavailable, r}, nil
	}
	return r, nil
}

// equation is that of all messages, and by device.
type equation struct {
	control.Equation
	Devices map[string]control.Equation `json:"devices"`
}

func (c *call) equation() (any, error) {
	status, err := c.Server.Status(c)
	e := equation{status.Messages, map[string]control.Equation{}}
	for i := range status.Devices {
		e.Devices[status.Devices[i].ID] = status.Devices[i].Messages
	}
	return e, err
}
