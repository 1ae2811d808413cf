package ingest

import (
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func TestRedeliveredMessagesAreRecognised(t *testing.T) {
	type step struct {
		conn  int
		id    uint16
		dup   bool
		known bool
	}
	for name, steps := range map[string][]step{
		"sent again after a lost connection":       {{0, 1, false, false}, {1, 1, true, true}},
		"sent again before it was ever stored":     {{0, 1, false, false}, {1, 2, true, false}},
		"the id is used again":                     {{0, 1, false, false}, {0, 1, false, false}, {1, 1, true, true}},
		"the broker has forgotten the session":     {{0, 1, false, false}, {2, 1, true, false}},
		"so long ago that the id may be another's": {{0, 1, false, false}, {0, 2, false, false}, {0, 3, false, false}, {0, 4, false, false}, {1, 1, true, false}, {1, 4, true, true}},
		"QoS 0 has no id":                          {{0, 0, false, false}, {0, 0, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			conns := []*conn{{session: 1}, {session: 1}, {session: 2}}
			r := newRedelivery(3)
			for i, s := range steps {
				assert.Equal(t, s.known, r.known(&item{id: s.id, dup: s.dup, from: conns[s.conn]}), "step %d", i)
			}
		})
	}
}

// The first connection of the new session was lost before anything came through; what it sent comes again on the next
// one, with ids that the old session had used. It must not pass for stored.
func TestIDsOfAForgottenSessionMeanNothing(t *testing.T) {
	s, sink := serve(t, nil), &open{}
	start(t, options(s), sink)
	s.awaitSubscriptions(1)
	s.awaitAcks(s.publish(telemetryTopic, reading(1), 1))
	s.cut()
	s.awaitSubscriptions(2)
	s.mu.Lock()
	s.present, s.nextID = true, 0
	lost := &packets.Publish{Topic: telemetryTopic, Payload: []byte(reading(2)), QoS: 1, PacketID: 1, Properties: &packets.Properties{}}
	s.unacked = append(s.unacked, lost) // and never sent before the cut
	s.mu.Unlock()
	s.cut()
	s.awaitSubscriptions(3)
	s.await("acknowledgement", func() bool { return len(s.acks) == 2 })
	sink.mu.Lock()
	defer sink.mu.Unlock()
	require.Len(t, sink.messages, 2)
	assert.Equal(t, reading(2), string(sink.messages[1].Payload))
}

func TestWhatIsStoredAndComesAgainIsAcknowledgedAndNotStoredAgain(t *testing.T) {
	s, g := serve(t, nil), newGate()
	s.present = true
	sub, _ := start(t, options(s), g)
	s.awaitSubscriptions(1)
	id := s.publish(telemetryTopic, reading(1), 1)
	g.next(t)
	s.cut()
	s.awaitSubscriptions(2) // and the server sends the message again, before it is stored
	g.answer <- nil
	s.awaitAcks(id)
	next := s.publish(telemetryTopic, reading(2), 1)
	require.Equal(t, reading(2), string(g.next(t)[0].Payload), "the first comes once")
	g.answer <- nil
	s.awaitAcks(id, next)
	st := sub.Stats()
	assert.Equal(t, []int64{2, 2, 0}, []int64{st.Received, st.Stored, st.Pending})
}

func TestAProbeIsCommittedAndNotCounted(t *testing.T) {
	s, sink := serve(t, nil), &open{}
	o := options(s)
	o.ProbeTopic = "$plantops/probe"
	sub, _ := start(t, o, sink)
	s.awaitSubscriptions(1)
	s.mu.Lock()
	assert.Equal(t, o.ProbeTopic, s.request.Subscriptions[len(o.Topics)].Topic)
	s.mu.Unlock()
	id := s.publish(o.ProbeTopic, "", 1)
	s.awaitAcks(id)
	sink.mu.Lock()
	defer sink.mu.Unlock()
	assert.Equal(t, store.Probe, sink.messages[0].Kind)
	assert.Zero(t, sub.Stats().Received)
}
