package broker

import "time"

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
	Clients                               []ClientInfo // the connected ones, in no order
}

// ClientInfo is one connected client.
type ClientInfo struct {
	ID, User, Listener, Remote string
	Version                    byte // 3 = MQTT 3.1, 4 = 3.1.1, 5
	Since                      time.Time
	QueuedBytes                int // written to it and not yet taken by its socket
}

// Stats may be called at any time, also after Close.
func (b *Broker) Stats() Stats {
	info := b.server.Info.Clone()
	s := Stats{
		ConnectedTotal:  b.hook.accepted.Load(),
		ByListener:      map[string]int{},
		Refused:         b.hook.refusals.counts(),
		PublishReceived: b.hook.router.received.Load(),
		PublishSent:     b.hook.router.sent.Load(),
		Dropped:         b.hook.router.dropped.Load(),
		BytesReceived:   info.BytesReceived,
		BytesSent:       info.BytesSent,
	}
	for _, l := range b.hook.sessions.live() {
		if !l.established.Load() {
			continue
		}
		s.Connected++
		s.ByListener[l.listener()]++
		s.Clients = append(s.Clients, ClientInfo{ID: l.client.ID, User: l.account.Name, Listener: l.listener(),
			Remote: l.RemoteAddr().String(), Version: l.client.Properties.ProtocolVersion, Since: l.since, QueuedBytes: l.queuedBytes()})
	}
	return s
}
