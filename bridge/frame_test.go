package bridge

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever a broker sends, reading it ends with a packet or an error, and takes no more memory than was allowed.
func FuzzReadPacket(f *testing.F) {
	for _, seed := range [][]byte{
		{0x20, 3, 0, 0, 0}, {0x20, 2, 0, 1}, {0xe0, 0}, {0xe0, 2, 0x8e, 0}, {0x40, 2, 0, 1}, {0x40, 4, 0, 1, 0x97, 0}, {0x90, 4, 0, 1, 0, 1},
		{0x32, 9, 0, 1, 'a', 0, 1, 0, 'x', 'y', 'z'}, {0x30, 12, 0, 1, 'a', 7, 0x26, 0, 1, 'k', 0, 1, 'v'}, {0xd0, 0}, {0x62, 2, 0, 1},
		{0x30, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0xff, 0xff, 0xff, 0xff, 1}, {0x10, 0}, {0xf0, 2, 0, 0}, {0x20, 4, 0, 0, 9, 17},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		in := bufio.NewReader(bytes.NewReader(sent))
		for {
			p, err := readPacket(in, 1<<16)
			if err != nil {
				return
			}
			require.True(t, fromServer(p.Type))
			if m, ok := p.Content.(*packets.Publish); ok {
				o := Options{Box: "here", Routes: []Route{{Filter: "#", Direction: In, QoS: 2}}}
				if there, fate := o.translate(In, m, &Broker{}, "there"); fate == carried {
					again, err := readPacket(bufio.NewReader(bytes.NewReader(encode(there.ToControlPacket()))), 1<<20)
					if there.QoS < 3 {
						require.NoError(t, err)
						assert.Equal(t, there.Topic, again.Content.(*packets.Publish).Topic)
						assert.True(t, bytes.Equal(there.Payload, again.Content.(*packets.Publish).Payload))
					}
				}
			}
		}
	})
}

// Where somebody takes away the mark of a box, a circle ends by the number of the others.
func TestAMessageWithTooManyMarksGoesNoFurther(t *testing.T) {
	o := Options{Box: "here", Routes: []Route{{Filter: "#", Direction: In | Out}}}
	p := &packets.Publish{Topic: "a", Properties: &packets.Properties{}}
	for n := range maxHops + 1 {
		for _, way := range []Direction{In, Out} {
			_, fate := o.translate(way, p, &Broker{}, "")
			assert.Equal(t, n >= maxHops, fate == looped, "%d marks", n)
		}
		p.Properties.User = append(p.Properties.User, packets.User{Key: HopProperty, Value: fmt.Sprint("box ", n)})
	}
}

// A broker that sends more than it was allowed to is left: what waits for the other one is bounded.
func TestABrokerMustNotSendMoreThanItMay(t *testing.T) {
	o := Options{Box: "here", Routes: []Route{{Filter: "#", Direction: Out, QoS: 1}}}
	to := newEnd(&Broker{}, nil, 0)
	to.window = 1
	d := newDirection(&Bridge{o: o}, Out, newEnd(&Broker{}, nil, 0), to)
	for id := uint16(1); id <= receiveMaximum; id++ {
		require.NoError(t, d.published(&packets.Publish{Topic: "a", QoS: 1, PacketID: id, Properties: &packets.Properties{}}))
	}
	assert.Error(t, d.published(&packets.Publish{Topic: "a", QoS: 1, PacketID: receiveMaximum + 1, Properties: &packets.Properties{}}))
}
