package api

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/people"
)

// device is one as the old API has it.
type device struct {
	ID       string         `json:"id"`
	MAC      string         `json:"mac_address" doc:"empty where the device has told none"`
	Username string         `json:"mqtt_username" doc:"the device's own, or that of the gateway that speaks for it"`
	Plant    *string        `json:"plant_id" doc:"that it serves now with all metrics that nothing else is said of"`
	Status   string         `json:"status" enum:"provisioning,online,offline" doc:"provisioning: it was never heard of"`
	Firmware *string        `json:"firmware_version"`
	Sensors  []string       `json:"sensor_types"`
	Seen     control.Moment `json:"last_seen_at"`
	Created  control.Moment `json:"created_at"`
}

// oneDevice is a device with all that is known of it.
type oneDevice struct {
	device
	Details control.DeviceStatus   `json:"details"`
	Skipped []control.SkippedField `json:"skipped_fields" doc:"what could not be read of its messages"`
}

type deviceList struct {
	Devices []device `json:"devices"`
	Total   int      `json:"total" doc:"of all, not of the page"`
}

type message struct {
	Message string `json:"message"`
}

type provisioning struct {
	Plant string `json:"plant_id" minLength:"1"`
}

type provisioned struct {
	ID      string `json:"id"`
	Plant   string `json:"plant_id"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

type newDevice struct {
	ID string `json:"device_id" minLength:"1"`
}

// original is a message as it came.
type original struct {
	Topic   string         `json:"topic"`
	Time    control.Moment `json:"time" doc:"of arrival"`
	Payload string         `json:"payload" doc:"as text, what is no UTF-8 replaced"`
	Binary  bool           `json:"binary,omitempty" doc:"it is no UTF-8"`
	Size    int64          `json:"size" doc:"in bytes, of the whole"`
	Why     string         `json:"why,omitempty" doc:"it was not understood. quarantine: with the reason; skipped: a field of it could not be read"`
}

type originals struct {
	Last     *original  `json:"last" doc:"that came last since the server started, understood or not; null: none has"`
	Messages []original `json:"messages"`
}

// paging are the parameters of lists.
func paging() []*huma.Param {
	return []*huma.Param{query("limit", "at most so many", integer(0, 1_000_000, 100)), query("offset", "leave out so many", integer(0, 1_000_000_000, 0))}
}

// page is the part of a list that is asked for.
func page[T any](c *call, list []T) []T {
	from := min(c.number("offset"), len(list))
	return list[from:min(from+c.number("limit"), len(list))]
}

func deviceOperations() []operation {
	id := path("id", "of a device")
	missing := []int{http.StatusNotFound}
	return []operation{
		{method: http.MethodPost, path: Prefix + "/devices/register", tag: tagDevices, summary: "A device registers by itself",
			about: "While a pairing window is open nobody need be known; else it takes the token of an admin. The same hardware address again: the same device, a new password, and the old one is dead.",
			body:  registration{}, answer: credentials{}, errors: []int{http.StatusUnauthorized, http.StatusServiceUnavailable}, do: (*call).register},
		{method: http.MethodGet, path: Prefix + "/devices", tag: tagDevices, needs: people.Viewer, summary: "Devices, newest first",
			params: append(paging(), query("all", "those too that have no access any more and have left readings", flag())), answer: deviceList{}, do: (*call).devices},
		{method: http.MethodPost, path: Prefix + "/devices", tag: tagDevices, needs: people.Admin, summary: "Add a device under a name of its own",
			body: newDevice{}, answer: credentials{}, status: http.StatusCreated, errors: []int{http.StatusConflict}, do: func(c *call) (any, error) {
				id := bodyOf[newDevice](c).ID
				secret, err := c.Server.AddDevice(c, id)
				if err != nil {
					return nil, err
				}
				return c.credentials(id, secret)
			}},
		{method: http.MethodGet, path: Prefix + "/devices/{id}", tag: tagDevices, needs: people.Viewer, summary: "One device, with all that is known of it",
			params: []*huma.Param{id}, answer: oneDevice{}, errors: missing, do: (*call).device},
		{method: http.MethodDelete, path: Prefix + "/devices/{id}", tag: tagDevices, needs: people.Admin, summary: "Take a device's access",
			about:  "It is cut off at once. Its readings stay, unless purge says otherwise.",
			params: []*huma.Param{id, query("purge", "delete its readings too, for good", flag())}, answer: message{}, errors: missing, do: (*call).deleteDevice},
		{method: http.MethodPost, path: Prefix + "/devices/{id}/rotate", tag: tagDevices, needs: people.Admin, summary: "Give a device another password",
			params: []*huma.Param{id}, answer: credentials{}, errors: missing, do: func(c *call) (any, error) {
				secret, err := c.Server.RotateDevice(c, c.text("id"))
				if err != nil {
					return nil, err
				}
				return c.credentials(c.text("id"), secret)
			}},
		{method: http.MethodPost, path: Prefix + "/devices/{id}/provision", tag: tagDevices, needs: people.Operator, summary: "A device serves a plant from now on",
			about: "With all its metrics. What it served before ends now.", params: []*huma.Param{id}, body: provisioning{}, answer: provisioned{},
			errors: missing, do: (*call).provision},
		{method: http.MethodPost, path: Prefix + "/devices/{id}/unassign", tag: tagDevices, needs: people.Operator, summary: "A device serves nothing from now on",
			params: []*huma.Param{id}, answer: message{}, errors: missing, do: (*call).unassign},
		{method: http.MethodGet, path: Prefix + "/devices/{id}/telemetry/latest", tag: tagDevices, needs: people.Viewer, summary: "The newest record of a device",
			about: "By its own time. One message is one record: what it did not bring is null.", params: []*huma.Param{id}, answer: record{}, errors: missing, do: (*call).latest},
		{method: http.MethodGet, path: Prefix + "/devices/{id}/messages", tag: tagDevices, needs: people.Viewer, summary: "The last message of a device, and the last that were not understood, as they came",
			about:  "Not understood are those in quarantine, and those of which a field was skipped; newest first.",
			params: []*huma.Param{id, query("limit", "at most so many", integer(1, 256, 20))}, answer: originals{}, errors: missing, do: (*call).messages},
	}
}

// seen are devices as they are shown.
type seen struct {
	c             *call
	plan          *garden.Plan
	registrations map[string]garden.Registration
}

func (c *call) seen() (*seen, error) {
	plan, err := c.Store.Garden().Plan(c)
	if err != nil {
		return nil, err
	}
	list, err := c.Store.Garden().Registrations(c)
	s := &seen{c, plan, map[string]garden.Registration{}}
	for _, r := range list {
		s.registrations[r.Device] = r
	}
	return s, err
}

func (s *seen) device(d *store.Device) device {
	state := control.NewDeviceStatus(*d, s.c.Server.OfflineAfter(), s.c.Now())
	out := device{ID: d.ID, Username: cmp.Or(d.Behind.Account, d.ID), Plant: servedBy(s.plan, d.ID, s.c.now()), Status: word(&state),
		Seen: state.LastSeen, Created: control.Moment(d.Created)}
	if r, told := s.registrations[d.ID]; told {
		out.MAC, out.Sensors, out.Created = r.MAC, r.Sensors, control.Moment(r.Created)
		if r.Firmware != "" {
			out.Firmware = &r.Firmware
		}
	}
	return out
}

// word follows what was heard, and nothing else.
func word(d *control.DeviceStatus) string {
	switch {
	case d.Online:
		return "online"
	case d.LastSeen == 0:
		return "provisioning"
	}
	return "offline"
}

// servedBy is the plant that a device serves at a time, UTC ms: with all metrics, or else with one of them; nil: none.
func servedBy(plan *garden.Plan, id string, at int64) (plant *string) {
	for _, a := range plan.OfDevice(id) {
		if a.Covers(at) && (plant == nil || a.Metric == "") {
			plant = &a.Plant
		}
	}
	return plant
}

// isThere reports whether a device is one that people have, not one that was removed and left readings.
func isThere(d *store.Device, embedded bool) bool {
	return d.Registered || d.Behind != (store.Behind{}) || !embedded
}

// list returns the devices that keep says, newest first.
func (s *seen) list(keep func(*store.Device) bool) ([]device, error) {
	all, err := s.c.Store.Devices(s.c)
	list := []device{}
	for i := range all {
		if keep(&all[i]) {
			list = append(list, s.device(&all[i]))
		}
	}
	slices.SortStableFunc(list, func(a, b device) int { return cmp.Or(cmp.Compare(b.Created, a.Created), strings.Compare(a.ID, b.ID)) })
	return list, err
}

// embedded reports whether the broker is ours, so that accounts say who may come.
func (c *call) embedded() (bool, error) {
	reach, err := c.Server.Contact(c)
	return reach.TLS != "" || reach.TCP != "" || reach.WebSocket != "", err
}

func (c *call) devices() (any, error) {
	s, err := c.seen()
	if err != nil {
		return nil, err
	}
	embedded, err := c.embedded()
	if err != nil {
		return nil, err
	}
	list, err := s.list(func(d *store.Device) bool { return c.flag("all") || isThere(d, embedded) })
	return deviceList{page(c, list), len(list)}, err
}

// known is a device, or the error that there is none.
func (c *call) known() (store.Device, error) {
	id := c.text("id")
	if id == "" {
		return store.Device{}, refuse(http.StatusNotFound, "there is no such device")
	}
	return c.Store.Device(c, id)
}

func (c *call) device() (any, error) {
	d, err := c.known()
	if err != nil {
		return nil, err
	}
	s, err := c.seen()
	if err != nil {
		return nil, err
	}
	skipped, err := c.Store.SkippedFields(c, d.ID)
	return oneDevice{s.device(&d), control.NewDeviceStatus(d, c.Server.OfflineAfter(), c.Now()), control.SkippedFields(skipped)}, err
}

func (c *call) deleteDevice() (any, error) {
	d, err := c.known()
	switch {
	case err != nil:
		return nil, err
	case !d.Registered && d.Behind.Account != "":
		return nil, refuse(http.StatusConflict, "it has no access of its own: the gateway "+d.Behind.Account+" speaks for it")
	case d.Registered:
		err = c.Server.RemoveDevice(c, d.ID)
	case !c.flag("purge"):
		err = refuse(http.StatusNotFound, "device "+d.ID+" has no access; purge=true deletes what it has left")
	}
	if err != nil || !c.flag("purge") {
		return message{"Device " + d.ID + " has no access any more; its readings stay"}, err
	}
	_, err = c.Server.PurgeDevice(c, d.ID)
	return message{"Device " + d.ID + " and its readings are deleted"}, err
}

func (c *call) provision() (any, error) {
	d, err := c.known()
	if err != nil {
		return nil, err
	}
	plant := bodyOf[provisioning](c).Plant
	if _, err := c.Store.Garden().MoveDevice(c, d.ID, plant); err != nil {
		return nil, err
	}
	state := control.NewDeviceStatus(d, c.Server.OfflineAfter(), c.Now())
	return provisioned{d.ID, plant, word(&state), "The device serves the plant from now on"}, nil
}

func (c *call) unassign() (any, error) {
	if _, err := c.known(); err != nil {
		return nil, err
	}
	return message{"The device serves nothing from now on"}, c.Store.Garden().UnassignDevice(c, c.text("id"))
}

func (c *call) messages() (any, error) {
	d, err := c.known()
	if err != nil {
		return nil, err
	}
	out := originals{Messages: []original{}}
	if last, there := c.Server.LastMessage(d.ID); there {
		one := originalOf(last.Topic, int64(last.Received), last.Payload, int64(last.Size), "")
		out.Last = &one
	}
	skipped, err := c.Store.Originals(c, d.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range skipped {
		out.Messages = append(out.Messages, originalOf(o.Topic, o.Time, o.Payload, o.Size, "skipped"))
	}
	err = c.read(c, c.heavy, func() error {
		for q, err := range c.Store.Quarantine(c, quarantineSearched) {
			if err != nil {
				return err
			}
			if q.Device == d.ID {
				out.Messages = append(out.Messages, originalOf(q.Topic, q.Time, q.Payload, int64(q.Size), "quarantine: "+q.Reason))
			}
		}
		return nil
	})
	slices.SortStableFunc(out.Messages, func(a, b original) int { return cmp.Compare(b.Time, a.Time) })
	out.Messages = out.Messages[:min(len(out.Messages), c.number("limit"))]
	return out, err
}

// quarantineSearched is how many of the newest entries are looked through for those of one device.
const quarantineSearched = 2000

// shownPayload is how much of a payload is shown, in bytes.
const shownPayload = 16 << 10

func originalOf(topic string, at int64, payload []byte, size int64, why string) original {
	shown := payload[:min(len(payload), shownPayload)]
	return original{topic, control.Moment(at), strings.ToValidUTF8(string(shown), "\uFFFD"), !utf8.Valid(payload), size, why}
}

// day is a day in ms.
const day = int64(24 * time.Hour / time.Millisecond)
