package session

import "testing"

// BenchmarkDeliverAck is the path of one QoS 1 message to a subscriber, with a
// token, in bursts of the window.
func BenchmarkDeliverAck(b *testing.B) {
	s := New(Options{})
	connect(s, nil)
	m, token := &Message{Topic: "devices/a/telemetry", Payload: make([]byte, 100), QoS: 1}, new(int)
	out, packet, ids := make([]Effect, 0, 8), make([]byte, 0, 256), make([]uint16, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		out = s.Deliver(noon, m, Offer{QoS: 1, Token: token}, out[:0])
		packet = out[0].AppendPacket(packet[:0], 4)
		if ids = append(ids, out[0].PacketID); len(ids) == cap(ids) {
			for _, id := range ids {
				out = s.Puback(noon, id, Success, out[:0])
			}
			ids = ids[:0]
		}
	}
}

// BenchmarkQueuedDeliverAck is the same with a subscriber that is always
// behind: every message waits for the window.
func BenchmarkQueuedDeliverAck(b *testing.B) {
	s := New(Options{Window: 20})
	connect(s, nil)
	m, token := &Message{Topic: "devices/a/telemetry", Payload: make([]byte, 100), QoS: 1}, new(int)
	out := make([]Effect, 0, 8)
	var oldest []uint16
	for range 500 {
		if out = s.Deliver(noon, m, Offer{QoS: 1, Token: token}, out[:0]); len(out) > 0 {
			oldest = append(oldest, out[0].PacketID)
		}
	}
	next := 0
	b.ReportAllocs()
	for b.Loop() {
		out = s.Deliver(noon, m, Offer{QoS: 1, Token: token}, out[:0])
		out = s.Puback(noon, oldest[next], Success, out[:0])
		oldest[next] = out[1].PacketID
		next = (next + 1) % len(oldest)
	}
}

// BenchmarkDeliverExactlyOnce is one QoS 2 message to a subscriber.
func BenchmarkDeliverExactlyOnce(b *testing.B) {
	s := New(Options{})
	connect(s, nil)
	m := &Message{Topic: "devices/a/telemetry", Payload: make([]byte, 100), QoS: 2}
	out := make([]Effect, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		out = s.Deliver(noon, m, Offer{QoS: 2}, out[:0])
		id := out[0].PacketID
		out = s.Pubrec(noon, id, Success, out[:0])
		out = s.Pubcomp(noon, id, out[:0])
	}
}

// BenchmarkReceiveComplete is the path of one message from a device whose
// acknowledgements wait for a commit of 64.
func BenchmarkReceiveComplete(b *testing.B) {
	for name, qos := range map[string]byte{"qos1": 1, "qos2": 2} {
		b.Run(name, func(b *testing.B) {
			s := New(Options{})
			connect(s, nil)
			out, tickets, id := make([]Effect, 0, 64), make([]Ticket, 0, 64), uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				id = id%1000 + 1
				var ticket Ticket
				ticket, _, out = s.Receive(id, qos, out[:0])
				if tickets = append(tickets, ticket); len(tickets) < cap(tickets) {
					continue
				}
				for _, ticket := range tickets {
					out = s.Complete(ticket, Success, out[:0])
					if qos == 2 {
						out = s.Pubrel(ticket.id, out[:0])
					}
				}
				tickets = tickets[:0]
			}
		})
	}
}

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	s := online(t, Options{}, nil)
	m, token, out := &Message{Topic: "t", QoS: 1}, new(int), make([]Effect, 0, 8)
	allocs := testing.AllocsPerRun(10_000, func() {
		out = s.Deliver(noon, m, Offer{QoS: 1, Token: token}, out[:0])
		out = s.Puback(noon, out[0].PacketID, Success, out[:0])
		ticket, _, _ := s.Receive(1, 1, out[:0])
		out = s.Complete(ticket, Success, out[:0])
	})
	if allocs > 0 {
		t.Errorf("%v allocations per message", allocs)
	}
}
