//go:build linux

package attack_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// What a client with an account may not do: classes V07 to V11.

func attackForgedWill(g *siege.Siege, d door.Door) string {
	victim := g.Enter(d, g.As("bed-2"))
	code, err := victim.Subscribe("devices/bed-2/#")
	require.NoError(g.T, err)
	require.Less(g.T, code, byte(rawmqtt.FirstFailure))
	l := g.As("bed-1")
	l.WillTopic, l.WillText = "devices/bed-2/telemetry", "forged"
	a, code, err := d.Enter(g.T, l)
	if err != nil || code != 0 {
		return ""
	}
	a.Close()
	if victim.Comes("forged", siege.Silence) {
		return "the will of bed-1 came as data of bed-2"
	}
	return ""
}

func TestV07WillMayNotForgeAnotherDevice(t *testing.T) {
	g := siege.Begin(t)
	g.Withstands(attackForgedWill)
	for _, d := range g.Doors {
		for _, version := range []byte{4, 5} {
			for _, topic := range []string{"devices/bed-2/telemetry", "$SYS/broker/uptime", "$plantops/probe", "devices/+/telemetry",
				"devices/bed-1/#", "$share/g/devices/bed-1/x", "devices/bed-10/telemetry", "devices/bed-1/\x00"} {
				l := g.As("bed-1")
				l.Version, l.WillTopic, l.WillText = version, topic, "forged"
				g.Refused(d, l)
			}
		}
	}
}

func attackStolenSession(g *siege.Siege, d door.Door) string {
	owner := g.As("bed-2")
	owner.ClientID, owner.Resume = "sensor-7-"+d.Kind, true
	victim := g.Enter(d, owner)
	_, err := victim.Subscribe("devices/bed-2/commands")
	require.NoError(g.T, err)
	victim.Close()
	other := g.Enter(d, g.As("bed-2"))
	_, err = other.Publish("devices/bed-2/commands", "open the valve")
	require.NoError(g.T, err)

	thief := g.As("bed-1")
	thief.ClientID, thief.Resume = owner.ClientID, true
	stolen := "the session could be taken"
	if a, code, err := d.Enter(g.T, thief); err != nil || code != 0 {
		stolen = ""
	} else if a.Comes("open the valve", siege.Silence) {
		stolen = "bed-1 got a message that waited for bed-2"
	}
	if victim = g.Enter(d, owner); !victim.Comes("open the valve", siege.Promptness) {
		stolen += "; the waiting message was wiped"
	}
	return stolen
}

func TestV08SessionsCannotBeStolenOrEnded(t *testing.T) {
	g := siege.Begin(t)
	g.Withstands(attackStolenSession)
	for _, d := range g.Doors {
		victim := g.Enter(d, g.As("bed-2"))
		wrong := g.As("bed-2")
		wrong.Secret = "guessed"
		for _, l := range []rawmqtt.Login{
			wrong,               // a failed login must not end the victim's connection
			{ClientID: "bed-2"}, // nor an anonymous one
			{User: "nobody", Secret: "x", ClientID: "bed-2"},
			{User: "bed-1", Secret: g.Secrets["bed-1"], ClientID: "bed-2"},
			{User: "bed-1", Secret: g.Secrets["bed-1"], ClientID: "bed-2", Resume: true, Version: 4},
			{User: "bed-1", Secret: g.Secrets["bed-1"], ClientID: "plantops_backend"},
			{User: "bed-1", Secret: g.Secrets["bed-1"], ClientID: "plantops-ingest"},
			{User: "plantops_backend", Secret: g.Secrets["bed-1"], ClientID: "plantops-ingest"},
		} {
			for _, through := range g.Doors {
				g.Refused(through, l)
			}
		}
		code, err := victim.Publish("devices/bed-2/notes", "still here")
		require.NoError(t, err)
		require.Less(t, code, byte(rawmqtt.FirstFailure))
	}
}

func TestV09NamesCannotWidenRules(t *testing.T) {
	g := siege.Begin(t)
	bad := []string{"+", "#", "/", "bed-1/x", "%u", "%c", "$SYS", "bed\n1", strings.Repeat("x", 65), "../bed-2"}
	for _, name := range bad {
		cmd := exec.Command(g.In.Program, "device", "add", "--", name)
		cmd.Env = g.In.Env
		assert.Error(t, cmd.Run(), "device add %q", name)
	}
	for _, d := range g.Doors {
		for _, name := range bad {
			g.Refused(d, rawmqtt.Login{User: name, Secret: g.Secrets["bed-1"], ClientID: "x"})
			as := rawmqtt.Login{User: "bed-1", Secret: g.Secrets["bed-1"], ClientID: name}
			switch {
			case strings.Contains(name, "/"): // no rule of a device has its client id in it
				code, err := g.Enter(d, as).Publish("devices/bed-2/notes", "not mine")
				assert.True(t, err != nil || code >= rawmqtt.FirstFailure, "as %q", name)
			case name != bad[8]: // client ids may be longer
				g.Refused(d, as)
			}
		}
	}
	g.ServesAll()
}

// attackBelowTheRule publishes below a topic that a rule names without a wildcard.
func attackBelowTheRule(g *siege.Siege, d door.Door) string {
	a := g.Enter(d, g.As("exact"))
	code, err := a.Publish("home/exact", "allowed")
	require.NoError(g.T, err)
	require.Less(g.T, code, byte(rawmqtt.FirstFailure))
	if code, err := a.Publish("home/exact/deeper", "not allowed"); err == nil && code < rawmqtt.FirstFailure {
		return "the rule home/exact allows home/exact/deeper"
	}
	return ""
}

func TestV10RulesAllowWhatTheySayAndNoMore(t *testing.T) {
	g := siege.Begin(t)
	g.AddExact()
	g.Withstands(attackBelowTheRule)
	for _, d := range g.Doors {
		a := g.Enter(d, g.As("bed-1"))
		for _, filter := range outside("bed-1") {
			code, err := a.Subscribe(filter)
			require.NoError(t, err, filter)
			assert.GreaterOrEqual(t, code, byte(rawmqtt.FirstFailure), "SUBSCRIBE %s over %s", filter, d.Kind)
		}
		for _, topic := range []string{"devices/bed-2/telemetry", "devices/bed-10/telemetry", "devices", "devices/", "devices//telemetry",
			"/devices/bed-1/telemetry", "DEVICES/bed-1/telemetry", "devices/BED-1/telemetry", "devices/bed-1 /telemetry", "$SYS/x", "$plantops/probe"} {
			code, err := a.Publish(topic, "forged")
			require.NoError(t, err, topic)
			assert.GreaterOrEqual(t, code, byte(rawmqtt.FirstFailure), "PUBLISH %s over %s", topic, d.Kind)
		}
		a = g.Enter(d, g.As("exact"))
		for _, filter := range []string{"home/exact/#", "home/+", "home/#", "home/exact/+"} {
			code, err := a.Subscribe(filter)
			require.NoError(t, err, filter)
			assert.GreaterOrEqual(t, code, byte(rawmqtt.FirstFailure), "SUBSCRIBE %s over %s", filter, d.Kind)
		}
	}
}

// outside are filters that a device may not subscribe to.
func outside(id string) []string {
	return []string{"#", "+/#", "devices/#", "devices/+", "devices/+/telemetry", "+/" + id + "/#", "devices/bed-2/#", "devices/" + id + "0/#",
		"/devices/" + id + "/#", "devices//#", "$SYS/#", "$plantops/#", "Devices/" + id + "/#"}
}

func TestV11SharedSubscriptionsObeyTheSameRules(t *testing.T) {
	g := siege.Begin(t)
	for _, d := range g.Doors {
		a := g.Enter(d, g.As("bed-1"))
		code, err := a.Subscribe("$share/g/devices/bed-1/#")
		require.NoError(t, err)
		assert.Less(t, code, byte(rawmqtt.FirstFailure))
		for _, filter := range outside("bed-1") {
			for _, share := range []string{"$share/g/%s", "$SHARE/g/%s", "$Share/g/%s", "$share/+/%s", "$share//%s", "$share/g/$share/h/%s"} {
				code, err := a.Subscribe(fmt.Sprintf(share, filter))
				require.NoError(t, err, filter)
				assert.GreaterOrEqual(t, code, byte(rawmqtt.FirstFailure), "SUBSCRIBE "+share, filter)
			}
		}
		// A refused filter among granted ones, in one packet, leaves no subscription behind.
		a.Send(rawmqtt.EncodeSubscribe(5, 1, 3, "devices/bed-1/notes", "$share/g/devices/bed-2/#"))
		answer, err := a.Await(rawmqtt.Suback)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, answer[len(answer)-1], byte(rawmqtt.FirstFailure))
		victim := g.Enter(d, g.As("bed-2"))
		_, err = victim.Publish("devices/bed-2/notes", "private")
		require.NoError(t, err)
		assert.False(t, a.Comes("private", 0))
	}
}

func TestV08ANameIsKeptForTheAccountToCome(t *testing.T) {
	for _, stays := range []bool{true, false} {
		g := siege.Begin(t)
		squat := g.As("bed-1")
		squat.ClientID, squat.Resume = "exact", true
		squatter := g.Enter(g.Doors[0], squat)
		if !stays {
			squatter.Close() // its session stays
		}
		g.AddExact()
		for _, d := range g.Doors {
			owner := g.Enter(d, g.As("exact"))
			code, err := owner.Subscribe("home/exact")
			require.NoError(t, err)
			assert.Less(t, code, byte(0x80))
			g.Refused(d, squat)
			owner.Close()
		}
		if stays {
			assert.True(t, squatter.Ended(setting.Patience))
		}
		g.ServesAll()
	}
}
