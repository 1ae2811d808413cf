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
	for i := range filters {
		p.ask(session.Subscription{Filter: fmt.Sprint("a/+/none", i)})
	}
	steps, judge := 0, publishers{router: r}
	for more := true; more; steps++ {
		p.mu.Lock()
		more = w.step(p, &judge, r.now())
		p.mu.Unlock()
	}
	assert.False(t, p.due.waiting())
	assert.Zero(t, p.due.charged())
	assert.GreaterOrEqual(t, steps, topics*filters/1024, "of a thousand topics each")
}
