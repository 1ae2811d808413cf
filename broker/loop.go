package broker

import (
	"errors"
	"os"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/validate"
)

// readLoop is a connection as mochi's loop reads from it. mochi decodes the packets of what was read, gives each to the
// hooks, and asks for more when none is left. Between two rounds it has no hook, only this call.
type readLoop struct{ *clientLink }

// Read ends a round and begins the next one. Where a packet of wrong form comes, it answers and the loop ends.
func (l readLoop) Read(p []byte) (int, error) {
	if l.work != nil {
		l.endRound()
	}
	n, err := l.clientLink.Read(p)
	if err == network.ErrDrained && n > 0 {
		return n, nil // these first: it comes again
	}
	if err != nil {
		l.endReading(err)
	}
	return n, err
}

// endReading tells the client why nothing more is read from it, if we can and it does not know.
func (l *clientLink) endReading(err error) {
	defer dieOfPanic()
	fault, wrong := err.(*validate.PacketFault)
	switch {
	case wrong:
		_ = l.hook.refuseConnection(l, fault, "") // the loop ends with the fault itself
	case err == network.ErrDrained:
		l.hook.sessions.end(l, packets.ErrSessionTakenOver)
	case errors.Is(err, os.ErrDeadlineExceeded) && l.work != nil && l.isTold() && !l.IsClosing(): // [MQTT-3.1.2-22]
		_ = l.client.WritePacket(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode: packets.ErrKeepAliveTimeout.Code}) // the connection ends either way
	}
}

// endRound sends what came of the packets that were read together: acknowledgements, also those of other publishers, and
// deliveries, with one write for each connection. Then the publisher waits for a subscriber that cannot follow.
func (l *clientLink) endRound() {
	defer dieOfPanic()
	l.work.flush()
	l.work.waitForFull(l)
}

// linkOf returns nil for a client without a connection of ours.
func linkOf(cl *mqtt.Client) *clientLink {
	l, _ := cl.Net.Conn.(readLoop)
	return l.clientLink
}
