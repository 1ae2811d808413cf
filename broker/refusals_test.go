package broker_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// refused is one way to be refused: what the client is told and what its owner sees.
type refused struct {
	reason   string
	edit     func(*broker.Options)
	do       func(s *scene) told
	v5, v3   told   // nothing: this version has no such refusal
	stranger bool   // nobody to put it down to
	rule     string // in the log
	message  bool   // it is a message, which the equation counts
}

// told is the answer: a packet and its code, or the end of the connection.
type told struct {
	packet byte
	code   byte
}

const ended byte = 0xff // nothing but the end of the connection

var (
	nothing = told{}
	closed  = told{packet: ended}
	silence = told{packet: 0xfe}
)

func connack(code byte) told { return told{packets.Connack, code} }
func parted(code byte) told  { return told{packets.Disconnect, code} }
func puback(code byte) told  { return told{packets.Puback, code} }
func suback(code byte) told  { return told{packets.Suback, code} }

// scene is a broker that knows bed-1 and bed-2, and a client's version.
type scene struct {
	*testing.T
	*brokertest.Broker
	version byte
}

func (s *scene) bed1() brokertest.Login { return as("bed-1", s.version) }

func (s *scene) login(l brokertest.Login) told {
	l.Version = s.version
	c, ack := brokertest.TryDial(s.T, s.Broker, brokertest.TCP, l)
	c.AwaitClosed()
	return connack(ack.ReasonCode)
}

func (s *scene) loginTLS(l brokertest.Login) told {
	l.Version = s.version
	c, ack := brokertest.TryDial(s.T, s.Broker, brokertest.TLS, l)
	c.AwaitClosed()
	return connack(ack.ReasonCode)
}

func (s *scene) dial() *brokertest.Client {
	return brokertest.Dial(s.T, s.Broker, brokertest.TCP, s.bed1())
}

// ends says how the connection ends.
func ends(c *brokertest.Client) told {
	if code := c.AwaitClosed(); code != 0 {
		return parted(code)
	}
	return closed
}

func (s *scene) logsInTwice() told {
	s.dial()
	return s.login(s.bed1())
}

func (s *scene) sends(p packets.Packet) told {
	c := s.dial()
	c.Send(p)
	return ends(c)
}

func (s *scene) bytes(p ...byte) told {
	c := s.dial()
	c.SendBytes(p)
	return ends(c)
}

func (s *scene) subscribes(sub packets.Subscription) told {
	return suback(s.dial().SubscribeWith(sub))
}

func (s *scene) publishes(topic string) told {
	c := s.dial()
	c.SendPublish(topic, "{}", 1)
	if s.version == 5 {
		return puback(c.Await(packets.Puback).ReasonCode)
	}
	return ends(c)
}

func message(edit func(*packets.Packet)) packets.Packet {
	p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 1, TopicName: telemetry}
	edit(&p)
	return p
}

func asks(sub packets.Subscription) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{sub}}
}

// socket is a bare TCP connection on which something is said before the login.
func (s *scene) socket(address net.Addr, said ...byte) told {
	c, err := net.Dial("tcp", address.String())
	if err != nil {
		return closed // so quickly
	}
	s.Cleanup(func() { c.Close() })
	_, _ = c.Write(said) // it may have ended
	require.NoError(s, c.SetReadDeadline(time.Now().Add(brokertest.Patience)))
	for {
		if _, err := c.Read(make([]byte, 1000)); err != nil {
			netErr, late := err.(net.Error)
			require.False(s, late && netErr.Timeout(), "still open")
			return closed
		}
	}
}

const notOther = `rule="publish devices/bed-1/#"`

// refusedInEveryWay has each refusal of the broker once. Whoever adds one adds a row.
var refusedInEveryWay = []refused{
	{reason: "anonymous", do: func(s *scene) told { return s.login(brokertest.Login{}) }, v5: connack(0x86), v3: connack(5), stranger: true},
	{reason: "no password", do: func(s *scene) told { return s.login(brokertest.Login{User: "bed-1"}) }, v5: connack(0x86), v3: connack(5)},
	{reason: "unknown user", do: func(s *scene) told { return s.login(brokertest.As("bed-9")) }, v5: connack(0x86), v3: connack(5), stranger: true},
	{reason: "wrong password", do: func(s *scene) told { return s.login(brokertest.Login{User: "bed-1", Password: "guess"}) }, v5: connack(0x86), v3: connack(5)},
	{reason: "invalid user name", do: func(s *scene) told { return s.login(brokertest.Login{User: "+", Password: "x"}) }, v5: connack(0x86), v3: connack(4), stranger: true},
	{reason: "unknown authentication method", do: func(s *scene) told {
		l := s.bed1()
		l.Properties.AuthenticationMethod = "SCRAM-SHA-1"
		return s.login(l)
	}, v5: connack(0x8c)},
	{reason: "certificate names another account", edit: func(o *broker.Options) { o.RequireCertificate = true }, do: func(s *scene) told {
		certificate := s.CA.Issue("bed-2")
		l := s.bed1()
		l.Certificate = &certificate
		return s.loginTLS(l)
	}, v5: connack(0x87), v3: connack(5)},
	{reason: "invalid client id", do: func(s *scene) told { return s.login(withID("bed-1", "#")) }, v5: connack(0x85), v3: connack(2)},
	{reason: "client id belongs to another account", do: func(s *scene) told { return s.login(withID("bed-1", "bed-2")) }, v5: connack(0x85), v3: connack(2)},
	{reason: "session belongs to another account", do: func(s *scene) told {
		l := withID("bed-2", "shared")
		brokertest.Dial(s.T, s.Broker, brokertest.TCP, l)
		return s.login(withID("bed-1", "shared"))
	}, v5: connack(0x85), v3: connack(2)},
	{reason: "invalid will topic", do: func(s *scene) told { return s.login(withWill("bed-1", "devices/bed-1/#")) }, v5: connack(0x90), v3: connack(5)},
	{reason: "will not allowed", do: func(s *scene) told { return s.login(withWill("bed-1", "devices/bed-2/telemetry")) }, v5: connack(0x87), v3: connack(5), rule: notOther},
	{reason: "will not allowed", message: true, rule: `rule="publish devices/bed-1/other"`, do: func(s *scene) told { // any more
		l := s.bed1()
		l.Will = &brokertest.Will{Topic: telemetry, Payload: "{}"}
		c := brokertest.Dial(s.T, s.Broker, brokertest.TCP, l)
		narrower := brokertest.Device("bed-1")
		narrower.Publish = []string{"devices/bed-1/other"}
		s.Accounts.Set(narrower)
		c.Close()
		return silence
	}, v5: silence, v3: silence},
	{reason: "stopping", do: func(s *scene) told {
		require.NoError(s, s.DisconnectDevices(s.Context()))
		return s.login(s.bed1())
	}, v5: connack(0x8b), v3: connack(3)},
	{reason: "publish not allowed", do: func(s *scene) told { return s.publishes("devices/bed-2/telemetry") }, v5: puback(0x87), v3: closed, rule: notOther, message: true},
	{reason: "reserved topic", do: func(s *scene) told { return s.publishes("$SYS/x") }, v5: puback(0x87), v3: closed, rule: notOther, message: true},
	{reason: "subscribe not allowed", do: func(s *scene) told { return s.subscribes(packets.Subscription{Filter: "#"}) }, v5: suback(0x87), v3: suback(0x80), rule: `rule="subscribe devices/bed-1/#"`},
	{reason: "invalid topic filter", do: func(s *scene) told { return s.subscribes(packets.Subscription{Filter: "devices/bed-1/#/x"}) }, v5: suback(0x8f), v3: suback(0x80)},
	{reason: "too many filter levels", do: func(s *scene) told {
		return s.sends(asks(packets.Subscription{Filter: "devices/bed-1" + strings.Repeat("/x", 40)}))
	}, v5: parted(0x8f), v3: closed},
	{reason: "too many user properties", do: func(s *scene) told {
		pk := asks(packets.Subscription{Filter: "devices/bed-1/#"})
		pk.Properties.User = make([]packets.UserProperty, 1001)
		return s.sends(pk)
	}, v5: parted(0x97)},
	{reason: "too many filters in one packet", do: func(s *scene) told {
		pk := asks(packets.Subscription{})
		pk.Filters = make(packets.Subscriptions, 1001)
		return s.sends(pk)
	}, v5: parted(0x97), v3: closed},
	{reason: "too many filters in one packet", do: func(s *scene) told {
		pk := asks(packets.Subscription{Filter: "devices/bed-1/#"})
		for range 112 { // each counts for nine
			pk.Filters = append(pk.Filters, packets.Subscription{Filter: "devices/bed-1" + strings.Repeat("/x", 15)})
		}
		return s.sends(pk)
	}, v5: parted(0x97), v3: closed},
	{reason: "invalid retain handling", do: func(s *scene) told {
		return s.sends(asks(packets.Subscription{Filter: "devices/bed-1/#", RetainHandling: 3}))
	}, v5: parted(0x82)},
	{reason: "protocol violation", do: func(s *scene) told { // [MQTT-3.8.3-4]
		return s.sends(asks(packets.Subscription{Filter: "$share/g/devices/bed-1/#", NoLocal: true}))
	}, v5: parted(0x82)},
	{reason: "second CONNECT", do: func(s *scene) told {
		return s.sends(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{ProtocolName: []byte("MQTT")}})
	}, v5: parted(0x82), v3: closed},
	{reason: "first packet is not CONNECT", do: func(s *scene) told { return s.socket(s.Addrs().TCP, 0xc0, 0) }, v5: closed, v3: closed, stranger: true},
	{reason: "unsupported protocol version", do: func(s *scene) told {
		c := brokertest.Open(s.T, s.Broker, brokertest.TCP, nil)
		c.SendBytes([]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 9, 2, 0, 0, 0, 1, 'x'})
		return connack(c.Await(packets.Connack).ReasonCode)
	}, v5: connack(1), v3: connack(1), stranger: true},
	{reason: "packet that only a server sends", do: func(s *scene) told { return s.bytes(0xd0, 0) }, v5: parted(0x82), v3: closed},
	{reason: "no topic filter", do: func(s *scene) told {
		if s.version == 5 {
			return s.bytes(0x82, 3, 0, 1, 0)
		}
		return s.bytes(0x82, 2, 0, 1)
	}, v5: parted(0x82), v3: closed},
	{reason: "packet id 0", do: func(s *scene) told {
		if s.version == 5 {
			return s.bytes(0xa2, 6, 0, 0, 0, 0, 1, 'a')
		}
		return s.bytes(0xa2, 5, 0, 0, 0, 1, 'a')
	}, v5: parted(0x82), v3: closed},
	{reason: "acknowledgement of the wrong kind", do: func(s *scene) told {
		c := s.dial()
		require.Equal(s, byte(2), c.Subscribe(telemetry, 2))
		c.SendPublish(telemetry, "{}", 2)
		c.SendBytes([]byte{0x40, 2, 0, byte(c.Await(packets.Publish).PacketID)})
		return ends(c)
	}, v5: parted(0x82), v3: closed},
	{reason: "unknown reason code", do: func(s *scene) told { return s.bytes(0x40, 3, 0, 1, 0x42) }, v5: parted(0x82)},
	{reason: "property given twice", do: func(s *scene) told { return s.bytes(0xe0, 12, 0, 10, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1) }, v5: parted(0x82)},
	{reason: "forbidden value of a property", do: func(s *scene) told { return s.bytes(0x82, 9, 0, 1, 2, 0x0b, 0, 0, 1, 'a', 0) }, v5: parted(0x82)},
	{reason: "authentication data without a method", do: func(s *scene) told {
		l := s.bed1()
		l.Properties.AuthenticationData = []byte("x")
		return s.login(l)
	}, v5: connack(0x82), stranger: true},
	{reason: "malformed packet", do: func(s *scene) told { return s.bytes(0x82, 5, 0, 1, 0, 0, 0) }, v5: parted(0x81)}, // mochi panics
	{reason: "malformed packet", do: func(s *scene) told { return s.bytes(0x32, 4, 0xff, 0xff, 0, 1) }, v5: parted(0x81), v3: closed},
	{reason: "malformed packet", do: func(s *scene) told { return s.bytes(0, 0) }, v5: parted(0x81), v3: closed},
	{reason: "packet too large", do: func(s *scene) told { return s.bytes(0x32, 0xff, 0xff, 0xff, 0x7f) }, v5: parted(0x95), v3: closed},
	{reason: "invalid payload format", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.Properties.PayloadFormat, p.Properties.PayloadFormatFlag = 2, true }))
	}, v5: parted(0x81)},
	{reason: "invalid response topic", do: func(s *scene) told {
		said := append([]byte{0x32, byte(2 + len(telemetry) + 2 + 7), 0, byte(len(telemetry))}, telemetry...)
		return s.bytes(append(said, 0, 1, 6, 8, 0, 3, 'a', '/', '#')...)
	}, v5: parted(0x82), message: true},
	{reason: "protocol violation: missing packet id", do: func(s *scene) told {
		said := append([]byte{0x32, byte(2 + len(telemetry) + 2), 0, byte(len(telemetry))}, telemetry...)
		if said = append(said, 0, 0); s.version == 5 {
			said[1]++
			said = append(said, 0)
		}
		return s.bytes(said...)
	}, v5: parted(0x82), v3: closed, message: true},
	{reason: "protocol violation: no topic or alias", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.TopicName = "" }))
	}, v5: parted(0x82), v3: closed, message: true},
	{reason: "protocol violation: topic contains wildcards", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.TopicName = "devices/bed-1/#" }))
	}, v5: parted(0x82), v3: closed, message: true},
	{reason: "protocol violation: contained subscription identifier", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.Properties.SubscriptionIdentifier = []int{1} }))
	}, v5: parted(0x82), message: true},
	{reason: "topic alias invalid", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.Properties.TopicAlias, p.Properties.TopicAliasFlag = 17, true }))
	}, v5: parted(0x94), message: true},
	{reason: "too many topic levels", do: func(s *scene) told {
		return s.sends(message(func(p *packets.Packet) { p.TopicName = "devices/bed-1" + strings.Repeat("/x", 40) }))
	}, v5: parted(0x90), v3: closed, message: true},
	{reason: "session expiry raised from zero", do: func(s *scene) told {
		return s.sends(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			Properties: packets.Properties{SessionExpiryInterval: 9, SessionExpiryIntervalFlag: true}})
	}, v5: parted(0x82)},
	{reason: "authentication without a method", do: func(s *scene) told {
		return s.sends(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ReasonCode: 0x19})
	}, v5: parted(0x82)},
	{reason: "more unacknowledged messages than announced", do: func(s *scene) told {
		c := s.dial()
		for range 1025 {
			c.SendPublish("devices/bed-1/notes", "", 2)
		}
		return ends(c)
	}, v5: parted(0x93), message: true, rule: `rule="receive maximum 1024"`},
	{reason: "not stored in time", edit: storing, do: func(s *scene) told {
		c := s.dial()
		c.SendPublish(telemetry, "{}", 1)
		return ends(c)
	}, v5: parted(0x97), v3: closed, rule: `rule="ingest.stall_timeout 100ms"`},
	{reason: "too slow for what it subscribed to", rule: `rule="32768 messages, 8388608 bytes"`, do: func(s *scene) told {
		brokertest.Deaf(s.T, s.Broker, withID("bed-1", "sleeper"), "devices/bed-1/notes", 0)
		sender := s.dial()
		for range 40 {
			sender.SendPublish("devices/bed-1/notes", strings.Repeat("x", 1<<20/4*3), 0)
		}
		sender.Ping()
		return silence
	}, edit: func(o *broker.Options) { o.Limits.MaxPacketBytes = 1 << 20 }, v5: silence, v3: silence},
	{reason: "too many connections of the account", edit: func(o *broker.Options) { o.Limits.MaxConnectionsPerAccount = 1 }, do: (*scene).logsInTwice,
		v5: connack(0x97), v3: connack(3), rule: `rule="limits.max_connections_per_account: 1"`},
	{reason: "too many sessions of the account", edit: func(o *broker.Options) { o.Limits.MaxSessionsPerAccount = 1 }, do: (*scene).logsInTwice,
		v5: connack(0x97), v3: connack(3), rule: `rule="limits.max_sessions_per_account: 1"`},
	{reason: "too many sessions", edit: func(o *broker.Options) { o.Limits.MaxSessions = 1 }, do: (*scene).logsInTwice,
		v5: connack(0x97), v3: connack(3), rule: `rule="limits.max_sessions: 1"`},
	{reason: "too many subscriptions of the account", edit: func(o *broker.Options) { o.Limits.MaxSubscriptionsPerAccount = 1 }, do: func(s *scene) told {
		s.subscribes(packets.Subscription{Filter: "devices/bed-1/a"})
		return s.subscribes(packets.Subscription{Filter: "devices/bed-1/b"})
	}, v5: suback(0x97), v3: suback(0x80), rule: `rule="limits.max_subscriptions_per_account: 1"`},
	{reason: "too many retained messages of the account", edit: func(o *broker.Options) { o.Limits.MaxRetainedPerAccount = 1 }, do: func(s *scene) told {
		send(s.T, s.dial(), retain("devices/bed-1/a", "x"))
		c := s.dial()
		c.Send(message(func(p *packets.Packet) { p.FixedHeader.Retain, p.Payload = true, []byte("x") }))
		if s.version == 5 {
			return puback(c.Await(packets.Puback).ReasonCode)
		}
		return ends(c)
	}, v5: puback(0x97), v3: closed, message: true, rule: `rule="limits.max_retained_per_account: 1"`},
	{reason: "too much waits for the account", edit: func(o *broker.Options) { o.Limits.MaxQueuedBytesPerAccount = 64 << 10 }, do: func(s *scene) told {
		c := brokertest.Dial(s.T, s.Broker, brokertest.TCP, lasting("bed-1", "sleeper", s.version))
		require.Equal(s, byte(1), c.Subscribe("devices/bed-1/notes", 1))
		c.Disconnect()
		sender := s.dial()
		for range 5 {
			require.Zero(s, sender.Publish("devices/bed-1/notes", strings.Repeat("x", 20_000), 1))
		}
		return silence
	}, v5: silence, v3: silence, rule: "rule=limits.max_queued_bytes_per_account"},
	{reason: "too many connections", edit: func(o *broker.Options) { o.Limits.MaxConnections = 1 }, do: (*scene).logsInTwice,
		v5: connack(0x97), v3: connack(3), rule: "limits.max_connections: 1"},
	{reason: "too many connections from one address", edit: func(o *broker.Options) { o.Limits.MaxConnectionsPerAddress = 1 }, do: func(s *scene) told {
		s.dial()
		return s.socket(s.Addrs().TCP)
	}, v5: closed, v3: closed, stranger: true},
	{reason: "no CONNECT in time", edit: func(o *broker.Options) { o.Limits.ConnectTimeout = shortly }, do: func(s *scene) told {
		return s.socket(s.Addrs().TCP)
	}, v5: closed, v3: closed, stranger: true},
	{reason: "TLS handshake failed", do: func(s *scene) told { return s.socket(s.Addrs().TLS, []byte("no TLS, and long enough to see it")...) }, v5: closed, v3: closed, stranger: true},
	{reason: "TLS on a port without TLS", do: func(s *scene) told { return s.socket(s.Addrs().TCP, 0x16, 3, 1) }, v5: closed, v3: closed, stranger: true},
	{reason: "websocket upgrade failed", do: func(s *scene) told { return s.socket(s.Addrs().WebSocket, []byte("GET / HTTP/1.0\r\n\r\n")...) }, v5: closed, v3: closed, stranger: true},
	{reason: "first packet too large", do: func(s *scene) told { return s.socket(s.Addrs().TCP, 0x10, 0xff, 0xff, 0xff, 0x7f) }, v5: closed, v3: closed, stranger: true},
}

// notDriven says which test has a refusal that is in no row, or why none has.
var notDriven = map[string]string{
	"not ready":                        "TestGate",                                    // half a minute
	"packet not finished in time":      "TestAPacketThatHasBegunMustBeFinishedInTime", // minutes
	"panic":                            "TestPanicEndsOneConnectionOnly",
	"slow consumer":                    "TestClientThatNeverReadsIsClosed",
	"write timeout":                    "TestClientThatStopsReadingRunsIntoTheWriteTimeout",
	"websocket frame not allowed":      "TestWebsocketFramesThatAreNotAllowed",
	"too many retained messages":       "TestARetainedMessageThatCannotBeKeptIsRefused", // a hundred thousand
	"account removed":                  "none: it takes a removal while a message is on its way into the store",
	"certificate revoked":              "TestRevokedCertificateEndsItsConnectionAndNothingElse",
	"too many failed logins":           "TestGuessesForOneNameAreFewAtATime",
	"answer to a failed login delayed": "TestOnlyWrongPasswordsWait", // counted beside the reason
	"invalid topic":                    "none: a second look, what is invalid is found before",
	"previous connection did not end":  "none: it takes a fault of ours",
}

func storing(o *broker.Options) {
	o.IngestTopics, o.StallTimeout = []string{"devices/+/telemetry"}, shortly
}

func TestEveryRefusalIsVisible(t *testing.T) {
	for i, c := range refusedInEveryWay {
		for version, want := range map[byte]told{5: c.v5, 4: c.v3} {
			if want == nothing {
				continue
			}
			t.Run(fmt.Sprintf("%d %s v%d", i, c.reason, version), func(t *testing.T) {
				edit := c.edit
				if edit == nil {
					edit = func(*broker.Options) {}
				}
				b := brokertest.Listen(t, edit, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
				require.NoError(t, b.Start())
				b.AdmitDevices()
				began := time.Now()
				assert.Equal(t, want, c.do(&scene{t, b, version}), "what the client is told")
				c.isVisible(t, b, began)
			})
		}
	}
}

func (c *refused) isVisible(t *testing.T, b *brokertest.Broker, began time.Time) {
	t.Helper()
	require.Eventually(t, func() bool { return b.Stats().Refused[c.reason] > 0 }, brokertest.Patience, time.Millisecond, "counter")
	reason := "reason=" + c.reason
	if strings.Contains(c.reason, " ") {
		reason = "reason=" + strconv.Quote(c.reason)
	}
	words := []string{"level=WARN", reason}
	if c.rule != "" {
		words = append(words, c.rule)
	}
	if !c.stranger {
		words = append(words, "user=bed-1")
	}
	require.Eventually(t, func() bool { return len(b.Log.Lines(words...)) == 1 }, brokertest.Patience, time.Millisecond, "log %q in\n%s", words, b.Log)
	if c.stranger {
		assert.Empty(t, b.Refusals())
	} else {
		mine := b.Refusals()["bed-1"]
		require.Len(t, mine, 1, "%v", mine)
		assert.Equal(t, c.reason, mine[0].Reason)
		assert.Equal(t, b.Stats().Refused[c.reason], mine[0].Count)
		assert.WithinRange(t, mine[0].Last, began, time.Now())
		if !strings.Contains(c.reason, "slow") && c.v5 != silence {
			assert.Equal(t, "127.0.0.1", mine[0].Remote)
		}
		assert.NotContains(t, b.Refusals(), "bed-2")
	}
	in := b.Stats().Ingest
	assert.Equal(t, in.Received, in.Refused+in.Pending, "the equation")
	assert.Equal(t, c.message, in.Refused == 1, "messages refused: %d", in.Refused)
}

// Names of strangers, and reasons that a stranger can choose, must not make anything grow.
func TestRefusalsAreKeptForAccountsOnly(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for i := range 5 {
		brokertest.TryDial(t, b, brokertest.TCP, brokertest.Login{User: fmt.Sprintf("made-up-%d", i), Password: "x"})
	}
	assert.Empty(t, b.Refusals())
	brokertest.TryDial(t, b, brokertest.TCP, brokertest.Login{User: "bed-1", Password: "x"})
	require.Len(t, b.Refusals(), 1)
	b.Accounts.Remove("bed-1")
	b.Disconnect("bed-1", "it was removed")
	assert.Empty(t, b.Refusals())
}
