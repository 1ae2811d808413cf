package load

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Who comes back counts what the broker sends with its CONNACK, too.
func TestWhatComesWithTheConnackIsCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		if _, err := rawmqtt.Read(in); err != nil {
			return
		}
		answer := []byte{rawmqtt.Connack << 4, 2, 1, 0}
		for id := range uint16(2) {
			answer = rawmqtt.AppendPublish(answer, "t", 1, id+1, []byte("x"))
		}
		_, _ = conn.Write(answer) // the reader misses them
		for {
			if _, err := rawmqtt.Read(in); err != nil {
				return
			}
		}
	}()
	r := &reader{Reader: Reader{Resume: true}}
	require.NoError(t, r.comeBack(&Traffic{Address: l.Addr().String()}, time.Now(), nil))
	defer r.conn.Close()
	require.Eventually(t, func() bool { return r.count.Load() == 2 }, setting.Patience, time.Millisecond)
}
