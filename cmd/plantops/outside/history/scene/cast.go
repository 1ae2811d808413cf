package scene

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// The topics of a scene: of messages that pass, of what is retained, of wills.
const (
	homeTopics  = "home"
	stateTopics = "state"
	willTopics  = "will"
)

// Mixture is a few clients of every kind, none of whom stays long.
func Mixture(s *Scene) {
	s.publishers()
	s.subscribers()
	s.group()
	s.mortals()
}

func (s *Scene) add(c *client) { s.clients = append(s.clients, c) }

// publishers are two of each QoS, one that keeps its session and one that does not, each with topics of its own, one
// retained topic of its own, and two that all of the same QoS share.
func (s *Scene) publishers() {
	const count = 8
	for i := range count {
		qos := []byte{1, 2, 0, 1}[i%4]
		id := fmt.Sprint("pub-", i)
		c := &client{id: id, version: 4 + byte(i/2%2), resume: i%4 < 2,
			habits: habits{rate: s.Rate / count, window: 10, lives: 800 * time.Millisecond, parts: 2, drops: 3, replaces: 2, lastWords: 2, away: 100 * time.Millisecond}}
		if i == 0 {
			c.habits.lives = 0 // one is always there
		}
		c.plan = func(r *rand.Rand) outgoing {
			switch n := r.IntN(10); {
			case n < 6:
				return outgoing{topic: fmt.Sprintf("%s/%s/%d", homeTopics, id, r.IntN(3)), qos: qos}
			case n < 8 && qos > 0:
				return outgoing{topic: fmt.Sprintf("%s/%s", stateTopics, id), qos: qos, retain: true}
			case n == 8 && qos > 0:
				return outgoing{topic: fmt.Sprintf("%s/shared-%d", stateTopics, qos), qos: qos, retain: true}
			case n == 9 && qos > 0 && r.IntN(4) == 0:
				return outgoing{topic: fmt.Sprintf("%s/gone-%s", stateTopics, id), qos: qos, retain: true, empty: r.IntN(2) == 0}
			}
			return outgoing{topic: fmt.Sprintf("%s/%s/%d", homeTopics, id, 3), qos: qos}
		}
		s.add(c)
	}
}

// subscribers keep their sessions or not, and come and go or not.
func (s *Scene) subscribers() {
	restless := habits{lives: 600 * time.Millisecond, parts: 2, drops: 3, replaces: 2, away: 400 * time.Millisecond}
	for i := range 8 {
		qos := 1 + byte(i/2%2)
		c := &client{id: fmt.Sprint("sub-", i), version: 4 + byte(i%2), resume: i < 6, habits: restless,
			filters: map[string]byte{homeTopics + "/#": qos, stateTopics + "/#": qos, willTopics + "/#": qos}}
		if i == 0 || i == 7 {
			c.habits.lives = 0
		}
		s.add(c)
	}
	fickle := restless
	fickle.fickle = true
	s.add(&client{id: "sub-fickle", version: 5, resume: true, habits: fickle, filters: map[string]byte{homeTopics + "/+/1": 1}})
	s.add(&client{id: "sub-once", version: 4, resume: true, habits: restless, filters: map[string]byte{homeTopics + "/#": 0}})
}

// group shares what passes.
func (s *Scene) group() {
	restless := habits{lives: time.Second, parts: 2, drops: 3, away: 300 * time.Millisecond}
	members := 3
	if !s.Rules.NoGiveBack {
		members++ // one whose session ends with each connection
	}
	for i := range members {
		c := &client{id: fmt.Sprint("member-", i), version: 5, resume: i < 3, habits: restless, filters: map[string]byte{"$share/group/" + homeTopics + "/#": 2}}
		if i == 0 {
			c.habits.lives = 0
		}
		s.add(c)
	}
}

// Takeovers is clients that take their own sessions over all the time, at once or after a moment, with and without a DISCONNECT.
func Takeovers(s *Scene) {
	hasty := habits{window: 10, lives: 60 * time.Millisecond, parts: 1, drops: 1, replaces: 3}
	for i := range 12 {
		h := hasty
		if i%3 == 0 {
			h.away = 20 * time.Millisecond
		}
		c := &client{version: 4 + byte(i%2), resume: i/2%2 == 0, habits: h}
		switch i / 4 {
		case 0:
			c.id, c.habits.lastWords, c.habits.rate = fmt.Sprint("pub-", i), 3, s.Rate/4
			topic, qos := homeTopics+"/"+c.id+"/1", 1+byte(i%2)
			c.plan = func(*rand.Rand) outgoing { return outgoing{topic: topic, qos: qos} }
		case 1:
			c.id, c.filters = fmt.Sprint("sub-", i), map[string]byte{homeTopics + "/#": 1 + byte(i%2)}
		case 2:
			c.id, c.habits.lastWords, c.will = fmt.Sprint("mortal-", i), 3, &history.Will{Topic: fmt.Sprint(willTopics, "/", i)}
		}
		s.add(c)
	}
	s.add(&client{id: "sub-calm", version: 5, resume: true, filters: map[string]byte{homeTopics + "/#": 2, willTopics + "/#": 1}})
}

// mortals leave a will.
func (s *Scene) mortals() {
	for i := range 6 {
		c := &client{id: fmt.Sprint("mortal-", i), version: 4 + byte(i%2), resume: i >= 3,
			habits: habits{lives: 500 * time.Millisecond, parts: 2, drops: 2, replaces: 1, lastWords: 1, away: 200 * time.Millisecond}}
		c.will = &history.Will{Topic: fmt.Sprintf("%s/%s", willTopics, c.id)}
		if i == 5 {
			c.will.Delay = time.Second // it is back before
		}
		s.add(c)
	}
}
