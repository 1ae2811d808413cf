package ingest

import (
	"fmt"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// frame follows the packets in what a broker sends, and finds those that paho must not see: it makes room for as much as
// a packet announces, up to 4 GiB because it takes lengths of five bytes too, and ends the program where that is not to
// be had, or negative on a 32-bit machine.
type frame struct {
	limit  int // the largest body
	head   int // bytes of the fixed header that have come
	length int
	rest   int // of the body, still to come
}

// lengthBytes is the most that a length may take [MQTT 5, 1.5.5].
const lengthBytes = 4

// pass takes what comes next and returns what is wrong with it.
func (f *frame) pass(p []byte) error {
	for len(p) > 0 {
		if f.rest > 0 {
			n := min(f.rest, len(p))
			f.rest, p = f.rest-n, p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		if f.head == 0 {
			if !fromServer(b >> 4) {
				return fmt.Errorf("broker sent a packet of type %d, which no broker may send", b>>4)
			}
			f.head, f.length = 1, 0
			continue
		}
		f.length |= int(b&0x7f) << (7 * (f.head - 1))
		switch more := b&0x80 != 0; {
		case more && f.head == lengthBytes:
			return fmt.Errorf("broker sent a packet whose length has more than %d bytes", lengthBytes)
		case f.length > f.limit:
			return fmt.Errorf("broker sent a packet of %d bytes or more, %d are taken", f.length, f.limit)
		case more:
			f.head++
		default:
			f.head, f.rest = 0, f.length
		}
	}
	return nil
}

// underWay tells whether a packet has begun and not ended.
func (f *frame) underWay() bool { return f.head > 0 || f.rest > 0 }

// fromServer tells whether a packet of the type may come from a broker. AUTH may not: we begin no authentication.
func fromServer(kind byte) bool {
	switch kind {
	case packets.CONNACK, packets.PUBLISH, packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP,
		packets.SUBACK, packets.UNSUBACK, packets.PINGRESP, packets.DISCONNECT:
		return true
	}
	return false
}

// noAuth is there because paho calls it without asking, when a CONNACK names an authentication method.
type noAuth struct{}

func (noAuth) Authenticate(a *paho.Auth) *paho.Auth { return a } // frame lets no AUTH through
func (noAuth) Authenticated()                       {}
