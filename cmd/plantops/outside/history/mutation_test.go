package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// TestMutationsOfARightHistoryAreFound makes histories as a broker without faults would, with chance, and spoils one event of
// each: the spoilt one is never right.
func TestMutationsOfARightHistoryAreFound(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	done := map[string]int{}
	for range 100 {
		h := ideal(r)
		require.Empty(t, history.Summary(history.Check(h, history.Rules{}), 3), "seed %d: a right history", seed)
		for name, mutate := range mutations {
			spoilt, want := mutate(r, slices.Clone(h))
			if want == "" {
				continue // there is nothing in this one that can be spoilt so
			}
			done[name]++
			require.Contains(t, of(spoilt, history.Rules{}), want, "seed %d: %s", seed, name)
		}
	}
	for name := range mutations {
		require.Greater(t, done[name], 10, name)
	}
}

// model is a broker that does everything at once and right.
type model struct {
	r        *rand.Rand
	h        events
	numbers  map[string]int
	kept     map[string]history.Message
	clients  map[string]*modelClient
	everyone []string
}

type modelClient struct {
	id, filter        string
	qos               byte
	resume, connected bool
	queue             []history.Event // while it is away, and what it has not answered
	ids               uint16
}

func ideal(r *rand.Rand) events {
	m := &model{r: r, numbers: map[string]int{}, kept: map[string]history.Message{}, clients: map[string]*modelClient{}}
	for i, c := range []*modelClient{
		{id: "keeps", filter: "#", qos: 1, resume: true}, {id: "keeps-2", filter: "a/#", qos: 2, resume: true}, {id: "clean", filter: "+/x", qos: 1},
		{id: "member-1", filter: "$share/g/a/+", qos: 2, resume: true}, {id: "member-2", filter: "$share/g/a/+", qos: 2, resume: true},
	} {
		m.clients[c.id] = c
		m.everyone = append(m.everyone, c.id)
		m.enter(c, i < 2)
		m.add(subscribe(c.id, c.filter, c.qos)...)
	}
	for range 60 {
		m.step()
	}
	for _, id := range m.everyone {
		for c := m.clients[id]; !c.connected; {
			m.enter(c, false)
		}
	}
	for topic, message := range m.kept {
		m.add(history.Event{Kind: history.Kept, Topic: topic, Message: message})
	}
	m.add(history.Event{Kind: history.Ended})
	return m.h
}

func (m *model) add(all ...history.Event) {
	for _, e := range all {
		e.At = time.Duration(len(m.h)) * time.Millisecond
		m.h = append(m.h, e)
	}
}

func (m *model) enter(c *modelClient, first bool) {
	c.connected = true
	present := c.resume && c.ids > 0
	m.add(history.Event{Kind: history.Connecting, Client: c.id, Resume: c.resume}, history.Event{Kind: history.Connected, Client: c.id, Present: present})
	if !c.resume && c.ids > 0 {
		m.add(subscribe(c.id, c.filter, c.qos)...)
	}
	c.ids = max(c.ids, 1)
	waiting := c.queue
	c.queue = nil
	for _, e := range waiting {
		m.hand(c, e)
	}
}

func (m *model) step() {
	c := m.clients[m.everyone[m.r.IntN(len(m.everyone))]]
	switch n := m.r.IntN(10); {
	case n == 0 && c.connected:
		c.connected = false
		if !c.resume {
			c.queue = nil
		}
		m.add(history.Event{Kind: []history.Kind{history.Dropped, history.Parted}[m.r.IntN(2)], Client: c.id})
		if m.h[len(m.h)-1].Kind == history.Parted {
			c.queue = nil // it has answered everything
		}
	case n <= 1 && !c.connected:
		m.enter(c, false)
	case n == 2:
		m.mortal()
	default:
		m.publish(fmt.Sprint("p", m.r.IntN(2)), []string{"a/x", "a/y", "b/x"}[m.r.IntN(3)], byte(m.r.IntN(3)))
	}
}

// mortal lives and dies.
func (m *model) mortal() {
	id := fmt.Sprint("mortal-", len(m.h))
	m.add(enterWithWill(id, history.Will{Topic: "w"})...)
	if m.r.IntN(2) == 0 {
		m.add(history.Event{Kind: history.Parted, Client: id})
		return
	}
	m.add(history.Event{Kind: history.Dropped, Client: id})
	m.route(history.Event{Message: history.Message{From: history.WillOf(id), Number: 1}, Topic: "w", QoS: 1})
}

func (m *model) publish(from, topic string, qos byte) {
	m.numbers[from]++
	e := history.Event{Kind: history.Sending, Client: from, Message: history.Message{From: from, Number: m.numbers[from]}, Topic: topic, QoS: qos}
	e.Retain = topic == "a/y" && qos > 0
	m.add(e)
	m.route(e)
	if e.Retain {
		m.kept[topic] = e.Message
	}
	if qos > 0 {
		m.add(history.Event{Kind: history.Taken, Client: from, Message: e.Message}, history.Event{Kind: history.Completed, Client: from, Message: e.Message})
	}
}

func (m *model) route(e history.Event) {
	var members []string
	for _, id := range m.everyone {
		c := m.clients[id]
		switch {
		case c.filter == "$share/g/a/+" && e.Topic[0] == 'a':
			if members = append(members, id); len(members) == 2 {
				m.hand(m.clients[members[m.r.IntN(2)]], e)
			}
		case c.filter == "#", c.filter == "a/#" && e.Topic[0] == 'a', c.filter == "+/x" && e.Topic[len(e.Topic)-1] == 'x':
			m.hand(c, e)
		}
	}
}

// hand delivers to a client, or keeps the message for it.
func (m *model) hand(c *modelClient, e history.Event) {
	e.QoS = min(e.QoS, c.qos)
	if !c.connected {
		if c.resume && e.QoS > 0 {
			c.queue = append(c.queue, e)
		}
		return
	}
	e.Kind, e.Client, e.Retain = history.Got, c.id, false
	if !e.Again {
		c.ids++
		e.ID = c.ids
	}
	m.add(e)
	if e.QoS == 1 && c.resume && c.filter == "#" && !e.Again {
		e.Again = true
		if m.r.IntN(2) == 0 && len(c.queue) == 0 {
			m.lose(c, e)
			return
		}
	}
	if e.QoS > 0 {
		m.add(history.Event{Kind: history.Answered, Client: c.id, Message: e.Message, QoS: e.QoS, ID: e.ID})
	}
}

// lose loses a connection before the answer: the message comes again.
func (m *model) lose(c *modelClient, e history.Event) {
	c.connected, c.queue = false, append(c.queue, e)
	m.add(history.Event{Kind: history.Dropped, Client: c.id})
}

var mutations = map[string]func(*rand.Rand, events) (events, string){
	"a delivery is left out": func(r *rand.Rand, h events) (events, string) {
		i := pick(r, h, func(i int) bool {
			e := h[i]
			return e.Kind == history.Got && e.QoS > 0 && e.Client != "clean" && !e.Again && count(h, e) == 1
		})
		if i < 0 {
			return nil, ""
		}
		want := history.Lost
		if h[i].Message.From[0] == 'm' {
			want = history.MissingWill
		} else if h[i].Client[0] == 'm' {
			want = history.SharedLost
		}
		return slices.Delete(h, i, i+1), want
	},
	"a delivery comes twice": func(r *rand.Rand, h events) (events, string) {
		i := pick(r, h, func(i int) bool { return h[i].Kind == history.Got })
		return slices.Insert(h, i+1, h[i]), history.Doubled
	},
	"two deliveries change places": func(r *rand.Rand, h events) (events, string) {
		var j int
		i := pick(r, h, func(i int) bool {
			if h[i].Kind != history.Got || h[i].Client[0] == 'm' || count(h, h[i]) > 1 {
				return false
			}
			j = slices.IndexFunc(h[i+1:], func(e history.Event) bool {
				return e.Kind == history.Got && e.Client == h[i].Client && e.Message.From == h[i].Message.From && e.Topic == h[i].Topic &&
					sentAt(h[:i], e.Message) == sentAt(h, h[i].Message) && count(h, e) == 1
			}) + i + 1
			return j > i && !between(h[i:j], history.Connecting, h[i].Client)
		})
		if i < 0 {
			return nil, ""
		}
		h[i].Message, h[j].Message = h[j].Message, h[i].Message
		return h, history.Reordered
	},
	"an older one is retained": func(r *rand.Rand, h events) (events, string) {
		return old(r, h, false)
	},
	"nothing is retained": func(r *rand.Rand, h events) (events, string) {
		return old(r, h, true)
	},
	"a will of who parted": func(r *rand.Rand, h events) (events, string) {
		i := pick(r, h, func(i int) bool { return h[i].Kind == history.Parted && h[i].Client[0] == 'm' && len(h[i].Client) > 8 })
		if i < 0 {
			return nil, ""
		}
		j := slices.IndexFunc(h[i:], func(e history.Event) bool { return e.Kind == history.Connected && e.Client == "keeps" })
		at := i + j + 1
		if j < 0 {
			return nil, ""
		}
		return slices.Insert(h, at, willComes("keeps", h[i].Client, 1)...), history.FalseWill
	},
	"a session is forgotten": func(r *rand.Rand, h events) (events, string) {
		i := pick(r, h, func(i int) bool { return h[i].Kind == history.Connected && h[i].Present })
		if i < 0 {
			return nil, ""
		}
		h[i].Present = false
		return h, history.SessionLost
	},
	"another member gets it too": func(r *rand.Rand, h events) (events, string) {
		i := pick(r, h, func(i int) bool {
			other := map[string]string{"member-1": "member-2", "member-2": "member-1"}[h[i].Client]
			return h[i].Kind == history.Got && other != "" && connected(h[:i], other)
		})
		if i < 0 {
			return nil, ""
		}
		e := h[i]
		e.Client = map[string]string{"member-1": "member-2", "member-2": "member-1"}[e.Client]
		return slices.Insert(h, i+1, e), history.SharedTwice
	},
}

func old(r *rand.Rand, h events, nothing bool) (events, string) {
	i := pick(r, h, func(i int) bool { return h[i].Kind == history.Kept })
	j := pick(r, h, func(j int) bool {
		return h[j].Kind == history.Sending && h[j].Retain && i >= 0 && h[j].Message != h[i].Message
	})
	switch {
	case i < 0 || j < 0:
		return nil, ""
	case nothing:
		return slices.Delete(h, i, i+1), history.Stale
	}
	h[i].Message = h[j].Message
	return h, history.Stale
}

// pick draws one of the events that fit; -1 if none does.
func pick(r *rand.Rand, h events, fits func(i int) bool) int {
	for _, i := range r.Perm(len(h)) {
		if fits(i) {
			return i
		}
	}
	return -1
}

func count(h events, what history.Event) (n int) {
	for _, e := range h {
		if e.Kind == history.Got && e.Client == what.Client && e.Message == what.Message {
			n++
		}
	}
	return n
}

func sentAt(h events, m history.Message) byte {
	i := slices.IndexFunc(h, func(e history.Event) bool { return e.Kind == history.Sending && e.Message == m })
	if i < 0 {
		return 9 // a will, or later
	}
	return h[i].QoS
}

func between(h events, kind history.Kind, client string) bool {
	return slices.ContainsFunc(h, func(e history.Event) bool { return e.Kind == kind && e.Client == client })
}

func connected(h events, client string) (is bool) {
	for _, e := range h {
		if e.Client == client {
			switch e.Kind {
			case history.Connected:
				is = true
			case history.Dropped, history.Parted:
				is = false
			}
		}
	}
	return is
}
