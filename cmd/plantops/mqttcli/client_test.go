package mqttcli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
)

// account may do everything below home, and home/secret is nobody's.
func account() brokertest.Account {
	a := brokertest.Device("anna")
	a.Publish, a.Subscribe = []string{"home/#"}, []string{"home/#"}
	return a
}

func options(b *brokertest.Broker, version byte) Options {
	return Options{Address: b.Addrs().TCP.String(), Version: version, Username: "anna", Password: brokertest.Password("anna"),
		ClientID: "me", KeepAlive: time.Minute}
}

func dial(t *testing.T, o Options) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), o)
	require.NoError(t, err)
	return c
}

// listen takes so many messages.
func listen(ctx context.Context, c *Conn, f Filter, n int, granted func()) (all []Message, err error) {
	err = c.Listen(ctx, nil, []Filter{f}, func() bool { granted(); return true }, func(m Message) (bool, error) {
		all = append(all, m)
		return len(all) < n, nil
	})
	return all, err
}

func TestMessagesOfEveryVersionAndQuality(t *testing.T) {
	for _, version := range []byte{3, 4, 5} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("version %d QoS %d", version, qos), func(t *testing.T) {
				b := brokertest.Start(t, account())
				sender, receiver := options(b, version), options(b, version)
				sender.ClientID = "sender"
				from, to := dial(t, sender), dial(t, receiver)
				const n = 300 // more than are unacknowledged at one time
				started := make(chan error, 1)
				got, err := listen(t.Context(), to, Filter{Filter: "home/+", QoS: qos}, n, func() {
					go func() {
						p := Pipeline{Conn: from, Patience: brokertest.Patience}
						for i := range n {
							if err := p.Publish(context.Background(), Message{Topic: "home/a", Payload: fmt.Append(nil, i), QoS: qos}); err != nil {
								started <- err
								return
							}
						}
						started <- p.Finish(context.Background())
					}()
				})
				require.NoError(t, err)
				require.NoError(t, <-started)
				for i, m := range got {
					require.Equal(t, fmt.Sprint(i), string(m.Payload))
					require.Equal(t, qos, m.QoS)
				}
				from.Close()
				to.Close()
			})
		}
	}
}

func TestASessionThatIsKept(t *testing.T) {
	for _, version := range []byte{4, 5} {
		b := brokertest.Start(t, account())
		o := options(b, version)
		o.Keep, o.Expiry = true, 3600
		c := dial(t, o)
		require.NoError(t, c.Subscribe(t.Context(), []Filter{{Filter: "home/#", QoS: 2}}))
		c.Close()
		other := options(b, version)
		other.ClientID = "other"
		from := dial(t, other)
		p := Pipeline{Conn: from, Patience: brokertest.Patience}
		for qos := byte(1); qos <= 2; qos++ {
			require.NoError(t, p.Publish(t.Context(), Message{Topic: "home/a", Payload: []byte{'0' + qos}, QoS: qos}))
		}
		require.NoError(t, p.Finish(t.Context()))
		c = dial(t, o)
		var got []string
		require.NoError(t, c.Listen(t.Context(), nil, nil, func() bool { return true }, func(m Message) (bool, error) {
			got = append(got, string(m.Payload))
			return len(got) < 2, nil
		}))
		assert.Equal(t, []string{"1", "2"}, got)
		require.NoError(t, c.Unsubscribe(t.Context(), []string{"home/#"}))
		c.Close()
		from.Close()
	}
}

// What waits in the session comes before the answer to UNSUBSCRIBE.
func TestASubscriptionEndsWhileMessagesCome(t *testing.T) {
	b := brokertest.Start(t, account())
	o := options(b, 5)
	o.Keep, o.Expiry = true, 3600
	c := dial(t, o)
	require.NoError(t, c.Subscribe(t.Context(), []Filter{{Filter: "home/a", QoS: 1}}))
	c.Close()
	other := options(b, 5)
	other.ClientID = "other"
	from := dial(t, other)
	defer from.Close()
	p := Pipeline{Conn: from, Patience: brokertest.Patience}
	for range 2 {
		require.NoError(t, p.Publish(t.Context(), Message{Topic: "home/a", QoS: 1}))
	}
	require.NoError(t, p.Finish(t.Context()))
	c = dial(t, o)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), brokertest.Patience)
	defer cancel()
	got := 0
	require.NoError(t, c.Listen(ctx, []string{"home/a"}, []Filter{{Filter: "home/b"}}, func() bool { return false }, func(Message) (bool, error) {
		got++
		return true, nil
	}))
	assert.Equal(t, 2, got)
	for _, name := range []string{"home/a", "home/b"} {
		require.NoError(t, p.Publish(t.Context(), Message{Topic: name, QoS: 1}))
	}
	require.NoError(t, p.Finish(t.Context()))
	require.NoError(t, c.Listen(ctx, nil, nil, func() bool { return true }, func(m Message) (bool, error) {
		assert.Equal(t, "home/b", m.Topic)
		return false, nil
	}))
}

func TestAMessageThatIsTooLargeForTheBroker(t *testing.T) {
	b := brokertest.Start(t, account())
	for qos := range byte(3) {
		c := dial(t, options(b, 5))
		p := Pipeline{Conn: c, Patience: brokertest.Patience}
		assert.ErrorContains(t, p.Publish(t.Context(), Message{Topic: "home/a", Payload: make([]byte, 1<<20), QoS: qos}), "takes at most")
		assert.NoError(t, p.Publish(t.Context(), Message{Topic: "home/a", QoS: qos}), "the connection goes on")
		assert.NoError(t, p.Finish(t.Context()))
		c.Close()
	}
}

func TestWhatABrokerRefuses(t *testing.T) {
	b := brokertest.Start(t, account())
	for _, version := range []byte{4, 5} {
		o := options(b, version)
		o.Password = "wrong"
		_, err := Dial(t.Context(), o)
		assert.ErrorIs(t, err, ErrUnauthorized)

		c := dial(t, options(b, version))
		err = c.Subscribe(t.Context(), []Filter{{Filter: "home/a"}, {Filter: "other/#"}})
		assert.ErrorIs(t, err, ErrUnauthorized)
		assert.ErrorContains(t, err, "subscribe to other/#")
		p := Pipeline{Conn: c, Patience: brokertest.Patience}
		err = errors.Join(p.Publish(t.Context(), Message{Topic: "other/a", QoS: 1}), p.Finish(t.Context()))
		require.Error(t, err)
		assert.Equal(t, version == 5, errors.Is(err, ErrUnauthorized), "MQTT 3.1.1 has no word for it: %v", err)
		c.Close()
	}
}

func TestWillAndTakeover(t *testing.T) {
	b := brokertest.Start(t, account())
	o := options(b, 5)
	o.ClientID = "watcher"
	watcher := dial(t, o)
	o.ClientID, o.Will = "mortal", &Message{Topic: "home/will", Payload: []byte("gone"), QoS: 1}
	first := dial(t, o)
	o.Will = nil
	got, err := listen(t.Context(), watcher, Filter{Filter: "home/will", QoS: 1}, 1, func() {
		go func() { _, _ = Dial(context.Background(), o) }()
	})
	require.NoError(t, err)
	assert.Equal(t, "gone", string(got[0].Payload))
	<-first.Ended()
	assert.ErrorContains(t, first.Err(), "session take")
	watcher.Close()
}

func TestNobodyAndNonsense(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	answers := [][]byte{
		{},                      // closes at once
		[]byte("HTTP/1.1 400 "), // is no broker
		{0x20, 2, 0, 1},         // a broker of 3.1.1, to MQTT 5
		{0x20, 0xff, 0xff, 0xff, 0x7f, 1},
		{0x90, 0},
	}
	go func() {
		for _, answer := range answers {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write(answer)
			_ = conn.Close()
		}
	}()
	o := Options{Address: listener.Addr().String(), Version: 5}
	for i := range answers {
		_, err := Dial(t.Context(), o)
		require.Error(t, err)
		assert.Equal(t, i == 2, errors.Is(err, ErrVersion))
	}
}

// What a broker sends may be anything.
func FuzzReadingPackets(f *testing.F) {
	f.Add([]byte{0x30, 5, 0, 1, 'a', 0, 'x'}, byte(5))
	f.Add([]byte{0x90, 3, 0, 1, 0x80}, byte(4))
	f.Add([]byte{0xe0, 1, 0x8e}, byte(5))
	f.Fuzz(func(t *testing.T, sent []byte, version byte) {
		_, _ = readPacket(reader(sent), version%6)
	})
}

func reader(sent []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(sent)) }
