package broker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/refusal"
)

// Stats is what the broker has done since it started.
type Stats struct {
	Connected      int            // clients connected now
	ConnectedTotal int64          // CONNECTs accepted
	ByListener     map[string]int // connected now: "tcp", "tls", "websocket"
	// Refused counts by reason: logins, packets, and connections that were closed before they could log in.
	Refused map[string]int64
	// PublishReceived and PublishSent count PUBLISH packets, Dropped the messages that a subscriber was too slow for.
	PublishReceived, PublishSent, Dropped int64
	BytesReceived, BytesSent              int64
	// Away counts the sessions that wait for their clients, WaitingOnDisk and BytesOnDisk what of all sessions waits on disk.
	Away                       int
	WaitingOnDisk, BytesOnDisk int64
	Ingest                     IngestStats
	Clients                    []ClientInfo // the connected ones, in no order
}

// IngestStats accounts for what the backend's subscriber must store, as the broker sees it come in: of all messages that were
// received, those were refused, those are pending, and the rest has an outcome in the store. The figures are read
// while work goes on; together they are exact when nothing moves.
type IngestStats struct {
	Received int64 // for ingest topics, and all that were refused; each once, however often it was sent on
	Refused  int64
	Pending  int64 // received and not acknowledged by the subscriber
	Devices  map[string]DeviceStats
}

// DeviceStats are the figures of one device: of the name in the topic, and for what was refused of the account.
type DeviceStats struct{ Received, Refused, Pending int64 }

// ClientInfo is one connected client.
type ClientInfo struct {
	ID, User, Listener, Remote string
	Version                    byte // 3 = MQTT 3.1, 4 = 3.1.1, 5
	Since                      time.Time
	QueuedBytes                int // written to it and not yet taken by its socket
	Waiting                    int // messages in its session that are not sent yet
	InFlight                   int // messages sent to it and not acknowledged
}

// Stats may be called at any time, also after Close.
func (b *Broker) Stats() Stats {
	h, r := b.hook, b.hook.router
	s := Stats{
		ConnectedTotal:  h.accepted.Load(),
		ByListener:      map[string]int{},
		Refused:         h.refusals.Counts(),
		PublishReceived: r.received.Load(),
		PublishSent:     r.sent.Load(),
		Dropped:         r.dropped.Load(),
		Ingest:          r.tallies.stats(),
	}
	s.BytesReceived, s.BytesSent = b.network.Bytes()
	s.WaitingOnDisk, s.BytesOnDisk = r.quotas.disk.messages.Load(), r.quotas.disk.bytes.Load()
	live := h.sessions.live()
	s.Away = h.sessions.count() - len(live)
	for _, l := range live {
		if !l.established.Load() {
			continue
		}
		s.Connected++
		s.ByListener[l.Kind()]++
		holds := l.peer.stats()
		s.Clients = append(s.Clients, ClientInfo{ID: l.id, User: l.account, Listener: l.Kind(),
			Remote: l.RemoteAddr().String(), Version: l.asked.version, Since: time.Unix(0, l.since),
			QueuedBytes: l.QueuedBytes(), Waiting: holds.Queued, InFlight: holds.InFlight})
	}
	return s
}

// Refusals returns what each account was refused since the start, the latest first; accounts without any are left out. It
// includes logins that failed under the name of an account. It may be called at any time.
func (b *Broker) Refusals() map[string][]refusal.AccountRefusal { return b.hook.refusals.Accounts() }

// tally counts the messages of one device.
type tally struct{ received, refused, pending atomic.Int64 }

// tallies counts by device.
type tallies struct {
	mu       sync.Mutex
	byDevice map[string]*tally
}

// of returns the tally of a device, which is made if there is none.
func (t *tallies) of(device string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byDevice[device]
	if one == nil {
		if t.byDevice == nil {
			t.byDevice = map[string]*tally{}
		}
		one = new(tally)
		t.byDevice[device] = one
	}
	return one
}

// stats adds up what every device has.
func (t *tallies) stats() IngestStats {
	t.mu.Lock()
	all := maps.Clone(t.byDevice)
	t.mu.Unlock()
	s := IngestStats{Devices: make(map[string]DeviceStats, len(all))}
	for name, one := range all {
		d := DeviceStats{Pending: one.pending.Load(), Refused: one.refused.Load(), Received: one.received.Load()}
		s.Received += d.Received
		s.Refused += d.Refused
		s.Pending += d.Pending
		s.Devices[name] = d
	}
	return s
}
