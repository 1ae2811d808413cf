package broker_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// fuzzed is a broker for fuzzing: what follows an accepted CONNECT reaches deeper than what stands alone.
type fuzzed struct {
	*brokertest.Broker
	logins [3][]byte // by login%3: nothing, a CONNECT of MQTT 3.1.1, a CONNECT of MQTT 5
}

// fuzzVersions are the protocol versions of the logins; where nobody has logged in, answers are read as 3.1.1.
var fuzzVersions = [3]byte{4, 4, 5}

func startFuzzed(f *testing.F) fuzzed {
	b := brokertest.Listen(f, func(o *broker.Options) { o.Log = nil }, brokertest.Device("fuzzer"), brokertest.Device("witness"))
	require.NoError(f, b.Broker.Start())
	b.AdmitDevices()
	fz := fuzzed{Broker: b}
	for i := 1; i < len(fz.logins); i++ {
		fz.logins[i] = fuzzRecord(f, i, func(c *brokertest.Client) { c.SendConnect(fuzzLogin(i)) })
	}
	return fz
}

func fuzzLogin(login int) brokertest.Login {
	as := brokertest.As("fuzzer")
	as.ClientID, as.Version = "fuzzer", fuzzVersions[login]
	return as
}

func fuzzRecord(f *testing.F, login int, send func(c *brokertest.Client)) []byte {
	return brokertest.Record(f, fuzzVersions[login], send)
}

// fuzzSeeds are conversations of which each packet is a good one; mutations of them are the bad ones.
func fuzzSeeds(f *testing.F, login int) [][]byte {
	header := func(packetType byte) packets.Packet {
		return packets.Packet{FixedHeader: packets.FixedHeader{Type: packetType}, PacketID: 1}
	}
	subscribe := func(filters ...string) packets.Packet {
		pk := header(packets.Subscribe)
		pk.FixedHeader.Qos = 1
		for _, filter := range filters {
			pk.Filters = append(pk.Filters, packets.Subscription{Filter: filter, Qos: 2})
		}
		return pk
	}
	full := header(packets.Publish)
	full.FixedHeader.Qos, full.FixedHeader.Retain = 2, true
	full.TopicName, full.Payload = "devices/fuzzer/data", []byte("1")
	full.Properties = packets.Properties{
		PayloadFormatFlag: true, PayloadFormat: 1, MessageExpiryInterval: 60, ContentType: "text/plain",
		ResponseTopic: "devices/fuzzer/answers", CorrelationData: []byte{7}, User: []packets.UserProperty{{Key: "a", Val: "b"}},
	}
	release := header(packets.Pubrel)
	release.FixedHeader.Qos = 1
	unsubscribe := subscribe("devices/fuzzer/#")
	unsubscribe.FixedHeader.Type = packets.Unsubscribe

	will := fuzzLogin(login)
	will.Resume = true
	will.Will = &brokertest.Will{Topic: "devices/fuzzer/will", Payload: "gone", QoS: 1, Retain: true}
	var seeds [][]byte
	for _, send := range []func(c *brokertest.Client){
		func(c *brokertest.Client) { c.SendConnect(will) },
		func(c *brokertest.Client) { c.Send(full); c.Send(release); c.Send(subscribe("devices/fuzzer/#")) },
		func(c *brokertest.Client) {
			c.Send(subscribe("devices/fuzzer/#", "$share/g/devices/fuzzer/+", "devices/+/data"))
			c.SendPublish("devices/fuzzer/data", "1", 1)
			c.Send(header(packets.Puback))
			c.SendPublish("devices/fuzzer/data", "2", 2)
			c.Send(header(packets.Pubrec))
			c.Send(header(packets.Pubcomp))
			c.Send(unsubscribe)
		},
		func(c *brokertest.Client) { c.Send(header(packets.Pingreq)); c.Send(header(packets.Disconnect)) },
		func(c *brokertest.Client) { c.Send(header(packets.Auth)) },
	} {
		seeds = append(seeds, fuzzRecord(f, login, send))
	}
	return append(seeds,
		[]byte("\x82\x02\x00\x01"),                                                   // SUBSCRIBE to nothing
		[]byte("\x82\x06\x00\x02\x00\x00\x01a"),                                      // SUBSCRIBE without options: the decoder of version 5 panics
		[]byte("\x30\xff\xff\xff\xff"),                                               // a length without an end
		[]byte("\x30\xff\xff\xff\x7f"),                                               // 256 MiB announced
		[]byte("\x32\x05\x00\x01a\x00\x00"),                                          // packet id 0
		[]byte("\x30\x06\x00\x01a\x03\x23\x00\x01"),                                  // a topic alias that is none
		[]byte("\x30\x07\x00\x01a\x03\x23\x00\x01!\x30\x06\x00\x00\x03\x23\x00\x01"), // one that is, and its use
	)
}

// hear returns everything that the broker sends until it closes the connection, which it must do soon: nothing more
// comes from us. all is false when the end may be missing.
func (fz fuzzed) hear(t *testing.T, conn net.Conn, r io.Reader) (heard []byte, all bool) {
	require.NoError(t, conn.(*net.TCPConn).SetReadDeadline(time.Now().Add(brokertest.Patience)))
	heard, err := io.ReadAll(r)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the broker does not close the connection")
	return heard, err == nil // with bytes unread in its socket the broker's end is a reset, which overtakes answers
}

// sendAll sends and says that no more will come. That the broker has closed meanwhile shows in what it answers.
func sendAll(conn net.Conn, sent ...[]byte) {
	for _, p := range sent {
		_, _ = conn.Write(p)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
}

// judge reads the answers as a client does.
func (fz fuzzed) judge(t *testing.T, login byte, answers []byte, all bool) {
	found, err := brokertest.Packets(answers, fuzzVersions[login%3])
	if !all && errors.Is(err, io.ErrUnexpectedEOF) || login%3 == 0 { // whoever logs in by itself may speak any version
		return
	}
	require.NoError(t, err, "% x", answers)
	if all || len(found) > 0 {
		require.NotEmpty(t, found)
		require.Equal(t, packets.Connack, found[0].FixedHeader.Type)
	}
}

// requireAlive makes sure that somebody else is served as if nothing had happened.
func (fz fuzzed) requireAlive(t *testing.T) {
	login := brokertest.As("witness")
	login.ClientID = "witness"
	c := brokertest.Dial(t, fz.Broker, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/witness/#", 1))
	require.Equal(t, byte(0), c.Publish("devices/witness/data", "alive", 1))
	got := c.Receive()
	require.Equal(t, "devices/witness/data", got.TopicName)
	require.Equal(t, "alive", string(got.Payload))
	c.Disconnect()
}

// What anybody sends to the TCP listener gets answers that can be read, the connection ends, and others are served.
func FuzzPackets(f *testing.F) {
	fz := startFuzzed(f)
	for login := range fz.logins {
		for _, seed := range fuzzSeeds(f, login) {
			f.Add(byte(login), seed)
		}
	}
	f.Fuzz(func(t *testing.T, login byte, sent []byte) {
		conn, err := net.Dial("tcp", fz.Addrs().TCP.String())
		require.NoError(t, err)
		defer conn.Close()
		sendAll(conn, fz.logins[login%3], sent)
		heard, all := fz.hear(t, conn, conn)
		fz.judge(t, login, heard, all)
		fz.requireAlive(t)
	})
}

const upgradeRequest = "GET /mqtt HTTP/1.1\r\nHost: plantops\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

// unframe takes a server's frames apart and returns what was in the binary messages.
func unframe(t *testing.T, heard []byte, all bool) (content []byte) {
	for r, closed := bytes.NewReader(heard), false; r.Len() > 0; {
		require.False(t, closed, "frames after the closing frame: % x", heard)
		var head [2]byte
		_, err := io.ReadFull(r, head[:])
		n := uint64(head[1])
		if n == 126 {
			var long uint16
			err = errors.Join(err, binary.Read(r, binary.BigEndian, &long))
			n = uint64(long)
		} else if n == 127 {
			err = errors.Join(err, binary.Read(r, binary.BigEndian, &n))
		}
		if err == nil && n > uint64(r.Len()) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			require.False(t, all, "incomplete frame: % x", heard)
			return content
		}
		part := make([]byte, n)
		_, _ = io.ReadFull(r, part)
		switch head[0] {
		case 0x82:
			content = append(content, part...)
		case 0x88:
			closed = true
		case 0x8a: // a pong
		default:
			require.Fail(t, "frame that the broker should not send", "% x", heard)
		}
	}
	return content
}

// What anybody sends to the websocket listener after the upgrade gets frames with answers that can be read, the
// connection ends, and others are served.
func FuzzWebSocketFrames(f *testing.F) {
	fz := startFuzzed(f)
	for login := range fz.logins {
		for _, seed := range fuzzSeeds(f, login) {
			f.Add(byte(login), rawmqtt.EncodeFrame(0x82, seed))
			half := len(seed) / 2
			f.Add(byte(login), bytes.Join([][]byte{rawmqtt.EncodeFrame(0x02, seed[:half]), rawmqtt.EncodeFrame(0x89, []byte("ping")), rawmqtt.EncodeFrame(0x80, seed[half:])}, nil))
		}
	}
	for _, seed := range [][]byte{
		rawmqtt.EncodeFrame(0x81, []byte("text")), rawmqtt.EncodeFrame(0x88, []byte{0x03, 0xe8}), rawmqtt.EncodeFrame(0x88, []byte{1}), rawmqtt.EncodeFrame(0x82, nil),
		rawmqtt.EncodeFrame(0x8a, []byte("pong")), rawmqtt.EncodeFrame(0xc2, []byte("reserved bit")), {0x82, 0}, {0x09, 0x80, 0, 0, 0, 0},
		{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, {0x89, 0xfe, 0, 126, 0, 0, 0, 0},
	} {
		f.Add(byte(1), seed)
	}
	f.Fuzz(func(t *testing.T, login byte, sent []byte) {
		conn, err := net.Dial("tcp", fz.Addrs().WebSocket.String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, upgradeRequest)
		require.NoError(t, err)
		r := bufio.NewReader(conn)
		answer, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
		if first := fz.logins[login%3]; first != nil {
			sent = append(rawmqtt.EncodeFrame(0x82, first), sent...)
		}
		sendAll(conn, sent)
		heard, all := fz.hear(t, conn, r)
		fz.judge(t, login, unframe(t, heard, all), all)
		fz.requireAlive(t)
	})
}
