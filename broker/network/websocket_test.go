package network

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/refusal"
)

// echo admits the client and sends back what it reads after the first packet.
func echo(c *Conn) error {
	r, err := readFirst(c)
	if err != nil {
		return err
	}
	c.Admitted("")
	if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{r})
	return err
}

func (n *testNet) dialWebsocket(t *testing.T) (*websocket.Conn, net.Conn) {
	t.Helper()
	c := n.dial(t).(*wsClient)
	return c.ws, c
}

func TestWebsocketPacketsMaySpanAndShareMessages(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "websocket", echo)
	ws, stream := n.dialWebsocket(t)
	for _, b := range connectPacket { // one packet in six messages
		require.NoError(t, ws.WriteMessage(websocket.BinaryMessage, []byte{b}))
	}
	_, err := io.ReadFull(stream, make([]byte, 4))
	require.NoError(t, err)

	w, err := ws.NextWriter(websocket.BinaryMessage)
	require.NoError(t, err)
	text := strings.Repeat("two packets in one message of many frames ", 500)
	_, err = io.WriteString(w, text) // larger than the write buffer: fragments
	require.NoError(t, err)
	require.NoError(t, ws.WriteControl(websocket.PingMessage, []byte("between fragments"), time.Now().Add(soon)))
	require.NoError(t, w.Close())
	require.NoError(t, ws.WriteMessage(websocket.BinaryMessage, nil), "an empty message is allowed")
	got := make([]byte, len(text))
	_, err = io.ReadFull(stream, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestWebsocketPingIsAnsweredWhileDataFlows(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "websocket", echo)
	ws, stream := n.dialWebsocket(t)
	requireLogin(t, stream)
	pongs := make(chan string, 1000)
	ws.SetPongHandler(func(data string) error { pongs <- data; return nil })
	const rounds = 200
	go func() {
		for i := range rounds {
			ws.WriteControl(websocket.PingMessage, []byte(fmt.Sprint(i)), time.Now().Add(soon))
			ws.WriteMessage(websocket.BinaryMessage, []byte("data"))
		}
		ws.WriteControl(websocket.PingMessage, []byte("last"), time.Now().Add(soon))
		ws.WriteMessage(websocket.BinaryMessage, []byte("end!"))
	}()
	got := make([]byte, 4*(rounds+1))
	_, err := io.ReadFull(stream, got)
	require.NoError(t, err)
	require.Equal(t, "end!", string(got[len(got)-4:]))
	go io.Copy(io.Discard, stream)
	for {
		select {
		case data := <-pongs:
			if data == "last" {
				return
			}
		case <-time.After(soon):
			require.Fail(t, "the last ping has no answer")
		}
	}
}

func TestWebsocketFramesThatAreNotAllowed(t *testing.T) {
	tests := map[string]struct {
		send func(ws *websocket.Conn, raw net.Conn) error
		code int
	}{
		"a text message": {func(ws *websocket.Conn, _ net.Conn) error {
			return ws.WriteMessage(websocket.TextMessage, []byte("hello"))
		}, websocket.CloseUnsupportedData},
		"a message above the limit": {func(ws *websocket.Conn, _ net.Conn) error {
			return ws.WriteMessage(websocket.BinaryMessage, make([]byte, messageFactor*1024+1))
		}, websocket.CloseMessageTooBig},
		"an unmasked frame": {func(_ *websocket.Conn, raw net.Conn) error {
			_, err := raw.(*wsClient).Conn.Write([]byte{0x82, 1, 'x'})
			return err
		}, websocket.CloseProtocolError},
		"an unknown opcode": {func(_ *websocket.Conn, raw net.Conn) error {
			_, err := raw.(*wsClient).Conn.Write([]byte{0x83, 0x80, 0, 0, 0, 0})
			return err
		}, websocket.CloseProtocolError},
		"a continuation of nothing": {func(_ *websocket.Conn, raw net.Conn) error {
			_, err := raw.(*wsClient).Conn.Write([]byte{0x80, 0x80, 0, 0, 0, 0})
			return err
		}, websocket.CloseProtocolError},
		"a ping above 125 bytes": {func(_ *websocket.Conn, raw net.Conn) error {
			_, err := raw.(*wsClient).Conn.Write(append([]byte{0x89, 0xfe, 0, 200, 0, 0, 0, 0}, make([]byte, 200)...))
			return err
		}, websocket.CloseProtocolError},
		"an announced length of 2^63": {func(_ *websocket.Conn, raw net.Conn) error {
			_, err := raw.(*wsClient).Conn.Write([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
			return err
		}, websocket.CloseMessageTooBig},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newTestNet(t, Limits{MaxPacketBytes: 1024}).start(t, "websocket", echo)
			ws, stream := n.dialWebsocket(t)
			requireLogin(t, stream)
			require.NoError(t, test.send(ws, stream))
			var err error
			for err == nil {
				_, _, err = ws.ReadMessage()
			}
			require.True(t, websocket.IsCloseError(err, test.code), "%v", err)
			eventually(t, "counted", func() bool { return n.dropped(refusal.FrameNotAllowed) == 1 })
		})
	}
}

func TestWebsocketCloseIsAnswered(t *testing.T) {
	ended := make(chan error, 1)
	n := newTestNet(t, Limits{}).start(t, "websocket", func(c *Conn) error {
		if _, err := readFirst(c); err != nil {
			return err
		}
		c.Admitted("")
		_, err := c.Read(make([]byte, 1))
		ended <- err
		c.Write([]byte("last words"))
		return nil
	})
	ws, stream := n.dialWebsocket(t)
	_, err := stream.Write(connectPacket)
	require.NoError(t, err)
	require.NoError(t, ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(soon)))
	require.Equal(t, io.EOF, <-ended)
	got, err := io.ReadAll(stream)
	require.NoError(t, err, "ends with a close frame")
	require.Equal(t, "last words", string(got))
	require.Zero(t, n.dropped(refusal.FrameNotAllowed))
}

func TestWebsocketUpgrade(t *testing.T) {
	tests := map[string]struct {
		header  http.Header
		allowed []string
		status  int
		speaks  string
	}{
		"no sub-protocol: let in":      {http.Header{}, nil, 101, ""},
		"mqtt":                         {http.Header{"Sec-Websocket-Protocol": {"mqtt"}}, nil, 101, "mqtt"},
		"the old name":                 {http.Header{"Sec-Websocket-Protocol": {"mqttv3.1"}}, nil, 101, "mqttv3.1"},
		"both: the better one":         {http.Header{"Sec-Websocket-Protocol": {"mqttv3.1, mqtt"}}, nil, 101, "mqtt"},
		"only others":                  {http.Header{"Sec-Websocket-Protocol": {"graphql-ws"}}, nil, 400, ""},
		"a page of another site":       {http.Header{"Origin": {"https://evil.example"}}, nil, 403, ""},
		"a sandboxed page":             {http.Header{"Origin": {"null"}}, nil, 403, ""},
		"a page of ours":               {http.Header{"Origin": {"http://HOST"}}, nil, 101, ""},
		"an allowed site":              {http.Header{"Origin": {"https://Dash.example"}}, []string{"https://dash.example"}, 101, ""},
		"not the allowed site":         {http.Header{"Origin": {"https://dash.example.evil.example"}}, []string{"https://dash.example"}, 403, ""},
		"the allowed host without TLS": {http.Header{"Origin": {"http://dash.example"}}, []string{"https://dash.example"}, 403, ""},
		"all sites":                    {http.Header{"Origin": {"https://evil.example"}}, []string{"*"}, 101, ""},
		"a request without an end":     {http.Header{"X": {strings.Repeat("x", 2*upgradeBytes)}}, nil, 431, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newTestNet(t, Limits{})
			n.options.AllowedOrigins = test.allowed
			n.start(t, "websocket", login)
			for key, values := range test.header {
				values[0] = strings.Replace(values[0], "HOST", n.l.Addr().String(), 1)
				test.header[key] = values
			}
			ws, answer, err := (&websocket.Dialer{HandshakeTimeout: soon}).Dial("ws://"+n.l.Addr().String()+"/any/path", test.header)
			require.NotNil(t, answer, "%v", err)
			assert.Equal(t, test.status, answer.StatusCode)
			assert.Equal(t, test.speaks, answer.Header.Get("Sec-WebSocket-Protocol"))
			if test.status == 101 {
				require.NoError(t, err)
				ws.Close()
			} else {
				require.Error(t, err)
				eventually(t, "counted", func() bool { return n.dropped(refusal.UpgradeFailed) == 1 })
			}
		})
	}
}

func TestWebsocketPortAnswersABrowserAndNonsense(t *testing.T) {
	n := newTestNet(t, Limits{}).start(t, "websocket", login)
	answer, err := http.Get("http://" + n.l.Addr().String() + "/")
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 400, answer.StatusCode)

	raw := n.rawDial(t, "")
	_, err = raw.Write(connectPacket)
	require.NoError(t, err)
	_, err = raw.Write([]byte("\r\n\r\n"))
	require.NoError(t, err)
	requireEnd(t, raw)
	eventually(t, "counted", func() bool { return n.dropped(refusal.UpgradeFailed) == 2 })

	early := n.rawDial(t, "") // MQTT without waiting for the answer to the upgrade
	_, err = fmt.Fprintf(early, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", connectPacket)
	require.NoError(t, err)
	requireEnd(t, early)
	eventually(t, "counted", func() bool { return n.dropped(refusal.UpgradeFailed) == 3 })
}
