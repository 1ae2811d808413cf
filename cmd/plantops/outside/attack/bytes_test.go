//go:build linux

package attack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// What bytes can do to the process: classes V01 to V06.

// truncatedSubscribe is a SUBSCRIBE of MQTT 5 whose filter has no options: it ends a plain mochi 2.7.9.
var truncatedSubscribe = []byte{0x82, 5, 0, 1, 0, 0, 0}

func attackTruncatedSubscribe(g *siege.Siege, d door.Door) string {
	a := g.Enter(d, g.As("bed-1"))
	a.Send(truncatedSubscribe)
	a.Ended(siege.Silence)
	if err := g.Serves(d); err != nil {
		return "nobody is served any more: " + err.Error()
	}
	return ""
}

func TestV01NoPacketEndsTheProcess(t *testing.T) {
	g := siege.Begin(t)
	g.Withstands(attackTruncatedSubscribe)
	random := rand.New(rand.NewPCG(1, 1)) // the same every time
	for _, d := range g.Doors {
		for _, p := range brokenPackets(random) {
			for _, version := range []byte{0, 4, 5} { // 0 is before the login
				a, err := d.Open(t, "")
				require.NoError(t, err)
				if version > 0 {
					l := g.As("bed-1")
					l.Version = version
					a.Send(l.Encode())
				}
				a.Send(p)
				a.Close()
			}
		}
	}
	g.ServesAll()
}

// brokenPackets are one of every type with nothing in it, some that ended other brokers, and random ones.
func brokenPackets(random *rand.Rand) [][]byte {
	packets := [][]byte{
		truncatedSubscribe,
		{0x82, 6, 0, 2, 0, 0, 1, 'a'},        // the options are missing
		{0xa2, 2, 0, 1},                      // UNSUBSCRIBE of nothing
		{0x10, 0xff, 0xff, 0xff, 0xff, 0x7f}, // a length of five bytes
		{0x32, 4, 0xff, 0xff, 0, 1},          // a topic longer than its packet
		{0x30, 5, 0, 2, 'a', 'b', 0xff},      // properties longer than their packet
		rawmqtt.Encode(1<<4, []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 0xc2}),  // CONNECT that stops
		rawmqtt.Encode(15<<4, []byte{0x18, 0x03, 0x16, 0x00, 0x01, 'a'}), // AUTH without a beginning
	}
	for kind := range byte(16) {
		for _, flags := range []byte{0, 2, 0x0f} {
			packets = append(packets, []byte{kind<<4 | flags, 0}, []byte{kind<<4 | flags, 3, 0, 1, 0})
		}
	}
	for range 40 {
		body := make([]byte, random.IntN(40))
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		packets = append(packets, rawmqtt.Encode(byte(random.Uint32()), body))
	}
	return packets
}

// attackAnnouncedLength opens sockets that announce the largest packet there is and send 8 MiB of it.
func attackAnnouncedLength(g *siege.Siege, d door.Door) string {
	before := program.MemoryOf(g.T, g.PID, "VmRSS")
	some := make([]byte, siege.Mebibyte)
	var crowd []*door.Intruder
	for range 8 {
		a, err := d.Open(g.T, "")
		require.NoError(g.T, err)
		a.Send([]byte{1 << 4, 0xff, 0xff, 0xff, 0x7f})
		for range 8 {
			a.Send(some)
		}
		crowd = append(crowd, a)
	}
	grown := program.MemoryOf(g.T, g.PID, "VmHWM") - before
	g.T.Logf("%s: 64 MiB offered, %.1f MiB more at most", d.Kind, float64(grown)/siege.Mebibyte)
	for _, a := range crowd {
		a.Close()
	}
	if grown > siege.FewMiB {
		return fmt.Sprintf("8 strangers cost %d MiB", grown/siege.Mebibyte)
	}
	return ""
}

func TestV02StrangersCannotMakeTheServerKeepMemory(t *testing.T) {
	g := siege.Begin(t)
	g.Withstands(attackAnnouncedLength)
	for _, d := range g.Doors { // a packet that is small enough for who has logged in
		a, err := d.Open(t, "")
		require.NoError(t, err)
		a.Send([]byte{1 << 4, 0xa0, 0x8d, 6}) // 100,000 bytes
		require.True(t, a.Ended(siege.Promptness), d.Kind)
	}
	d := g.Doors[2]
	before := g.In.Memory("VmRSS")
	for range 8 { // websocket frames that announce 2^62 bytes
		a, err := d.Open(t, "")
		require.NoError(t, err)
		head := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62)
		a.SendRaw(append(head, make([]byte, 70_000)...))
		require.True(t, a.Ended(siege.Promptness))
	}
	highest := g.In.Memory("VmHWM") - before
	t.Logf("%.1f MiB more at most", float64(highest)/siege.Mebibyte)
	assert.Less(t, highest, int64(siege.FewMiB))
	g.ServesAll()
}

// silentCrowd is sockets that say nothing, and some that stop in the middle of a CONNECT.
func silentCrowd(g *siege.Siege, d door.Door) (crowd []*door.Intruder) {
	for i := range 40 {
		a, err := d.Open(g.T, "127.0.0.2")
		require.NoError(g.T, err)
		if i%2 == 1 {
			a.Send([]byte{1 << 4, 30, 0, 4, 'M', 'Q'})
		}
		crowd = append(crowd, a)
	}
	return crowd
}

func stillOpen(crowd []*door.Intruder, within time.Duration) (open int) {
	deadline := time.Now().Add(within)
	for _, a := range crowd {
		if !a.Ended(max(time.Until(deadline), time.Millisecond)) {
			open++
		}
	}
	return open
}

func attackSilence(g *siege.Siege, d door.Door) string {
	if open := stillOpen(silentCrowd(g, d), siege.Promptness); open > 0 {
		return fmt.Sprintf("%d of 40 silent sockets still open after %s", open, siege.Promptness)
	}
	return ""
}

func TestV03SilentAndSlowStrangersAreSentAway(t *testing.T) {
	g := siege.Begin(t, "PLANTOPS_LIMITS_CONNECT_TIMEOUT="+siege.Silence.String())
	var crowd []*door.Intruder
	for _, d := range g.Doors {
		crowd = append(crowd, silentCrowd(g, d)...)
	}
	halfway := func(d door.Door, said string) {
		a, err := (door.Door{Kind: "tcp", Address: d.Address}).Open(t, "127.0.0.3")
		require.NoError(t, err)
		a.SendRaw([]byte(said))
		crowd = append(crowd, a)
	}
	halfway(g.Doors[1], "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03") // a ClientHello that stops
	halfway(g.Doors[2], "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n")
	slow, err := g.Doors[0].Open(t, "127.0.0.3")
	require.NoError(t, err)
	gone := make(chan bool, 1)
	go func() { gone <- slow.Ended(setting.Patience) }()
	require.True(t, dripped(slow, g.As("bed-1").Encode(), gone), "a byte now and then must not keep a connection open")
	require.Zero(t, stillOpen(crowd, setting.Patience))
	g.ServesAll()
}

// dripped sends a byte now and then until the server has enough of it.
func dripped(slow *door.Intruder, packet []byte, gone <-chan bool) bool {
	drip := time.NewTicker(siege.Silence / 10)
	defer drip.Stop()
	for {
		select {
		case closed := <-gone:
			return closed
		case <-drip.C:
			if len(packet) > 1 {
				slow.SendRaw(packet[:1])
				packet = packet[1:]
			}
		}
	}
}

func TestV04UnfinishedQoS2DoesNotGrow(t *testing.T) {
	g := siege.Begin(t)
	payload := bytes.Repeat([]byte("x"), 20_000)
	for _, d := range g.Doors {
		before := g.In.Memory("VmRSS")
		a := g.Enter(d, g.As("bed-1"))
		for range 1000 { // 20 MB under one packet id that is never released
			a.Send(rawmqtt.Message{QoS: 2, Again: true, Topic: "devices/bed-1/notes", ID: 1, Payload: payload}.Encode())
			_, err := a.Await(rawmqtt.Pubrec)
			require.NoError(t, err)
		}
		a.Close()
		a = g.Enter(d, g.As("bed-1"))
		for id := uint16(1); id <= 1100; id++ { // more ids than the server has announced that it takes
			a.Send(rawmqtt.Message{QoS: 2, Topic: "devices/bed-1/notes", ID: id, Payload: payload[:100]}.Encode())
		}
		answer, err := a.Await(rawmqtt.Disconnect)
		require.NoError(t, err)
		assert.Equal(t, byte(0x93), answer[0], "receive maximum exceeded")
		for range 20 { // a new session each time, each with an exchange that is never finished
			a = g.Enter(d, g.As("bed-1"))
			a.Send(rawmqtt.Message{QoS: 2, Topic: "devices/bed-1/notes", ID: 1, Payload: payload}.Encode())
			_, err := a.Await(rawmqtt.Pubrec)
			require.NoError(t, err)
			a.Close()
		}
		highest := g.In.Memory("VmHWM") - before
		t.Logf("%s: %.1f MiB more at most", d.Kind, float64(highest)/siege.Mebibyte)
		assert.Less(t, highest, int64(siege.FewMiB), d.Kind)
	}
	g.ServesAll()
}

func TestV05PropertiesAreBoundedAndChecked(t *testing.T) {
	g := siege.Begin(t)
	const malformed, violation, tooMuch = 0x81, 0x82, 0x97
	many := bytes.Repeat([]byte{0x26, 0, 1, 'a', 0, 1, 'b'}, 9000) // 63 kB of user properties
	for _, d := range g.Doors {
		for name, c := range map[string]struct {
			properties []byte
			code       byte
		}{
			"unknown":                {[]byte{0x7f, 0}, malformed},
			"of PUBLISH":             {[]byte{0x01, 1}, malformed},
			"string cut":             {[]byte{0x26, 0xff, 0xff, 'a'}, malformed},
			"value cut":              {[]byte{0x27, 0, 1}, malformed},
			"no UTF-8":               {[]byte{0x26, 0, 1, 0xff, 0, 1, 'b'}, malformed},
			"NUL":                    {[]byte{0x26, 0, 1, 'a', 0, 1, 0}, malformed},
			"Receive Maximum 0":      {[]byte{0x21, 0, 0}, violation},
			"Maximum Packet Size 0":  {[]byte{0x27, 0, 0, 0, 0}, violation},
			"expiry twice":           {[]byte{0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1}, violation},
			"problem information 2":  {[]byte{0x17, 2}, violation},
			"data without a method":  {[]byte{0x16, 0, 1, 'a'}, violation},
			"topic alias maximum x2": {[]byte{0x22, 0, 1, 0x22, 0, 2}, violation},
		} {
			l := g.As("bed-1")
			l.Properties = c.properties
			_, code, err := d.Enter(t, l)
			assert.NoError(t, err, "%s over %s", name, d.Kind)
			assert.Equal(t, c.code, code, "%s over %s", name, d.Kind)
		}
		topic := rawmqtt.AppendString(nil, "devices/bed-1/notes")
		for name, c := range map[string]struct {
			packet []byte
			code   byte
		}{
			"content type twice":      {rawmqtt.Encode(rawmqtt.Publish<<4, append(topic[:len(topic):len(topic)], 6, 3, 0, 0, 3, 0, 0)), violation},
			"property into payload":   {rawmqtt.Encode(rawmqtt.Publish<<4, append(topic[:len(topic):len(topic)], 3, 3, 0, 2, 'a', 'b')), malformed},
			"SUBSCRIBE id 0":          {rawmqtt.Encode(8<<4|2, append([]byte{0, 1, 2, 0x0b, 0}, append(topic, 0)...)), violation},
			"SUBSCRIBE reserved bits": {rawmqtt.Encode(8<<4|2, append([]byte{0, 1, 0}, append(topic, 0xc0)...)), malformed},
			"PUBACK and more":         {rawmqtt.Encode(4<<4, []byte{0, 1, 0, 0, 'x'}), malformed},
			"DISCONNECT of a server":  {rawmqtt.Encode(14<<4, []byte{0, 4, 0x1c, 0, 1, 'a'}), malformed},
			"PINGREQ with a load":     {rawmqtt.Encode(12<<4, []byte{0}), malformed},
		} {
			a := g.Enter(d, g.As("bed-1"))
			a.Send(c.packet)
			body, err := a.Await(14)
			if assert.NoError(t, err, "%s over %s", name, d.Kind) {
				assert.Equal(t, c.code, body[0], "%s over %s", name, d.Kind)
			}
			require.True(t, a.Ended(siege.Promptness), "%s over %s", name, d.Kind)
		}
		a := g.Enter(d, g.As("bed-1"))
		a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2, append(rawmqtt.AppendString(nil, "devices/bed-1/notes"), 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 'a')))
		require.True(t, a.Ended(siege.Promptness), "a length of five bytes")

		l := g.As("bed-1")
		l.Properties = many
		began := time.Now()
		_, code, err := d.Enter(t, l)
		require.NoError(t, err)
		assert.Equal(t, byte(tooMuch), code, d.Kind)
		a = g.Enter(d, g.As("bed-1"))
		for _, some := range [][]byte{many[:7*1000], many} {
			body := binary.AppendUvarint(append(rawmqtt.AppendString(nil, "devices/bed-1/notes"), 0, 1), uint64(len(some)))
			a.Send(rawmqtt.Encode(rawmqtt.Publish<<4|2, append(body, some...)))
			if len(some) < len(many) {
				_, err = a.Await(rawmqtt.Puback)
				require.NoError(t, err)
			}
		}
		body, err := a.Await(14)
		require.NoError(t, err)
		assert.Equal(t, byte(tooMuch), body[0], d.Kind)
		require.NoError(t, g.Serves(d))
		assert.Less(t, time.Since(began), siege.Promptness)
	}
	g.ServesAll()
}

// attackDeepTopic subscribes to a filter of 65,000 levels while another client does ordinary work.
func attackDeepTopic(g *siege.Siege, d door.Door) string {
	deep := "devices/bed-1" + strings.Repeat("/", 65_000)
	victim := g.Enter(d, g.As("bed-2"))
	a := g.Enter(d, g.As("bed-1"))
	a.Send(rawmqtt.EncodeSubscribe(5, 1, 1, deep))
	a.Send(rawmqtt.Message{Topic: deep, ID: 2}.Encode())
	a.Ended(time.Second)
	began := time.Now()
	require.NoError(g.T, victim.SetDeadline(began.Add(siege.Promptness)))
	if _, err := victim.Subscribe("devices/bed-2/#"); err == nil {
		_, err = victim.Publish("devices/bed-2/notes", "ordinary work")
		if err == nil {
			return ""
		}
	} else if !door.IsTimeout(err) {
		return err.Error()
	}
	return fmt.Sprintf("another client's SUBSCRIBE and PUBLISH wait for more than %s", time.Since(began).Round(time.Second))
}

func TestV06DeepTopicsCostNobodyTime(t *testing.T) {
	g := siege.Begin(t)
	g.Withstands(attackDeepTopic)
	for _, d := range g.Doors {
		for _, p := range [][]byte{
			rawmqtt.EncodeSubscribe(5, 1, 1, "devices/bed-1"+strings.Repeat("/+", 40)),
			rawmqtt.Encode(10<<4|2, rawmqtt.AppendString([]byte{0, 1, 0}, "devices/bed-1"+strings.Repeat("/", 40))),
			rawmqtt.Message{Topic: "devices/bed-1" + strings.Repeat("/x", 40), ID: 1}.Encode(),
		} {
			a := g.Enter(d, g.As("bed-1"))
			a.Send(p)
			require.True(t, a.Ended(siege.Promptness), d.Kind)
		}
	}
}
