package broker_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
)

// What anybody sends to the websocket listener in place of an HTTP request gets one answer of HTTP that can be read, or
// none; the connection ends, and others are served.
func FuzzUpgrade(f *testing.F) {
	fz := startFuzzed(f)
	for _, seed := range []string{
		upgradeRequest, upgradeRequest + string(rawmqtt.EncodeFrame(0x82, fz.logins[1])),
		strings.Replace(upgradeRequest, "GET", "POST", 1),
		strings.Replace(upgradeRequest, "HTTP/1.1", "HTTP/1.0", 1),
		strings.Replace(upgradeRequest, "Host: plantops\r\n", "", 1),
		strings.Replace(upgradeRequest, ": mqtt\r\n", ": chat\r\n", 1),
		strings.Replace(upgradeRequest, "Version: 13", "Version: 12", 1),
		strings.Replace(upgradeRequest, "AAAAAAAAAAAAAAAAAAAAAA==", "short", 1),
		strings.Replace(upgradeRequest, "Host:", "Origin: https://elsewhere.example\r\nHost:", 1),
		strings.Replace(upgradeRequest, "Host:", "Content-Length: 99999999999\r\nHost:", 1),
		strings.Replace(upgradeRequest, "Host:", "Transfer-Encoding: chunked\r\nHost:", 1),
		strings.Replace(upgradeRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1),
		strings.Replace(upgradeRequest, "Host:", strings.Repeat("X: y\r\n", 2000)+"Host:", 1),
		"GET http://[::1/ HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05hello", "\r\n\r\n", "GET",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn, err := net.Dial("tcp", fz.Addrs().WebSocket.String())
		require.NoError(t, err)
		defer conn.Close()
		sendAll(conn, sent)
		heard, all := fz.hear(t, conn, conn)
		if len(heard) > 0 && all {
			r := bufio.NewReader(bytes.NewReader(heard))
			answer, err := http.ReadResponse(r, nil)
			require.NoError(t, err, "%q", heard)
			if answer.StatusCode == http.StatusSwitchingProtocols {
				rest, _ := io.ReadAll(r)
				unframe(t, rest, all)
			} else {
				require.GreaterOrEqual(t, answer.StatusCode, 400)
			}
		}
		fz.requireAlive(t)
	})
}

// hello is what a client sends first, and how it goes on after the server's answer.
func hello(f *testing.F, config *tls.Config) []byte {
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, config).Handshake()
		_ = theirs.Close()
	}()
	first := make([]byte, 16<<10)
	n, err := ours.Read(first)
	require.NoError(f, err)
	require.NoError(f, ours.Close())
	return first[:n]
}

// What anybody sends to the TLS listener in place of a handshake gets TLS records or nothing; the connection ends, and
// others are served. With inside, the bytes come through the handshake and are the first of MQTT.
func FuzzTLS(f *testing.F) {
	fz := startFuzzed(f)
	client := &tls.Config{InsecureSkipVerify: true} // who the server is is tested elsewhere
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		config := client.Clone()
		config.MinVersion, config.MaxVersion = version, version
		f.Add(false, hello(f, config))
	}
	alpn := client.Clone()
	alpn.NextProtos = []string{"mqtt", "http/1.1"}
	first := hello(f, alpn)
	f.Add(false, first)
	f.Add(false, append(first, first...))
	f.Add(false, first[:len(first)/2])
	for _, seed := range []string{"\x16\x03\x01\x40\x00", "\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00", "\x15\x03\x03\x00\x02\x02\x28",
		"\x14\x03\x03\x00\x01\x01", "\x17\x03\x03\x00\x05hello", "GET / HTTP/1.1\r\n\r\n", "\x80\x2e\x01\x00\x02", ""} {
		f.Add(false, []byte(seed))
	}
	for login := 1; login < len(fz.logins); login++ {
		f.Add(true, fz.logins[login])
		f.Add(true, append(bytes.Clone(fz.logins[login]), 0xc0, 0))
	}
	f.Fuzz(func(t *testing.T, inside bool, sent []byte) {
		raw, err := net.Dial("tcp", fz.Addrs().TLS.String())
		require.NoError(t, err)
		defer raw.Close()
		if inside {
			c := tls.Client(raw, client)
			require.NoError(t, raw.SetDeadline(time.Now().Add(brokertest.Patience)))
			require.NoError(t, c.Handshake())
			_, _ = c.Write(sent)
			_ = c.CloseWrite()
			heard, err := io.ReadAll(c)
			require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the broker does not close the connection")
			fz.judge(t, 0, heard, false)
		} else {
			sendAll(raw, sent)
			heard, all := fz.hear(t, raw, raw)
			requireRecords(t, heard, all)
		}
		fz.requireAlive(t)
	})
}

// requireRecords takes TLS records apart: alerts, and handshakes with what belongs to them.
func requireRecords(t *testing.T, heard []byte, all bool) {
	for rest := heard; len(rest) > 0; {
		require.Contains(t, []byte{20, 21, 22, 23}, rest[0], "% x", heard)
		if len(rest) < 5 || len(rest) < 5+int(rest[3])<<8+int(rest[4]) {
			require.False(t, all, "incomplete record: % x", heard)
			return
		}
		rest = rest[5+int(rest[3])<<8+int(rest[4]):]
	}
}
