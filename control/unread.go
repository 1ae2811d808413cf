package control

import (
	"context"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

// SkippedField is a field of a device's messages that could not be read.
type SkippedField struct {
	Field string `json:"field"`
	Text  string `json:"text"` // what stood there, or the beginning of it
	Count int64  `json:"count,omitempty"`
	First Moment `json:"first,omitzero"`
	Last  Moment `json:"last"`
}

// SkippedFields are those of one device, the latest first.
func SkippedFields(all []store.SkippedField) []SkippedField {
	list := make([]SkippedField, len(all))
	for i, f := range all {
		list[i] = SkippedField{f.Field, f.Text, f.Count, Moment(f.First), Moment(f.Last)}
	}
	return list
}

// UnreadTopic is what an account published among the topics of devices and nobody read, since the server started.
type UnreadTopic struct {
	Count int64  `json:"count"`           // messages
	Topic string `json:"topic"`           // the last one
	Meant string `json:"meant,omitempty"` // the topic that it may have meant
	Last  Moment `json:"last"`
}

// Unread is by account. Accounts without any are left out.
type Unread map[string]UnreadTopic

func newUnread(all map[string]broker.UnreadTopics) Unread {
	list := make(Unread, len(all))
	for name, one := range all {
		list[name] = UnreadTopic{one.Count, one.LastTopic, one.Meant, Moment(one.Last.UnixMilli())}
	}
	return list
}

// Unread implements Operator.
func (s *Server) Unread(context.Context) (Unread, error) {
	if b := s.broker(); b != nil {
		return newUnread(b.Unread()), nil
	}
	return Unread{}, nil // another broker does not tell
}

// WithUnread adds what nobody read of the device, if there was any.
func (d DeviceStatus) WithUnread(all Unread) DeviceStatus {
	if mine, there := all[d.ID]; there {
		d.Unread = &mine
	}
	return d
}
