package ingest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/plantops/plantops/store"
)

const example = `{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800}`

func BenchmarkDecode(b *testing.B) {
	for name, payload := range map[string]string{
		"text time":   example,
		"number time": `{"timestamp":1767787200,"soil_moisture":45.2,"temperature":22.5,"humidity":65.0,"light_level":800}`,
		"bad":         `{"timestamp":"2026-01-07T12:00:00Z","soil_moisture":45.2,"temperature":nan,"humidity":65.0,"light_level":800}`,
	} {
		b.Run(name, func(b *testing.B) {
			d, items := newDecoder("", nil), []item{{topic: telemetryTopic, payload: []byte(payload), received: arrival}}
			b.ReportAllocs()
			for b.Loop() {
				d.decodeAll(items)
			}
		})
	}
}

// counting is a sink that costs nothing and closes done when it has seen n messages.
type counting struct {
	n    int
	done chan struct{}
}

func (c *counting) Append(_ context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	if c.n -= len(batch); c.n <= 0 {
		close(c.done)
	}
	for range batch {
		outcomes = append(outcomes, store.Stored)
	}
	return outcomes, nil
}

// BenchmarkReceive is the way of a message from the socket to the sink and of its acknowledgement back, without what
// a commit costs.
func BenchmarkReceive(b *testing.B) {
	s := serve(b, nil)
	sink := &counting{n: b.N, done: make(chan struct{})}
	sub, err := New(options(s), sink)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- sub.Run(ctx) }()
	s.awaitSubscriptions(1)
	stream := &bytes.Buffer{}
	for i := range b.N {
		(&packets.Publish{Topic: fmt.Sprintf("devices/bed-%d/telemetry", i%100), Payload: []byte(example), QoS: 1,
			PacketID: uint16(i%65535) + 1, Properties: &packets.Properties{}}).WriteTo(stream)
	}
	s.mu.Lock()
	c := s.current
	s.mu.Unlock()
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := c.Write(stream.Bytes()); err != nil {
		b.Fatal(err)
	}
	<-sink.done
	b.StopTimer()
	cancel()
	<-ended
}
