package broker_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

// blacklist is what Options.Revoked asks.
type blacklist struct {
	mu      sync.Mutex
	asked   int
	revoked func(asked int, leaf *x509.Certificate) bool
}

func (b *blacklist) has(chains [][]*x509.Certificate) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return b.revoked != nil && b.revoked(b.asked, chains[0][0])
}

func (b *blacklist) set(revoked func(asked int, leaf *x509.Certificate) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked, b.revoked = 0, revoked
}

// is picks one certificate.
func is(c tls.Certificate) func(int, *x509.Certificate) bool {
	return func(_ int, leaf *x509.Certificate) bool { return string(leaf.Raw) == string(c.Certificate[0]) }
}

func requiring(t *testing.T, list *blacklist) *brokertest.Broker {
	t.Helper()
	b := brokertest.Listen(t, func(o *broker.Options) { o.RequireCertificate, o.Revoked = true, list.has },
		brokertest.Device("bed-1"), brokertest.Device("bed-2"))
	require.NoError(t, b.Start())
	b.AdmitDevices()
	return b
}

func showing(id string, version byte, certificate *tls.Certificate) brokertest.Login {
	login := as(id, version)
	login.ClientID, login.Certificate = id, certificate
	return login
}

func TestRevokedCertificateEndsItsConnectionAndNothingElse(t *testing.T) {
	for _, version := range []byte{4, 5} {
		list := &blacklist{}
		b := requiring(t, list)
		lost, next, other := b.CA.Issue("bed-1"), b.CA.Issue("bed-1"), b.CA.Issue("bed-2")
		login := showing("bed-1", version, &lost)
		login.Resume = true
		login.Properties.SessionExpiryInterval, login.Properties.SessionExpiryIntervalFlag = 3600, version == 5
		login.Will = &brokertest.Will{Topic: "devices/bed-1/status", Payload: "gone", QoS: 1}
		c := brokertest.Dial(t, b, brokertest.TLS, login)
		c.Subscribe("devices/bed-1/commands", 1)
		bystander := brokertest.Dial(t, b, brokertest.TLS, showing("bed-2", version, &other))
		plain := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", version))
		plain.Subscribe("devices/bed-1/#", 1)
		assert.Zero(t, b.EndRevoked())

		list.set(is(lost))
		assert.Equal(t, 1, b.EndRevoked())
		if version == 5 {
			assert.Equal(t, byte(0x98), c.Await(packets.Disconnect).ReasonCode)
		}
		c.AwaitClosed()
		bystander.Ping()
		assert.NotEmpty(t, b.Log.Lines("client disconnected", "user=bed-1", `reason="certificate revoked"`))

		_, ack := brokertest.TryDial(t, b, brokertest.TLS, login)
		assert.Equal(t, map[byte]byte{4: 5, 5: 0x87}[version], ack.ReasonCode)
		assert.Equal(t, int64(1), b.Stats().Refused["certificate revoked"])

		plain.Publish("devices/bed-1/commands", "for the next one", 1)
		assert.Equal(t, "for the next one", string(plain.Await(packets.Publish).Payload), "no will came before it")
		login.Certificate = &next
		c, ack = brokertest.TryDial(t, b, brokertest.TLS, login)
		assert.Zero(t, ack.ReasonCode)
		assert.True(t, ack.SessionPresent, "the account has lost a certificate, not its session")
		assert.Equal(t, "for the next one", string(c.Await(packets.Publish).Payload))

		login.Certificate = &lost // past the handshake, in which it was not revoked yet
		_, ack = brokertest.TryDial(t, b, brokertest.TLS, login)
		assert.NotZero(t, ack.ReasonCode)
		c.Ping() // it has not taken the session over on its way
	}
}

// A certificate is good in the handshake and when its password has been checked, and is revoked before the connection
// can be seen by EndRevoked.
func TestRevocationDuringALoginIsNotMissed(t *testing.T) {
	list := &blacklist{}
	b := requiring(t, list)
	lost := b.CA.Issue("bed-1")
	list.set(func(asked int, _ *x509.Certificate) bool { return asked > 1 })
	_, ack := brokertest.TryDial(t, b, brokertest.TLS, showing("bed-1", 5, &lost))
	assert.Equal(t, byte(0x87), ack.ReasonCode)
	assert.Zero(t, b.Stats().Connected)
}

func TestCertificateWithTwoNamesIsNobodys(t *testing.T) {
	list := &blacklist{}
	b := requiring(t, list)
	name := func(values ...string) (names []pkix.AttributeTypeAndValue) {
		for _, v := range values {
			names = append(names, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v})
		}
		return names
	}
	for _, names := range [][]pkix.AttributeTypeAndValue{name("bed-2", "bed-1"), name("bed-1", "bed-2"), name("bed-1", "bed-1")} {
		certificate := b.CA.IssueTo(pkix.Name{ExtraNames: names})
		for _, id := range []string{"bed-1", "bed-2"} {
			_, ack := brokertest.TryDial(t, b, brokertest.TLS, showing(id, 5, &certificate))
			assert.Equal(t, byte(0x87), ack.ReasonCode, "%s with %v", id, names)
		}
	}
	certificate := b.CA.IssueTo(pkix.Name{ExtraNames: name("bed-1"), Organization: []string{"bed-2"}})
	brokertest.Dial(t, b, brokertest.TLS, showing("bed-1", 5, &certificate)).Disconnect()
}
