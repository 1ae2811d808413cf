//go:build linux

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Class V12: rights that were taken away must be gone at once, in whatever state their owner is.

// effective is how soon after the command has returned: a second, and what a busy machine needs to notice it.
const effective = 3 * time.Second

// state is what a device is doing when it is removed. prepare returns its connection, nil when it has none, and what
// to look at when the device is gone and another one of the same name has come.
type state struct {
	name    string
	prepare func(g *siege, d door, l login) (*intruder, func(again login))
}

var states = []state{
	{"idle", func(g *siege, d door, l login) (*intruder, func(login)) { return g.enter(d, l), nil }},
	{"publishing", func(g *siege, d door, l login) (*intruder, func(login)) {
		a := g.enter(d, l)
		text := fmt.Appendf(nil, `{"timestamp":%d,"temperature":1}`, time.Now().UnixMilli())
		for id := uint16(1); id <= 200; id++ {
			a.send(encodePublish(5, 1, false, "devices/"+l.user+"/telemetry", id, text))
		}
		return a, nil
	}},
	{"backlog", func(g *siege, d door, l login) (*intruder, func(login)) {
		own := "devices/" + l.user + "/commands"
		l.resume = true
		a := g.enter(d, l)
		_, err := a.subscribe(own)
		require.NoError(g.t, err)
		a.Close()
		sender := l
		sender.client = l.user + "-sender"
		a = g.enter(d, sender)
		_, err = a.publish(own, "of the old owner")
		require.NoError(g.t, err)
		return a, func(again login) {
			again.resume = true
			assert.False(g.t, g.enter(d, again).comes("of the old owner", 0), "a message waits for the next owner of the name")
		}
	}},
	{"will", func(g *siege, d door, l login) (*intruder, func(login)) {
		l.willTopic, l.willText, l.willDelay = "devices/"+l.user+"/status", "late will", 1
		l.properties = []byte{0x11, 0, 0, 0, 60}
		watcher := g.enter(d, g.as("watcher"))
		code, err := watcher.subscribe("devices/#")
		require.NoError(g.t, err)
		require.Less(g.t, code, byte(firstFailure))
		a := g.enter(d, l)
		return a, func(login) {
			assert.False(g.t, watcher.comes("late will", silence), "the will of a removed device was sent")
			watcher.Close()
		}
	}},
	{"retained", func(g *siege, d door, l login) (*intruder, func(login)) {
		a := g.enter(d, l)
		a.send(encode(publish<<4|2|1, append(append(appendString(nil, "devices/"+l.user+"/state"), 0, 5, 0), "kept"...)))
		_, err := a.await(puback)
		require.NoError(g.t, err)
		return a, func(again login) {
			watcher := g.enter(d, g.as("watcher"))
			for who, reader := range map[string]*intruder{"the next owner of the name": g.enter(d, again), "somebody else": watcher} {
				code, err := reader.subscribe("devices/" + l.user + "/state")
				require.NoError(g.t, err)
				require.Less(g.t, code, byte(firstFailure))
				assert.False(g.t, reader.comes("kept", 0), "%s gets what the removed device had retained", who)
			}
			watcher.Close()
		}
	}},
	{"QoS 2", func(g *siege, d door, l login) (*intruder, func(login)) {
		l.resume = true
		a := g.enter(d, l)
		a.send(encodePublish(5, 2, false, "devices/"+l.user+"/notes", 77, []byte("half")))
		_, err := a.await(pubrec)
		require.NoError(g.t, err)
		return a, func(again login) {
			again.resume = true
			next := g.enter(d, again)
			next.send(encodePubrel(77))
			answer, err := next.await(pubcomp)
			require.NoError(g.t, err)
			assert.Equal(g.t, byte(0x92), answer[2], "packet identifier not found")
		}
	}},
}

func TestV12RemovedDeviceIsGoneInEveryState(t *testing.T) {
	g := besiege(t)
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(exactPassword), 0o600))
	g.in.run("user", "add", "watcher", "--role", "viewer", "--password-file", password)
	g.secrets["watcher"] = exactPassword
	for i, s := range states {
		d := g.doors[i%len(g.doors)]
		id := fmt.Sprintf("doomed-%d", i)
		g.secrets[id] = g.in.add(id)[id]
		l := g.as(id)
		a, look := s.prepare(g, d, l)
		g.in.run("device", "remove", id)
		assert.True(t, a.ended(effective), "%s over %s: still connected", s.name, d.kind)
		for _, through := range g.doors {
			g.refused(through, l)
		}
		g.secrets[id] = g.in.add(id)[id]
		g.refused(d, l) // with the old secret
		if look != nil {
			look(g.as(id))
		}
	}
	g.servesAll()
}

func TestV12RotatedSecretAndRemovedUserEndTheirSessions(t *testing.T) {
	g := besiege(t)
	g.addExact()
	var sessions []*intruder
	for _, d := range g.doors {
		l := g.as("bed-2")
		l.client = "bed-2-" + d.kind
		sessions = append(sessions, g.enter(d, l))
		l = g.as("exact")
		l.client = "exact-" + d.kind
		a := g.enter(d, l)
		_, err := a.subscribe("home/exact")
		require.NoError(t, err)
		sessions = append(sessions, a)
	}
	g.in.run("device", "rotate", "bed-2")
	g.in.run("user", "remove", "exact")
	for _, a := range sessions {
		assert.True(t, a.ended(effective))
	}
	for _, d := range g.doors {
		g.refused(d, g.as("bed-2"))
		g.refused(d, g.as("exact"))
	}
	g.servesAll()
}

func TestV12TopicAliasCannotCarryATopicPastTheRules(t *testing.T) {
	g := besiege(t)
	for _, d := range g.doors {
		a := g.enter(d, g.as("bed-1"))
		body := append(appendString(nil, "devices/bed-1/notes"), 0, 1, 3, 0x23, 0, 1) // Topic Alias 1
		a.send(encode(publish<<4|2, append(body, "x"...)))
		answer, err := a.await(disconnect)
		require.NoError(t, err)
		assert.Equal(t, byte(0x94), answer[0], "the server has announced that it takes no alias")
	}
}
