//go:build linux

package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Class V18: an account that may be here takes what it can.

const overQuota = 0x97

// greedy is what bed-1 does through one door. Each leaves nothing behind, so that the next door shows that what was
// counted comes back.
var greedy = map[string]func(g *siege, d door){
	"connections": func(g *siege, d door) {
		l := g.as("bed-1")
		var all []*intruder
		for i := range 20 {
			l.client = fmt.Sprint("hoarder-", i)
			all = append(all, g.entersInTheEnd(d, l))
		}
		g.overQuota(d, "hoarder-more", false)
		require.NoError(g.t, g.serves(d))
		for _, a := range all {
			a.Close()
		}
	},
	"sessions": func(g *siege, d door) {
		l := g.as("bed-1")
		l.resume = true
		for i := range 30 {
			l.client = fmt.Sprint("hoarder-", i)
			g.entersInTheEnd(d, l).Close()
		}
		g.overQuota(d, "hoarder-more", true)
		g.overQuota(d, "hoarder-more", false)
		require.NoError(g.t, g.serves(d))
		l.resume = false
		for i := range 30 { // they are all there to be ended
			l.client = fmt.Sprint("hoarder-", i)
			g.entersInTheEnd(d, l).Close()
		}
	},
	"subscriptions": func(g *siege, d door) {
		a := g.entersInTheEnd(d, g.as("bed-1"))
		var filters []string
		for i := range 60 {
			filters = append(filters, fmt.Sprint("devices/bed-1/", i))
		}
		a.send(encodeSubscribe(9, filters...))
		answer, err := a.await(suback)
		require.NoError(g.t, err)
		codes := answer[len(answer)-60:]
		assert.Equal(g.t, bytes.Repeat([]byte{1}, 50), codes[:50])
		assert.Equal(g.t, bytes.Repeat([]byte{overQuota}, 10), codes[50:])
		require.NoError(g.t, g.serves(d))
		a.Close()
	},
	"retained": func(g *siege, d door) {
		a := g.entersInTheEnd(d, g.as("bed-1"))
		for i := range 45 {
			code := a.retain(fmt.Sprint("devices/bed-1/kept/", i), "x")
			assert.Equal(g.t, i >= 40, code == overQuota, "message %d: %#x", i, code)
		}
		old := g.as("bed-1")
		old.version, old.client = 4, "bed-1-old"
		b := g.enter(d, old)
		b.send(encode(publish<<4|2|1, append(appendString(nil, "devices/bed-1/kept/more"), 0, 1, 'x')))
		assert.True(g.t, b.ended(patience), "MQTT 3.1.1 has no other way to say no")
		require.NoError(g.t, g.serves(d))
		for i := range 40 {
			require.Zero(g.t, a.retain(fmt.Sprint("devices/bed-1/kept/", i), ""))
		}
		a.Close()
	},
	"backlogs": func(g *siege, d door) {
		l := g.as("bed-1")
		l.resume = true
		for i := range 10 {
			l.client = fmt.Sprint("hoarder-", i)
			a := g.entersInTheEnd(d, l)
			_, err := a.subscribe("devices/bed-1/backlog")
			require.NoError(g.t, err)
			a.Close()
		}
		before := g.in.memory("VmRSS")
		a := g.entersInTheEnd(d, g.as("bed-1"))
		for range 2000 { // 40 MB, of each of which 10 sessions want one
			code, err := a.publish("devices/bed-1/backlog", string(make([]byte, 20_000)))
			require.NoError(g.t, err)
			require.Zero(g.t, code)
		}
		assert.Less(g.t, g.in.memory("VmRSS")-before, int64(16*mebibyte))
		require.NoError(g.t, g.serves(d))
		a.Close()
		l.resume = false
		for i := range 10 {
			l.client = fmt.Sprint("hoarder-", i)
			g.entersInTheEnd(d, l).Close()
		}
	},
}

// attackHoarding leaves sessions behind that nobody comes back to.
func attackHoarding(g *siege, d door) string {
	l := g.as("bed-1")
	l.resume = true
	const many = 120
	for i := range many {
		l.client = fmt.Sprint("left-", i)
		a, code, err := d.enter(g.t, l)
		if err != nil || code != 0 {
			return ""
		}
		a.Close()
	}
	return fmt.Sprintf("%d sessions of one account", many)
}

func TestV18AnAccountCannotTakeMoreThanItsQuotas(t *testing.T) {
	g := besiege(t, "GOGC=100", "PLANTOPS_LIMITS_MAX_CONNECTIONS_PER_ACCOUNT=20", "PLANTOPS_LIMITS_MAX_SESSIONS_PER_ACCOUNT=30",
		"PLANTOPS_LIMITS_MAX_SUBSCRIPTIONS_PER_ACCOUNT=50", "PLANTOPS_LIMITS_MAX_RETAINED_PER_ACCOUNT=40",
		"PLANTOPS_LIMITS_MAX_QUEUED_BYTES_PER_ACCOUNT=1000000")
	for _, d := range g.doors {
		for name, take := range greedy {
			t.Run(d.kind+" "+name, func(t *testing.T) {
				outer := g.t
				g.t = t
				defer func() { g.t = outer }()
				take(g, d)
			})
		}
	}
	g.withstands(attackHoarding)
	var s struct {
		Connections struct {
			Refused map[string]int64 `json:"refused"`
		} `json:"connections"`
	}
	require.NoError(t, json.Unmarshal(g.in.run("status", "--json"), &s))
	for _, reason := range []string{"connections", "sessions", "subscriptions", "retained messages"} {
		assert.Positive(t, s.Connections.Refused["too many "+reason+" of the account"], reason)
	}
}

// entersInTheEnd logs in. What was closed just before may still count for a moment.
func (g *siege) entersInTheEnd(d door, l login) *intruder {
	g.t.Helper()
	var a *intruder
	require.Eventually(g.t, func() bool {
		var code byte
		var err error
		a, code, err = d.enter(g.t, l)
		return err == nil && code == 0
	}, patience, 10*time.Millisecond, "%s over %s", l.client, d.kind)
	return a
}

// overQuota makes sure that bed-1 may not come in under a new client id, and is told why.
func (g *siege) overQuota(d door, client string, resume bool) {
	g.t.Helper()
	l := g.as("bed-1")
	l.client, l.resume = client, resume
	for version, want := range map[byte]byte{5: overQuota, 4: 3} {
		l.version = version
		_, code, err := d.enter(g.t, l)
		require.NoError(g.t, err)
		assert.Equal(g.t, want, code, "CONNACK of version %d over %s", version, d.kind)
	}
}

// retain publishes a message to be retained and returns the reason code of the PUBACK.
func (a *intruder) retain(topic, text string) byte {
	a.t.Helper()
	a.send(encode(publish<<4|2|1, append(append(appendString(nil, topic), 0, 5, 0), text...)))
	answer, err := a.await(puback)
	require.NoError(a.t, err)
	if len(answer) < 3 {
		return 0
	}
	return answer[2]
}
