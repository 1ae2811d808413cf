package bridge_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/bridge"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
)

func TestWrongPasswordIsSaidInWords(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	o := options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1})
	o.Remote.Password = "guessed"
	b, _, _ := start(t, o)
	s := await(t, b, func(s bridge.Status) bool { return s.Why != "not connected yet" })
	assert.Contains(t, s.Why, `user name or password wrong (0x86)`)
	assert.Contains(t, s.Why, `check username ("guest") and password`)
}

func TestTLSIsVerified(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	for name, c := range map[string]struct {
		config *tls.Config
		why    string
	}{
		"the right authority": {&tls.Config{RootCAs: there.CA.Roots(), ServerName: "localhost"}, ""},
		"another authority":   {&tls.Config{RootCAs: here.CA.Roots(), ServerName: "localhost"}, "set ca_cert to the certificate of the authority"},
		"another name":        {&tls.Config{RootCAs: there.CA.Roots(), ServerName: "example.org"}, "its certificate is not for 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(here, there.Addrs().TLS.String(), bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1})
			o.Remote.TLS = func() (*tls.Config, error) { return c.config, nil }
			b, _, _ := start(t, o)
			s := await(t, b, func(s bridge.Status) bool { return s.Connected || s.Why != "not connected yet" })
			assert.Equal(t, c.why == "", s.Connected)
			assert.Contains(t, s.Why, c.why)
		})
	}
}

func TestALPNIsOffered(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	offered := make(chan []string, 10)
	config := there.CA.ServerTLS()
	config.NextProtos = []string{"x-amzn-mqtt-ca"}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered <- hello.SupportedProtos
		return nil, nil
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	o := options(here, l.Addr().String(), bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 1})
	o.Remote.TLS = func() (*tls.Config, error) {
		return &tls.Config{RootCAs: there.CA.Roots(), ServerName: "localhost", NextProtos: []string{"x-amzn-mqtt-ca"}}, nil
	}
	start(t, o)
	assert.Equal(t, []string{"x-amzn-mqtt-ca"}, <-offered)
}

func TestWhatTheOtherBrokerRefusesIsNotTriedForEver(t *testing.T) {
	limited := guest
	limited.Publish, limited.Subscribe = []string{"open/#"}, []string{"open/#"}
	here, there := brokertest.Start(t), brokertest.Start(t, limited)
	b, log, _ := start(t, options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "#", Direction: bridge.In | bridge.Out, QoS: 2}))
	awaitUp(t, b)
	got := listener(t, there, "#", 2)
	send := publisher(t, here)
	for qos := byte(1); qos <= 2; qos++ {
		send.Publish("closed/a", "no", qos)
		send.Publish("open/a", "yes", qos)
		assert.Equal(t, "yes", string(got.Receive().Payload))
	}
	s := await(t, b, func(s bridge.Status) bool { return s.Out.Refused == 2 && s.Out.Carried == 2 })
	assert.True(t, s.Connected)
	assert.Contains(t, log.String(), "closed/a")
	require.Len(t, s.Refused, 1)
	assert.Contains(t, s.Refused[0], "refuses to subscribe #")
}

func TestTooLargeMessagesAreLeft(t *testing.T) {
	here := brokertest.Start(t)
	there := brokertest.Listen(t, func(o *broker.Options) { o.Limits.MaxPacketBytes = 2000 }, guest)
	require.NoError(t, there.Start())
	there.AdmitDevices()
	b, _, _ := start(t, options(here, there.Addrs().TCP.String(), bridge.Route{Filter: "#", Direction: bridge.Out, QoS: 2}))
	awaitUp(t, b)
	got := listener(t, there, "#", 2)
	send := publisher(t, here)
	for qos := range byte(3) {
		send.Publish("large", string(make([]byte, 3000)), qos)
		send.Publish("small", "yes", qos)
		assert.Equal(t, "small", got.Receive().TopicName)
	}
	s := await(t, b, func(s bridge.Status) bool { return s.Connected && s.Out.Refused == 3 && s.Out.Carried == 3 })
	assert.Equal(t, "large", s.Last.Topic)
	assert.Equal(t, "it is larger than 2000 bytes", s.Last.Reason)
}

// What is not carried any more is not subscribed to any more, at neither broker: it would wait there, and come for nothing.
func TestSubscriptionsEndWithTheTopicsOfABridge(t *testing.T) {
	here, there := brokertest.Start(t, guest), brokertest.Start(t, guest)
	filtersAt := func(b *brokertest.Broker, id string) int {
		for _, s := range b.Sessions() {
			if s.Client == id {
				return s.Subscriptions
			}
		}
		return -1
	}
	var group bridge.Group
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = group.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	o := options(here, there.Addrs().TCP.String())
	apply := func(address string, filters ...string) {
		o := o
		o.Remote.Address, o.Log = address, nil
		for _, f := range filters {
			o.Routes = append(o.Routes, bridge.Route{Filter: f, Direction: bridge.In | bridge.Out, QoS: 1})
		}
		require.NoError(t, group.Apply([]bridge.Options{o}, func(string) bool { return false }))
	}
	are := func(atHere, atThere int) {
		t.Helper()
		require.Eventually(t, func() bool {
			return filtersAt(here, o.Local.ClientID) == atHere && filtersAt(there, o.Remote.ClientID) == atThere
		}, brokertest.Patience, 5*time.Millisecond)
	}
	apply(o.Remote.Address, "a/#", "b/#", "c/#")
	are(3, 3)
	apply(o.Remote.Address, "a/#", "d/#")
	are(2, 2)
	apply("127.0.0.1:1", "d/#") // which is not there
	are(1, 2)
}
