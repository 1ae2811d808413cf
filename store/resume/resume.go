// Package resume reads the rows of the broker's tables and makes of them what the broker is told at a start. A row whose blob is not
// as it was written is left out, and named. Which tables there are, and who deletes what is damaged, is not known here.
package resume

import (
	"hash/crc32"
	"math"

	"github.com/plantops/plantops/broker/journal"
)

// State is the broker's state as it stands in the file. Rows are given to it, those of sessions first. What a damaged row has in place
// of a value of its kind is nothing.
type State struct {
	Next    journal.Next        // numbers that were never used
	Orphans []journal.SessionID // that have only queues

	// Rows whose blob is not what was written.
	BadSessions      []int64
	BadSubscriptions []journal.Subscription
	BadTopics        []string
	Strays           bool // subscriptions of no session

	sessions      []journal.Session
	known         map[journal.SessionID]bool
	subscriptions []journal.Subscription
	waiting       []journal.Waiting
	retained      []journal.Retained
}

// New is the state of a broker that never ran.
func New() *State {
	return &State{known: map[journal.SessionID]bool{}, Next: journal.Next{Session: 1, Batch: 1}}
}

// Session takes a row of a session.
func (s *State) Session(id, client, account, sum, state any) {
	c := journal.Session{ID: journal.SessionID(number(id)), Client: text(client), Account: text(account), State: bytesIn(state)}
	s.Used(id, nil)
	if number(sum) != Checksum(c.State) {
		s.BadSessions = append(s.BadSessions, int64(c.ID))
		return
	}
	s.known[c.ID] = true
	s.sessions = append(s.sessions, c)
}

// Subscription takes a row of a subscription.
func (s *State) Subscription(session, filter, sum, options any) {
	c := journal.Subscription{Session: journal.SessionID(number(session)), Filter: text(filter), Options: bytesIn(options)}
	s.Used(session, nil)
	switch {
	case !s.known[c.Session]:
		s.Strays = true
	case number(sum) != Checksum(c.Options):
		s.BadSubscriptions = append(s.BadSubscriptions, c)
	default:
		s.subscriptions = append(s.subscriptions, c)
	}
}

// Queue takes what the queue of a session comes to.
func (s *State) Queue(session, first, last, messages, size, batch any) {
	c := journal.Waiting{Session: journal.SessionID(number(session)), First: uint64(number(first)), Last: uint64(number(last)),
		Messages: number(messages), Bytes: number(size)}
	s.Used(session, batch)
	if !s.known[c.Session] {
		s.Orphans = append(s.Orphans, c.Session)
		return
	}
	s.waiting = append(s.waiting, c)
}

// Retained takes a row of a retained message.
func (s *State) Retained(topic, message, account, sum any) {
	c := journal.Retained{Topic: text(topic), Message: bytesIn(message), Account: text(account)}
	if number(sum) != Checksum(c.Message) {
		s.BadTopics = append(s.BadTopics, c.Topic)
		return
	}
	s.retained = append(s.retained, c)
}

// Used says that numbers have been used. What is beyond all that can be is damaged.
func (s *State) Used(session, batch any) {
	of, in := number(session), number(batch)
	if max(of, in) > math.MaxInt64/2 {
		return
	}
	s.Next.Session = max(s.Next.Session, journal.SessionID(of)+1)
	s.Next.Batch = max(s.Next.Batch, in+1)
}

// Give tells the broker. An error of it ends that and is returned.
func (s *State) Give(to journal.Loader) error {
	for _, c := range s.sessions {
		if err := to.Session(c); err != nil {
			return err
		}
	}
	for _, c := range s.subscriptions {
		if err := to.Subscription(c); err != nil {
			return err
		}
	}
	for _, c := range s.waiting {
		if err := to.Waiting(c); err != nil {
			return err
		}
	}
	for _, c := range s.retained {
		if err := to.Retained(c); err != nil {
			return err
		}
	}
	return nil
}

func number(v any) int64 { n, _ := v.(int64); return n }
func text(v any) string  { s, _ := v.(string); return s }

func bytesIn(v any) []byte {
	b, _ := v.([]byte)
	return Blob(b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum tells whether a blob is as it was written: SQLite does not notice when its bytes have changed.
func Checksum(blob []byte) int64 { return int64(crc32.Checksum(blob, castagnoli)) }

// Blob is never NULL.
func Blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
