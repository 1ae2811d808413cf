package broker

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
)

// What mochi finds although it was screened is put down to the client; how a connection was lost is not.
func TestOnlyBrokenPacketsAreBroken(t *testing.T) {
	for err, want := range map[error]string{
		packets.ErrMalformedPassword:                      refusal.MalformedPacket.Reason,
		packets.ErrProtocolViolationSecondConnect:         refusal.ProtocolViolation.Reason,
		packets.ErrPacketTooLarge:                         refusal.PacketTooLarge.Reason,
		errors.New("no valid packet available; 2"):        refusal.MalformedPacket.Reason,
		fmt.Errorf("%w: more", packets.ErrMalformedTopic): refusal.MalformedPacket.Reason,
		packets.ErrRejectPacket:                           "",
		net.ErrClosed:                                     "",
		network.ErrQueueFull:                              "",
	} {
		r, broken := brokenPacket(err)
		assert.Equal(t, want != "", broken, err)
		assert.Equal(t, want, r.Reason, err)
	}
}
