package ingest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// villain is a broker that does on every connection what no broker should.
type villain struct {
	listener net.Listener
	seen     atomic.Int64  // connections
	done     chan struct{} // one for each time that it has done its worst
}

// attack starts a villain. do does its worst, and then the connection stays open until the client or the test ends it.
func attack(t *testing.T, do func(c net.Conn)) *villain {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return attackOn(t, listener, do)
}

func attackOn(t *testing.T, listener net.Listener, do func(c net.Conn)) *villain {
	v := &villain{listener: listener, done: make(chan struct{}, 1000)}
	over := make(chan struct{})
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			v.seen.Add(1)
			handlers.Go(func() {
				do(c)
				v.done <- struct{}{}
			})
			handlers.Go(func() {
				<-over
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		close(over)
		handlers.Wait()
	})
	return v
}

func (v *villain) options() Options {
	return to("127.0.0.1", v.listener.Addr().(*net.TCPAddr).Port, "devices/+/telemetry")
}

func (v *villain) awaitDone(t *testing.T) {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(patience):
		require.Fail(t, "the broker is not done")
	}
}

var (
	granted    = []byte{0x20, 3, 0, 0, 0}
	subscribed = []byte{0x90, 4, 0, 1, 0, 1}
)

// answer reads the CONNECT and says something.
func answer(said ...[]byte) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := packets.ReadPacket(c); err == nil {
			c.Write(bytes.Join(said, nil))
		}
	}
}

// answerBoth reads the CONNECT, lets the client in, reads the SUBSCRIBE, grants it and says something.
func answerBoth(said ...[]byte) func(net.Conn) {
	return func(c net.Conn) {
		answer(granted)(c)
		for { // paho may send a PINGREQ first
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			if p.Type == packets.SUBSCRIBE {
				c.Write(append(bytes.Clone(subscribed), bytes.Join(said, nil)...))
				return
			}
		}
	}
}

// withText is a packet of the kind with a reason code and a property of a text.
func withText(kind byte, before []byte, property byte, size int) []byte {
	text := append([]byte{property}, binary.BigEndian.AppendUint16(nil, uint16(size))...)
	text = append(text, bytes.Repeat([]byte("x"), size)...)
	body := append(binary.AppendUvarint(bytes.Clone(before), uint64(len(text))), text...)
	return rawmqtt.Encode(kind<<4, body)
}

// endless writes the same for as long as it is taken.
func endless(said []byte) func(net.Conn) {
	return func(c net.Conn) {
		answer(granted)(c)
		for {
			c.SetWriteDeadline(time.Now().Add(time.Second / 2))
			if _, err := c.Write(said); err != nil {
				return
			}
		}
	}
}

const (
	largeText = 60_000
	reasonOf  = 0x1f // property Reason String
	methodOf  = 0x15 // property Authentication Method
)

var villainy = map[string]struct {
	do  func(net.Conn)
	log string // what the reason for the end is called; "" where it is cut by nobody
}{
	"silent after TCP accept":         {func(net.Conn) {}, "broker does not answer"},
	"silent after CONNECT":            {answer(), "broker does not answer"},
	"silent after CONNACK":            {answer(granted), "broker does not answer"},
	"half a CONNACK":                  {answer(granted[:3]), "broker does not answer"},
	"half a PUBLISH":                  {answer(granted, []byte{0x32, 100, 0, 9}), "in the middle of a packet"},
	"half a PUBLISH after SUBACK":     {answerBoth([]byte{0x32, 100, 0, 9}), "in the middle of a packet"},
	"half a length":                   {answerBoth([]byte{0x32, 0xff}), "in the middle of a packet"},
	"a packet of 256 MiB":             {answer(granted, []byte{0x32, 0xff, 0xff, 0xff, 0x7f}), "4194304 are taken"},
	"a CONNACK of 256 MiB":            {answer([]byte{0x20, 0xff, 0xff, 0xff, 0x7f}), "4194304 are taken"},
	"a length of five bytes":          {answer(granted, []byte{0x32, 0xff, 0xff, 0xff, 0xff, 0x0f}), "more than 4 bytes"},
	"a length that does not end":      {endless(bytes.Repeat([]byte{0xff}, 1000)), "type 15"},
	"CONNACKs without end":            {endless(bytes.Repeat(granted, 1000)), "connection lost"},
	"AUTH without end":                {endless(bytes.Repeat([]byte{0xf0, 0}, 1000)), "type 15"},
	"a CONNACK with an AUTH method":   {answer(withText(2, []byte{0, 0}, methodOf, 5), []byte{0xf0, 0}), "type 15"},
	"a refusal with a long reason":    {answer(withText(2, []byte{0, 0x87}, reasonOf, largeText)), "not authorised"},
	"a DISCONNECT with a long reason": {answerBoth(withText(14, []byte{0x8b}, reasonOf, largeText)), "connection lost"},
	"a DISCONNECT without a SUBACK":   {answer(granted, withText(14, []byte{0x8b}, reasonOf, largeText)), ""},
}

func TestStopEndsWhateverTheBrokerDoes(t *testing.T) {
	for name, c := range villainy {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := attack(t, c.do)
			_, stop := start(t, v.options(), &open{})
			v.awaitDone(t)
			began := time.Now()
			require.NoError(t, stop())
			assert.Less(t, time.Since(began), drainTimeout, "it has nothing to wait for")
		})
	}
}

func TestStopEndsWhenTheBrokerDoesNotFinishTheHandshake(t *testing.T) {
	v := attack(t, func(net.Conn) {})
	o := v.options()
	pool, _ := authority(t, "localhost")
	o.TLS = &tls.Config{RootCAs: pool}
	_, stop := start(t, o, &open{})
	v.awaitDone(t)
	began := time.Now()
	require.NoError(t, stop())
	assert.Less(t, time.Since(began), drainTimeout, "it has nothing to wait for")
}

// It goes on trying, not faster than the wait between attempts allows, and the log says why in a line that can be read.
func TestAHostileBrokerIsLeftAndTriedAgain(t *testing.T) {
	for name, c := range villainy {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := attack(t, c.do)
			var said logs
			o := v.options()
			o.StallTimeout, o.Log = time.Second, slog.New(slog.NewTextHandler(&said, nil))
			began := time.Now()
			start(t, o, &open{})
			for range 2 {
				v.awaitDone(t)
			}
			assert.Less(t, v.seen.Load(), int64(time.Since(began)/(700*time.Millisecond))+4, "attempts")
			require.Eventually(t, func() bool {
				return strings.Contains(said.String(), "retry_in") && strings.Contains(said.String(), c.log)
			}, patience, time.Millisecond, "%s", &said)
			for line := range strings.Lines(said.String()) {
				assert.Less(t, len(line), 1000)
			}
		})
	}
}

func TestACutEndsAnAcknowledgementThatNobodyReads(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	sub, err := New(to("localhost", 1883, "devices/#"), &open{})
	require.NoError(t, err)
	l := &link{Subscriber: sub}
	c := &conn{Conn: ours, socket: ours, patience: time.Hour, onEnd: func() {}}
	l.current.Store(c)
	ended := make(chan struct{})
	go func() {
		c.acknowledge([]uint16{1})
		close(ended)
	}()
	_, err = theirs.Read(make([]byte, 1)) // it has begun to write
	require.NoError(t, err)
	l.cut()
	select {
	case <-ended:
	case <-time.After(patience):
		require.Fail(t, "still writing")
	}
}
