//go:build linux

package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What bytes can do to the process: classes V01 to V06.

const (
	silence    = 2 * time.Second // the short form's patience with who says nothing
	mebibyte   = 1 << 20
	fewMiB     = 32 * mebibyte // nothing of a stranger may cost more
	promptness = 5 * time.Second
)

// truncatedSubscribe is a SUBSCRIBE of MQTT 5 whose filter has no options: it ends a plain mochi 2.7.9.
var truncatedSubscribe = []byte{0x82, 5, 0, 1, 0, 0, 0}

func attackTruncatedSubscribe(g *siege, d door) string {
	a := g.enter(d, g.as("bed-1"))
	a.send(truncatedSubscribe)
	a.ended(silence)
	if err := g.serves(d); err != nil {
		return "nobody is served any more: " + err.Error()
	}
	return ""
}

func TestV01NoPacketEndsTheProcess(t *testing.T) {
	g := besiege(t)
	g.withstands(attackTruncatedSubscribe)
	random := rand.New(rand.NewPCG(1, 1)) // the same every time
	for _, d := range g.doors {
		for _, p := range brokenPackets(random) {
			for _, version := range []byte{0, 4, 5} { // 0 is before the login
				a, err := d.open(t, "")
				require.NoError(t, err)
				if version > 0 {
					l := g.as("bed-1")
					l.version = version
					a.send(l.encode())
				}
				a.send(p)
				a.Close()
			}
		}
	}
	g.servesAll()
}

// brokenPackets are one of every type with nothing in it, some that ended other brokers, and random ones.
func brokenPackets(random *rand.Rand) [][]byte {
	packets := [][]byte{
		truncatedSubscribe,
		{0x82, 6, 0, 2, 0, 0, 1, 'a'},                            // the options are missing
		{0xa2, 2, 0, 1},                                          // UNSUBSCRIBE of nothing
		{0x10, 0xff, 0xff, 0xff, 0xff, 0x7f},                     // a length of five bytes
		{0x32, 4, 0xff, 0xff, 0, 1},                              // a topic longer than its packet
		{0x30, 5, 0, 2, 'a', 'b', 0xff},                          // properties longer than their packet
		encode(1<<4, []byte{0, 4, 'M', 'Q', 'T', 'T', 5, 0xc2}),  // CONNECT that stops
		encode(15<<4, []byte{0x18, 0x03, 0x16, 0x00, 0x01, 'a'}), // AUTH without a beginning
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
		packets = append(packets, encode(byte(random.Uint32()), body))
	}
	return packets
}

// attackAnnouncedLength opens sockets that announce the largest packet there is and send 8 MiB of it.
func attackAnnouncedLength(g *siege, d door) string {
	before := procMemory(g.t, g.pid, "VmRSS")
	some := make([]byte, mebibyte)
	var crowd []*intruder
	for range 8 {
		a, err := d.open(g.t, "")
		require.NoError(g.t, err)
		a.send([]byte{1 << 4, 0xff, 0xff, 0xff, 0x7f})
		for range 8 {
			a.send(some)
		}
		crowd = append(crowd, a)
	}
	grown := procMemory(g.t, g.pid, "VmHWM") - before
	for _, a := range crowd {
		a.Close()
	}
	if grown > fewMiB {
		return fmt.Sprintf("8 strangers cost %d MiB", grown/mebibyte)
	}
	return ""
}

func TestV02StrangersCannotMakeTheServerKeepMemory(t *testing.T) {
	g := besiege(t)
	g.withstands(attackAnnouncedLength)
	for _, d := range g.doors { // a packet that is small enough for who has logged in
		a, err := d.open(t, "")
		require.NoError(t, err)
		a.send([]byte{1 << 4, 0xa0, 0x8d, 6}) // 100,000 bytes
		require.True(t, a.ended(promptness), d.kind)
	}
	d := g.doors[2]
	before := g.in.memory("VmRSS")
	for range 8 { // websocket frames that announce 2^62 bytes
		a, err := d.open(t, "")
		require.NoError(t, err)
		head := binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<62)
		a.write(append(head, make([]byte, 70_000)...))
		require.True(t, a.ended(promptness))
	}
	assert.Less(t, g.in.memory("VmHWM")-before, int64(fewMiB))
	g.servesAll()
}

// silentCrowd is sockets that say nothing, and some that stop in the middle of a CONNECT.
func silentCrowd(g *siege, d door) (crowd []*intruder) {
	for i := range 40 {
		a, err := d.open(g.t, "127.0.0.2")
		require.NoError(g.t, err)
		if i%2 == 1 {
			a.send([]byte{1 << 4, 30, 0, 4, 'M', 'Q'})
		}
		crowd = append(crowd, a)
	}
	return crowd
}

func stillOpen(crowd []*intruder, within time.Duration) (open int) {
	deadline := time.Now().Add(within)
	for _, a := range crowd {
		if !a.ended(max(time.Until(deadline), time.Millisecond)) {
			open++
		}
	}
	return open
}

func attackSilence(g *siege, d door) string {
	const within = 5 * silence
	if open := stillOpen(silentCrowd(g, d), within); open > 0 {
		return fmt.Sprintf("%d of 40 silent sockets still open after %s", open, within)
	}
	return ""
}

func TestV03SilentAndSlowStrangersAreSentAway(t *testing.T) {
	g := besiege(t, "PLANTOPS_LIMITS_CONNECT_TIMEOUT="+silence.String())
	var crowd []*intruder
	for _, d := range g.doors {
		crowd = append(crowd, silentCrowd(g, d)...)
	}
	halfway := func(d door, said string) {
		a, err := (door{kind: "tcp", address: d.address}).open(t, "127.0.0.3")
		require.NoError(t, err)
		a.write([]byte(said))
		crowd = append(crowd, a)
	}
	halfway(g.doors[1], "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03") // a ClientHello that stops
	halfway(g.doors[2], "GET /mqtt HTTP/1.1\r\nHost: localhost\r\n")
	slow, err := g.doors[0].open(t, "127.0.0.3")
	require.NoError(t, err)
	gone := make(chan bool, 1)
	go func() { gone <- slow.ended(patience) }()
	require.True(t, dripped(slow, g.as("bed-1").encode(), gone), "a byte now and then must not keep a connection open")
	require.Zero(t, stillOpen(crowd, patience))
	g.servesAll()
}

// dripped sends a byte now and then until the server has enough of it.
func dripped(slow *intruder, packet []byte, gone <-chan bool) bool {
	drip := time.NewTicker(silence / 10)
	defer drip.Stop()
	for {
		select {
		case closed := <-gone:
			return closed
		case <-drip.C:
			if len(packet) > 1 {
				slow.write(packet[:1])
				packet = packet[1:]
			}
		}
	}
}

func TestV04UnfinishedQoS2DoesNotGrow(t *testing.T) {
	g := besiege(t)
	payload := bytes.Repeat([]byte("x"), 20_000)
	for _, d := range g.doors {
		before := g.in.memory("VmRSS")
		a := g.enter(d, g.as("bed-1"))
		for range 1000 { // 20 MB under one packet id that is never released
			a.send(encodePublish(5, 2, true, "devices/bed-1/notes", 1, payload))
			_, err := a.await(pubrec)
			require.NoError(t, err)
		}
		a.Close()
		a = g.enter(d, g.as("bed-1"))
		for id := uint16(1); id <= 1100; id++ { // more ids than the server has announced that it takes
			a.send(encodePublish(5, 2, false, "devices/bed-1/notes", id, payload[:100]))
		}
		answer, err := a.await(disconnect)
		require.NoError(t, err)
		assert.Equal(t, byte(0x93), answer[0], "receive maximum exceeded")
		for range 20 { // a new session each time, each with an exchange that is never finished
			a = g.enter(d, g.as("bed-1"))
			a.send(encodePublish(5, 2, false, "devices/bed-1/notes", 1, payload))
			_, err := a.await(pubrec)
			require.NoError(t, err)
			a.Close()
		}
		assert.Less(t, g.in.memory("VmHWM")-before, int64(fewMiB), d.kind)
	}
	g.servesAll()
}

func TestV05PropertiesAreBoundedAndChecked(t *testing.T) {
	g := besiege(t)
	const malformed, violation, tooMuch = 0x81, 0x82, 0x97
	many := bytes.Repeat([]byte{0x26, 0, 1, 'a', 0, 1, 'b'}, 9000) // 63 kB of user properties
	for _, d := range g.doors {
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
			l := g.as("bed-1")
			l.properties = c.properties
			_, code, err := d.enter(t, l)
			assert.NoError(t, err, "%s over %s", name, d.kind)
			assert.Equal(t, c.code, code, "%s over %s", name, d.kind)
		}
		topic := appendString(nil, "devices/bed-1/notes")
		for name, c := range map[string]struct {
			packet []byte
			code   byte
		}{
			"content type twice":      {encode(publish<<4, append(topic[:len(topic):len(topic)], 6, 3, 0, 0, 3, 0, 0)), violation},
			"property into payload":   {encode(publish<<4, append(topic[:len(topic):len(topic)], 3, 3, 0, 2, 'a', 'b')), malformed},
			"SUBSCRIBE id 0":          {encode(8<<4|2, append([]byte{0, 1, 2, 0x0b, 0}, append(topic, 0)...)), violation},
			"SUBSCRIBE reserved bits": {encode(8<<4|2, append([]byte{0, 1, 0}, append(topic, 0xc0)...)), malformed},
			"PUBACK and more":         {encode(4<<4, []byte{0, 1, 0, 0, 'x'}), malformed},
			"DISCONNECT of a server":  {encode(14<<4, []byte{0, 4, 0x1c, 0, 1, 'a'}), malformed},
			"PINGREQ with a load":     {encode(12<<4, []byte{0}), malformed},
		} {
			a := g.enter(d, g.as("bed-1"))
			a.send(c.packet)
			body, err := a.await(14)
			if assert.NoError(t, err, "%s over %s", name, d.kind) {
				assert.Equal(t, c.code, body[0], "%s over %s", name, d.kind)
			}
			require.True(t, a.ended(promptness), "%s over %s", name, d.kind)
		}
		a := g.enter(d, g.as("bed-1"))
		a.send(encode(publish<<4|2, append(appendString(nil, "devices/bed-1/notes"), 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 'a')))
		require.True(t, a.ended(promptness), "a length of five bytes")

		l := g.as("bed-1")
		l.properties = many
		began := time.Now()
		_, code, err := d.enter(t, l)
		require.NoError(t, err)
		assert.Equal(t, byte(tooMuch), code, d.kind)
		a = g.enter(d, g.as("bed-1"))
		for _, some := range [][]byte{many[:7*1000], many} {
			body := binary.AppendUvarint(append(appendString(nil, "devices/bed-1/notes"), 0, 1), uint64(len(some)))
			a.send(encode(publish<<4|2, append(body, some...)))
			if len(some) < len(many) {
				_, err = a.await(puback)
				require.NoError(t, err)
			}
		}
		body, err := a.await(14)
		require.NoError(t, err)
		assert.Equal(t, byte(tooMuch), body[0], d.kind)
		require.NoError(t, g.serves(d))
		assert.Less(t, time.Since(began), promptness)
	}
	g.servesAll()
}

// attackDeepTopic subscribes to a filter of 65,000 levels while another client does ordinary work.
func attackDeepTopic(g *siege, d door) string {
	deep := "devices/bed-1" + strings.Repeat("/", 65_000)
	victim := g.enter(d, g.as("bed-2"))
	a := g.enter(d, g.as("bed-1"))
	a.send(encodeSubscribe(1, deep))
	a.send(encodePublish(5, 1, false, deep, 2, nil))
	a.ended(time.Second)
	began := time.Now()
	require.NoError(g.t, victim.SetDeadline(began.Add(promptness)))
	if _, err := victim.subscribe("devices/bed-2/#"); err == nil {
		_, err = victim.publish("devices/bed-2/notes", "ordinary work")
		if err == nil {
			return ""
		}
	} else if !isTimeout(err) {
		return err.Error()
	}
	return fmt.Sprintf("another client's SUBSCRIBE and PUBLISH wait for more than %s", time.Since(began).Round(time.Second))
}

func isTimeout(err error) bool { return strings.Contains(err.Error(), os.ErrDeadlineExceeded.Error()) }

func TestV06DeepTopicsCostNobodyTime(t *testing.T) {
	g := besiege(t)
	g.withstands(attackDeepTopic)
	for _, d := range g.doors {
		for _, p := range [][]byte{
			encodeSubscribe(1, "devices/bed-1"+strings.Repeat("/+", 40)),
			encode(10<<4|2, appendString([]byte{0, 1, 0}, "devices/bed-1"+strings.Repeat("/", 40))),
			encodePublish(5, 1, false, "devices/bed-1"+strings.Repeat("/x", 40), 1, nil),
		} {
			a := g.enter(d, g.as("bed-1"))
			a.send(p)
			require.True(t, a.ended(promptness), d.kind)
		}
	}
}
