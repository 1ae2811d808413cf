package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.golang/autopaho"
	pahopackets "github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	pahostate "github.com/eclipse/paho.golang/paho/session/state"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// pahoClient is a client of paho for Go, and what it hears.
type pahoClient struct {
	*autopaho.ConnectionManager
	messages chan *paho.Publish
	present  chan bool // Session Present of each CONNACK
}

func dialPaho(t *testing.T, b *brokertest.Broker, address, clientID string, edit func(*autopaho.ClientConfig)) *pahoClient {
	t.Helper()
	to, err := url.Parse(address)
	require.NoError(t, err)
	c := &pahoClient{messages: make(chan *paho.Publish, 100), present: make(chan bool, 10)}
	config := autopaho.ClientConfig{
		ServerUrls: []*url.URL{to}, TlsCfg: b.CA.ServerTLS(), KeepAlive: 60, CleanStartOnInitialConnection: true, ConnectTimeout: brokertest.Patience,
		ConnectUsername: b.Backend.Username, ConnectPassword: []byte(b.Backend.Password),
		OnConnectionUp: func(_ *autopaho.ConnectionManager, connack *paho.Connack) { c.present <- connack.SessionPresent },
		ClientConfig: paho.ClientConfig{ClientID: clientID, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(got paho.PublishReceived) (bool, error) { c.messages <- got.Packet; return true, nil }}},
	}
	config.TlsCfg.RootCAs = b.CA.Roots()
	if edit != nil {
		edit(&config)
	}
	c.ConnectionManager, err = autopaho.NewConnection(t.Context(), config)
	require.NoError(t, err)
	within, cancel := context.WithTimeout(t.Context(), brokertest.Patience)
	defer cancel()
	require.NoError(t, c.AwaitConnection(within))
	return c
}

func (c *pahoClient) subscribe(t *testing.T, filter string, qos byte) {
	t.Helper()
	suback, err := c.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	require.NoError(t, err)
	require.Equal(t, []byte{qos}, suback.Reasons)
}

func (c *pahoClient) leave(t *testing.T) {
	t.Helper()
	require.NoError(t, c.Disconnect(t.Context()))
	<-c.Done()
}

func TestPahoForGoOnEveryListener(t *testing.T) {
	b := brokertest.Start(t)
	for kind, scheme := range map[brokertest.Kind]string{brokertest.TCP: "mqtt", brokertest.TLS: "mqtts", brokertest.WebSocket: "ws"} {
		addr := map[brokertest.Kind]net.Addr{brokertest.TCP: b.Addrs().TCP, brokertest.TLS: b.Addrs().TLS, brokertest.WebSocket: b.Addrs().WebSocket}[kind]
		address := scheme + "://" + addr.String()
		asker, answerer := dialPaho(t, b, address, "asker", nil), dialPaho(t, b, address, "answerer", nil)
		asker.subscribe(t, "answer", 2)
		answerer.subscribe(t, "ask", 2)
		for qos := range byte(3) {
			_, err := asker.Publish(t.Context(), &paho.Publish{Topic: "ask", QoS: qos, Payload: []byte(kind),
				Properties: &paho.PublishProperties{ResponseTopic: "answer", CorrelationData: []byte{qos}}})
			require.NoError(t, err)
			asked := <-answerer.messages
			assert.Equal(t, []any{string(kind), qos}, []any{string(asked.Payload), asked.QoS})
			_, err = answerer.Publish(t.Context(), &paho.Publish{Topic: asked.Properties.ResponseTopic, QoS: qos,
				Properties: &paho.PublishProperties{CorrelationData: asked.Properties.CorrelationData}})
			require.NoError(t, err)
			assert.Equal(t, []byte{qos}, (<-asker.messages).Properties.CorrelationData)
		}

		keep := func(config *autopaho.ClientConfig) {
			config.CleanStartOnInitialConnection, config.SessionExpiryInterval = false, 3600
		}
		away := dialPaho(t, b, address, "away "+scheme, keep)
		assert.False(t, <-away.present)
		away.subscribe(t, "queue/#", 2)
		away.leave(t)
		for i := range 20 {
			_, err := asker.Publish(t.Context(), &paho.Publish{Topic: "queue/a", QoS: 1 + byte(i%2), Payload: []byte(fmt.Sprint(i))})
			require.NoError(t, err)
		}
		away = dialPaho(t, b, address, "away "+scheme, keep)
		assert.True(t, <-away.present)
		got := map[string]bool{}
		for range 20 {
			got[string((<-away.messages).Payload)] = true
		}
		assert.Len(t, got, 20)
		away.leave(t)
		asker.leave(t)
		answerer.leave(t)
	}
}

var errCut = errors.New("the connection breaks")

// breaking ends its connection before the client reads the first packet of a kind, whatever comes with it.
type breaking struct {
	net.Conn
	kind   byte
	broken *atomic.Bool
}

func (c *breaking) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	// paho reads the first byte of a packet by itself.
	if n == 1 && p[0]>>4 == c.kind && c.broken.CompareAndSwap(false, true) {
		_ = c.Close()
		return 0, errCut
	}
	return n, err
}

// A message of QoS 2 whose connection breaks arrives once, at whatever step that is; paho sends again with DUP.
func TestPahoForGoResendsQoS2(t *testing.T) {
	b := brokertest.Start(t)
	for _, kind := range []byte{rawmqtt.Pubrec, rawmqtt.Pubcomp} {
		listener := admitted(t, b, rawmqtt.Login{ClientID: "listener"})
		listener.subscribe(5, 1, "a")
		var broken atomic.Bool
		session := pahostate.NewInMemory()
		connect := func() *paho.Client {
			conn, err := net.Dial("tcp", b.Addrs().TCP.String())
			require.NoError(t, err)
			client := paho.NewClient(paho.ClientConfig{ClientID: "sender", Conn: pahopackets.NewThreadSafeConn(&breaking{Conn: conn, kind: kind, broken: &broken}), Session: session})
			expiry := uint32(3600)
			connack, err := client.Connect(t.Context(), &paho.Connect{ClientID: "sender", KeepAlive: 60, Username: b.Backend.Username, UsernameFlag: true,
				Password: []byte(b.Backend.Password), PasswordFlag: true, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
			require.NoError(t, err)
			assert.Equal(t, broken.Load() || kind == rawmqtt.Pubcomp, connack.SessionPresent)
			return client
		}
		client := connect()
		_, err := client.PublishWithOptions(t.Context(), &paho.Publish{Topic: "a", QoS: 2, Payload: []byte("once")}, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
		require.True(t, err == nil || errors.Is(err, paho.ErrNetworkErrorAfterStored), err) // the connection may break at once
		<-client.Done()
		require.True(t, broken.Load())
		client = connect()
		_, err = client.Publish(t.Context(), &paho.Publish{Topic: "a", QoS: 2, Payload: []byte("after")})
		require.NoError(t, err)
		for _, want := range []string{"once", "after"} {
			_, _, _, payload := listener.take(5)
			assert.Equal(t, want, payload)
		}
		listener.nothing()
		require.NoError(t, client.Disconnect(&paho.Disconnect{}))
		<-client.Done()
	}
}
