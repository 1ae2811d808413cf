package control

import (
	"time"

	"github.com/plantops/plantops/store"
)

// DeviceStatus is one device: whether it is there, when it was heard of, what became of its messages.
type DeviceStatus struct {
	ID         string `json:"device_id"`
	Registered bool   `json:"registered"` // it has an account
	Online     bool   `json:"online"`
	Created    Moment `json:"created"`
	LastSeen   Moment `json:"last_seen"`
	// LastSeenUnsure: LastSeen is by a clock that was not to be trusted.
	LastSeenUnsure bool     `json:"last_seen_unsure,omitempty"`
	LastReading    Moment   `json:"last_reading"`
	Messages       Equation `json:"messages"`
	// Gateway is the account that speaks for it, Source how its messages are read; both are empty for a device that speaks for
	// itself, Gateway also where the broker does not tell.
	Gateway string `json:"gateway,omitempty"`
	Source  string `json:"source,omitempty"`
	// Dropped are readings that the device gave up before it could send them, by its own account.
	Dropped int64 `json:"dropped"`
	// Skipped are fields of its messages that could not be read; LastSkipped is the last one.
	Skipped     int64         `json:"skipped"`
	LastSkipped *SkippedField `json:"last_skipped,omitempty"`
	// Unread is what it publishes and nobody reads; nil without a server.
	Unread *UnreadTopic `json:"unread,omitempty"`
	// Refusals are what the running server refused it since it started; empty without a server, never nil.
	Refusals []AccountRefusal `json:"refusals"`
}

// NewDeviceStatus is a device as the database knows it: nothing pending, nothing refused. It counts as online until
// offlineAfter has passed since it was last seen. A time that is further ahead of now than that says nothing: the clock was
// wrong then, or is now. One that says that it goes is offline at once.
func NewDeviceStatus(d store.Device, offlineAfter time.Duration, now time.Time) DeviceStatus {
	online := func(seen int64) bool { return seen != 0 && now.Sub(time.UnixMilli(seen)).Abs() < offlineAfter }
	seen, unsure := d.LastSeen, d.UnsureSeen != 0
	if unsure {
		seen = d.UnsureSeen
	}
	device := DeviceStatus{
		ID:             d.ID,
		Registered:     d.Registered,
		Gateway:        d.Behind.Account,
		Source:         d.Behind.Source,
		Online:         d.LeftAt == 0 && (online(d.LastSeen) || online(d.UnsureSeen)),
		Created:        Moment(d.Created),
		LastSeen:       Moment(seen),
		LastSeenUnsure: unsure,
		LastReading:    Moment(d.LastReading),
		Messages:       settled(d.Counts),
		Dropped:        d.Dropped,
		Skipped:        d.Skipped,
		Refusals:       []AccountRefusal{},
	}
	if d.Skipped > 0 {
		device.LastSkipped = &SkippedField{Field: d.LastSkipped.Field, Text: d.LastSkipped.Text, Last: Moment(d.SkippedAt)}
	}
	return device
}

// WithRefusals adds what was refused to the device, if anything was.
func (d DeviceStatus) WithRefusals(all Refusals) DeviceStatus {
	if mine := all[d.ID]; mine != nil {
		d.Refusals = mine
	}
	return d
}

// LastMessage is the last message of a device since the server started, as it came.
type LastMessage struct {
	Topic    string
	Payload  []byte // the beginning of it
	Size     int    // of the whole payload, in bytes
	Received Moment
}

// LastMessage returns that of a device; false: none has come, or no server runs in this process.
func (s *Server) LastMessage(device string) (LastMessage, bool) {
	if s.running == nil {
		return LastMessage{}, false
	}
	last, there := s.running.Subscriber.LastMessage(device)
	return LastMessage{last.Topic, last.Payload, last.Size, Moment(last.Received)}, there
}
