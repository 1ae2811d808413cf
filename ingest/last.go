package ingest

import (
	"slices"
	"sync"

	"github.com/plantops/plantops/store"
)

// Bounds on what is remembered of last messages: a megabyte in all. Of more devices there is none.
const (
	maxLastDevices = 2000
	maxLastBytes   = 512
)

// LastMessage is the last message of a device since the start, as it came: also one that was not understood.
type LastMessage struct {
	Topic       string
	Payload     []byte // the first 512 bytes of it
	Size        int    // of the whole payload, in bytes
	Received    int64  // UTC ms
	ClockUnsure bool   // this machine's clock was not to be trusted then
}

// lastMessages remembers them in memory.
type lastMessages struct {
	mu sync.Mutex
	of map[string]*LastMessage
}

// note takes a batch in the order in which it came.
func (l *lastMessages) note(batch []store.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range batch {
		m := &batch[i]
		if m.Device == "" || m.Kind == store.Probe {
			continue
		}
		last := l.of[m.Device]
		if last == nil {
			if len(l.of) >= maxLastDevices {
				continue
			}
			if l.of == nil {
				l.of = map[string]*LastMessage{}
			}
			last = &LastMessage{}
			l.of[m.Device] = last
		}
		last.Topic, last.Size, last.Received, last.ClockUnsure = m.Topic, len(m.Payload), m.Received, m.ClockUnsure
		last.Payload = append(last.Payload[:0], m.Payload[:min(len(m.Payload), maxLastBytes)]...)
	}
}

// LastMessage returns the last message of a device; false: none has come since the start, or there are too many devices.
func (s *Subscriber) LastMessage(device string) (LastMessage, bool) {
	s.last.mu.Lock()
	defer s.last.mu.Unlock()
	last := s.last.of[device]
	if last == nil {
		return LastMessage{}, false
	}
	out := *last
	out.Payload = slices.Clone(last.Payload)
	return out, true
}
