//go:build linux

package main_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a client with an account may not do: classes V07 to V11.

// comes says whether the intruder gets a message with this text within a time, or, when that is 0, before the answer to
// a ping.
func (a *intruder) comes(text string, within time.Duration) bool {
	wait := within > 0
	if !wait {
		within = patience
		a.send([]byte{12 << 4, 0}) // PINGREQ
	}
	require.NoError(a.t, a.SetDeadline(time.Now().Add(within)))
	for {
		kind, body, err := a.next()
		if err != nil {
			require.True(a.t, wait, "the connection must last: %v", err)
			return false
		}
		if kind == publish && strings.HasSuffix(string(body), text) {
			return true
		}
		if kind == 13 && !wait { // PINGRESP
			return false
		}
	}
}

func attackForgedWill(g *siege, d door) string {
	victim := g.enter(d, g.as("bed-2"))
	code, err := victim.subscribe("devices/bed-2/#")
	require.NoError(g.t, err)
	require.Less(g.t, code, byte(firstFailure))
	l := g.as("bed-1")
	l.willTopic, l.willText = "devices/bed-2/telemetry", "forged"
	a, code, err := d.enter(g.t, l)
	if err != nil || code != 0 {
		return ""
	}
	a.Close()
	if victim.comes("forged", silence) {
		return "the will of bed-1 came as data of bed-2"
	}
	return ""
}

func TestV07WillMayNotForgeAnotherDevice(t *testing.T) {
	g := besiege(t)
	g.withstands(attackForgedWill)
	for _, d := range g.doors {
		for _, version := range []byte{4, 5} {
			for _, topic := range []string{"devices/bed-2/telemetry", "$SYS/broker/uptime", "$plantops/probe", "devices/+/telemetry",
				"devices/bed-1/#", "$share/g/devices/bed-1/x", "devices/bed-10/telemetry", "devices/bed-1/\x00"} {
				l := g.as("bed-1")
				l.version, l.willTopic, l.willText = version, topic, "forged"
				g.refused(d, l)
			}
		}
	}
}

func attackStolenSession(g *siege, d door) string {
	owner := g.as("bed-2")
	owner.client, owner.resume = "sensor-7-"+d.kind, true
	victim := g.enter(d, owner)
	_, err := victim.subscribe("devices/bed-2/commands")
	require.NoError(g.t, err)
	victim.Close()
	other := g.enter(d, g.as("bed-2"))
	_, err = other.publish("devices/bed-2/commands", "open the valve")
	require.NoError(g.t, err)

	thief := g.as("bed-1")
	thief.client, thief.resume = owner.client, true
	stolen := "the session could be taken"
	if a, code, err := d.enter(g.t, thief); err != nil || code != 0 {
		stolen = ""
	} else if a.comes("open the valve", silence) {
		stolen = "bed-1 got a message that waited for bed-2"
	}
	if victim = g.enter(d, owner); !victim.comes("open the valve", promptness) {
		stolen += "; the waiting message was wiped"
	}
	return stolen
}

func TestV08SessionsCannotBeStolenOrEnded(t *testing.T) {
	g := besiege(t)
	g.withstands(attackStolenSession)
	for _, d := range g.doors {
		victim := g.enter(d, g.as("bed-2"))
		wrong := g.as("bed-2")
		wrong.secret = "guessed"
		for _, l := range []login{
			wrong,             // a failed login must not end the victim's connection
			{client: "bed-2"}, // nor an anonymous one
			{user: "nobody", secret: "x", client: "bed-2"},
			{user: "bed-1", secret: g.secrets["bed-1"], client: "bed-2"},
			{user: "bed-1", secret: g.secrets["bed-1"], client: "bed-2", resume: true, version: 4},
			{user: "bed-1", secret: g.secrets["bed-1"], client: "plantops_backend"},
			{user: "bed-1", secret: g.secrets["bed-1"], client: "plantops-ingest"},
			{user: "plantops_backend", secret: g.secrets["bed-1"], client: "plantops-ingest"},
		} {
			for _, through := range g.doors {
				g.refused(through, l)
			}
		}
		code, err := victim.publish("devices/bed-2/notes", "still here")
		require.NoError(t, err)
		require.Less(t, code, byte(firstFailure))
	}
}

func TestV09NamesCannotWidenRules(t *testing.T) {
	g := besiege(t)
	bad := []string{"+", "#", "/", "bed-1/x", "%u", "%c", "$SYS", "bed\n1", strings.Repeat("x", 65), "../bed-2"}
	for _, name := range bad {
		cmd := exec.Command(g.in.program, "device", "add", "--", name)
		cmd.Env = g.in.env
		assert.Error(t, cmd.Run(), "device add %q", name)
	}
	for _, d := range g.doors {
		for _, name := range bad {
			g.refused(d, login{user: name, secret: g.secrets["bed-1"], client: "x"})
			as := login{user: "bed-1", secret: g.secrets["bed-1"], client: name}
			switch {
			case strings.Contains(name, "/"): // no rule of a device has its client id in it
				code, err := g.enter(d, as).publish("devices/bed-2/notes", "not mine")
				assert.True(t, err != nil || code >= firstFailure, "as %q", name)
			case name != bad[8]: // client ids may be longer
				g.refused(d, as)
			}
		}
	}
	g.servesAll()
}

// attackBelowTheRule publishes below a topic that a rule names without a wildcard.
func attackBelowTheRule(g *siege, d door) string {
	a := g.enter(d, g.as("exact"))
	code, err := a.publish("home/exact", "allowed")
	require.NoError(g.t, err)
	require.Less(g.t, code, byte(firstFailure))
	if code, err := a.publish("home/exact/deeper", "not allowed"); err == nil && code < firstFailure {
		return "the rule home/exact allows home/exact/deeper"
	}
	return ""
}

func TestV10RulesAllowWhatTheySayAndNoMore(t *testing.T) {
	g := besiege(t)
	g.addExact()
	g.withstands(attackBelowTheRule)
	for _, d := range g.doors {
		a := g.enter(d, g.as("bed-1"))
		for _, filter := range outside("bed-1") {
			code, err := a.subscribe(filter)
			require.NoError(t, err, filter)
			assert.GreaterOrEqual(t, code, byte(firstFailure), "SUBSCRIBE %s over %s", filter, d.kind)
		}
		for _, topic := range []string{"devices/bed-2/telemetry", "devices/bed-10/telemetry", "devices", "devices/", "devices//telemetry",
			"/devices/bed-1/telemetry", "DEVICES/bed-1/telemetry", "devices/BED-1/telemetry", "devices/bed-1 /telemetry", "$SYS/x", "$plantops/probe"} {
			code, err := a.publish(topic, "forged")
			require.NoError(t, err, topic)
			assert.GreaterOrEqual(t, code, byte(firstFailure), "PUBLISH %s over %s", topic, d.kind)
		}
		a = g.enter(d, g.as("exact"))
		for _, filter := range []string{"home/exact/#", "home/+", "home/#", "home/exact/+"} {
			code, err := a.subscribe(filter)
			require.NoError(t, err, filter)
			assert.GreaterOrEqual(t, code, byte(firstFailure), "SUBSCRIBE %s over %s", filter, d.kind)
		}
	}
}

// outside are filters that a device may not subscribe to.
func outside(id string) []string {
	return []string{"#", "+/#", "devices/#", "devices/+", "devices/+/telemetry", "+/" + id + "/#", "devices/bed-2/#", "devices/" + id + "0/#",
		"/devices/" + id + "/#", "devices//#", "$SYS/#", "$plantops/#", "Devices/" + id + "/#"}
}

func TestV11SharedSubscriptionsObeyTheSameRules(t *testing.T) {
	g := besiege(t)
	for _, d := range g.doors {
		a := g.enter(d, g.as("bed-1"))
		code, err := a.subscribe("$share/g/devices/bed-1/#")
		require.NoError(t, err)
		assert.Less(t, code, byte(firstFailure))
		for _, filter := range outside("bed-1") {
			for _, share := range []string{"$share/g/%s", "$SHARE/g/%s", "$Share/g/%s", "$share/+/%s", "$share//%s", "$share/g/$share/h/%s"} {
				code, err := a.subscribe(fmt.Sprintf(share, filter))
				require.NoError(t, err, filter)
				assert.GreaterOrEqual(t, code, byte(firstFailure), "SUBSCRIBE "+share, filter)
			}
		}
		// A refused filter among granted ones, in one packet, leaves no subscription behind.
		a.send(encodeSubscribe(3, "devices/bed-1/notes", "$share/g/devices/bed-2/#"))
		answer, err := a.await(suback)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, answer[len(answer)-1], byte(firstFailure))
		victim := g.enter(d, g.as("bed-2"))
		_, err = victim.publish("devices/bed-2/notes", "private")
		require.NoError(t, err)
		assert.False(t, a.comes("private", 0))
	}
}
