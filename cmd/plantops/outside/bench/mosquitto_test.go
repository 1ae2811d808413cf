//go:build linux

package bench_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

func hasMosquitto() bool {
	_, err := exec.LookPath("mosquitto")
	return err == nil
}

// mosquittoServer starts mosquitto with an unlimited queue and one QoS 1 subscriber. It knows no accounts and stores
// nothing.
func mosquittoServer(t *testing.T, s *scenario) *subject {
	t.Helper()
	in := program.Install(t, t.TempDir())
	in.Run("certs", "init")
	certs := filepath.Join(in.Dir, "certs")
	settings := filepath.Join(in.Dir, "mosquitto.conf")
	text := fmt.Sprintf("user root\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n"+
		"listener %s 127.0.0.1\nlistener %s 127.0.0.1\ncertfile %s/server.crt\nkeyfile %s/server.key\n", port(t, in.TCP), port(t, in.TLS), certs, certs)
	require.NoError(t, os.WriteFile(settings, []byte(text), 0o600))
	cmd := exec.Command("mosquitto", "-c", settings)
	require.NoError(t, cmd.Start())
	stop := func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	s.Secrets = nil
	if s.overTLS {
		s.TLS = in.ClientTLS()
	}
	arrived := subscriber(t, in.TCP)
	return &subject{pid: cmd.Process.Pid, plain: in.TCP, tls: in.TLS, stop: stop,
		stored: arrived.Load, late: true,
		complete: func(int64) {
			if lost := int64(s.Readings) - arrived.Load(); lost > 0 {
				t.Logf("mosquitto lost %d of %d readings at QoS %d from %d devices", lost, s.Readings, s.QoS, s.Devices)
			}
		},
	}
}

func reachable(address string) bool {
	conn, err := net.Dial("tcp", address)
	return err == nil && conn.Close() == nil
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	return port
}

// subscriber subscribes to all readings with QoS 1, acknowledges and counts them.
func subscriber(t *testing.T, address string) *atomic.Int64 {
	t.Helper()
	var conn net.Conn
	require.Eventually(t, func() bool {
		var err error
		conn, err = net.Dial("tcp", address)
		return err == nil
	}, setting.Patience, 10*time.Millisecond)
	t.Cleanup(func() { conn.Close() })
	_, err := conn.Write(append(rawmqtt.Login{ClientID: "subscriber", Version: 4, Resume: true}.Encode(), rawmqtt.EncodeSubscribe(4, 1, 1, "devices/+/telemetry")...))
	require.NoError(t, err)
	in := bufio.NewReaderSize(conn, 64<<10)
	for _, kind := range []byte{rawmqtt.Connack, rawmqtt.Suback} {
		p, err := rawmqtt.Read(in)
		require.NoError(t, err)
		require.Equal(t, kind, p.Kind)
	}
	var arrived atomic.Int64
	go func() {
		out := bufio.NewWriterSize(conn, 16<<10)
		var packet []byte
		for {
			first, err := in.ReadByte()
			if err != nil {
				return
			}
			length, err := binary.ReadUvarint(in)
			if err != nil {
				return
			}
			if packet, err = in.Peek(int(length)); err != nil {
				return
			}
			if first>>4 == rawmqtt.Publish {
				if first&0x06 != 0 {
					after := 2 + int(binary.BigEndian.Uint16(packet))
					_, _ = out.Write([]byte{rawmqtt.Puback << 4, 2, packet[after], packet[after+1]}) // Flush says
				}
				arrived.Add(1)
			}
			_, _ = in.Discard(int(length)) // it was peeked
			if in.Buffered() == 0 && out.Flush() != nil {
				return
			}
		}
	}()
	return &arrived
}
