package control

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

// Pass is a login that is good once, within a minute.
type Pass struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Session is one client of the embedded broker, connected or away.
type Session struct {
	Client    string `json:"client"`
	Account   string `json:"account"`
	Connected bool   `json:"connected"`
	Since     Moment `json:"since"` // connected, or away
	Listener  string `json:"listener,omitempty"`
	Remote    string `json:"remote,omitempty"`
	Version   byte   `json:"protocol_version"` // 3 = MQTT 3.1, 4 = 3.1.1, 5
	// ExpirySeconds is how long the session outlives its connection or, while away, how much of that is left; null: it stays.
	ExpirySeconds *int64 `json:"expiry_seconds"`
	Subscriptions int    `json:"subscriptions"`
	Waiting       int    `json:"waiting"`   // messages that are not sent yet
	InFlight      int    `json:"in_flight"` // messages that are sent and not acknowledged
	Bytes         Bytes  `json:"bytes"`     // of what is in memory of both
	OnDisk        int    `json:"on_disk"`   // of those that wait, how many are left to the disk
	DiskBytes     Bytes  `json:"disk_bytes"`
}

func newSession(i broker.SessionInfo) Session {
	s := Session{Client: i.Client, Account: i.Account, Connected: i.Connected, Since: Moment(i.Since.UnixMilli()), Listener: i.Listener,
		Remote: i.Remote, Version: i.Version, Subscriptions: i.Subscriptions, Waiting: i.Waiting, InFlight: i.InFlight, Bytes: Bytes(i.Bytes), OnDisk: i.OnDisk, DiskBytes: Bytes(i.DiskBytes)}
	if i.Expiry != broker.Forever {
		left := int64(i.Expiry / time.Second)
		s.ExpirySeconds = &left
	}
	return s
}

// Retained is a retained message without its payload.
type Retained struct {
	Topic     string `json:"topic"`
	Bytes     Bytes  `json:"bytes"`   // of the payload
	Account   string `json:"account"` // that published it; empty: the server itself
	Published Moment `json:"published"`
}

// embedded is the running broker, for somebody who wants to do something with it.
func (s *Server) embedded(what string) (*broker.Broker, error) {
	if b := s.broker(); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%s: %w", what, ErrNoBroker)
}

// Pass implements Operator.
func (s *Server) Pass(context.Context) (Pass, error) {
	b, err := s.embedded("log in at the broker")
	if err != nil {
		return Pass{}, err
	}
	user, password := b.Pass()
	return Pass{user, password}, nil
}

// Sessions implements Operator.
func (s *Server) Sessions(context.Context) ([]Session, error) {
	b, err := s.embedded("list sessions")
	if err != nil {
		return nil, err
	}
	list := []Session{}
	for _, i := range b.Sessions() {
		list = append(list, newSession(i))
	}
	return list, nil
}

// EndSession implements Operator. Its error wraps store.ErrNotFound where there is no such session, or it is the subscriber's.
func (s *Server) EndSession(_ context.Context, client string) error {
	b, err := s.embedded("end session")
	if err == nil && !b.EndSession(client) {
		err = fmt.Errorf("end session %q: %w", client, store.ErrNotFound)
	}
	return err
}

// Retained implements Operator.
func (s *Server) Retained(_ context.Context, filter string, limit int) ([]Retained, error) {
	b, err := s.embedded("list retained messages")
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = math.MaxInt
	}
	list := []Retained{}
	for _, i := range b.Retained(filter, limit) {
		list = append(list, Retained{i.Topic, Bytes(i.Bytes), i.Account, Moment(i.Created.UnixMilli())})
	}
	return list, nil
}

// ClearRetained implements Operator.
func (s *Server) ClearRetained(_ context.Context, filter string) (int64, error) {
	b, err := s.embedded("clear retained messages")
	if err != nil {
		return 0, err
	}
	return int64(b.ClearRetained(filter)), nil
}
