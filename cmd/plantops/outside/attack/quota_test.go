//go:build linux

package attack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// Class V18: an account that may be here takes what it can.

// greedy is what bed-1 does through one door. Each leaves nothing behind, so that the next door shows that what was
// counted comes back.
var greedy = map[string]func(g *siege.Siege, d door.Door){
	"connections": func(g *siege.Siege, d door.Door) {
		l := g.As("bed-1")
		var all []*door.Intruder
		for i := range 20 {
			l.ClientID = fmt.Sprint("hoarder-", i)
			all = append(all, g.EntersInTheEnd(d, l))
		}
		isOverQuota(g, d, "hoarder-more", false)
		require.NoError(g.T, g.Serves(d))
		for _, a := range all {
			a.Close()
		}
	},
	"sessions": func(g *siege.Siege, d door.Door) {
		l := g.As("bed-1")
		l.Resume = true
		for i := range 30 {
			l.ClientID = fmt.Sprint("hoarder-", i)
			g.EntersInTheEnd(d, l).Close()
		}
		isOverQuota(g, d, "hoarder-more", true)
		isOverQuota(g, d, "hoarder-more", false)
		require.NoError(g.T, g.Serves(d))
		l.Resume = false
		for i := range 30 { // they are all there to be ended
			l.ClientID = fmt.Sprint("hoarder-", i)
			g.EntersInTheEnd(d, l).Close()
		}
	},
	"subscriptions": func(g *siege.Siege, d door.Door) {
		a := g.EntersInTheEnd(d, g.As("bed-1"))
		var filters []string
		for i := range 60 {
			filters = append(filters, fmt.Sprint("devices/bed-1/", i))
		}
		a.Send(rawmqtt.EncodeSubscribe(5, 1, 9, filters...))
		answer, err := a.Await(rawmqtt.Suback)
		require.NoError(g.T, err)
		codes := answer[len(answer)-60:]
		assert.Equal(g.T, bytes.Repeat([]byte{1}, 50), codes[:50])
		assert.Equal(g.T, bytes.Repeat([]byte{rawmqtt.QuotaExceeded}, 10), codes[50:])
		require.NoError(g.T, g.Serves(d))
		a.Close()
	},
	"retained": func(g *siege.Siege, d door.Door) {
		a := g.EntersInTheEnd(d, g.As("bed-1"))
		for i := range 45 {
			code := a.Retain(fmt.Sprint("devices/bed-1/kept/", i), "x")
			assert.Equal(g.T, i >= 40, code == rawmqtt.QuotaExceeded, "message %d: %#x", i, code)
		}
		old := g.As("bed-1")
		old.Version, old.ClientID = 4, "bed-1-old"
		b := g.Enter(d, old)
		b.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2|1, append(rawmqtt.AppendString(nil, "devices/bed-1/kept/more"), 0, 1, 'x')))
		assert.True(g.T, b.Ended(setting.Patience), "MQTT 3.1.1 has no other way to say no")
		require.NoError(g.T, g.Serves(d))
		for i := range 40 {
			require.Zero(g.T, a.Retain(fmt.Sprint("devices/bed-1/kept/", i), ""))
		}
		a.Close()
	},
	"backlogs": func(g *siege.Siege, d door.Door) {
		l := g.As("bed-1")
		l.Resume = true
		for i := range 10 {
			l.ClientID = fmt.Sprint("hoarder-", i)
			a := g.EntersInTheEnd(d, l)
			_, err := a.Subscribe("devices/bed-1/backlog")
			require.NoError(g.T, err)
			a.Close()
		}
		before := g.In.Memory("VmRSS")
		a := g.EntersInTheEnd(d, g.As("bed-1"))
		for range 2000 { // 40 MB, of each of which 10 sessions want one
			code, err := a.Publish("devices/bed-1/backlog", string(make([]byte, 20_000)))
			require.NoError(g.T, err)
			require.Zero(g.T, code)
		}
		grown := g.In.Memory("VmRSS") - before
		g.T.Logf("%s: 400 MB wait for ten sessions, %.1f MiB more", d.Kind, float64(grown)/siege.Mebibyte)
		assert.Less(g.T, grown, int64(32*siege.Mebibyte), "400 MB wait for ten sessions")
		require.NoError(g.T, g.Serves(d))
		a.Close()
		l.Resume = false
		for i := range 10 {
			l.ClientID = fmt.Sprint("hoarder-", i)
			g.EntersInTheEnd(d, l).Close()
		}
	},
}

// attackHoarding leaves sessions behind that nobody comes back to.
func attackHoarding(g *siege.Siege, d door.Door) string {
	l := g.As("bed-1")
	l.Resume = true
	const many = 120
	for i := range many {
		l.ClientID = fmt.Sprint("left-", i)
		a, code, err := d.Enter(g.T, l)
		if err != nil || code != 0 {
			return ""
		}
		a.Close()
	}
	return fmt.Sprintf("%d sessions of one account", many)
}

func TestV18AnAccountCannotTakeMoreThanItsQuotas(t *testing.T) {
	g := siege.Begin(t, "GOGC=100", "PLANTOPS_LIMITS_MAX_CONNECTIONS_PER_ACCOUNT=20", "PLANTOPS_LIMITS_MAX_SESSIONS_PER_ACCOUNT=30",
		"PLANTOPS_LIMITS_MAX_SUBSCRIPTIONS_PER_ACCOUNT=50", "PLANTOPS_LIMITS_MAX_RETAINED_PER_ACCOUNT=40",
		"PLANTOPS_LIMITS_MAX_QUEUED_BYTES_PER_ACCOUNT=1000000")
	for _, d := range g.Doors {
		for name, take := range greedy {
			t.Run(d.Kind+" "+name, func(t *testing.T) {
				outer := g.T
				g.T = t
				defer func() { g.T = outer }()
				take(g, d)
			})
		}
	}
	g.Withstands(attackHoarding)
	var s struct {
		Connections struct {
			Refused map[string]int64 `json:"refused"`
		} `json:"connections"`
	}
	require.NoError(t, json.Unmarshal(g.In.Run("status", "--json"), &s))
	for _, reason := range []string{"connections", "sessions", "subscriptions", "retained messages"} {
		assert.Positive(t, s.Connections.Refused["too many "+reason+" of the account"], reason)
	}
}

// isOverQuota makes sure that bed-1 may not come in under a new client id, and is told why.
func isOverQuota(g *siege.Siege, d door.Door, client string, resume bool) {
	g.T.Helper()
	l := g.As("bed-1")
	l.ClientID, l.Resume = client, resume
	for version, want := range map[byte]byte{5: rawmqtt.QuotaExceeded, 4: 3} {
		l.Version = version
		_, code, err := d.Enter(g.T, l)
		require.NoError(g.T, err)
		assert.Equal(g.T, want, code, "CONNACK of version %d over %s", version, d.Kind)
	}
}

func TestV18OthersThatHaveEverythingLeaveAnAccountItsShare(t *testing.T) {
	g := siege.Begin(t, "PLANTOPS_LIMITS_MAX_CONNECTIONS=24", "PLANTOPS_LIMITS_MAX_SESSIONS=30")
	for _, d := range g.Doors {
		var all []*door.Intruder
		for i := range 24 {
			l := g.As([]string{"bed-1", "bed-3"}[i%2])
			l.ClientID, l.Resume = fmt.Sprint(l.User, "-", i), true
			a, _, err := d.Enter(t, l)
			require.NoError(t, err)
			all = append(all, a)
		}
		for range 3 {
			honest := g.Enter(d, g.As("bed-2"))
			code, err := honest.Publish("devices/bed-2/notes", "served")
			require.NoError(t, err)
			assert.Less(t, code, byte(0x80))
			honest.Close()
		}
		for _, a := range all {
			a.Close()
		}
	}
}
