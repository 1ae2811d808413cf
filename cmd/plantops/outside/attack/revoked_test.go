//go:build linux

package attack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// Class V12: rights that were taken away must be gone at once, in whatever state their owner is.

// state is what a device is doing when it is removed. prepare returns its connection, nil when it has none, and what
// to look at when the device is gone and another one of the same name has come.
type state struct {
	name    string
	prepare func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(again rawmqtt.Login))
}

var states = []state{
	{"idle", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		return g.Enter(d, l), nil
	}},
	{"publishing", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		a := g.Enter(d, l)
		text := fmt.Appendf(nil, `{"timestamp":%d,"temperature":1}`, time.Now().UnixMilli())
		for id := uint16(1); id <= 200; id++ {
			a.Send(rawmqtt.Message{Topic: "devices/" + l.User + "/telemetry", ID: id, Payload: text}.Encode())
		}
		return a, nil
	}},
	{"backlog", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		own := "devices/" + l.User + "/commands"
		l.Resume = true
		a := g.Enter(d, l)
		_, err := a.Subscribe(own)
		require.NoError(g.T, err)
		a.Close()
		sender := l
		sender.ClientID = l.User + "-sender"
		a = g.Enter(d, sender)
		_, err = a.Publish(own, "of the old owner")
		require.NoError(g.T, err)
		return a, func(again rawmqtt.Login) {
			again.Resume = true
			assert.False(g.T, g.Enter(d, again).Comes("of the old owner", 0), "a message waits for the next owner of the name")
		}
	}},
	{"will", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		l.WillTopic, l.WillText, l.WillDelay = "devices/"+l.User+"/status", "late will", 1
		l.Properties = []byte{0x11, 0, 0, 0, 60}
		watcher := g.Enter(d, g.As("watcher"))
		code, err := watcher.Subscribe("devices/#")
		require.NoError(g.T, err)
		require.Less(g.T, code, byte(rawmqtt.FirstFailure))
		a := g.Enter(d, l)
		return a, func(rawmqtt.Login) {
			assert.False(g.T, watcher.Comes("late will", siege.Silence), "the will of a removed device was sent")
			watcher.Close()
		}
	}},
	{"retained", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		a := g.Enter(d, l)
		a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2|1, append(append(rawmqtt.AppendString(nil, "devices/"+l.User+"/state"), 0, 5, 0), "kept"...)))
		_, err := a.Await(rawmqtt.Puback)
		require.NoError(g.T, err)
		return a, func(again rawmqtt.Login) {
			watcher := g.Enter(d, g.As("watcher"))
			for who, reader := range map[string]*door.Intruder{"the next owner of the name": g.Enter(d, again), "somebody else": watcher} {
				code, err := reader.Subscribe("devices/" + l.User + "/state")
				require.NoError(g.T, err)
				require.Less(g.T, code, byte(rawmqtt.FirstFailure))
				assert.False(g.T, reader.Comes("kept", 0), "%s gets what the removed device had retained", who)
			}
			watcher.Close()
		}
	}},
	{"QoS 2", func(g *siege.Siege, d door.Door, l rawmqtt.Login) (*door.Intruder, func(rawmqtt.Login)) {
		l.Resume = true
		a := g.Enter(d, l)
		a.Send(rawmqtt.Message{QoS: 2, Topic: "devices/" + l.User + "/notes", ID: 77, Payload: []byte("half")}.Encode())
		_, err := a.Await(rawmqtt.Pubrec)
		require.NoError(g.T, err)
		return a, func(again rawmqtt.Login) {
			again.Resume = true
			watcher, next := g.Enter(d, g.As("watcher")), g.Enter(d, again)
			code, err := watcher.Subscribe("devices/#")
			require.NoError(g.T, err)
			require.Less(g.T, code, byte(rawmqtt.FirstFailure))
			next.Send(rawmqtt.Message{QoS: 2, Again: true, Topic: "devices/" + l.User + "/notes", ID: 77, Payload: []byte("half")}.Encode())
			assert.True(g.T, watcher.Comes("half", siege.Effective), "the id is still taken for a message that has come")
			watcher.Close()
		}
	}},
}

func TestV12RemovedDeviceIsGoneInEveryState(t *testing.T) {
	g := siege.Begin(t)
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(siege.ExactPassword), 0o600))
	g.In.Run("user", "add", "watcher", "--role", "viewer", "--password-file", password)
	g.Secrets["watcher"] = siege.ExactPassword
	for i, s := range states {
		d := g.Doors[i%len(g.Doors)]
		id := fmt.Sprintf("doomed-%d", i)
		g.Secrets[id] = g.In.Add(id)[id]
		l := g.As(id)
		a, look := s.prepare(g, d, l)
		g.In.Run("device", "remove", id)
		assert.True(t, a.Ended(siege.Effective), "%s over %s: still connected", s.name, d.Kind)
		for _, through := range g.Doors {
			g.Refused(through, l)
		}
		g.Secrets[id] = g.In.Add(id)[id]
		g.Refused(d, l) // with the old secret
		if look != nil {
			look(g.As(id))
		}
	}
	g.ServesAll()
}

func TestV12RotatedSecretAndRemovedUserEndTheirSessions(t *testing.T) {
	g := siege.Begin(t)
	g.AddExact()
	var sessions []*door.Intruder
	for _, d := range g.Doors {
		l := g.As("bed-2")
		l.ClientID = "bed-2-" + d.Kind
		sessions = append(sessions, g.Enter(d, l))
		l = g.As("exact")
		l.ClientID = "exact-" + d.Kind
		a := g.Enter(d, l)
		_, err := a.Subscribe("home/exact")
		require.NoError(t, err)
		sessions = append(sessions, a)
	}
	g.In.Run("device", "rotate", "bed-2")
	g.In.Run("user", "remove", "exact")
	for _, a := range sessions {
		assert.True(t, a.Ended(siege.Effective))
	}
	for _, d := range g.Doors {
		g.Refused(d, g.As("bed-2"))
		g.Refused(d, g.As("exact"))
	}
	g.ServesAll()
}

func TestV12TopicAliasCannotCarryATopicPastTheRules(t *testing.T) {
	g := siege.Begin(t)
	for _, d := range g.Doors {
		a := g.Enter(d, g.As("bed-1"))
		for _, topic := range []string{"devices/bed-2/notes", ""} { // Topic Alias 1
			body := append(rawmqtt.AppendString(nil, topic), 0, 1, 3, 0x23, 0, 1)
			a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2, append(body, "x"...)))
			answer, err := a.Await(rawmqtt.Puback)
			require.NoError(t, err)
			assert.Equal(t, byte(0x87), answer[2], "by its number it is not allowed either")
		}
		body := append(rawmqtt.AppendString(nil, "devices/bed-1/notes"), 0, 1, 3, 0x23, 0, 17)
		a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2, append(body, "x"...)))
		answer, err := a.Await(rawmqtt.Disconnect)
		require.NoError(t, err)
		assert.Equal(t, byte(0x94), answer[0], "the server has announced 16")
	}
}
