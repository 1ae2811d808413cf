package session

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// receive takes a message that is to be routed.
func receive(t *testing.T, s *Session, id uint16, qos byte) Ticket {
	t.Helper()
	ticket, verdict, out := s.Receive(id, qos, nil)
	require.Equal(t, Route, verdict)
	require.Empty(t, out)
	return ticket
}

func again(t *testing.T, s *Session, id uint16) []string {
	t.Helper()
	_, verdict, out := s.Receive(id, 2, nil)
	require.Equal(t, Duplicate, verdict, "not routed twice [MQTT-4.3.3-10]")
	return show(out)
}

func complete(s *Session, ticket Ticket, reason Reason) []string {
	return show(s.Complete(ticket, reason, nil))
}

func version(v byte) func(*Connection) { return func(c *Connection) { c.Version = v } }

func TestAcknowledgementsLeaveInTheOrderOfTheirMessages(t *testing.T) {
	s := online(t, Options{}, nil)
	a1, b1, c1 := receive(t, s, 1, 1), receive(t, s, 2, 1), receive(t, s, 3, 1)
	a2, b2 := receive(t, s, 11, 2), receive(t, s, 12, 2)
	assert.Empty(t, complete(s, c1, 0))
	assert.Empty(t, complete(s, b1, 0x87), "a refusal waits for its place")
	assert.Empty(t, complete(s, b2, 0))
	assert.Equal(t, []string{"PUBREC id=11", "PUBREC id=12"}, complete(s, a2, 0), "not held up by PUBACKs [MQTT-4.6.0-3]")
	assert.Equal(t, []string{"PUBACK id=1", "PUBACK id=2 0x87", "PUBACK id=3"}, complete(s, a1, 0), "[MQTT-4.6.0-2]")
	assert.Empty(t, complete(s, a1, 0), "once")
	assert.Empty(t, complete(s, a2, 0), "once")
}

func TestAMessageIsAnsweredAtOnceWhereNoneWaits(t *testing.T) {
	answer := func(s *Session, id uint16) []string {
		out, done := s.Answer(id, 0, nil)
		require.Equal(t, len(out) > 0, done)
		return show(out)
	}
	s := online(t, Options{ReceiveMaximum: 3}, version(5))
	require.True(t, s.Straight(3))
	assert.False(t, s.Straight(4), "Receive Maximum")
	assert.Equal(t, []string{"PUBACK id=1"}, answer(s, 1))
	require.True(t, s.Straight(2))
	waits := receive(t, s, 2, 1)
	assert.Empty(t, answer(s, 3), "one before it waits [MQTT-4.6.0-2]")
	behind := receive(t, s, 3, 1)
	assert.False(t, s.Straight(1))
	assert.Empty(t, complete(s, behind, 0))
	assert.Equal(t, []string{"PUBACK id=2", "PUBACK id=3"}, complete(s, waits, 0))
	receive(t, s, 9, 2)
	assert.True(t, s.Straight(2), "PUBRECs have a row of their own")
	assert.False(t, s.Straight(3))
	assert.Equal(t, []string{"PUBACK id=4"}, answer(s, 4))
}

func TestQoS0NeedsNoTicket(t *testing.T) {
	s := online(t, Options{}, nil)
	ticket := receive(t, s, 0, 0)
	assert.Zero(t, ticket)
	assert.Empty(t, complete(s, ticket, 0))
	assert.Empty(t, s.Abandon(ticket, nil))
}

func TestQoS2IsRoutedOnce(t *testing.T) {
	s := online(t, Options{}, nil)
	ticket := receive(t, s, 7, 2)
	assert.Empty(t, again(t, s, 7), "its PUBREC is still to come")
	assert.Equal(t, []string{"PUBREC id=7"}, complete(s, ticket, 0))
	assert.Equal(t, []string{"PUBREC id=7"}, again(t, s, 7))
	assert.Equal(t, []string{"PUBCOMP id=7"}, show(s.Pubrel(7, nil)))
	receive(t, s, 7, 2) // [MQTT-4.3.3-12]
}

func TestQoS2IsRoutedOnceOverConnections(t *testing.T) {
	s := online(t, Options{}, nil)
	early, late := receive(t, s, 1, 2), receive(t, s, 2, 2)
	s.Disconnect(noon, Lost, nil)
	assert.Empty(t, complete(s, early, 0), "nobody there to tell")
	connect(s, nil)
	assert.Equal(t, []string{"PUBREC id=1"}, again(t, s, 1))
	assert.Empty(t, again(t, s, 2))
	assert.Equal(t, []string{"PUBREC id=2"}, complete(s, late, 0), "the late completion answers the repetition")
	assert.Equal(t, []string{"PUBCOMP id=2"}, show(s.Pubrel(2, nil)))
}

func TestPubrelOfAnOldConnection(t *testing.T) {
	s := online(t, Options{ReceiveMaximum: 1}, nil)
	complete(s, receive(t, s, 1, 2), 0)
	s.Disconnect(noon, Lost, nil)
	connect(s, nil)
	receive(t, s, 2, 1)
	assert.Equal(t, []string{"PUBCOMP id=1"}, show(s.Pubrel(1, nil)))
	_, verdict, _ := s.Receive(3, 1, nil)
	assert.Equal(t, TooMany, verdict, "it did not count on this connection, so it gives nothing back")
}

func TestLateCompletionIsNotSentOnANewConnection(t *testing.T) {
	s := online(t, Options{}, nil)
	old, old2 := receive(t, s, 1, 1), receive(t, s, 2, 2)
	s.Disconnect(noon, Lost, nil)
	connect(s, nil)
	repeated := receive(t, s, 1, 1)
	assert.Empty(t, complete(s, old, 0))
	assert.Empty(t, complete(s, old2, 0), "not before the client repeats it")
	assert.Equal(t, []string{"PUBACK id=1"}, complete(s, repeated, 0))
}

func TestReceiveMaximum(t *testing.T) {
	s := online(t, Options{ReceiveMaximum: 2}, version(5))
	a := receive(t, s, 1, 1)
	b := receive(t, s, 2, 2)
	_, verdict, out := s.Receive(3, 1, nil)
	assert.Equal(t, TooMany, verdict)
	assert.Equal(t, []string{"close 0x93"}, show(out))
	complete(s, a, 0)
	complete(s, b, 0)
	receive(t, s, 3, 1)
	_, verdict, _ = s.Receive(4, 1, nil)
	assert.Equal(t, TooMany, verdict, "PUBREC gives nothing back, PUBCOMP does")
	s.Pubrel(2, nil)
	c := receive(t, s, 4, 2)
	s.Complete(c, 0x87, nil)
	_, verdict, _ = s.Receive(5, 1, nil)
	assert.Equal(t, Route, verdict, "so does a PUBREC that refuses")

	s = online(t, Options{ReceiveMaximum: 1}, version(4))
	receive(t, s, 1, 1)
	receive(t, s, 2, 1)
}

func TestRefusedQoS2(t *testing.T) {
	s := online(t, Options{}, version(5))
	assert.Equal(t, []string{"PUBREC id=1 0x87"}, complete(s, receive(t, s, 1, 2), 0x87))
	receive(t, s, 1, 2) // a new message [MQTT-4.3.3-9]

	s = online(t, Options{}, version(4))
	out := s.Complete(receive(t, s, 1, 2), 0x87, nil)
	assert.Equal(t, []byte{0x50, 2, 0, 1}, out[0].AppendPacket(nil, 4))
	again(t, s, 1) // 3.1.1 goes on to PUBREL
	assert.Equal(t, []string{"PUBCOMP id=1"}, show(s.Pubrel(1, nil)))

	ticket := receive(t, s, 2, 2)
	s.Disconnect(noon, Lost, nil)
	complete(s, ticket, 0x87)
	connect(s, nil)
	receive(t, s, 2, 2) // nobody was told, so it is judged anew
}

func TestPubrelOfNothing(t *testing.T) {
	s := online(t, Options{}, nil)
	out := s.Pubrel(1, nil)
	assert.Equal(t, []string{"PUBCOMP id=1"}, show(out)) // [MQTT-4.3.3-11]
	assert.Equal(t, uint64(1), s.Stats().Stray)
	assert.Equal(t, []byte{0x70, 2, 0, 1}, out[0].AppendPacket(nil, 5))
	assert.Equal(t, []byte{0x70, 2, 0, 1}, out[0].AppendPacket(nil, 4))
}

func TestPubrelBeforePubrecGivesTheMessageUp(t *testing.T) {
	s := online(t, Options{}, nil)
	a, b := receive(t, s, 1, 2), receive(t, s, 2, 2)
	assert.Equal(t, []string{"PUBCOMP id=1"}, show(s.Pubrel(1, nil)))
	assert.Empty(t, complete(s, a, 0))
	assert.Equal(t, []string{"PUBREC id=2"}, complete(s, b, 0), "its place holds nobody up")
}

func TestAbandonedMessagesAreRoutedAgain(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		s := online(t, Options{}, nil)
		ticket := receive(t, s, 1, qos)
		assert.Equal(t, []string{"close 0x97"}, show(s.Abandon(ticket, nil)))
		s.Disconnect(noon, Lost, nil)
		connect(s, nil)
		next := receive(t, s, 1, qos)
		assert.Empty(t, s.Abandon(ticket, nil), "of a connection that is gone")
		assert.Empty(t, complete(s, ticket, 0))
		assert.Len(t, complete(s, next, 0), 1)
		assert.Empty(t, s.Abandon(next, nil), "complete already")
	}
}

func TestPacketIDsOfBothDirectionsAreApart(t *testing.T) {
	s := online(t, Options{}, nil)
	deliver(s, "one", 1)
	deliver(s, "two", 2)
	a, b := receive(t, s, 1, 1), receive(t, s, 2, 2)
	assert.Equal(t, []string{"PUBACK id=1"}, complete(s, a, 0))
	assert.Equal(t, []string{"PUBREC id=2"}, complete(s, b, 0))
	assert.Equal(t, []string{"PUBCOMP id=2"}, show(s.Pubrel(2, nil)))
	assert.Equal(t, 2, s.Stats().InFlight)
}

func TestAcknowledgementsGoOutInAPause(t *testing.T) {
	s := online(t, Options{}, nil)
	s.Pause()
	assert.Equal(t, []string{"PUBACK id=1"}, complete(s, receive(t, s, 1, 1), 0))
}

func TestAMessageOfAnOlderConnectionIsKnownByWhatItSays(t *testing.T) {
	s := online(t, Options{}, nil)
	complete(s, says(t, s, 7, 2, 1), Success)
	s.Disconnect(noon, Lost, nil)
	connect(s, nil)
	assert.False(t, s.Repeated(7, 2, 1), "with DUP or without, as MQTT.js and rumqttc do")
	_, verdict, out := s.Receive(7, 2, nil)
	assert.Equal(t, Duplicate, verdict)
	assert.Equal(t, []string{"PUBREC id=7"}, show(out))
	s.Disconnect(noon, Lost, nil)
	connect(s, nil)
	says(t, s, 7, 2, 2) // another one on that id is routed
}

func TestHeldIDsAreBounded(t *testing.T) {
	s := online(t, Options{MaxHeld: 2}, version(4))
	receive(t, s, 1, 2)
	receive(t, s, 2, 2)
	assert.Equal(t, 2*heldBytes, s.StateBytes())
	receive(t, s, 3, 1) // QoS 1 is not held
	_, verdict, out := s.Receive(4, 2, nil)
	assert.Equal(t, TooMany, verdict)
	assert.Equal(t, []string{"close 0x93"}, show(out))
}

func TestARoutedMessageThatStorageLostIsForStorageOnly(t *testing.T) {
	s := online(t, Options{}, nil)
	ticket := receive(t, s, 7, 2)
	s.Routed(ticket)
	assert.Equal(t, []string{"close 0x97"}, show(s.Abandon(ticket, nil)))
	s.Disconnect(noon, Lost, nil)
	connect(s, nil)
	ticket, verdict, _ := s.Receive(7, 2, nil)
	assert.Equal(t, StoreOnly, verdict)
	assert.Equal(t, []string{"PUBREC id=7"}, complete(s, ticket, Success))
}

func TestABurstOfQoS2LeavesNothing(t *testing.T) {
	s := online(t, Options{}, nil)
	for round := range 3 {
		for id := uint16(1); id <= 1000; id++ {
			ticket, verdict, _ := s.Receive(id, 2, nil)
			require.Equal(t, Route, verdict, round)
			s.Complete(ticket, Success, nil)
		}
		for id := uint16(1); id <= 1000; id++ {
			require.Equal(t, []Effect{{Kind: Pubcomp, PacketID: id}}, s.Pubrel(id, nil))
		}
		assert.LessOrEqual(t, len(s.incoming.spare), keepSpare)
		assert.Nil(t, s.incoming.held)
	}
}
