package broker_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// everyWay runs a test on every listener in MQTT 3.1.1 and 5, with a broker of its own.
func everyWay(t *testing.T, test func(t *testing.T, kind brokertest.Kind, version byte)) {
	for _, kind := range brokertest.Kinds {
		t.Run(string(kind)+" v3.1.1", func(t *testing.T) { test(t, kind, 4) })
		t.Run(string(kind)+" v5", func(t *testing.T) { test(t, kind, 5) })
	}
}

// as is the login of a device in a given version.
func as(id string, version byte) brokertest.Login {
	login := brokertest.As(id)
	login.Version = version
	return login
}

func TestLoginsAreRefusedOnEveryListener(t *testing.T) {
	cases := map[string]struct {
		login  brokertest.Login
		reason string
		v3, v5 byte
	}{
		"nobody":                {brokertest.Login{}, "anonymous", 5, 0x86},
		"no password":           {brokertest.Login{User: "bed-1"}, "no password", 5, 0x86},
		"wrong password":        {brokertest.Login{User: "bed-1", Password: "guess"}, "wrong password", 5, 0x86},
		"another's password":    {brokertest.Login{User: "bed-1", Password: brokertest.Password("bed-2")}, "wrong password", 5, 0x86},
		"unknown user":          {brokertest.As("bed-9"), "unknown user", 5, 0x86},
		"wrong backend":         {brokertest.Login{User: "plantops_backend", Password: "guess"}, "wrong password", 5, 0x86},
		"wildcard user":         {brokertest.Login{User: "+", Password: "x"}, "invalid user name", 4, 0x86},
		"user with a level":     {brokertest.Login{User: "bed-1/x", Password: "x"}, "invalid user name", 4, 0x86},
		"user not UTF-8":        {brokertest.Login{User: "\xff", Password: "x"}, "invalid user name", 4, 0x86},
		"user too long":         {brokertest.Login{User: strings.Repeat("x", 65), Password: "x"}, "invalid user name", 4, 0x86},
		"wildcard client id":    {withID("bed-1", "#"), "invalid client id", 2, 0x85},
		"pattern as client id":  {withID("bed-1", "%u"), "invalid client id", 2, 0x85},
		"another's name as id":  {withID("bed-1", "bed-2"), "client id belongs to another account", 2, 0x85},
		"the backend's name":    {withID("bed-1", "plantops_backend"), "client id belongs to another account", 2, 0x85},
		"the subscriber's id":   {withID("bed-1", "plantops-ingest"), "client id belongs to another account", 2, 0x85},
		"another device's will": {withWill("bed-1", "devices/bed-2/telemetry"), "will not allowed", 5, 0x87},
		"a will for $SYS":       {withWill("bed-1", "$SYS/broker/version"), "will not allowed", 5, 0x87},
		"a wildcard will":       {withWill("bed-1", "devices/bed-1/#"), "invalid will topic", 5, 0x90},
	}
	b := brokertest.Start(t, brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	expected := map[string]int64{}
	everyWay(t, func(t *testing.T, kind brokertest.Kind, version byte) {
		for name, c := range cases {
			c.login.Version = version
			client, ack := brokertest.TryDial(t, b, kind, c.login)
			want := c.v3
			if version == 5 {
				want = c.v5
			}
			assert.Equal(t, want, ack.ReasonCode, name)
			assert.False(t, ack.SessionPresent, name)
			client.AwaitClosed()
			expected[c.reason]++
			assert.Equal(t, expected[c.reason], b.Stats().Refused[c.reason], "%s: counted", name)
		}
		brokertest.Dial(t, b, kind, as("bed-1", version)).Disconnect()
	})
	for reason := range expected {
		if strings.Contains(reason, " ") {
			reason = strconv.Quote(reason)
		}
		assert.NotEmpty(t, b.Log.Lines("level=WARN", "refused", "reason="+reason), "%s: logged", reason)
	}
	assert.NotContains(t, b.Log.String(), "guess", "a password in the log")
	assert.NotContains(t, b.Log.String(), brokertest.Password("bed-1"), "a password in the log")
}

func withID(user, clientID string) brokertest.Login {
	login := brokertest.As(user)
	login.ClientID = clientID
	return login
}

func withWill(user, topic string) brokertest.Login {
	login := brokertest.As(user)
	login.Will = &brokertest.Will{Topic: topic, Payload: "gone", QoS: 1}
	return login
}

func TestUnknownAuthenticationMethodIsRefused(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := as("bed-1", 5)
	login.Properties.AuthenticationMethod = "SCRAM-SHA-1"
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
	assert.Equal(t, byte(0x8C), ack.ReasonCode)
}

func TestPersistentSessionNeedsAClientID(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	login := as("bed-1", 4)
	login.Resume = true
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, login)
	assert.Equal(t, byte(2), ack.ReasonCode, "MQTT 3.1.1 has no code above 5")
}

func TestBackendMayLogInUnderItsOwnClientIDs(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for _, id := range []string{"", "mosq-1234", "plantops-ingest", "plantops_backend"} {
		login := b.AsBackend()
		login.ClientID = id
		c := brokertest.Dial(t, b, brokertest.TLS, login)
		assert.Equal(t, byte(0), c.Publish("devices/bed-1/telemetry", "{}", 1))
		c.Disconnect()
	}
}

func TestDeviceMayUseItsNameOrAnyFreeClientID(t *testing.T) {
	b := brokertest.Start(t, brokertest.Device("bed-1"))
	for _, id := range []string{"", "bed-1", "mqttjs_0a1b2c", "ESP32 9F:01"} {
		brokertest.Dial(t, b, brokertest.WebSocket, withID("bed-1", id)).Disconnect()
	}
}

func TestAnEmptyBackendPasswordLetsNobodyIn(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) { o.Backend.Password = "" })
	require.NoError(t, b.Start())
	_, ack := brokertest.TryDial(t, b, brokertest.TCP, brokertest.Login{User: "plantops_backend", Password: "anything"})
	assert.Equal(t, byte(5), ack.ReasonCode)
}

func TestCertificateNameIsTheUserName(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) { o.RequireCertificate = true },
		brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()

	certificate := b.CA.Issue("bed-1")
	login := brokertest.As("bed-1")
	login.Certificate = &certificate
	brokertest.Dial(t, b, brokertest.TLS, login).Disconnect()

	login = brokertest.As("bed-2")
	login.Certificate = &certificate
	_, ack := brokertest.TryDial(t, b, brokertest.TLS, login)
	assert.Equal(t, byte(5), ack.ReasonCode)
	assert.Equal(t, int64(1), b.Stats().Refused["certificate names another account"])

	backend := b.AsBackend()
	backend.Certificate = &certificate
	_, ack = brokertest.TryDial(t, b, brokertest.TLS, backend)
	assert.Equal(t, byte(5), ack.ReasonCode)
}

func TestConnackAnnouncesWhatIsEnforced(t *testing.T) {
	b := brokertest.Listen(t, func(o *broker.Options) { o.Limits.MaxPacketBytes = 5000 }, brokertest.Device("bed-1"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	c, ack := brokertest.TryDial(t, b, brokertest.TCP, as("bed-1", 5))
	assert.Equal(t, uint32(5000), ack.Properties.MaximumPacketSize)
	assert.Equal(t, uint16(300), ack.Properties.ServerKeepAlive, "a client without a keepalive is given one")
	assert.EqualValues(t, 16, ack.Properties.TopicAliasMaximum)
	assert.NotEmpty(t, ack.Properties.AssignedClientID)
	c.SendPublish("devices/bed-1/telemetry", strings.Repeat("x", 6000), 1)
	c.AwaitClosed()

	login := as("bed-1", 5)
	login.Keepalive = 60
	_, ack = brokertest.TryDial(t, b, brokertest.TCP, login)
	assert.False(t, ack.Properties.ServerKeepAliveFlag)
	assert.Equal(t, packets.CodeSuccess.Code, ack.ReasonCode)
}
