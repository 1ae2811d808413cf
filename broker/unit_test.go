package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/config"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan struct{})
		g := newGate()
		start := time.Now()
		assert.Equal(t, refusal.NotReady, g.pass(gone, gateWait))
		assert.Equal(t, gateWait, time.Since(start))

		close(gone)
		assert.Equal(t, errGone, g.pass(gone, gateWait))

		passed := make(chan error, 1)
		go func() { passed <- g.pass(nil, gateWait) }()
		synctest.Wait()
		g.open()
		assert.NoError(t, <-passed)

		g.close()
		assert.Equal(t, refusal.Stopping, g.pass(nil, gateWait), "open and closed is closed")
	})
}

// complete adds what has no default: limits and patience as the configuration has them.
func complete(o Options) Options {
	o.Limits, o.StallTimeout = Limits(config.Default().Limits), config.Default().Ingest.StallTimeout
	return o
}

func TestMissingLimitsAreRefusedByName(t *testing.T) {
	for name, o := range map[string]Options{"MaxConnections": {}, "MaxQueuedBytes": complete(Options{}), "StallTimeout": complete(Options{})} {
		switch name {
		case "MaxQueuedBytes":
			o.Limits.MaxQueuedBytes = 0
		case "StallTimeout":
			o.StallTimeout = 0
		}
		_, err := Listen(o)
		assert.ErrorContains(t, err, name)
	}
}

func TestAListenerThatEndsByItselfIsReported(t *testing.T) {
	b, err := Listen(complete(Options{TCP: "127.0.0.1:0"}))
	require.NoError(t, err)
	require.NoError(t, b.Start())
	require.NoError(t, b.listeners[network.TCP].Listener.Close()) // behind our back
	select {
	case err := <-b.Died():
		assert.ErrorContains(t, err, "tcp listener")
	case <-time.After(10 * time.Second):
		assert.Fail(t, "nobody was told")
	}
	require.NoError(t, b.Close())
}

func TestMochiLogsNoPackets(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(mochiLog{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})})
	secret := packets.Packet{Payload: []byte("secret"), Connect: packets.ConnectParams{Password: []byte("secret")}}
	log.With("packet", secret).WithGroup("g").Warn("", "pk", secret, "will", &secret, "client", "bed-1", "error", errors.New("broken"))
	log.Error("real trouble")
	assert.NotContains(t, out.String(), "secret")
	assert.NotContains(t, out.String(), "115 101 99", "nor as numbers")
	assert.Contains(t, out.String(), "level=DEBUG")
	assert.Contains(t, out.String(), "client=bed-1")
	assert.Contains(t, out.String(), "broken")
	assert.Contains(t, out.String(), "level=ERROR")
}

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
