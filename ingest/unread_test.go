package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func TestUnreadFieldsAreLoggedOnceAnHour(t *testing.T) {
	out := &logs{}
	u := newUnread(slog.New(slog.NewTextHandler(out, nil)))
	now := time.UnixMilli(arrival)
	say := func(device, text string, outcome store.Outcome) {
		m := store.Message{Device: device, Topic: "devices/" + device + "/telemetry", Skipped: []store.Skipped{{Field: "unit", Text: "C"}, {Field: "temperature", Text: text}}}
		u.committed([]store.Message{{Device: "quiet"}, m}, []store.Outcome{store.Stored, outcome}, now)
	}
	lines := func() int { return strings.Count(out.String(), "\n") }
	say("bed-1", "21,5", store.Stored)
	assert.Contains(t, out.String(), `device=bed-1 topic=devices/bed-1/telemetry count=2 field=temperature text=21,5`)
	for range 10 {
		say("bed-1", "21,6", store.Stored)
		say("bed-1", "21,6", store.Duplicate)
	}
	assert.Equal(t, 1, lines())
	say("bed-2", "x", store.Quarantined)
	assert.Equal(t, 2, lines(), "another device")
	now = now.Add(time.Hour)
	say("bed-1", "21,7", store.Stored)
	assert.Contains(t, out.String(), `device=bed-1 topic=devices/bed-1/telemetry count=22 field=temperature text=21,7`)
	now = now.Add(-30 * 24 * time.Hour)
	say("bed-1", "21,8", store.Stored)
	assert.Equal(t, 4, lines(), "the clock was put back")

	for i := range 3 * maxUnreadDevices {
		say(fmt.Sprint("many-", i), "x", store.Stored)
	}
	assert.LessOrEqual(t, lines(), 4+maxUnreadDevices+1)
	assert.LessOrEqual(t, len(u.devices), maxUnreadDevices+1)
}

// caught is a sink that holds the first batch until its gate opens, and keeps all.
type caught struct {
	gate     chan struct{}
	offered  chan struct{}
	messages []store.Message
}

func (c *caught) Append(_ context.Context, batch []store.Message, outcomes []store.Outcome) ([]store.Outcome, error) {
	if c.offered != nil {
		close(c.offered)
		c.offered = nil
	}
	<-c.gate
	c.messages = append(c.messages, batch...)
	return append(outcomes, make([]store.Outcome, len(batch))...), nil
}

// A time server is reached while a message waits behind a slow commit: the clock was not set when the message came.
func TestWhetherTheClockIsSureIsJudgedAtArrival(t *testing.T) {
	unsure, now := true, time.Unix(60, 0)
	offered := make(chan struct{})
	sink := &caught{gate: make(chan struct{}), offered: offered}
	o := to("x", 1, "a")
	o.ClockUnsure, o.Now = func() bool { return unsure }, func() time.Time { return now }
	s, err := New(o, sink)
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- s.commitUntilDrained(t.Context()) }()
	put := func(payload string) {
		s.count.received.Add(1)
		require.Equal(t, 1, s.queue.put(item{topic: telemetryTopic, payload: []byte(payload), received: now.UnixMilli()}))
	}
	put(`{"ph":1}`)
	<-offered
	put(`{"timestamp":"2026-11-30T02:00:00Z","ph":2}`)
	put(`{"ph":3}`)
	unsure = false
	put(`{"ph":4}`)
	close(sink.gate)
	s.queue.close()
	require.NoError(t, <-done)
	require.Len(t, sink.messages, 4)
	for i, m := range sink.messages {
		assert.Equal(t, i < 3, m.ClockUnsure, "message %d", i)
	}
	assert.Equal(t, store.FromDevice, sink.messages[1].TimeSource, "the device knew better then")
}
