package broker

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker/session"
)

func TestASearchAmongRetainedMessagesLetsGoOfTheSessionInBetween(t *testing.T) {
	r := idle(t)
	const topics, filters = 20_000, 10
	for i := range topics {
		r.retained.set(&session.Message{Topic: fmt.Sprintf("a/%d", i), Payload: []byte("x"), Retain: true}, nil)
	}
	w, p := &work{r: r}, newPeer("reader", newUsage("bed-1"), false)
	p.link = newLink(nil, nil)
	p.state.Connect(r.now(), session.Connection{ReceiveMaximum: 10}, nil)
	p.state.Resume(r.now(), pauseBytes, nil)
	for range filters {
		p.retainedDue = append(p.retainedDue, retainedDelivery{cursor: session.Match("a/+/none")})
	}
	steps := 0
	for more := true; more; steps++ {
		p.mu.Lock()
		more = w.deliverSomeRetained(p, r.now())
		p.mu.Unlock()
	}
	assert.Empty(t, p.retainedDue)
	assert.Greater(t, steps, 10, "of some thousand topics each")
}
