package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSessionPresent(t *testing.T) {
	for name, c := range map[string]struct {
		expiry time.Duration
		away   time.Duration
		clean  bool
		want   bool
	}{
		"kept":                         {Forever, 1000 * time.Hour, false, true},
		"clean start [MQTT-3.2.2-2]":   {Forever, 0, true, false},
		"within its expiry":            {time.Minute, 59 * time.Second, false, true},
		"expired, though nobody asked": {time.Minute, time.Minute, false, false},
		"ends with the connection":     {0, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{})
			present, out := s.Connect(noon, Connection{Version: 5, Expiry: c.expiry}, nil)
			assert.False(t, present, "nothing is known of a new client")
			assert.Empty(t, out)
			s.Disconnect(noon, Lost, nil)
			present, out = s.Connect(noon.Add(c.away), Connection{Version: 5, Clean: c.clean}, nil)
			assert.Equal(t, c.want, present)
			ended := c.expiry > 0 && !c.want // with expiry 0 it ended at once
			assert.Equal(t, ended, slices.ContainsFunc(out, func(e Effect) bool { return e.Kind == Ended }))
		})
	}
}

func TestNothingIsSentBeforeResume(t *testing.T) {
	s := online(t, Options{}, nil)
	deliver(s, "a", 1)
	s.Disconnect(noon, Lost, nil)
	_, out := s.Connect(noon, Connection{Version: 5, Expiry: Forever}, nil)
	assert.Empty(t, out)
	assert.Empty(t, deliver(s, "b", 1))
	assert.Empty(t, deliver(s, "c", 0))
	assert.Zero(t, s.Room())
	assert.Equal(t, []string{"PUBLISH a id=1 dup", "PUBLISH b id=2", "PUBLISH c", "delivered c"}, show(s.Resume(noon, 1<<30, nil)))
}

func TestTheEndSettlesEverything(t *testing.T) {
	for name, end := range map[string]func(s *Session) []Effect{
		"clean start": func(s *Session) []Effect {
			_, out := s.Connect(noon, Connection{Version: 5, Clean: true}, nil)
			return out
		},
		"expiry":  func(s *Session) []Effect { return s.Tick(s.Deadline(), nil) },
		"removal": func(s *Session) []Effect { return s.End(noon, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{Window: 3}, func(c *Connection) {
				c.Expiry = time.Minute
				c.Will = &Will{Message: Message{Topic: "w"}, Delay: time.Hour}
			})
			s.Subscribe(Subscription{Filter: "a/#", QoS: 1})
			deliver(s, "a", 2)
			deliver(s, "b", 1)
			deliver(s, "c", 1)
			deliver(s, "d", 1)
			s.Pubrec(noon, 1, 0, nil)
			ticket, _, _ := s.Receive(1, 2, nil)
			s.Pause()
			deliver(s, "e", 0)
			assert.Equal(t, []string{"dropped e: offline"}, show(s.Disconnect(noon, Lost, nil)))
			out := end(s)
			assert.Equal(t, []string{"will w", "dropped id=2 b: session ended", "dropped id=3 c: session ended", "dropped d: session ended", "ended"}, show(out))
			assert.Contains(t, out[len(out)-1].Subscriptions, "a/#")
			assert.False(t, s.Subscriptions() > 0)
			assert.Equal(t, 0, s.Stats().Queued+s.Stats().InFlight+s.Stats().Bytes)
			assert.Zero(t, s.Deadline())
			assert.Empty(t, s.Tick(noon.Add(time.Hour), nil), "only once")
			assert.Empty(t, s.Complete(ticket, 0, nil))
			if !s.Connected() {
				assert.Equal(t, []string{"dropped f: session ended"}, deliver(s, "f", 1))
				assert.False(t, s.Subscribe(Subscription{Filter: "late"}))
				assert.False(t, s.Subscriptions() > 0)
			}
		})
	}
}

func TestEndDisconnectsFirst(t *testing.T) {
	s := online(t, Options{}, nil)
	assert.Equal(t, []string{"ended"}, show(s.End(noon, nil)))
	assert.False(t, s.Connected())
	assert.Empty(t, s.End(noon, nil))
}

func TestExpiryOfDisconnect(t *testing.T) {
	s := online(t, Options{}, func(c *Connection) { c.Expiry = time.Hour })
	require.True(t, s.SetExpiry(time.Minute))
	s.Disconnect(noon, Goodbye, nil)
	assert.WithinDuration(t, noon.Add(time.Minute), s.Deadline(), 0)

	connect(s, nil)
	require.True(t, s.SetExpiry(0))
	assert.Equal(t, []string{"ended"}, show(s.Disconnect(noon, Goodbye, nil)))

	connect(s, func(c *Connection) { c.Expiry = 0 })
	assert.True(t, s.SetExpiry(0))
	assert.False(t, s.SetExpiry(time.Minute), "MQTT 5, section 3.14.2.2.2")
}

func TestWill(t *testing.T) {
	again := func(clean bool, after time.Duration) func(*Session) []Effect {
		return func(s *Session) []Effect {
			_, out := s.Connect(noon.Add(after), Connection{Version: 5, Clean: clean, Expiry: Forever}, nil)
			return out
		}
	}
	tick := func(after time.Duration) func(*Session) []Effect {
		return func(s *Session) []Effect { return s.Tick(noon.Add(after), nil) }
	}
	const minute = time.Minute
	for name, c := range map[string]struct {
		delay, expiry time.Duration
		cause         Cause
		left          []string // at Disconnect
		then          func(*Session) []Effect
		want          []string
	}{
		"lost [MQTT-3.1.2-8]":                     {0, Forever, Lost, []string{"will w"}, tick(minute), []string{}},
		"goodbye [MQTT-3.14.4-3]":                 {0, Forever, Goodbye, []string{}, tick(minute), []string{}},
		"orderly stop":                            {0, Forever, Stopping, []string{}, tick(minute), []string{}},
		"goodbye forgets a delayed one":           {minute, Forever, Goodbye, []string{}, tick(minute), []string{}},
		"delayed, not yet":                        {minute, Forever, Lost, []string{}, tick(minute - 1), []string{}},
		"delayed, due":                            {minute, Forever, Lost, []string{}, tick(minute), []string{"will w"}},
		"the session ends first":                  {minute, 30 * time.Second, Lost, []string{}, tick(30 * time.Second), []string{"will w", "ended"}},
		"the session ends at once":                {minute, 0, Lost, []string{"will w", "ended"}, tick(minute), []string{}},
		"the session ends later":                  {minute, time.Hour, Lost, []string{}, tick(time.Hour), []string{"will w", "ended"}},
		"the client returns [MQTT-3.1.3-9]":       {minute, Forever, Lost, []string{}, again(false, minute-1), []string{}},
		"the client returns too late":             {minute, Forever, Lost, []string{}, again(false, minute), []string{"will w"}},
		"a clean start is the session's end":      {minute, Forever, Lost, []string{}, again(true, 0), []string{"will w", "ended"}},
		"a clean start after a published will":    {0, Forever, Lost, []string{"will w"}, again(true, 0), []string{"ended"}},
		"the client returns after the expiry":     {minute, 10 * time.Second, Lost, []string{}, again(false, 20*time.Second), []string{"will w", "ended"}},
		"goodbye, and the session ends with that": {0, 0, Goodbye, []string{"ended"}, tick(minute), []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{}, func(k *Connection) {
				k.Expiry = c.expiry
				k.Will = &Will{Message: Message{Topic: "w", Payload: []byte("x"), QoS: 1, Retain: true, Properties: []byte{1, 1}}, Delay: c.delay}
			})
			left := show(s.Disconnect(noon, c.cause, nil))
			assert.Equal(t, c.left, left)
			then := show(c.then(s))
			assert.Equal(t, c.want, then)
			if slices.Contains(left, "will w") || slices.Contains(then, "will w") {
				assert.NotContains(t, show(s.Tick(noon.Add(24*time.Hour), nil)), "will w", "once")
			}
		})
	}
}

func TestWillKeepsWhatItSays(t *testing.T) {
	will := &Will{Message: Message{Topic: "w", Payload: []byte("x"), QoS: 2, Retain: true, Properties: []byte{1, 1}, Publisher: "me"}, Delay: time.Minute, Expiry: time.Hour}
	s := online(t, Options{}, func(c *Connection) { c.Will = will })
	s.Disconnect(noon, Lost, nil)
	assert.WithinDuration(t, noon.Add(time.Minute), s.Deadline(), 0)
	due := noon.Add(2 * time.Minute)
	want := will.Message
	want.Created, want.Expires = due, due.Add(time.Hour)
	assert.Equal(t, []Effect{{Kind: WillDue, Message: &want}}, s.Tick(due, nil))
	assert.Zero(t, s.Deadline())
}

func TestTakeover(t *testing.T) {
	for name, c := range map[string]struct {
		delay time.Duration
		clean bool
		want  []string
	}{
		"the will goes":                       {0, false, []string{"will w"}},
		"a delayed one does not":              {time.Minute, false, []string{}},
		"a clean start sends it all the same": {time.Minute, true, []string{"will w", "ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := online(t, Options{}, func(k *Connection) { k.Will = &Will{Message: Message{Topic: "w"}, Delay: c.delay} })
			_, out := s.Connect(noon, Connection{Version: 5, Clean: c.clean, Expiry: Forever}, nil)
			assert.Equal(t, c.want, show(out))
		})
	}
}

func TestSubscriptions(t *testing.T) {
	s := online(t, Options{}, nil)
	assert.False(t, s.Subscribe(Subscription{Filter: "a/#", QoS: 1, NoLocal: true, ID: 1}))
	assert.False(t, s.Subscribe(Subscription{Filter: "a/b", RetainAsPublished: true, ID: 2}))
	assert.False(t, s.Subscribe(Subscription{Filter: "$share/g/a/b", QoS: 2}))
	assert.True(t, s.Subscribe(Subscription{Filter: "a/#", QoS: 2, NoLocal: true, ID: 3}), "replaced [MQTT-3.8.4-3]")

	assert.True(t, s.Unsubscribe("a/b"))
	assert.False(t, s.Unsubscribe("a/b"))
	_, found := s.Subscription("a/b")
	assert.False(t, found)
	assert.Equal(t, 2, s.filters.count())
}

func TestManySubscriptionsAreAsFewOnes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var s filters
		want := map[string]Subscription{}
		for range 200 {
			sub := Subscription{Filter: fmt.Sprint("a/", random.IntN(1+random.IntN(30))), ID: random.Uint32()}
			_, there := want[sub.Filter]
			if random.IntN(2) == 0 {
				assert.Equal(t, there, s.put(sub))
				want[sub.Filter] = sub
			} else {
				assert.Equal(t, there, s.remove(sub.Filter))
				delete(want, sub.Filter)
			}
			got, found := s.get(sub.Filter)
			assert.Equal(t, want[sub.Filter], got)
			_, there = want[sub.Filter]
			assert.Equal(t, there, found)
			assert.Equal(t, len(want), s.count())
			for sub := range s.all {
				assert.Equal(t, want[sub.Filter], sub)
			}
		}
		assert.Subset(t, want, s.byName())
		assert.Len(t, s.byName(), len(want))
	}
}

func TestRetainHandling(t *testing.T) {
	for name, c := range map[string]struct {
		sub     Subscription
		existed bool
		want    bool
	}{
		"0 new":        {Subscription{RetainHandling: 0}, false, true},
		"0 again":      {Subscription{RetainHandling: 0}, true, true},
		"1 new":        {Subscription{RetainHandling: 1}, false, true},
		"1 again":      {Subscription{RetainHandling: 1}, true, false},
		"2 new":        {Subscription{RetainHandling: 2}, false, false},
		"shared never": {Subscription{Filter: "$share/g/a"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.sub.SendsRetained(c.existed))
		})
	}
}
