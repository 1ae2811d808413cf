package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dropNames are the reasons for Dropped as show has them.
var dropNames = [numDrops]string{"expired", "too large", "queue full", "offline", "refused", "session ended", "lost"}

// show writes effects the way the tests compare them.
func show(out []Effect) []string {
	lines := []string{}
	for _, e := range out {
		line := map[Kind]string{Publish: "PUBLISH", Puback: "PUBACK", Pubrec: "PUBREC", Pubrel: "PUBREL", Pubcomp: "PUBCOMP",
			Close: "close", Delivered: "delivered", Dropped: "dropped", WillDue: "will", Ended: "ended"}[e.Kind]
		if e.Message != nil {
			line += " " + e.Message.Topic
		}
		if e.PacketID > 0 {
			line += fmt.Sprintf(" id=%d", e.PacketID)
		}
		if e.Token != nil {
			line += fmt.Sprintf(" %v", e.Token)
		}
		if e.Kind == Dropped {
			line += ": " + dropNames[e.Drop]
		}
		if e.Reason != 0 {
			line += fmt.Sprintf(" 0x%X", byte(e.Reason))
		}
		if e.DUP {
			line += " dup"
		}
		lines = append(lines, line)
	}
	return lines
}

// connect attaches a connection and resumes it; v5 that lasts, unless changed.
func connect(s *Session, change func(*Connection)) []string {
	c := Connection{Version: 5, Expiry: Forever}
	if change != nil {
		change(&c)
	}
	_, out := s.Connect(noon, c, nil)
	return show(s.Resume(noon, 1<<30, out))
}

func online(t *testing.T, o Options, change func(*Connection)) *Session {
	t.Helper()
	s := New(o)
	require.Empty(t, connect(s, change))
	return s
}

// deliver offers a message of this topic and QoS, the topic being the token.
func deliver(s *Session, topic string, qos byte) []string {
	m := &Message{Topic: topic, QoS: qos}
	return show(s.Deliver(noon, m, Offer{QoS: 2, Token: topic}, nil))
}

func TestMessagesCarryWhatTheSubscriptionAsksFor(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		message Message
		offer   Offer
		want    Effect
	}{
		"the lower QoS, of the subscription":    {Options{}, Message{QoS: 2}, Offer{QoS: 1}, Effect{QoS: 1, PacketID: 1}},
		"the lower QoS, of the publication":     {Options{}, Message{QoS: 0}, Offer{QoS: 2}, Effect{}},
		"raised":                                {Options{RaiseQoS0: true}, Message{QoS: 0}, Offer{QoS: 2}, Effect{QoS: 1, PacketID: 1}},
		"not raised above the subscription":     {Options{RaiseQoS0: true}, Message{QoS: 0}, Offer{QoS: 0}, Effect{}},
		"only QoS 0 is raised":                  {Options{RaiseQoS0: true}, Message{QoS: 2}, Offer{QoS: 2}, Effect{QoS: 2, PacketID: 1}},
		"RETAIN is cleared [MQTT-3.3.1-12]":     {Options{}, Message{Retain: true}, Offer{}, Effect{}},
		"RETAIN as published [MQTT-3.3.1-13]":   {Options{}, Message{Retain: true}, Offer{RetainAsPublished: true}, Effect{Retain: true}},
		"as published means not set, too":       {Options{}, Message{}, Offer{RetainAsPublished: true}, Effect{}},
		"RETAIN because of a new subscription":  {Options{}, Message{}, Offer{Retained: true}, Effect{Retain: true}},
		"identifiers [MQTT-3.3.4-3]":            {Options{}, Message{}, Offer{SubscriptionIDs: []uint32{1, 2}}, Effect{SubscriptionIDs: []uint32{1, 2}}},
		"expiry counted down [MQTT-3.3.2-6]":    {Options{}, Message{Expires: noon.Add(1500 * time.Millisecond)}, Offer{}, Effect{Expiry: 2}},
		"the own message where No Local is off": {Options{}, Message{Publisher: "me"}, Offer{}, Effect{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, c.options, nil)
			c.want.Kind, c.want.Message = Publish, &c.message
			assert.Equal(t, []Effect{c.want}, s.Deliver(noon, &c.message, c.offer, nil))
		})
	}
}

func TestMessagesThatAreDropped(t *testing.T) {
	for name, c := range map[string]struct {
		message Message
		offer   Offer
		want    Drop
	}{
		"expired [MQTT-3.3.2-5]":    {Message{Expires: noon, QoS: 1}, Offer{QoS: 1}, DropExpired},
		"too large [MQTT-3.1.2-24]": {Message{Payload: make([]byte, 100)}, Offer{}, DropTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{}, func(c *Connection) { c.MaximumPacketSize = 100 })
			assert.Empty(t, s.Deliver(noon, &c.message, c.offer, nil), "nothing to say without a token")
			c.offer.Token = "x"
			assert.Equal(t, []Effect{{Kind: Dropped, Drop: c.want, Token: "x"}}, s.Deliver(noon, &c.message, c.offer, nil))
			assert.EqualValues(t, 2, s.Stats().Dropped[c.want])
			assert.Equal(t, []string{"PUBLISH a id=1"}, deliver(s, "a", 1), "the next one is not held up")
		})
	}
}

func TestMaximumPacketSizeIsExact(t *testing.T) {
	s := online(t, Options{}, func(c *Connection) { c.MaximumPacketSize = 10 })
	fits := &Message{Topic: "a", Payload: make([]byte, 4)} // 2 + 2+1 + 1 + 4
	assert.Len(t, s.Deliver(noon, fits, Offer{}, nil), 1)
	assert.Empty(t, s.Deliver(noon, &Message{Topic: "a", Payload: make([]byte, 5)}, Offer{}, nil))
}

func TestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		window  int
		version byte
		receive uint16
		want    int
	}{
		"3.1.1 by default":            {0, 4, 0, 256},
		"3.1.1 by option":             {5, 4, 0, 5},
		"5 announces nothing":         {5, 5, 0, 5},
		"5 announces less":            {5, 5, 3, 3},
		"5 announces more":            {5, 5, 9, 5},
		"credits of the ingest":       {4000, 5, 4000, 4000},
		"more than there are ids":     {70_000, 4, 0, 65_535},
		"as much as MQTT 5 can allow": {70_000, 5, 65_535, 65_535},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{Window: c.window, MaxQueuedBytes: 1 << 30, MaxQueued: 1 << 20}, func(k *Connection) { k.Version, k.ReceiveMaximum = c.version, c.receive })
			assert.Equal(t, c.want, s.Room())
			m, seen := &Message{QoS: 1}, map[uint16]bool{}
			for range c.want {
				out := s.Deliver(noon, m, Offer{QoS: 1}, nil)
				require.Len(t, out, 1)
				seen[out[0].PacketID] = true
			}
			assert.Len(t, seen, c.want, "every id once")
			assert.LessOrEqual(t, len(s.outgoing.flights.slots), max(8, min(4*c.want, 65_536)), "the table is bounded")
			assert.NotContains(t, seen, uint16(0))
			assert.Empty(t, deliver(s, "waits", 1))
			out := s.Puback(noon, 1, 0, nil)
			require.Len(t, out, 1, "the place is taken at once")
			assert.Equal(t, "waits", out[0].Message.Topic)
			assert.Zero(t, s.Room())
		})
	}
}

func TestAnIDThatIsNotAcknowledgedIsSkipped(t *testing.T) {
	s := online(t, Options{Window: 3}, nil)
	deliver(s, "stuck", 1)
	for n := range 3 * maxIDs {
		out := s.Deliver(noon, &Message{Topic: "a", QoS: 1}, Offer{QoS: 1}, nil)
		require.Len(t, out, 1)
		require.Greater(t, out[0].PacketID, uint16(1), "after %d", n)
		s.Puback(noon, out[0].PacketID, 0, nil)
	}
	assert.Equal(t, []string{"delivered stuck"}, show(s.Puback(noon, 1, 0, nil)))
}

func TestQoS0IsKeptOnlyForThoseWhoAreThere(t *testing.T) {
	s := online(t, Options{}, nil)
	assert.Equal(t, []string{"PUBLISH a", "delivered a"}, deliver(s, "a", 0))
	s.Pause()
	assert.Empty(t, deliver(s, "b", 0))
	assert.Empty(t, deliver(s, "c", 0))
	assert.Equal(t, []string{"PUBLISH b", "delivered b"}, show(s.Resume(noon, 1, nil)), "at the connection's pace")
	assert.True(t, s.Paused())
	assert.Equal(t, []string{"dropped c: offline"}, show(s.Disconnect(noon, Lost, nil)))
	assert.Equal(t, []string{"dropped d: offline"}, deliver(s, "d", 0))
}

func TestWhatTheHeadHasNoRoomForIsTheTail(t *testing.T) {
	s := online(t, Options{MaxQueued: 3}, nil)
	s.Pause()
	deliver(s, "a", 1)
	deliver(s, "zero", 0)
	deliver(s, "b", 1)
	assert.Equal(t, []string{"dropped void: queue full"}, deliver(s, "void", 0))
	var tail []Entry
	for _, topic := range []string{"c", "d"} {
		out := s.Deliver(noon, &Message{Topic: topic, QoS: 2}, Offer{QoS: 2}, nil)
		require.Len(t, out, 1)
		require.Equal(t, Enqueued, out[0].Kind)
		tail = append(tail, out[0].Entry())
	}
	assert.False(t, s.WantsLoad(), "the head is long enough")
	assert.Equal(t, []string{"PUBLISH a id=1", "PUBLISH b id=2", "PUBLISH zero", "delivered zero"}, show(s.Resume(noon, 1<<20, nil)))
	assert.True(t, s.WantsLoad())
	assert.Empty(t, s.Load(noon, tail[:1], tail[0].Seq, nil))
	assert.Equal(t, []string{"PUBLISH c id=3"}, show(s.Resume(noon, 1<<20, nil)))
	assert.Equal(t, []string{" e e"}, deliver(s, "e", 1), "behind d")
	assert.Empty(t, s.Load(noon, append(tail[1:], Entry{Seq: 5, QoS: 1, Message: &Message{Topic: "e", QoS: 1}}), 5, nil))
	assert.Equal(t, []string{"PUBLISH d id=4", "PUBLISH e id=5"}, show(s.Resume(noon, 1<<20, nil)))
	assert.Equal(t, []string{"PUBLISH f id=6"}, deliver(s, "f", 1))
}

func TestWhatHasExpiredMakesRoom(t *testing.T) {
	s := online(t, Options{MaxQueued: 3}, nil)
	s.Pause()
	for range 3 {
		s.Deliver(noon, &Message{Topic: "old", QoS: 1, Expires: noon.Add(time.Second)}, Offer{QoS: 1}, nil)
	}
	later := noon.Add(time.Minute)
	assert.Empty(t, s.Deliver(later, &Message{Topic: "new", QoS: 1}, Offer{QoS: 1}, nil))
	assert.Equal(t, []string{"PUBLISH new id=1"}, show(s.Resume(later, 1<<20, nil)))
	assert.EqualValues(t, 3, s.Stats().Dropped[DropExpired])
}

func TestTheHeadIsBoundedInBytes(t *testing.T) {
	s := online(t, Options{MaxQueuedBytes: 1000}, nil)
	large := &Message{Topic: "large", QoS: 1, Payload: make([]byte, 2000)}
	assert.Len(t, s.Deliver(noon, large, Offer{QoS: 1}, nil), 1, "let in when nothing else is held")
	assert.Equal(t, []string{" a a"}, deliver(s, "a", 1), "unacknowledged bytes count")
	s.Puback(noon, 1, 0, nil)
	assert.Zero(t, s.Stats().Bytes)
	messages, bytes, after := s.Tail()
	assert.Equal(t, []int{1, 257, 1}, []int{messages, bytes, int(after)})
}

func TestRedeliveryKeepsOrderAndFlagsOnlyWhatWasSent(t *testing.T) {
	s := online(t, Options{Window: 4}, nil)
	for _, topic := range []string{"a", "b", "c", "d", "e"} {
		deliver(s, topic, 2)
	}
	assert.Equal(t, []string{"delivered d", "PUBREL id=4"}, show(s.Pubrec(noon, 4, 0, nil)))
	assert.Equal(t, []string{"delivered a", "PUBREL id=1"}, show(s.Pubrec(noon, 1, 0, nil)))
	s.Disconnect(noon, Lost, nil)
	assert.Equal(t, []string{"PUBREL id=4", "PUBREL id=1", "PUBLISH b id=2 dup", "PUBLISH c id=3 dup"}, connect(s, nil))
	assert.Equal(t, []string{"PUBLISH e id=5"}, show(s.Pubcomp(noon, 1, nil)), "never sent, so no DUP")
	assert.Equal(t, []string{"PUBREL id=4"}, show(s.Pubrec(noon, 4, 0, nil)), "a repeated PUBREC is answered again")
}

func TestRedeliveryKeepsToTheNewWindow(t *testing.T) {
	s := online(t, Options{}, nil)
	for i := range 60 {
		deliver(s, fmt.Sprint(i), 1)
	}
	s.Disconnect(noon, Lost, nil)
	assert.Len(t, connect(s, func(c *Connection) { c.ReceiveMaximum = 5 }), 5)
	deliver(s, "new", 1)
	assert.Equal(t, []string{"delivered 0", "PUBLISH 5 id=6 dup"}, show(s.Puback(noon, 1, 0, nil)))
	for id := uint16(2); id < 57; id++ {
		s.Puback(noon, id, 0, nil)
	}
	assert.Equal(t, 5, s.Stats().InFlight, "57 to 60 and the new one")
}

func TestTooLargeForTheNextConnection(t *testing.T) {
	s := online(t, Options{}, nil)
	for _, topic := range []string{"0123456789", "a"} {
		deliver(s, topic, 2)
	}
	deliver(s, "0123456789x", 1)
	s.Disconnect(noon, Lost, nil)
	small := func(c *Connection) { c.MaximumPacketSize = 14 }
	assert.Equal(t, []string{"dropped id=1 0123456789: too large", "PUBREL id=1", "PUBLISH a id=2 dup", "dropped id=3 0123456789x: too large"},
		connect(s, small), "the client may know the QoS 2 id, so it is released")
	assert.Equal(t, 2, s.Stats().InFlight)
	s.Pubcomp(noon, 1, nil)
	assert.Equal(t, 1, s.Stats().InFlight)
}

func TestWhatIsReleasedUnreceivedKeepsItsPlace(t *testing.T) {
	s := online(t, Options{}, nil)
	deliver(s, "0123456789", 2)
	deliver(s, "a", 2)
	s.Pubrec(noon, 2, 0, nil)
	s.Disconnect(noon, Lost, nil)
	assert.Equal(t, []string{"PUBREL id=2", "dropped id=1 0123456789: too large", "PUBREL id=1"},
		connect(s, func(c *Connection) { c.MaximumPacketSize = 14 }))
	s.Disconnect(noon, Lost, nil)
	assert.Equal(t, []string{"PUBREL id=2", "PUBREL id=1"}, connect(s, nil))
}

func TestWhatWasSentDoesNotExpire(t *testing.T) {
	s := online(t, Options{Window: 1}, nil)
	for _, topic := range []string{"sent", "waits"} {
		s.Deliver(noon, &Message{Topic: topic, QoS: 1, Expires: noon.Add(time.Second)}, Offer{QoS: 1, Token: topic}, nil)
	}
	s.Disconnect(noon, Lost, nil)
	later := noon.Add(time.Minute)
	s.Connect(later, Connection{Version: 5, Expiry: Forever}, nil)
	out := s.Resume(later, 1<<30, nil)
	assert.Equal(t, []string{"PUBLISH sent id=1 dup"}, show(out)) // [MQTT-4.3.3-7]
	assert.EqualValues(t, 1, out[0].Expiry)
	assert.Equal(t, []string{"delivered sent", "dropped waits: expired"}, show(s.Puback(later, 1, 0, nil)))
}

func TestAcknowledgementsFromTheClient(t *testing.T) {
	rec := func(reason Reason) func(*Session) []Effect {
		return func(s *Session) []Effect { return s.Pubrec(noon, 2, reason, nil) }
	}
	ack := func(id uint16, reason Reason) func(*Session) []Effect {
		return func(s *Session) []Effect { return s.Puback(noon, id, reason, nil) }
	}
	comp := func(id uint16) func(*Session) []Effect {
		return func(s *Session) []Effect { return s.Pubcomp(noon, id, nil) }
	}
	for name, c := range map[string]struct {
		version  byte
		do       []func(*Session) []Effect
		want     []string
		inFlight int
	}{
		"PUBACK":                         {5, []func(*Session) []Effect{ack(1, 0)}, []string{"delivered one"}, 1},
		"PUBACK no matching subscribers": {5, []func(*Session) []Effect{ack(1, 0x10)}, []string{"delivered one"}, 1},
		"PUBACK that refuses":            {5, []func(*Session) []Effect{ack(1, 0x87)}, []string{"dropped one: refused 0x87"}, 1},
		"PUBACK of an unknown id":        {5, []func(*Session) []Effect{ack(9, 0)}, []string{}, 2},
		"PUBACK for QoS 2":               {5, []func(*Session) []Effect{ack(2, 0)}, []string{"close 0x82"}, 2},
		"PUBACK twice":                   {5, []func(*Session) []Effect{ack(1, 0), ack(1, 0)}, []string{}, 1},
		"PUBREC":                         {5, []func(*Session) []Effect{rec(0)}, []string{"delivered two", "PUBREL id=2"}, 2},
		"PUBREC that refuses":            {5, []func(*Session) []Effect{rec(0x99)}, []string{"dropped two: refused 0x99"}, 1},
		"PUBREC refuses after success":   {5, []func(*Session) []Effect{rec(0), rec(0x80)}, []string{}, 1},
		"PUBREC for QoS 1":               {5, []func(*Session) []Effect{func(s *Session) []Effect { return s.Pubrec(noon, 1, 0, nil) }}, []string{"close 0x82"}, 2},
		"PUBREC of an unknown id":        {5, []func(*Session) []Effect{func(s *Session) []Effect { return s.Pubrec(noon, 9, 0, nil) }}, []string{"PUBREL id=9 0x92"}, 2},
		"refusal of an unknown id":       {5, []func(*Session) []Effect{func(s *Session) []Effect { return s.Pubrec(noon, 9, 0x80, nil) }}, []string{}, 2},
		"PUBCOMP":                        {4, []func(*Session) []Effect{rec(0), comp(2)}, []string{}, 1},
		"PUBCOMP before PUBREC":          {4, []func(*Session) []Effect{comp(2)}, []string{"close 0x82"}, 2},
		"PUBCOMP for QoS 1":              {4, []func(*Session) []Effect{comp(1)}, []string{"close 0x82"}, 2},
		"PUBACK after PUBREC":            {5, []func(*Session) []Effect{rec(0), ack(2, 0)}, []string{"close 0x82"}, 2},
		"PUBREC twice":                   {5, []func(*Session) []Effect{rec(0), rec(0)}, []string{"PUBREL id=2"}, 2},
		"PUBCOMP of an unknown id":       {4, []func(*Session) []Effect{comp(9)}, []string{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{}, func(k *Connection) { k.Version = c.version })
			deliver(s, "one", 1)
			deliver(s, "two", 2)
			var out []Effect
			for _, do := range c.do {
				out = do(s)
			}
			assert.Equal(t, c.want, show(out))
			assert.Equal(t, c.inFlight, s.Stats().InFlight)
		})
	}
}

func TestNothingHappensWithoutAConnection(t *testing.T) {
	s := online(t, Options{}, nil)
	deliver(s, "a", 1)
	deliver(s, "b", 2)
	s.Disconnect(noon, Lost, nil)
	assert.Empty(t, s.Puback(noon, 1, 0, nil))
	assert.Empty(t, s.Pubrec(noon, 2, 0, nil))
	assert.Empty(t, s.Pubrel(1, nil))
	assert.Empty(t, s.Resume(noon, 1000, nil))
	assert.Empty(t, s.Disconnect(noon, Lost, nil))
	assert.Zero(t, s.Room())
	assert.Equal(t, []string{"PUBLISH a id=1 dup", "PUBLISH b id=2 dup"}, connect(s, nil))
}

func TestTheTableShrinksAfterABurst(t *testing.T) {
	for name, left := range map[string]int{"empty": 0, "one is never answered": 1} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{Window: 4096}, nil)
			burst := func() (ids []uint16) {
				for range 4000 {
					for _, e := range s.Deliver(noon, &Message{Topic: "t", QoS: 1}, Offer{QoS: 1}, nil) {
						ids = append(ids, e.PacketID)
					}
				}
				return ids
			}
			deliver(s, "stays", 2)
			for range 4 {
				for _, id := range burst() {
					s.Puback(noon, id, Success, nil)
				}
			}
			if left == 0 {
				s.Pubrec(noon, 1, Success, nil)
				assert.Equal(t, pastBytes, s.StateBytes())
				s.Pubcomp(noon, 1, nil)
			}
			for range 16 { // little goes on
				s.Puback(noon, s.Deliver(noon, &Message{Topic: "t", QoS: 1}, Offer{QoS: 1}, nil)[0].PacketID, Success, nil)
			}
			for range 8192 * left { // who has something in use for long is looked at now and then
				s.Puback(noon, s.Deliver(noon, &Message{Topic: "t", QoS: 1}, Offer{QoS: 1}, nil)[0].PacketID, Success, nil)
			}
			assert.LessOrEqual(t, len(s.outgoing.flights.slots), keepSlots)
			assert.Equal(t, left, s.Stats().InFlight)
		})
	}
}

// Publishers that wait for a session have read something each by then: it is in memory for a moment, and not on disk.
func TestASessionThatPublishersWaitForHoldsWhatIsOnItsWay(t *testing.T) {
	s := New(Options{Window: 1, MaxQueuedBytes: 1000})
	_, out := s.Connect(time.Now(), Connection{Version: 4, Clean: true}, nil)
	s.Resume(time.Now(), 1<<20, out)
	m := &Message{Topic: "a", QoS: 1, Payload: make([]byte, 999-overheadBytes)} // and the topic
	for range awaitedShare {
		s.Deliver(time.Now(), m, Offer{QoS: 1, Awaited: true}, nil)
	}
	assert.True(t, s.TailEmpty())
	s.Deliver(time.Now(), m, Offer{QoS: 1, Awaited: true}, nil)
	assert.False(t, s.TailEmpty())
}
