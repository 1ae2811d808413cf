package api

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
)

// checkup is what rules say of a plant.
type checkup struct {
	Plant    string         `json:"plant_id"`
	Name     string         `json:"plant_name"`
	Status   string         `json:"status" enum:"optimal,warning,critical"`
	Issues   []issue        `json:"issues"`
	Advice   []advice       `json:"recommendations" doc:"at most four"`
	Trends   []trend        `json:"trends" doc:"of the last 24 hours"`
	Checked  control.Moment `json:"checked_at"`
	HasPlan  bool           `json:"has_care_plan" doc:"always false"`
	PlanAged *float64       `json:"care_plan_age_hours" doc:"always null"`
}

type issue struct {
	Metric   string   `json:"metric"`
	Severity string   `json:"severity" enum:"warning,critical" doc:"critical: more than 30 % beyond"`
	Value    *float64 `json:"current_value"`
	Violated *float64 `json:"threshold_violated"`
	Message  string   `json:"message"`
}

type advice struct {
	Priority string `json:"priority" enum:"high,medium,low,info"`
	Action   string `json:"action"`
}

type trend struct {
	Metric    string  `json:"metric"`
	Direction string  `json:"direction" enum:"rising,falling,stable" doc:"stable: by less than 5 %"`
	Change    float64 `json:"change_percent"`
	Current   float64 `json:"current"`
	Min       float64 `json:"min_24h"`
	Max       float64 `json:"max_24h"`
	Summary   string  `json:"summary"`
}

const (
	criticalBeyond = 30 // percent beyond a bound from which on it is critical
	stableWithin   = 5  // percent of change in 24 h below which a metric is stable
	maxAdvice      = 4
)

// course is how a metric went.
type course struct {
	first, last, min, max float64
	firstAt, lastAt       int64
}

func (c *call) checkPlant() (any, error) {
	plan, p, err := c.planted()
	if err != nil {
		return nil, err
	}
	var latest []history.Reading
	courses := map[string]*course{}
	now := c.now()
	err = c.view(func(v history.View) error {
		if latest, err = plan.Latest(c, v, p.ID); err != nil {
			return err
		}
		records, err := plantRecords(c, plan.History(v, p.ID), p.ID, now-day)
		for i := range records {
			for _, metric := range four {
				if value := *records[i].of(metric); value != nil {
					addTo(courses, metric, *value, int64(records[i].Time))
				}
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := judge(&p, latest, courses)
	out.Checked = control.Moment(now)
	return out, nil
}

// addTo takes one value of a metric into its course.
func addTo(courses map[string]*course, metric string, v float64, at int64) {
	c := courses[metric]
	if c == nil {
		courses[metric] = &course{v, v, v, v, at, at}
		return
	}
	c.min, c.max = min(c.min, v), max(c.max, v)
	if at < c.firstAt {
		c.first, c.firstAt = v, at
	}
	if at >= c.lastAt {
		c.last, c.lastAt = v, at
	}
}

// judge applies the rules. Only what they are given counts.
func judge(p *garden.Plant, latest []history.Reading, courses map[string]*course) checkup {
	out := checkup{Plant: p.ID, Name: p.Name, Status: "optimal", Issues: []issue{}, Advice: []advice{}, Trends: []trend{}}
	for i := range latest {
		found, is := issueOf(p.Threshold(latest[i].Metric), latest[i].Value)
		if !is {
			continue
		}
		out.Issues = append(out.Issues, found)
		if found.Severity == "critical" || out.Status == "optimal" {
			out.Status = found.Severity
		}
	}
	slices.SortStableFunc(out.Issues, func(a, b issue) int { return cmp.Compare(a.Severity, b.Severity) }) // critical, then warning
	for _, one := range out.Issues {
		if len(out.Advice) < maxAdvice {
			out.Advice = append(out.Advice, adviceOf(&one))
		}
	}
	if len(out.Advice) == 0 {
		all := "Nothing to do: every metric is in its band"
		switch {
		case len(latest) == 0:
			all = "There is no reading of this plant yet: assign a device to it"
		case len(p.Thresholds) == 0:
			all = "Give the plant thresholds: without them nothing can be said"
		}
		out.Advice = append(out.Advice, advice{"info", all})
	}
	for _, metric := range four {
		if c := courses[metric]; c != nil {
			out.Trends = append(out.Trends, trendOf(metric, c))
		}
	}
	return out
}

// issueOf compares a value with its band, whose bounds are in it.
func issueOf(t garden.Threshold, v float64) (found issue, is bool) {
	var bound, beyond float64
	var side string
	switch {
	case t.Min != nil && v < *t.Min:
		bound, beyond, side = *t.Min, *t.Min-v, "below the minimum"
	case t.Max != nil && v > *t.Max:
		bound, beyond, side = *t.Max, v-*t.Max, "above the maximum"
	default:
		return issue{}, false
	}
	severity := "warning"
	if percent(beyond, bound) > criticalBeyond {
		severity = "critical"
	}
	return issue{t.Metric, severity, &v, &bound, fmt.Sprintf("%s is %s, %s of %s", t.Metric, decimal(v), side, decimal(bound))}, true
}

// percent is how much a part is of a whole; of nothing everything is all.
func percent(part, whole float64) float64 {
	if whole == 0 {
		if part == 0 {
			return 0
		}
		return math.Copysign(100, part)
	}
	return part / math.Abs(whole) * 100
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// adviceOf says what to do about an issue.
func adviceOf(i *issue) advice {
	low := *i.Value < *i.Violated
	action := map[string][2]string{
		"soil_moisture": {"Water it", "Let it dry: do not water it, and look whether water stands in the pot"},
		"temperature":   {"Put it where it is warmer", "Put it where it is cooler"},
		"humidity":      {"Make the air around it more humid", "Let fresh air in"},
		"light_level":   {"Give it more light", "Give it shade"},
	}[i.Metric]
	text := action[1]
	if low {
		text = action[0]
	}
	if text == "" {
		text = "Look at it: " + i.Metric + " is outside of its band"
	}
	if i.Severity == "critical" {
		return advice{"high", text}
	}
	return advice{"medium", text}
}

func trendOf(metric string, c *course) trend {
	change := percent(c.last-c.first, c.first)
	direction := "stable"
	switch {
	case change >= stableWithin:
		direction = "rising"
	case change <= -stableWithin:
		direction = "falling"
	}
	change = math.Round(change*10) / 10
	return trend{metric, direction, change, c.last, c.min, c.max,
		fmt.Sprintf("%s is %s: %s %% in 24 h, between %s and %s", metric, direction, decimal(change), decimal(c.min), decimal(c.max))}
}
