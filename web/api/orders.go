package api

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/derive"
	"github.com/plantops/plantops/store/people"
)

// quarantined is a message that nobody could use.
type quarantined struct {
	ID      int64          `json:"id"`
	Time    control.Moment `json:"time" doc:"of arrival"`
	Device  *string        `json:"device_id"`
	Topic   string         `json:"topic"`
	Reason  string         `json:"reason"`
	Payload string         `json:"payload" doc:"as text, what is no UTF-8 replaced"`
	Binary  bool           `json:"binary,omitempty" doc:"it is no UTF-8"`
	Size    int            `json:"size" doc:"in bytes"`
}

type quarantineList struct {
	Entries    []quarantined        `json:"entries" doc:"newest first"`
	Summarised []control.Summarised `json:"summarised" doc:"those that made room, only counted"`
}

// chosen are entries of the quarantine. All must be asked for.
type chosen struct {
	IDs []int64 `json:"ids" required:"false" maxItems:"1000"`
	All bool    `json:"all,omitempty" required:"false"`
}

type purged struct {
	Purged int64 `json:"purged"`
}

func quarantineOperations() []operation {
	at := Prefix + "/quarantine"
	return []operation{
		{method: http.MethodGet, path: at, tag: tagRepair, needs: people.Viewer, summary: "Messages in quarantine, newest first",
			params: []*huma.Param{query("limit", "at most so many", integer(1, quarantineSearched, 100))}, answer: quarantineList{}, do: (*call).quarantine},
		{method: http.MethodGet, path: at + "/{id}", tag: tagRepair, needs: people.Viewer, summary: "One message in quarantine, whole",
			params: []*huma.Param{entryID()}, answer: quarantined{}, errors: []int{http.StatusNotFound}, do: func(c *call) (any, error) {
				q, err := c.Store.QuarantineEntry(c, int64(c.number("id")))
				return quarantinedOf(&q, len(q.Payload)), err
			}},
		{method: http.MethodPost, path: at + "/replay", tag: tagRepair, needs: people.Admin, summary: "Read messages again", body: chosen{}, answer: control.Replayed{},
			errors: []int{http.StatusNotFound}, do: func(c *call) (any, error) {
				ids, err := c.chosen()
				if err != nil {
					return nil, err
				}
				return c.Server.ReplayQuarantine(c, ids)
			}},
		{method: http.MethodPost, path: at + "/purge", tag: tagRepair, needs: people.Admin, summary: "Delete messages for good", body: chosen{}, answer: purged{},
			do: func(c *call) (any, error) {
				ids, err := c.chosen()
				if err != nil {
					return nil, err
				}
				n, err := c.Server.PurgeQuarantine(c, ids)
				return purged{n}, err
			}},
	}
}

func entryID() *huma.Param {
	p := path("id", "of an entry")
	least := 1.0
	p.Schema = &huma.Schema{Type: huma.TypeInteger, Minimum: &least}
	return p
}

// chosen are the ids that are asked for; none: all.
func (c *call) chosen() ([]int64, error) {
	asked := bodyOf[chosen](c)
	if (len(asked.IDs) == 0) != asked.All {
		return nil, refuse(http.StatusUnprocessableEntity, `body: name ids, or say "all": true, one of the two`)
	}
	return asked.IDs, nil
}

func quarantinedOf(q *store.QuarantineEntry, shown int) quarantined {
	payload := q.Payload[:min(len(q.Payload), shown)]
	return quarantined{q.ID, control.Moment(q.Time), optional(q.Device), q.Topic, q.Reason, strings.ToValidUTF8(string(payload), "\uFFFD"),
		!utf8.Valid(q.Payload), q.Size}
}

// listedPayload is how much of a payload stands in the list, in bytes.
const listedPayload = 256

func (c *call) quarantine() (any, error) {
	out := quarantineList{[]quarantined{}, []control.Summarised{}}
	for q, err := range c.Store.Quarantine(c, c.number("limit")) {
		if err != nil {
			return nil, err
		}
		out.Entries = append(out.Entries, quarantinedOf(&q, listedPayload))
	}
	for i, k := 0, len(out.Entries)-1; i < k; i, k = i+1, k-1 {
		out.Entries[i], out.Entries[k] = out.Entries[k], out.Entries[i]
	}
	gone, err := c.Store.QuarantineSummaries(c)
	for _, g := range gone {
		out.Summarised = append(out.Summarised, control.Summarised{Device: g.Device, Reason: g.Reason, Count: g.Count,
			First: control.Moment(g.First), Last: control.Moment(g.Last)})
	}
	return out, err
}

type calibrationRequest struct {
	Device string         `json:"device" minLength:"1"`
	Metric string         `json:"metric" minLength:"1"`
	From   control.Moment `json:"from" required:"false" doc:"null: now"`
	Points [][]float64    `json:"points" maxItems:"256" doc:"[[as sent, as it should be], …]; none: as the sensor sends it"`
	Note   string         `json:"note" required:"false" maxLength:"1000"`
}

type voidRequest struct {
	Device string         `json:"device" minLength:"1"`
	Metric string         `json:"metric" required:"false" doc:"empty: all"`
	From   control.Moment `json:"from"`
	To     control.Moment `json:"to" required:"false" doc:"not included; null: no end"`
	Reason string         `json:"reason" required:"false" maxLength:"1000"`
}

type derivedRequest struct {
	Formula string `json:"formula" minLength:"1" maxLength:"1000" example:"vpd = vpd(temperature, humidity)"`
}

func correctionOperations() []operation {
	missing := []int{http.StatusNotFound}
	return []operation{
		{method: http.MethodGet, path: Prefix + "/corrections", tag: tagRepair, needs: people.Viewer, summary: "Calibrations, voided ranges, derived metrics",
			answer: control.Corrections{}, do: func(c *call) (any, error) {
				all, err := c.Store.Corrections(c)
				return control.CorrectionsOf(all), err
			}},
		{method: http.MethodPost, path: Prefix + "/calibrations", tag: tagRepair, needs: people.Admin, summary: "Correct a metric of a device from a time on",
			body: calibrationRequest{}, answer: control.Calibration{}, status: http.StatusCreated, errors: missing, do: (*call).calibrate},
		{method: http.MethodPost, path: Prefix + "/voids", tag: tagRepair, needs: people.Admin, summary: "Take readings out of what is read",
			body: voidRequest{}, answer: control.Void{}, status: http.StatusCreated, errors: missing, do: func(c *call) (any, error) {
				v := bodyOf[voidRequest](c)
				done, err := c.Server.Void(c, control.Void{Device: v.Device, Metric: v.Metric, From: v.From, To: v.To, Reason: v.Reason})
				return done, invalid(err)
			}},
		{method: http.MethodDelete, path: Prefix + "/voids/{id}", tag: tagRepair, needs: people.Admin, summary: "Take a voided range back",
			params: []*huma.Param{entryID()}, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Server.Unvoid(c, int64(c.number("id")))
			}},
		{method: http.MethodPost, path: Prefix + "/derived", tag: tagRepair, needs: people.Admin, summary: "Add a derived metric, or another formula for it",
			body: derivedRequest{}, answer: control.Derived{}, status: http.StatusCreated, errors: []int{http.StatusConflict}, do: func(c *call) (any, error) {
				d, err := c.Server.Derive(c, bodyOf[derivedRequest](c).Formula)
				return d, invalid(err)
			}},
		{method: http.MethodDelete, path: Prefix + "/derived/{name}", tag: tagRepair, needs: people.Admin, summary: "Take a derived metric away",
			params: []*huma.Param{path("name", "of a metric")}, status: http.StatusNoContent, errors: missing, do: func(c *call) (any, error) {
				return nil, c.Server.RemoveDerived(c, c.text("name"))
			}},
	}
}

func (c *call) calibrate() (any, error) {
	asked := bodyOf[calibrationRequest](c)
	var words []string
	for _, pair := range asked.Points {
		if len(pair) != 2 {
			return nil, refuse(http.StatusUnprocessableEntity, "body.points: each is a pair: what the sensor sends, and what is right")
		}
		words = append(words, strconv.FormatFloat(pair[0], 'g', -1, 64)+"="+strconv.FormatFloat(pair[1], 'g', -1, 64))
	}
	points, err := derive.ParsePoints(words)
	if err != nil {
		return nil, invalid(err)
	}
	if asked.From == 0 {
		asked.From = control.Moment(c.now())
	}
	done, err := c.Server.Calibrate(c, control.Calibration{Device: asked.Device, Metric: asked.Metric, From: asked.From, Points: points, Note: asked.Note})
	return done, invalid(err)
}
