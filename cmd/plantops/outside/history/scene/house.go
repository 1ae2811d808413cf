package scene

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

const houseDevices = 50

// House is what talks in a house: fifty devices with what is retained about them, and who uses them.
func House(s *Scene) {
	for i := range houseDevices {
		s.houseDevice(i)
	}
	// As Home Assistant does: a filter for each thing that it knows, and it is there nearly always.
	assistant := &client{id: "assistant", version: 5, resume: true, filters: map[string]byte{},
		habits: habits{lives: 4 * time.Second, parts: 1, drops: 1, away: 200 * time.Millisecond}}
	// As Node-RED does: fewer, and nobody misses it for long.
	flows := &client{id: "flows", version: 4, resume: true, filters: map[string]byte{},
		habits: habits{lives: 2 * time.Second, parts: 1, drops: 1, away: 2 * time.Second}}
	for i := range houseDevices {
		id := fmt.Sprint("device-", i)
		for _, filter := range []string{homeTopics + "/" + id + "/0", homeTopics + "/" + id + "/1", stateTopics + "/" + id, stateTopics + "/discovery/" + id + "/+",
			willTopics + "/" + id} {
			assistant.filters[filter] = 1
		}
		flows.filters[homeTopics+"/"+id+"/+"] = 2
	}
	s.add(assistant)
	s.add(flows)
	// A dashboard keeps nothing, a recorder wants everything.
	s.add(&client{id: "dashboard", version: 5, habits: habits{lives: time.Second, drops: 1, away: 300 * time.Millisecond},
		filters: map[string]byte{homeTopics + "/#": 0, stateTopics + "/#": 1}})
	s.add(&client{id: "recorder", version: 4, resume: true, filters: map[string]byte{homeTopics + "/#": 1, stateTopics + "/#": 1, willTopics + "/#": 1}})
}

func (s *Scene) houseDevice(i int) {
	id := fmt.Sprint("device-", i)
	qos := byte(i % 3)
	c := &client{id: id, version: 4 + byte(i/2%2), resume: i%2 == 0, will: &history.Will{Topic: willTopics + "/" + id},
		habits: habits{rate: s.Rate / houseDevices, window: 10, lives: 6 * time.Second, parts: 1, drops: 1, away: 500 * time.Millisecond}}
	c.plan = func(r *rand.Rand) outgoing {
		switch n := r.IntN(20); {
		case n == 0:
			return outgoing{topic: fmt.Sprintf("%s/discovery/%s/%d", stateTopics, id, r.IntN(8)), qos: 1, retain: true}
		case n < 5:
			return outgoing{topic: fmt.Sprintf("%s/%s", stateTopics, id), qos: 1, retain: true}
		default:
			return outgoing{topic: fmt.Sprintf("%s/%s/%d", homeTopics, id, r.IntN(2)), qos: qos}
		}
	}
	s.add(c)
}
