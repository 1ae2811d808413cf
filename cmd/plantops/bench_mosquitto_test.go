//go:build linux

package main_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func hasMosquitto() bool {
	_, err := exec.LookPath("mosquitto")
	return err == nil
}

// mosquittoServer starts mosquitto with an unlimited queue and one QoS 1 subscriber. It knows no accounts and stores
// nothing.
func mosquittoServer(t *testing.T, s *scenario) *subject {
	t.Helper()
	in := newInstallation(t, t.TempDir())
	in.run("certs", "init")
	certs := filepath.Join(in.dir, "certs")
	settings := filepath.Join(in.dir, "mosquitto.conf")
	text := fmt.Sprintf("user root\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n"+
		"listener %s 127.0.0.1\nlistener %s 127.0.0.1\ncertfile %s/server.crt\nkeyfile %s/server.key\n", port(t, in.tcp), port(t, in.tls), certs, certs)
	require.NoError(t, os.WriteFile(settings, []byte(text), 0o600))
	cmd := exec.Command("mosquitto", "-c", settings)
	require.NoError(t, cmd.Start())
	stop := func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	s.secrets = nil
	if s.overTLS {
		s.tls = in.clientTLS()
	}
	arrived := subscriber(t, in.tcp)
	return &subject{pid: cmd.Process.Pid, plain: in.tcp, tls: in.tls, stop: stop,
		stored: arrived.Load, late: true,
		complete: func(int64) {
			if lost := int64(s.readings) - arrived.Load(); lost > 0 {
				t.Logf("mosquitto lost %d of %d readings at QoS %d from %d devices", lost, s.readings, s.qos, s.devices)
			}
		},
	}
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
	}, patience, 10*time.Millisecond)
	t.Cleanup(func() { conn.Close() })
	_, err := conn.Write(append(encodeConnect(4, "subscriber", ""), encode(subscribe<<4|2, append(appendString([]byte{0, 1}, "devices/+/telemetry"), 1))...))
	require.NoError(t, err)
	in := bufio.NewReaderSize(conn, 64<<10)
	for _, kind := range []byte{connack, suback} {
		p, err := readPacket(in)
		require.NoError(t, err)
		require.Equal(t, kind, p.kind)
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
			if first>>4 == publish {
				if first&0x06 != 0 {
					after := 2 + int(binary.BigEndian.Uint16(packet))
					_, _ = out.Write([]byte{puback << 4, 2, packet[after], packet[after+1]}) // Flush says
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

// cpuTime is the user and system time that a process has used.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+2:]))
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}
