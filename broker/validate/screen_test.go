package validate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// The letters are the packets of table 2-4 of the standard that clients send: C CONNECT, W will, P PUBLISH,
// A PUBACK, R PUBREC, L PUBREL, M PUBCOMP, S SUBSCRIBE, U UNSUBSCRIBE, D DISCONNECT. A capital N in front says that 0 is
// forbidden, B that the value is 0 or 1.
var standard = map[byte]struct{ in, value string }{
	1: {"PW", "B1"}, 2: {"PW", "4"}, 3: {"PW", "s"}, 8: {"PW", "t"}, 9: {"PW", "b"}, 11: {"PS", "Nv"}, 17: {"CD", "4"},
	21: {"C", "s"}, 22: {"C", "b"}, 23: {"C", "B1"}, 24: {"W", "4"}, 25: {"C", "B1"}, 31: {"ARLMD", "s"},
	33: {"C", "N2"}, 34: {"C", "2"}, 35: {"P", "2"}, 38: {"CWPARLMSUD", "p"}, 39: {"C", "N4"},
	// of packets that only a server sends
	18: {"", "s"}, 19: {"", "2"}, 26: {"", "s"}, 28: {"", "s"}, 36: {"", "B1"}, 37: {"", "B1"}, 40: {"", "B1"}, 41: {"", "B1"},
	42: {"", "B1"},
}

// values returns some that are right and some that are not.
func values(kind string) (right, wrong []string) {
	switch kind {
	case "B1":
		return []string{"\x00", "\x01"}, []string{"\x02", "\xff", ""}
	case "2":
		return []string{"\x00\x00", "\xff\xff"}, []string{"", "\x00"}
	case "N2":
		return []string{"\x00\x01", "\xff\xff"}, []string{"\x00\x00", "\x01"}
	case "4":
		return []string{"\x00\x00\x00\x00", "\xff\xff\xff\xff"}, []string{"", "\x00\x00\x00"}
	case "N4":
		return []string{"\x00\x00\x00\x01", "\x01\x00\x00\x00"}, []string{"\x00\x00\x00\x00", "\x01\x00\x00"}
	case "Nv":
		return []string{"\x01", "\x80\x01", "\xff\xff\xff\x7f"}, []string{"\x00", "\x80\x00", "\x80", "\xff\xff\xff\xff\x01", ""}
	case "s":
		return []string{"\x00\x00", "\x00\x02ab", "\x00\x02\xc3\xa9"}, []string{"\x00\x01\x00", "\x00\x01\xff", "\x00\x03\xed\xa0\x80", "\x00\x03ab", "\x00"}
	case "t":
		return []string{"\x00\x02ab"}, []string{"\x00\x00", "\x00\x01\x00", "\x00\x03ab", "\x00"}
	case "b":
		return []string{"\x00\x00", "\x00\x02\x00\xff"}, []string{"\x00\x03ab", "\x01"}
	default:
		return []string{"\x00\x01a\x00\x01b", "\x00\x00\x00\x00"}, []string{"\x00\x01a", "\x00\x01a\x00\x01\x00", "\x00\x01\xff\x00\x01b"}
	}
}

// around builds a packet of MQTT 5 with a section of properties in it.
func around(letter rune, section string) []byte {
	properties := string(binary.AppendUvarint(nil, uint64(len(section)))) + section
	packet := func(first byte, body string) []byte {
		return rawmqtt.Encode(first, []byte(body))
	}
	switch letter {
	case 'C':
		return packet(0x10, "\x00\x04MQTT\x05\xc2\x00\x3c"+properties+"\x00\x02id\x00\x01u\x00\x01p")
	case 'W':
		return packet(0x10, "\x00\x04MQTT\x05\xc6\x00\x3c\x00\x00\x02id"+properties+"\x00\x01w\x00\x00\x00\x01u\x00\x01p")
	case 'P':
		return packet(0x32, "\x00\x01t\x00\x01"+properties+"payload")
	case 'S':
		return packet(0x82, "\x00\x01"+properties+"\x00\x01t\x01")
	case 'U':
		return packet(0xa2, "\x00\x01"+properties+"\x00\x01t")
	case 'D':
		return packet(0xe0, "\x00"+properties)
	case 'L':
		return packet(0x62, "\x00\x01\x00"+properties)
	}
	return packet(map[rune]byte{'A': 0x40, 'R': 0x50, 'M': 0x70}[letter], "\x00\x01\x00"+properties)
}

// usual is the PUBLISH before one that is looked at more quickly because it has the same topic.
func usual(version byte) []byte {
	switch version {
	case 5:
		return []byte("\x32\x06\x00\x01t\x00\x01\x00")
	case 4:
		return []byte("\x32\x05\x00\x01t\x00\x01")
	}
	return nil
}

// screened passes p in pieces of at most step bytes.
func screened(version byte, p []byte, step int) (wrong *PacketFault, s *Screen) {
	s = &Screen{Limit: 256 << 10, Version: version}
	for len(p) > 0 {
		n := min(step, len(p))
		good, wrong := s.Pass(p[:n])
		if wrong != nil {
			return wrong, s
		}
		if good != n {
			panic(fmt.Sprintf("%d of %d bytes and no reason", good, n))
		}
		p = p[n:]
	}
	return nil, s
}

func versionFor(letter rune) byte {
	if letter == 'C' || letter == 'W' {
		return 0
	}
	return 5
}

func TestPropertiesAreJudgedAsTheStandardSays(t *testing.T) {
	check := func(letter rune, section string, allowed bool, what string, args ...any) {
		t.Helper()
		p, what := append(usual(versionFor(letter)), around(letter, section)...), fmt.Sprintf("%c ", letter)+fmt.Sprintf(what, args...)
		for _, step := range []int{len(p), 1} {
			wrong, s := screened(versionFor(letter), p, step)
			underWay, _, _ := s.UnderWay()
			if allowed {
				assert.Nil(t, wrong, what)
				assert.False(t, underWay, what)
				assert.NoError(t, decoded(versionFor(letter), p), what)
			} else {
				assert.NotNil(t, wrong, what)
			}
		}
	}
	for _, letter := range "CWPARLMSUD" {
		check(letter, "", true, "no property")
		for id := range 256 {
			id := byte(id)
			name := string(id)
			if id >= 0x80 {
				name = string([]byte{id})
			}
			p := standard[id]
			allowed := strings.ContainsRune(p.in, letter)
			right, wrong := values(p.value)
			for _, v := range right {
				once := name + v
				prefix := ""
				if id == 22 {
					prefix = "\x15\x00\x01m" // authentication data needs a method
				}
				check(letter, prefix+once, allowed, "property %d with % x", id, v)
				check(letter, prefix+once+once, allowed && id == 38, "property %d with % x twice", id, v)
				check(letter, prefix+once+once[:len(once)-1], false, "property %d with % x, and cut", id, v)
			}
			for _, v := range wrong {
				check(letter, name+v, false, "property %d with % x", id, v)
				check(letter, name+v+"\x26\x00\x01a\x00\x01b", false, "property %d with % x before another one", id, v)
			}
		}
	}
	check('C', "\x16\x00\x00", false, "authentication data without a method")
}

// whole are packets in order.
func whole() map[string][]byte {
	all := map[string][]byte{
		"CONNECT 3.1":         []byte("\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04abcd"),
		"CONNECT 3.1.1":       []byte("\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"),
		"PUBLISH":             []byte("\x30\x05\x00\x01tab"),
		"PUBLISH DUP":         []byte("\x3d\x07\x00\x01t\x00\x01ab"),
		"PUBLISH long length": []byte("\x30\x85\x00\x00\x01tab"), // only MQTT 5 forbids it
		"PUBACK":              []byte("\x40\x02\x00\x01"),
		"SUBSCRIBE":           []byte("\x82\x0a\x00\x01\x00\x01t\x02\x00\x01u\x00"),
		"UNSUBSCRIBE":         []byte("\xa2\x08\x00\x01\x00\x01t\x00\x01u"),
		"PINGREQ":             []byte("\xc0\x00"),
		"DISCONNECT":          []byte("\xe0\x00"),
		"PUBREL 5":            []byte("\x62\x03\x00\x01\x92"),
		"PUBREC 5":            []byte("\x50\x03\x00\x01\x97"),
		"DISCONNECT 5":        []byte("\xe0\x01\x04"),
		"SUBSCRIBE 5":         []byte("\x82\x0b\x00\x01\x02\x0b\x07\x00\x03a/#\x2e"),
	}
	for _, letter := range "CWPARLMSUD" {
		section := "\x26\x00\x01a\x00\x01b"
		if letter == 'P' {
			section += "\x08\x00\x01r\x02\x00\x00\x00\x01"
		}
		all[fmt.Sprintf("properties 5 %c", letter)] = around(letter, section)
	}
	return all
}

func wholeVersion(name string) byte {
	switch {
	case strings.HasPrefix(name, "CONNECT"), strings.HasSuffix(name, "C"), strings.HasSuffix(name, "W"):
		return 0
	case strings.Contains(name, "5"):
		return 5
	}
	return 4
}

func TestAPacketCutAnywhereIsNoPacket(t *testing.T) {
	for name, p := range whole() {
		version := wholeVersion(name)
		wrong, _ := screened(version, p, len(p))
		require.Nil(t, wrong, name)
		require.NoError(t, decoded(version, p), name)
		for cut := 1; cut < len(p); cut++ {
			wrong, s := screened(version, p[:cut], cut)
			underWay, _, _ := s.UnderWay()
			assert.True(t, wrong == nil && underWay, "%s cut after %d bytes waits for the rest", name, cut)
		}
		_, width := variable(p[1:])
		for end := range len(p) - 1 - width { // the same with a length that is too small
			short := append(binary.AppendUvarint([]byte{p[0]}, uint64(end)), p[1+width:1+width+end]...)
			if wrong, _ := screened(version, short, 1); wrong == nil {
				assert.NoError(t, decoded(version, short), "%s shortened to %d: % x", name, end, short)
			}
		}
		if p[0]>>4 != packets.Publish && p[0]>>4 != packets.Subscribe && p[0]>>4 != packets.Unsubscribe {
			long := append(binary.AppendUvarint([]byte{p[0]}, uint64(len(p)-width)), append(p[1+width:len(p):len(p)], '!')...)
			wrong, _ := screened(version, long, len(long))
			assert.NotNil(t, wrong, "%s with a byte more", name)
		}
	}
}

func TestPacketsOfWrongForm(t *testing.T) {
	cases := map[string]struct {
		version     byte
		packet      string
		PacketFault string
	}{
		"not CONNECT first":        {0, "\xc0\x00", "first packet is not CONNECT"},
		"a second CONNECT":         {4, "\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id", "second CONNECT"},
		"reserved flag":            {0, "\x10\x0e\x00\x04MQTT\x04\x03\x00\x3c\x00\x02id", "malformed packet: flags"},
		"will QoS without a will":  {0, "\x10\x0e\x00\x04MQTT\x04\x0a\x00\x3c\x00\x02id", "malformed packet: flags"},
		"retain without a will":    {0, "\x10\x0e\x00\x04MQTT\x04\x22\x00\x3c\x00\x02id", "malformed packet: flags"},
		"will QoS 3":               {0, "\x10\x14\x00\x04MQTT\x04\x1e\x00\x3c\x00\x02id\x00\x01w\x00\x01x", "malformed packet: flags"},
		"password without a user":  {0, "\x10\x11\x00\x04MQTT\x04\x42\x00\x3c\x00\x02id\x00\x01p", "malformed packet: flags"},
		"bytes after CONNECT":      {0, "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id!", "malformed packet: bytes after its end"},
		"NUL in the client id":     {0, "\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02i\x00", "malformed packet: text that is not UTF-8"},
		"no client id to keep":     {0, "\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", "invalid client id"},
		"no client id in 3.1":      {0, "\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00", "invalid client id"},
		"CONNECT flags":            {0, "\x12\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id", "malformed packet: flags"},
		"CONNECT DUP in 5":         {0, "\x18\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02id", "malformed packet: flags"},
		"answer to a wildcard":     {0, string(around('W', "\x08\x00\x03a/#")), "invalid response topic"},
		"answer to a plus":         {0, string(around('W', "\x08\x00\x01+")), "invalid response topic"},
		"answer to nothing":        {5, string(around('P', "\x08\x00\x00")), "invalid response topic"},
		"will without a topic":     {0, "\x10\x12\x00\x04MQTT\x04\x06\x00\x3c\x00\x02id\x00\x00\x00\x00", "invalid will topic"},
		"MQTT 6":                   {0, "\x10\x0e\x00\x04MQTT\x06\x02\x00\x3c\x00\x02id", "unsupported protocol version"},
		"another protocol":         {0, "\x10\x0e\x00\x04HTTP\x04\x02\x00\x3c\x00\x02id", "unsupported protocol version"},
		"QoS 3":                    {4, "\x36\x05\x00\x01tab", "malformed packet: flags"},
		"DUP at QoS 0":             {4, "\x38\x05\x00\x01tab", "malformed packet: flags"},
		"topic longer than packet": {4, "\x30\x05\x00\x09tab", "malformed packet: cut short"},
		"half a topic length":      {4, "\x30\x01\x00", "malformed packet: cut short"},
		"nothing":                  {5, "\x30\x00", "malformed packet: cut short"},
		"no room for the id":       {4, "\x32\x04\x00\x01t\x00", "malformed packet: cut short"},
		"no properties":            {5, "\x30\x03\x00\x01t", "malformed packet: cut short"},
		"endless property length":  {5, "\x30\x08\x00\x01t\xff\xff\xff\xff\xff", "malformed packet: variable byte integer"},
		"long property length":     {5, "\x30\x06\x00\x01t\x80\x00!", "malformed packet: variable byte integer"},
		"properties too long":      {5, "\x30\x05\x00\x01t\x05!", "malformed packet: cut short"},
		"topic is not UTF-8":       {4, "\x30\x05\x00\x01\xffab", "malformed packet: text that is not UTF-8"},
		"topic with NUL":           {4, "\x30\x05\x00\x01\x00ab", "malformed packet: text that is not UTF-8"},
		"endless length":           {4, "\x30\xff\xff\xff\xff\x01", "malformed packet: packet length"},
		"long length":              {5, "\x30\x85\x00\x00\x01t\x00!", "malformed packet: packet length"},
		"too large":                {5, "\x30\xff\xff\x7f", "packet too large"},
		"type 0":                   {5, "\x00\x00", "malformed packet: packet type"},
		"a SUBACK":                 {5, "\x90\x03\x00\x01\x00", "packet that only a server sends"},
		"an AUTH":                  {5, "\xf0\x00", "authentication without a method"},
		"PUBREL flags":             {4, "\x60\x02\x00\x01", "malformed packet: flags"},
		"PINGREQ with a byte":      {4, "\xc0\x01\x00", "malformed packet: bytes after its end"},
		"DISCONNECT with a byte":   {4, "\xe0\x01\x00", "malformed packet: bytes after its end"},
		"DISCONNECT half":          {5, "\xe0\x02\x00\x01", "malformed packet: cut short"},
		"DISCONNECT reason":        {5, "\xe0\x01\x55", "unknown reason code"},
		"PUBACK with a byte":       {4, "\x40\x03\x00\x01\x00", "malformed packet: bytes after its end"},
		"PUBACK of id 0":           {4, "\x40\x02\x00\x00", "packet id 0"},
		"PUBREC of id 0":           {5, "\x50\x02\x00\x00", "packet id 0"},
		"PUBREL of id 0":           {5, "\x62\x03\x00\x00\x00", "packet id 0"},
		"PUBCOMP of id 0":          {3, "\x70\x02\x00\x00", "packet id 0"},
		"PUBACK flags":             {4, "\x42\x02\x00\x01", "malformed packet: flags"},
		"PUBREL DUP":               {4, "\x6a\x02\x00\x01", "malformed packet: flags"},
		"PUBREL of QoS 2 in 3.1":   {3, "\x64\x02\x00\x01", "malformed packet: flags"},
		"UNSUBSCRIBE without id":   {5, "\xa2\x06\x00\x00\x00\x00\x01a", "packet id 0"},
		"PUBACK reason":            {5, "\x40\x03\x00\x01\x92", "unknown reason code"},
		"SUBSCRIBE without id":     {4, "\x82\x06\x00\x00\x00\x01t\x00", "packet id 0"},
		"SUBSCRIBE to nothing":     {4, "\x82\x02\x00\x01", "no topic filter"},
		"SUBSCRIBE cut":            {5, "\x82\x06\x00\x01\x00\x00\x01t", "malformed packet: cut short"},
		"SUBSCRIBE reserved":       {5, "\x82\x07\x00\x01\x00\x00\x01t\x40", "malformed packet: subscription options"},
		"SUBSCRIBE QoS 3":          {5, "\x82\x07\x00\x01\x00\x00\x01t\x03", "malformed packet: subscription options"},
		"SUBSCRIBE 3.1.1 options":  {4, "\x82\x06\x00\x01\x00\x01t\x04", "malformed packet: subscription options"},
		"retain handling 3":        {5, "\x82\x07\x00\x01\x00\x00\x01t\x30", "invalid retain handling"},
		"UNSUBSCRIBE nothing":      {5, "\xa2\x03\x00\x01\x00", "no topic filter"},
	}
	for name, c := range cases {
		p := append(usual(c.version), c.packet...)
		for _, step := range []int{len(p), 1} {
			wrong, _ := screened(c.version, slices.Clone(p), step)
			if assert.NotNil(t, wrong, name) {
				assert.Equal(t, c.PacketFault, wrong.Error(), name)
			}
		}
	}
}

// Bits that mean nothing in MQTT 3.1 pass, and mochi does not get to see them.
func TestUnusedBitsOfMQTT31AreCleared(t *testing.T) {
	connect := "\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04abcd"
	for sent, want := range map[string]string{
		"\x6a\x02\x00\x01":                   "\x62\x02\x00\x01", // PUBREL with DUP
		"\x6b\x02\x00\x01":                   "\x62\x02\x00\x01",
		"\x8a\x06\x00\x01\x00\x01t\x01":      "\x82\x06\x00\x01\x00\x01t\x01", // SUBSCRIBE and UNSUBSCRIBE with DUP
		"\xab\x05\x00\x01\x00\x01t":          "\xa2\x05\x00\x01\x00\x01t",
		"\x4f\x02\x00\x01":                   "\x40\x02\x00\x01",
		"\x5a\x02\x00\x01":                   "\x50\x02\x00\x01",
		"\x71\x02\x00\x01":                   "\x70\x02\x00\x01",
		"\xc8\x00":                           "\xc0\x00",
		"\xe2\x00":                           "\xe0\x00",
		"\x38\x05\x00\x01tab":                "\x30\x05\x00\x01tab", // DUP at QoS 0
		"\x3d\x07\x00\x01t\x00\x01ab":        "\x3d\x07\x00\x01t\x00\x01ab",
		"\x1f" + connect[1:]:                 connect,
		connect[:11] + "\x03" + connect[12:]: connect[:11] + "\x03" + connect[12:], // the flags of the CONNECT itself stay
	} {
		for _, step := range []int{len(sent), 1} {
			s, p := Screen{Limit: 1 << 10, Version: 3}, []byte(sent)
			if p[0]>>4 == packets.Connect {
				s.Version = 0
			}
			for at := 0; at < len(p); at += step {
				good, wrong := s.Pass(p[at : at+step])
				require.Nil(t, wrong, "% x", sent)
				require.Equal(t, step, good)
			}
			assert.Equal(t, want, string(p), "% x", sent)
			assert.Equal(t, byte(3), s.Version)
		}
	}
}

func TestWhatCameBeforeABrokenPacketPasses(t *testing.T) {
	ping := []byte{0xc0, 0}
	s := Screen{Limit: 1 << 10, Version: 4}
	good, wrong := s.Pass(slices.Concat(ping, ping, []byte{0xc0, 1, 0}, ping))
	assert.Equal(t, 4, good)
	assert.NotNil(t, wrong)

	s = Screen{Limit: 1 << 10, Version: 4}
	good, wrong = s.Pass(append(ping, 0x82, 6, 0, 1, 0))
	assert.Equal(t, 7, good)
	require.Nil(t, wrong)
	good, wrong = s.Pass([]byte{1, 't', 7})
	assert.Zero(t, good, "the end of a packet that began before")
	assert.NotNil(t, wrong)
}

// decoded lets mochi read what was passed, one packet after the other.
func decoded(version byte, p []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("mochi panics: %v", r)
		}
	}()
	r := bufio.NewReader(bytes.NewReader(p))
	for {
		first, err := r.ReadByte()
		if err != nil {
			return nil
		}
		pk := packets.Packet{ProtocolVersion: version}
		if err := pk.FixedHeader.Decode(first); err != nil {
			return err
		}
		if pk.FixedHeader.Remaining, _, err = packets.DecodeLength(r); err == io.EOF {
			return nil // it is not complete
		} else if err != nil {
			return err
		}
		body := make([]byte, pk.FixedHeader.Remaining)
		if n, _ := r.Read(body); n < len(body) {
			return nil
		}
		if err := decodeBody(&pk, body); err != nil {
			return fmt.Errorf("mochi cannot decode % x: %w", body, err)
		}
		if pk.FixedHeader.Type == packets.Connect {
			version = pk.ProtocolVersion
		}
	}
}

func decodeBody(pk *packets.Packet, body []byte) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return pk.ConnectDecode(body)
	case packets.Publish:
		return pk.PublishDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		return pk.PubackDecode(body)
	case packets.Subscribe:
		return pk.SubscribeDecode(body)
	case packets.Unsubscribe:
		return pk.UnsubscribeDecode(body)
	case packets.Disconnect:
		return pk.DisconnectDecode(body)
	case packets.Pingreq:
		return nil
	}
	return fmt.Errorf("a packet of kind %d", pk.FixedHeader.Type)
}

// What passes the screen, mochi decodes without an error; and however the bytes are cut into pieces, the verdict is the
// same, and so is what passes before it.
func FuzzScreen(f *testing.F) {
	for name, p := range whole() {
		f.Add(wholeVersion(name), p, byte(3))
	}
	f.Add(byte(5), slices.Concat(around('P', ""), around('S', "\x0b\x01"), around('D', "\x1f\x00\x00")), byte(7))
	f.Fuzz(func(t *testing.T, version byte, p []byte, step byte) {
		version = []byte{0, 3, 4, 5}[version%4]
		s := Screen{Limit: 64 << 10, Version: version}
		good, wrong := s.Pass(p)
		require.NoError(t, decoded(version, p[:good]))

		inPieces, total := Screen{Limit: 64 << 10, Version: version}, 0
		var then *PacketFault
		for rest := p; len(rest) > 0 && then == nil; {
			n := min(int(step)+1, len(rest))
			var some int
			some, then = inPieces.Pass(rest[:n])
			total, rest = total+some, rest[n:]
		}
		require.Equal(t, wrong, then)
		if wrong == nil {
			require.Equal(t, good, total)
			require.Equal(t, s.rest > 0 || len(s.held) > 0, inPieces.rest > 0 || len(inPieces.held) > 0)
		} else {
			require.GreaterOrEqual(t, total, good, "of a packet that came in pieces the beginning has passed")
		}
	})
}

func BenchmarkScreen(b *testing.B) {
	publish := []byte("\x32\x6a\x00\x1adevices/greenhouse-07/data\x00\x01\x00" + strings.Repeat("x", 75))
	chunk := bytes.Repeat(publish, 4096/len(publish)+1)[:4096]
	for _, version := range []byte{4, 5} {
		b.Run(fmt.Sprint("version ", version), func(b *testing.B) {
			s := Screen{Limit: 256 << 10, Version: version}
			for i := 0; i < b.N; i += 4096 / len(publish) {
				s.held, s.rest = s.held[:0], 0
				if _, wrong := s.Pass(chunk); wrong != nil {
					b.Fatal(wrong)
				}
			}
		})
	}
}
