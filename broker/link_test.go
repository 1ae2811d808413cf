package broker

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dribble logs in without a keepalive, sends p a byte at a time and returns when the broker has had enough of it.
func dribble(t *testing.T, b *Broker, p []byte, pause time.Duration) (took time.Duration) {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addrs().TCP.String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write([]byte("\x10\x14\x00\x04MQTT\x04\xc2\x00\x00\x00\x02id\x00\x01u\x00\x01p"))
	require.NoError(t, err)
	connack := make([]byte, 4)
	_, err = conn.Read(connack)
	require.NoError(t, err)
	require.Equal(t, []byte{0x20, 2, 0, 0}, connack)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	began := time.Now()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return time.Since(began)
		case <-tick.C:
			if len(p) > 0 {
				_, _ = conn.Write(p[:1])
				p = p[1:]
			}
		}
	}
}

func TestAPacketThatHasBegunMustBeFinishedInTime(t *testing.T) {
	t.Parallel()
	b, err := Listen(complete(Options{TCP: "127.0.0.1:0", Backend: Backend{Username: "u", Password: "p"}}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	const timeout = 200 * time.Millisecond
	b.hook.packetTimeout = timeout
	require.NoError(t, b.Start())
	b.AdmitDevices()

	begun := append([]byte{0x30, 100, 0, 1, 't'}, make([]byte, 50)...)
	whole := []byte{0xc0, 0}
	for name, sent := range map[string][]byte{
		"nothing after the first byte": begun[:1],
		"the length and no more":       begun[:2],
		"a byte now and then":          begun,
		"after a whole packet":         append(whole, begun...),
	} {
		took := dribble(t, b, sent, timeout/20)
		assert.GreaterOrEqual(t, took, timeout, name)
	}
	assert.Equal(t, int64(4), b.Stats().Refused["packet not finished in time"])

	// 3 KiB may take three seconds more
	took := dribble(t, b, []byte{0x30, 0x80, 0x18}, time.Millisecond)
	assert.GreaterOrEqual(t, took, timeout+3*time.Second)
}
