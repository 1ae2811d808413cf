package ingest

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flood publishes and never reads, until the connection is cut.
func flood(c net.Conn) {
	c.(*net.TCPConn).SetReadBuffer(4096)
	answerBoth()(c)
	some := bytes.Repeat([]byte("\x32\x18\x00\x13devices/x/telemetry\x00\x01\x00"), 1000)
	for {
		if _, err := c.Write(some); err != nil {
			return
		}
	}
}

// listenNarrow makes the kernel keep little of what is sent to whoever does not read: tens of kilobytes, not megabytes.
func listenNarrow(t *testing.T) net.Listener {
	t.Helper()
	const segment = 536
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		controlled := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, segment)
		})
		if controlled != nil {
			return controlled
		}
		return err
	}}
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

func TestStopEndsWhenTheBrokerTakesNoAcknowledgements(t *testing.T) {
	v := attackOn(t, listenNarrow(t), flood)
	o := v.options()
	o.ReceiveMaximum = 100
	sub, stop := start(t, o, &open{})
	var stored int64
	since := time.Now()
	require.Eventually(t, func() bool { // nothing moves: it waits to write
		now := sub.Stats()
		if now.Stored != stored || now.Stored == 0 {
			stored, since = now.Stored, time.Now()
		}
		return time.Since(since) > time.Second/2
	}, patience, time.Millisecond)
	began := time.Now()
	require.NoError(t, stop())
	assert.Less(t, time.Since(began), drainTimeout+disconnectTimeout)
}

func TestABrokerThatTakesNoAcknowledgementsIsLeft(t *testing.T) {
	v := attackOn(t, listenNarrow(t), flood)
	var said logs
	o := v.options()
	o.StallTimeout, o.Log = time.Second/2, slog.New(slog.NewTextHandler(&said, nil))
	start(t, o, &open{})
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "i/o timeout") && v.seen.Load() > 1 }, 3*patience, time.Millisecond)
}
