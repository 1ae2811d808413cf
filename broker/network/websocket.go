package network

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const (
	upgradeBytes = 8 << 10 // the most that the HTTP request of the upgrade may have

	// messageFactor times MaxPacketBytes is the largest websocket message: it may hold several packets. It is read as
	// a stream, so the limit costs no memory.
	messageFactor = 4
)

// subprotocols are what we speak, the better one first. The second is the name used before MQTT 3.1.1.
var subprotocols = []string{"mqtt", "mqttv3.1"}

var websocketBuffers sync.Pool // write buffers; a connection has one only while it writes

// upgrade answers the HTTP request with which a websocket begins.
//
// A client that offers no sub-protocol is let in although [MQTT-6.0.0-3] demands one: simple tools do that and it
// harms nobody. One that offers only others is refused, it means something else. Any path will do.
func (c *Conn) upgrade() (*webSocket, error) {
	limited := &io.LimitedReader{R: &c.socket, N: upgradeBytes}
	request := bufio.NewReader(limited)
	if err := checkRequest(request); err != nil {
		return nil, err
	}
	r, err := http.ReadRequest(request)
	w := &upgradeWriter{c: c, request: request, header: make(http.Header)}
	if err != nil && limited.N <= 0 {
		http.Error(w, errTooLarge.Error(), http.StatusRequestHeaderFieldsTooLarge)
		return nil, errTooLarge
	}
	if err != nil {
		return nil, requestFault(err)
	}
	offered := websocket.Subprotocols(r)
	if len(offered) > 0 && !slices.ContainsFunc(offered, func(s string) bool { return slices.Contains(subprotocols, s) }) {
		http.Error(w, "this is an MQTT server: offer the sub-protocol mqtt", http.StatusBadRequest)
		return nil, errors.New("the client offers only sub-protocols that are not mqtt")
	}
	if origin := r.Header.Get("Origin"); !originAllowed(origin, r.Host, c.n.options.AllowedOrigins) {
		http.Error(w, "this origin is not allowed", http.StatusForbidden)
		return nil, foreignOrigin(origin)
	}
	upgrader := websocket.Upgrader{
		Subprotocols:    subprotocols,
		CheckOrigin:     func(*http.Request) bool { return true }, // done above
		ReadBufferSize:  2048,
		WriteBufferSize: 4096,
		WriteBufferPool: &websocketBuffers,
	}
	inner, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	ws := &webSocket{Conn: inner}
	ws.closeCode.Store(websocket.CloseNormalClosure)
	inner.SetReadLimit(messageFactor * int64(c.n.options.Limits.MaxPacketBytes))
	inner.SetPingHandler(func(data string) error { c.answerPing(data); return nil })
	inner.SetCloseHandler(func(int, string) error { return nil }) // answered by writeClose
	return ws, nil
}

// originAllowed is the protection against a page of another site that talks to the broker through a visitor's
// browser. Only browsers send an Origin; it may be our own host or one of allowed ("*" for all).
func originAllowed(origin, host string, allowed []string) bool {
	if origin == "" || slices.Contains(allowed, "*") {
		return true
	}
	if slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(strings.TrimSuffix(a, "/"), origin) }) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// upgradeWriter lets the upgrader answer on a bare connection.
type upgradeWriter struct {
	c       *Conn
	request *bufio.Reader
	header  http.Header
	status  int
}

func (w *upgradeWriter) Header() http.Header    { return w.header }
func (w *upgradeWriter) WriteHeader(status int) { w.status = status }

// Write sends the whole answer; the upgrader writes an error in one piece.
func (w *upgradeWriter) Write(body []byte) (int, error) {
	answer := http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Header: w.header, Close: true,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	var text bytes.Buffer
	if err := answer.Write(&text); err != nil {
		return 0, err
	}
	if _, err := w.c.socket.Write(text.Bytes()); err != nil {
		return 0, err
	}
	return len(body), nil
}

// Hijack hands over the socket.
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return &w.c.socket, bufio.NewReadWriter(w.request, bufio.NewWriterSize(&w.c.socket, 512)), nil
}

// webSocket carries MQTT in binary messages; packets may span them or share one.
// Read belongs to the reader, everything else to the writer; gorilla keeps their frames apart.
type webSocket struct {
	*websocket.Conn
	message   io.Reader    // what is being read; nil = between messages
	closeCode atomic.Int32 // what writeClose will say
}

// Read reads from the current message and goes on to the next one.
func (s *webSocket) Read(p []byte) (int, error) {
	for {
		if s.message == nil {
			kind, message, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage { // [MQTT-6.0.0-1]
				s.closeCode.Store(websocket.CloseUnsupportedData)
				return 0, errors.New("read websocket: a text message, MQTT is sent in binary ones")
			}
			s.message = message
		}
		n, err := s.message.Read(p)
		if err == io.EOF {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// ended turns an error of Read that is not the socket's into io.EOF when the client closed in good order; anything
// else is a frame that it should not have sent.
func (s *webSocket) ended(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return io.EOF
	}
	return err
}

// Write sends p as one message.
func (s *webSocket) Write(p []byte) (int, error) {
	if err := s.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *webSocket) writePong(data string) error {
	return s.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(defaultWriteTimeout))
}

// writeClose begins or answers the closing handshake.
func (s *webSocket) writeClose() {
	s.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(int(s.closeCode.Load()), ""), time.Now().Add(flushTimeout))
}
