package api

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store/history"
)

// record is one message of a device as the old API has it: what it did not bring is null.
type record struct {
	Time         control.Moment `json:"time"`
	Device       string         `json:"device_id"`
	Plant        *string        `json:"plant_id"`
	SoilMoisture *float64       `json:"soil_moisture" doc:"in percent"`
	Temperature  *float64       `json:"temperature" doc:"in °C"`
	Humidity     *float64       `json:"humidity" doc:"in percent"`
	LightLevel   *float64       `json:"light_level" doc:"in lux"`
}

type recordList struct {
	Records []record `json:"records"`
	Count   int      `json:"count"`
}

// maxRecords is how many records of a plant are answered at most.
const maxRecords = 10_000

// of is the place of one of the four metrics, nil for another.
func (r *record) of(metric string) **float64 {
	switch metric {
	case "soil_moisture":
		return &r.SoilMoisture
	case "temperature":
		return &r.Temperature
	case "humidity":
		return &r.Humidity
	case "light_level":
		return &r.LightLevel
	}
	return nil
}

// newestRecord is the last record that the newest readings of each metric are from, nil without any. One with any of the four metrics goes
// before those without.
func newestRecord(latest []history.Reading, plant string) *record {
	var last *history.Reading
	for i := range latest {
		r := &latest[i]
		better := last == nil || r.Time > last.Time || r.Time == last.Time && r.Device < last.Device
		if last != nil && slices.Contains(four, r.Metric) != slices.Contains(four, last.Metric) {
			better = slices.Contains(four, r.Metric)
		}
		if better {
			last = r
		}
	}
	if last == nil {
		return nil
	}
	out := &record{Time: control.Moment(last.Time), Device: last.Device, Plant: optional(plant)}
	for i := range latest {
		r := &latest[i]
		if at := out.of(r.Metric); at != nil && r.Time == last.Time && r.Device == last.Device {
			*at = &r.Value
		}
	}
	return out
}

// plantRecords returns the records of a plant from a time on, UTC ms, newest first.
func plantRecords(ctx context.Context, h history.Scanner, plant string, from int64) ([]record, error) {
	list := []record{}
	shorten := func() {
		slices.SortStableFunc(list, func(a, b record) int { return cmp.Compare(b.Time, a.Time) })
		list = list[:min(len(list), maxRecords)]
	}
	for chunk, err := range h.Scan(ctx, history.Query{Metrics: four, From: from}) {
		if errors.Is(err, history.ErrDamaged) {
			continue // what is there is shown, and the status says what is lost
		}
		if err != nil {
			return nil, err
		}
		for i, t := range chunk.Times {
			r, found := record{Time: control.Moment(t), Device: chunk.Device, Plant: &plant}, false
			for k := range chunk.Columns {
				column := &chunk.Columns[k]
				if at := r.of(column.Metric); at != nil && column.Has(i) {
					v := column.Values[i]
					*at, found = &v, true
				}
			}
			if found {
				list = append(list, r)
			}
		}
		if len(list) > 4*maxRecords {
			shorten()
		}
	}
	shorten()
	return list, nil
}

// latest answers with the newest record of a device.
func (c *call) latest() (any, error) {
	d, err := c.known()
	if err != nil {
		return nil, err
	}
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	var out *record
	err = c.view(func(v history.View) error {
		list, err := v.Latest(c, d.ID)
		if out = newestRecord(list, ""); out == nil {
			return err
		}
		for _, r := range list {
			if r.Time == int64(out.Time) {
				out.Plant = optional(plan.Owner(r.Device, r.Metric, r.Time, r.Received))
				break
			}
		}
		return err
	})
	switch {
	case err != nil && (out == nil || !errors.Is(err, history.ErrDamaged)):
		return nil, err
	case out == nil:
		return nil, refuse(404, "there is no reading of this device yet")
	}
	return out, nil
}
