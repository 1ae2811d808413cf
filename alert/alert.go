// Package alert decides what a person is told, and when: a metric of a plant outside its threshold, devices that are offline, sensors that
// are silent or stuck, batteries, and what is wrong with the box itself. Each breach is one alert and, when it is over, one recovery.
//
// Machine is a state machine without clocks, sockets, files and locks: looks at what is stored go in, changes and messages come out.
// Durations are observed ones: only time in which somebody looked counts, so that neither a jump of the clock nor an outage of the box
// makes anything late. Who looks, and who keeps the changes, is package alert/watch; who sends the messages, alert/notify.
package alert

import (
	"errors"
	"fmt"
	"time"

	"github.com/plantops/plantops/store/garden"
	"github.com/plantops/plantops/store/history"
)

// ErrNotFound says that there is no such alert that is open.
var ErrNotFound = errors.New("no open alert has this number")

// Kind is what an alert is about.
type Kind string

// The kinds. Those from Certificate on are about the box.
const (
	Threshold   Kind = "threshold"
	Offline     Kind = "offline" // a device is not heard of
	Silent      Kind = "silent"  // a device is heard of, one of its metrics is not
	Stuck       Kind = "stuck"   // a metric has had one value for too long
	Battery     Kind = "battery"
	Certificate Kind = "certificate"
	Clock       Kind = "clock"
	Disk        Kind = "disk"
	Backup      Kind = "backup"
	Quarantine  Kind = "quarantine"
)

// Side is which bound of a threshold is passed.
type Side string

// The sides.
const (
	Min Side = "min"
	Max Side = "max"
)

// Key is what there is one alert of at a time.
type Key struct {
	Kind    Kind   `json:"kind"`
	Subject string `json:"subject"` // id of a plant (Threshold), of a device, or of what is wrong with the box
	Metric  string `json:"metric,omitempty"`
	Side    Side   `json:"side,omitempty"` // of Threshold
}

// Alert is a breach that lasts, or one that is over.
type Alert struct {
	ID int64 `json:"id"`
	Key
	Name   string   `json:"name"`             // of the plant, or the device
	Device string   `json:"device,omitempty"` // that sent the value
	Value  *float64 `json:"value,omitempty"`  // when it began
	Limit  *float64 `json:"limit,omitempty"`
	Seen   int64    `json:"seen,omitempty"` // UTC ms: what is silent was heard of last
	Text   string   `json:"text"`           // one sentence

	Opened       int64  `json:"opened"`                 // UTC ms
	Closed       int64  `json:"closed,omitempty"`       // UTC ms; 0: it lasts
	Gone         bool   `json:"gone,omitempty"`         // it is closed because nobody watches this any more
	Told         int64  `json:"told,omitempty"`         // UTC ms, when it was said last
	Acknowledged int64  `json:"acknowledged,omitempty"` // UTC ms; 0: it is not
	By           string `json:"by,omitempty"`           // who acknowledged it
	Snoozed      int64  `json:"snoozed,omitempty"`      // UTC ms until when nothing more is said of it
}

// What a notice says of its alert.
const (
	Begins = "begins"
	Ends   = "ends"
	Lasts  = "lasts" // it was snoozed, or nobody acknowledged it
)

// Notice is one thing to tell.
type Notice struct {
	What  string `json:"what"` // Begins, Ends or Lasts
	At    int64  `json:"at"`   // UTC ms
	Alert Alert  `json:"alert"`
}

// Message goes to every channel once. Its id is never used for another.
type Message struct {
	ID      string   `json:"id"`
	Notices []Notice `json:"notices"`
	More    int      `json:"more,omitempty"` // notices that are not listed
}

// Fault is something that is wrong with the box.
type Fault struct {
	Kind    Kind
	Subject string // what of it: a path, for example; may be empty
	Text    string // one sentence
}

// Device is a device as it was last heard of.
type Device struct {
	ID   string
	Seen int64 // UTC ms; changes whenever it is heard of
}

// Look is what somebody sees at one moment.
type Look struct {
	Now    time.Time     // in the zone of the quiet hours
	Passed time.Duration // since the look before, by a clock that does not jump
	Unsure string        // why Now is not to be trusted; "": it is. Then nothing is judged but that

	Devices  []Device          // those that are watched
	Readings []history.Reading // the newest of each device and metric
	Plan     *garden.Plan      // nil: not known, thresholds are not judged
	Faults   []Fault
	Looked   bool // at faults: those that are open and not in Faults are over
}

// Changes are what a step comes to. They are to be kept all at once, with State.
type Changes struct {
	Alerts   []Alert // as they are now: new ones, those that changed, those that are over
	Messages []Message
	Kept     bool // State is not what it was before
}

// Empty reports whether there is nothing to keep.
func (c *Changes) Empty() bool { return !c.Kept && len(c.Alerts) == 0 && len(c.Messages) == 0 }

// State is what outlives a restart beside the alerts that are open.
type State struct {
	Box     string   `json:"box"`    // begins the ids of messages: nobody else's begin so
	Change  int64    `json:"change"` // tells this state from all others
	Alert   int64    `json:"alert"`
	Message int64    `json:"message"`
	Waiting []Notice `json:"waiting,omitempty"`
	Sent    []int64  `json:"sent,omitempty"`   // UTC ms, when messages went out lately
	Digest  int64    `json:"digest,omitempty"` // UTC ms, of the last one that had many notices
	Resting []Rest   `json:"resting,omitempty"`
}

// Rest is a time in which no alert of a key begins.
type Rest struct {
	Key
	Until  int64 `json:"until"` // UTC ms
	Snooze bool  `json:"snooze,omitempty"`
}

// Learned is what is known of a device ("" as metric) or of a metric of it.
type Learned struct {
	Device   string  `json:"device"`
	Metric   string  `json:"metric,omitempty"`
	Interval int64   `json:"interval"`        // ms
	Still    int64   `json:"still,omitempty"` // ms: it has had Value for so long
	Value    float64 `json:"value,omitempty"`
	Repeats  int     `json:"repeats,omitempty"`
}

func (k Key) String() string {
	return fmt.Sprintf("%s %s %s %s", k.Kind, k.Subject, k.Metric, k.Side)
}
