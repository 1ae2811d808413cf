package broker_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// connect builds a CONNECT in which something may be wrong; willProperties go before the will's topic in MQTT 5.
func connect(version, flags byte, payload ...string) []byte {
	body := append(rawmqtt.AppendString(nil, "MQTT"), version, flags, 0, 60)
	if version == 5 {
		body = append(body, 0)
	}
	for i, field := range payload {
		if i == 1 && version == 5 && flags&4 != 0 {
			body = append(body, 0) // properties of the will
		}
		body = rawmqtt.AppendString(body, field)
	}
	return rawmqtt.Encode(rawmqtt.Connect<<4, body)
}

func TestAConnectThatBreaksTheRulesIsNotAccepted(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		user, secret := b.Backend.Username, b.Backend.Password
		right := connect(version, 0xc2, "id", user, secret)
		for name, sent := range map[string][]byte{
			"reserved bits of the first byte": append([]byte{right[0] | 1}, right[1:]...),
			"reserved flag":                   connect(version, 0xc3, "id", user, secret),
			"QoS of no will":                  connect(version, 0xca, "id", user, secret),
			"retain of no will":               connect(version, 0xe2, "id", user, secret),
			"will with QoS 3":                 connect(version, 0xde, "id", "will", "x", user, secret),
			"will flag, no will":              connect(version, 0x06, "id"),
			"will that nothing announces":     connect(version, 0xc2, "id", "will", "x", user, secret),
			"user name that is not announced": connect(version, 0x42, "id", user, secret),
			"user name that is missing":       connect(version, 0x82, "id"),
			"password that is not announced":  connect(version, 0x82, "id", user, secret),
			"password that is missing":        connect(version, 0xc2, "id", user),
			"no client id":                    connect(version, 0x02),
			"client id, ill-formed":           connect(version, 0xc2, "i\xff", user, secret),
			"client id, surrogate":            connect(version, 0xc2, "i\xed\xa0\x80", user, secret),
			"client id, NUL":                  connect(version, 0xc2, "i\x00", user, secret),
			"topic of the will, ill-formed":   connect(version, 0xc6, "id", "w\xff", "x", user, secret),
			"user name, ill-formed":           connect(version, 0xc2, "id", user+"\xff", secret),
			"bytes after it":                  slices.Concat([]byte{right[0], right[1] + 1}, right[2:], []byte{0}),
		} {
			all := plug(t, b, sent).rest()
			if version == 4 && name == "user name, ill-formed" {
				assert.Equal(t, []byte{0, 4}, all[0].Body, "there is a code for it")
				continue
			}
			if version == 4 || len(all) == 0 {
				assert.Empty(t, all, "%s: closed without a CONNACK", name)
				continue
			}
			assert.Len(t, all, 1, name)
			assert.Equal(t, byte(rawmqtt.Connack), all[0].Kind, "%s: no DISCONNECT before a CONNACK", name)
			assert.GreaterOrEqual(t, all[0].Reason, byte(rawmqtt.FirstFailure), name)
			assert.Zero(t, all[0].Body[0], "%s: session present", name)
		}
		plug(t, b, right).next(rawmqtt.Connack)
	})
}

func TestOtherProtocolsAndVersionsAreSentAway(t *testing.T) {
	b := brokertest.Start(t)
	for _, sent := range [][]byte{connect(1, 2, "id"), connect(6, 2, "id"), connect(0x7f, 2, "id"),
		bytes.Replace(connect(4, 2, "id"), []byte("MQTT"), []byte("MQTX"), 1)} {
		all := plug(t, b, sent, rawmqtt.EncodeSubscribe(4, 0, 1, "a")).rest()
		require.Len(t, all, 1)
		assert.Equal(t, []byte{0, 1}, all[0].Body, "unacceptable protocol version")
	}
}

func TestConnectIsTheFirstPacketAndComesOnce(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		assert.Empty(t, plug(t, b, rawmqtt.EncodeSubscribe(version, 0, 1, "a"), connect(version, 2, "id")).rest())
		login := rightful(b, rawmqtt.Login{ClientID: "id", Version: version}).Encode()
		w := admitted(t, b, rawmqtt.Login{ClientID: "id", Version: version})
		w.send(login)
		w.ends(version, "a second CONNECT", 0x82)
	})
}

func TestClientIDsThatMustBeAllowed(t *testing.T) {
	const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		for _, id := range []string{"a", allowed[:23], allowed[23:46], allowed[39:]} {
			admitted(t, b, rawmqtt.Login{ClientID: id, Version: version}).nothing()
		}
		assigned := map[string]bool{}
		var open []*wire
		for range 3 { // at the same time: with one id between them the first would be gone
			w := plug(t, b, rightful(b, rawmqtt.Login{Version: version}).Encode())
			p := w.next(rawmqtt.Connack)
			require.Zero(t, p.Reason)
			if _, after, found := strings.Cut(string(p.Body), "\x12\x00"); version == 5 && assert.True(t, found, "Assigned Client Identifier") {
				assigned[after[1:1+int(after[0])]] = true
			}
			open = append(open, w)
		}
		for _, w := range open {
			w.nothing()
		}
		if version == 5 {
			assert.Len(t, assigned, 3)
			return
		}
		all := plug(t, b, rightful(b, rawmqtt.Login{Version: 4, Resume: true}).Encode()).rest()
		require.Len(t, all, 1)
		assert.Equal(t, []byte{0, 2}, all[0].Body, "no id, and a session to be kept")
	})
}

func TestNothingIsDoneAfterARefusedConnect(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		watcher := admitted(t, b, rawmqtt.Login{ClientID: "watcher", Version: version})
		watcher.subscribe(version, 1, "#")
		for name, c := range map[string]struct {
			login  rawmqtt.Login
			v4, v5 byte
		}{
			"wrong password":              {rawmqtt.Login{User: "bed-1", Secret: "wrong", ClientID: "bed-1"}, 5, 0x86},
			"no account":                  {rawmqtt.Login{ClientID: "bed-1"}, 5, 0x86},
			"another account's client id": {rightful(b, rawmqtt.Login{ClientID: "plantops-ingest"}), 2, 0x85},
		} {
			c.login.Version, c.login.WillTopic = version, "a/will"
			if name == "another account's client id" {
				c.login.User, c.login.Secret = "bed-1", brokertest.Password("bed-1")
				c.login.WillTopic = "devices/bed-1/will"
			}
			all := plug(t, b, c.login.Encode(), rawmqtt.EncodeSubscribe(version, 1, 1, "#"), published(version, 2, "a/after", 2, "", "x"),
				[]byte{rawmqtt.Pingreq << 4, 0}).rest()
			require.Len(t, all, 1, name)
			assert.Equal(t, byte(rawmqtt.Connack), all[0].Kind, name)
			assert.Zero(t, all[0].Body[0], "%s: session present", name)
			if version == 4 {
				assert.Contains(t, []byte{c.v4, 4}, all[0].Reason, name)
			} else {
				assert.Contains(t, []byte{c.v5, 0x87}, all[0].Reason, "%s: %#x", name, all[0].Reason)
			}
		}
		watcher.nothing()
	})
}

func TestSessionPresentIsTrue(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		connack := func(resume bool) (*wire, []byte) {
			w := plug(t, b, rightful(b, rawmqtt.Login{ClientID: "one", Version: version, Resume: resume}).Encode())
			return w, w.next(rawmqtt.Connack).Body[:2]
		}
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for _, c := range []struct {
			what    string
			resume  bool
			present byte
			has     bool // the subscription that the connections before have made
		}{
			{"none is stored", true, 0, false},
			{"one is stored", true, 1, true},
			{"a clean start ends it", false, 0, false},
			{"and left none", true, 0, false},
			{"the one after is stored", true, 1, true},
		} {
			w, flags := connack(c.resume)
			assert.Equal(t, []byte{c.present, 0}, flags, c.what)
			sender.send(published(version, 2, "a", 1, "", "x"))
			sender.next(rawmqtt.Puback)
			if c.has {
				id := w.next(rawmqtt.Publish).ID
				w.send(rawmqtt.EncodeAck(rawmqtt.Puback, id))
			}
			w.nothing()
			w.subscribe(version, 1, "a")
			w.send([]byte{rawmqtt.Disconnect << 4, 0})
			w.rest()
		}
	})
}

func TestTheConnackComesFirst(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		login := rawmqtt.Login{ClientID: "one", Version: version, Resume: true}
		admitted(t, b, login).subscribe(version, 1, "a")
		sender := admitted(t, b, rawmqtt.Login{ClientID: "sender", Version: version})
		for id := range uint16(5) { // the first connection is taken over, so they wait
			sender.send(published(version, 2, "a", id+1, "", "x"))
			sender.next(rawmqtt.Puback)
		}
		w := plug(t, b, rightful(b, login).Encode())
		w.next(rawmqtt.Connack)
		for range 5 {
			w.send(rawmqtt.EncodeAck(rawmqtt.Puback, w.next(rawmqtt.Publish).ID))
		}
		w.nothing() // and there is no other CONNACK
	})
}

func TestTheConnectionBeforeIsEnded(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		for _, resume := range []bool{false, true} {
			before := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version, Resume: resume})
			after := admitted(t, b, rawmqtt.Login{ClientID: "one", Version: version, Resume: resume})
			before.ends(version, "taken over", 0x8e)
			after.nothing()
			after.send([]byte{rawmqtt.Disconnect << 4, 0})
			after.rest()
		}
	})
}

// The connection ends after one and a half times the keepalive, not before, as if the network had failed: with the will.
func TestASilentClientIsGivenUp(t *testing.T) {
	bothVersions(t, func(t *testing.T, b *brokertest.Broker, version byte) {
		t.Parallel()
		watcher := admitted(t, b, rawmqtt.Login{ClientID: "watcher", Version: version})
		watcher.subscribe(version, 0, "a/will")
		login := rightful(b, rawmqtt.Login{ClientID: "one", Version: version, WillTopic: "a/will"}).Encode()
		keepalive := 2 + len("\x00\x04MQTT") + 3
		require.Equal(t, byte(60), login[keepalive])
		login[keepalive] = 1
		began := time.Now()
		w := plug(t, b, login)
		w.next(rawmqtt.Connack)
		w.ends(version, "nothing in time", 0x8d)
		assert.GreaterOrEqual(t, time.Since(began), 1500*time.Millisecond)
		topic, _, _ := content(version, watcher.next(rawmqtt.Publish))
		assert.Equal(t, "a/will", topic)
	})
}

func TestEnhancedAuthenticationIsNotOffered(t *testing.T) {
	b := brokertest.Start(t)
	login := rightful(b, rawmqtt.Login{ClientID: "one", Properties: []byte("\x15\x00\x05SCRAM")})
	all := plug(t, b, login.Encode()).rest()
	require.Len(t, all, 1)
	assert.Equal(t, byte(0x8c), all[0].Reason)
	for name, auth := range map[string][]byte{"AUTH": {0xf0, 0}, "AUTH that goes on": {0xf0, 2, 0x18, 0}, "AUTH with a flag": {0xf1, 0}} {
		w := admitted(t, b, rawmqtt.Login{ClientID: "one"})
		w.send(auth)
		w.ends(5, name, 0x81, 0x82)
	}
}

// What a client does not want to know is not sent: no response information, no reason strings, no aliases; and nothing that
// is longer than it takes.
func TestAnswersAreNoLongerThanAsked(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for _, problems := range []byte{0, 1} {
		w := plug(t, b, rawmqtt.Login{User: "bed-1", Secret: brokertest.Password("bed-1"), ClientID: "bed-1",
			Properties: []byte{0x17, problems, 0x19, 0}}.Encode())
		connack := w.next(rawmqtt.Connack)
		require.Zero(t, connack.Reason)
		for id, name := range map[byte]string{0x15: "Authentication Method", 0x1a: "Response Information", 0x1c: "Server Reference", 0x1f: "Reason String", 0x26: "User Property"} {
			assert.NotContains(t, propertyIDs(t, connack.Body[2:]), id, name)
		}
		w.send(published(5, 2, "forbidden", 1, "", "x"), published(5, 4, "forbidden", 2, "", "x"), rawmqtt.EncodePubrel(9),
			rawmqtt.EncodeSubscribe(5, 1, 3, "forbidden"), rawmqtt.EncodeUnsubscribe(5, 4, "never"))
		for range 5 {
			p, err := rawmqtt.Read(w.r)
			require.NoError(t, err)
			switch p.Kind {
			case rawmqtt.Suback, rawmqtt.Suback + 2:
				assert.Zero(t, p.Body[2], "properties of a packet of type %d", p.Kind)
			default:
				assert.LessOrEqual(t, len(p.Body), 4, "a packet of type %d", p.Kind)
				assert.True(t, len(p.Body) < 4 || p.Body[3] == 0, "properties of a packet of type %d", p.Kind)
			}
		}
	}
}

// Neither an answer nor a reason in words makes a packet longer than the client's Maximum Packet Size: the words are left out, or
// the packet is.
func TestNoPacketIsLongerThanTheClientTakes(t *testing.T) {
	b := brokertest.Start(t)
	for size := byte(1); size < 32; size++ {
		maximum := []byte{0x27, 0, 0, 0, size}
		login := rightful(b, rawmqtt.Login{ClientID: "one", Properties: maximum}).Encode()
		wrong := rawmqtt.Login{User: "nobody", Secret: "x", ClientID: "one", Properties: maximum}.Encode()
		for _, sent := range [][]byte{slices.Concat(login, login), wrong} {
			for _, p := range plug(t, b, sent).rest() {
				assert.LessOrEqual(t, 2+len(p.Body), int(size), "a packet of type %d", p.Kind)
			}
		}
		w := plug(t, b, login)
		p, err := rawmqtt.Read(w.r)
		if err != nil {
			continue // the CONNACK has no place
		}
		require.Equal(t, byte(rawmqtt.Connack), p.Kind)
		w.subscribe(5, 0, "a")
		w.publish(5, 0, "a", 0, "x")
		if size >= 7 {
			w.take(5)
		}
		w.publish(5, 0, "a", 0, strings.Repeat("too long", 4))
		w.nothing() // it counts as delivered
	}
}
