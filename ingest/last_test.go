package ingest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func TestTheLastMessageOfADeviceIsRememberedAsItCame(t *testing.T) {
	s := &Subscriber{}
	_, there := s.LastMessage("bed-1")
	assert.False(t, there)
	d := newDecoder("probe", nil)
	s.last.note(d.decodeAll([]item{
		{topic: "devices/bed-1/telemetry", payload: []byte(`{"temperature": 1}`), received: 1},
		{topic: "devices/bed-2/telemetry", payload: bytes.Repeat([]byte("x"), 5000), received: 2},
		{topic: "devices/bed-1/telemetry", payload: []byte(`<not JSON>`), received: 3, clockUnsure: true},
		{topic: "probe", payload: []byte("1"), received: 4},
		{topic: "elsewhere", payload: []byte("1"), received: 5},
	}))
	last, there := s.LastMessage("bed-1")
	require.True(t, there)
	assert.Equal(t, LastMessage{"devices/bed-1/telemetry", []byte(`<not JSON>`), 10, 3, true}, last)
	last.Payload[0] = '!'
	again, _ := s.LastMessage("bed-1")
	assert.Equal(t, `<not JSON>`, string(again.Payload), "nobody changes what is remembered")
	large, _ := s.LastMessage("bed-2")
	assert.Len(t, large.Payload, maxLastBytes)
	assert.Equal(t, 5000, large.Size)
	_, there = s.LastMessage("")
	assert.False(t, there)
}

func TestLastMessagesAreBounded(t *testing.T) {
	s := &Subscriber{}
	for i := range maxLastDevices + 10 {
		s.last.note([]store.Message{{Device: fmt.Sprint(i), Payload: []byte("1")}})
	}
	assert.Len(t, s.last.of, maxLastDevices)
	s.last.note([]store.Message{{Device: "0", Payload: []byte("2")}})
	last, _ := s.LastMessage("0")
	assert.Equal(t, "2", string(last.Payload), "those that are known go on")
}

// What it costs beside decoding a batch of 500 messages of 50 devices.
func BenchmarkLastMessages(b *testing.B) {
	var items []item
	for i := range 500 {
		items = append(items, item{topic: fmt.Sprintf("devices/bed-%d/telemetry", i%50), received: 1,
			payload: []byte(`{"temperature":22.5,"humidity":65.0,"soil_moisture":45,"light_level":800.0}`)})
	}
	for _, noted := range []bool{false, true} {
		b.Run(fmt.Sprintf("noted=%t", noted), func(b *testing.B) {
			s, d := &Subscriber{}, newDecoder("", nil)
			for b.Loop() {
				if batch := d.decodeAll(items); noted {
					s.last.note(batch)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/message")
		})
	}
}
