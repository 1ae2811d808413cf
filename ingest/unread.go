package ingest

import (
	"log/slog"
	"time"

	"github.com/plantops/plantops/store"
)

const (
	unreadLogEvery    = time.Hour
	maxUnreadDevices  = 1000 // with a line of their own in an hour
	manyUnreadDevices = "(others)"
)

// unread tells the log which devices send fields that cannot be read: at once, and then once an hour while it lasts.
type unread struct {
	log     *slog.Logger
	devices map[string]*unreadFields
}

// unreadFields is what was not read of a device since its last line in the log.
type unreadFields struct {
	logged time.Time
	count  int64
}

func newUnread(log *slog.Logger) *unread {
	return &unread{log: log, devices: make(map[string]*unreadFields)}
}

// committed takes a batch that was stored. What came again was told when it came first.
func (u *unread) committed(batch []store.Message, outcomes []store.Outcome, now time.Time) {
	for i := range batch {
		if m := &batch[i]; len(m.Skipped) > 0 && outcomes[i] != store.Duplicate {
			u.tell(m, now)
		}
	}
}

func (u *unread) tell(m *store.Message, now time.Time) {
	name := m.Device
	of := u.devices[name]
	if of == nil {
		if len(u.devices) >= maxUnreadDevices {
			u.forget(now)
		}
		if len(u.devices) >= maxUnreadDevices {
			name = manyUnreadDevices
			of = u.devices[name]
		}
		if of == nil {
			of = &unreadFields{}
			u.devices[name] = of
		}
	}
	of.count += int64(len(m.Skipped))
	if since := now.Sub(of.logged); since >= 0 && since < unreadLogEvery && !of.logged.IsZero() {
		return
	}
	last := m.Skipped[len(m.Skipped)-1]
	u.log.Warn("fields of messages could not be read", "device", name, "topic", m.Topic, "count", of.count,
		"field", last.Field, "text", last.Text)
	of.logged, of.count = now, 0
}

// forget lets go of devices whose hour is over and which had nothing more to tell.
func (u *unread) forget(now time.Time) {
	for name, of := range u.devices {
		if since := now.Sub(of.logged); of.count == 0 && (since < 0 || since >= unreadLogEvery) {
			delete(u.devices, name)
		}
	}
}
