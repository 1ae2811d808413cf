package ingest

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/require"
)

const patience = 30 * time.Second

// server is a small MQTT 5 server for one client: it does what a test tells it to, which a real broker would not. What
// is published and not acknowledged is sent again on the next connection, as a session demands.
type server struct {
	t        testing.TB
	listener net.Listener
	present  bool // answer that the session is, from the second connection on
	connack  byte // reason codes to answer with
	suback   byte

	mu      sync.Mutex
	changed sync.Cond // anything below
	clients int       // subscriptions so far
	current *serverConn
	connect *packets.Connect
	request *packets.Subscribe
	nextID  uint16
	unacked []*packets.Publish
	acks    []uint16 // in the order they came, of all connections
	stray   []uint16 // acknowledgements of what was not open on that connection
	parted  bool     // the last connection ended with DISCONNECT
}

type serverConn struct {
	net.Conn
	open map[uint16]bool // sent on this connection, not acknowledged
}

// serve starts a server; config nil means plain TCP.
func serve(t testing.TB, config *tls.Config) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveOn(t, listener, config)
}

func serveOn(t testing.TB, listener net.Listener, config *tls.Config) *server {
	s := &server{t: t, listener: listener}
	s.changed.L = &s.mu
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			handlers.Go(func() { s.handle(c) })
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		s.cut()
		handlers.Wait()
	})
	return s
}

func (s *server) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *server) handle(c net.Conn) {
	defer c.Close()
	sc := &serverConn{Conn: c, open: map[uint16]bool{}}
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		s.mu.Lock()
		switch content := p.Content.(type) {
		case *packets.Connect:
			s.connect, s.current, s.parted = content, sc, false
			(&packets.Connack{ReasonCode: s.connack, SessionPresent: s.present && s.clients > 0, Properties: &packets.Properties{}}).WriteTo(c)
		case *packets.Subscribe:
			(&packets.Suback{PacketID: content.PacketID, Properties: &packets.Properties{},
				Reasons: slices.Repeat([]byte{s.suback}, len(content.Subscriptions))}).WriteTo(c)
			s.request = content
			s.clients++
			for _, m := range s.unacked {
				m.Duplicate = true
				s.send(m)
			}
		case *packets.Puback:
			s.acks = append(s.acks, content.PacketID)
			if !sc.open[content.PacketID] {
				s.stray = append(s.stray, content.PacketID)
			}
			delete(sc.open, content.PacketID)
			s.unacked = slices.DeleteFunc(s.unacked, func(m *packets.Publish) bool { return m.PacketID == content.PacketID })
		case *packets.Pingreq:
			packets.NewControlPacket(packets.PINGRESP).WriteTo(c)
		case *packets.Disconnect:
			s.parted = true
		}
		s.changed.Broadcast()
		s.mu.Unlock()
	}
}

// send writes to the current connection; s.mu is held.
func (s *server) send(m *packets.Publish) {
	if s.current != nil {
		s.current.open[m.PacketID] = true
		m.WriteTo(s.current)
	}
}

// publish sends a message and returns its packet id, 0 for QoS 0.
func (s *server) publish(topic, payload string, qos byte) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &packets.Publish{Topic: topic, Payload: []byte(payload), QoS: qos, Properties: &packets.Properties{}}
	if qos > 0 {
		s.nextID++
		m.PacketID = s.nextID
		s.unacked = append(s.unacked, m)
	}
	s.send(m)
	return m.PacketID
}

// cut ends the current connection without a word.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		s.current.Close()
		s.current = nil
	}
}

// disconnect ends the current connection with a reason code.
func (s *server) disconnect(code byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	(&packets.Disconnect{ReasonCode: code, Properties: &packets.Properties{}}).WriteTo(s.current)
	s.current = nil
}

// await waits until the condition holds; it is called with s.mu held.
func (s *server) await(what string, condition func() bool) {
	s.t.Helper()
	late := time.AfterFunc(patience, s.changed.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !condition() {
		require.True(s.t, time.Now().Before(deadline), "still waiting: %s", what)
		s.changed.Wait()
	}
}

func (s *server) awaitSubscriptions(n int) {
	s.t.Helper()
	s.await("subscription", func() bool { return s.clients >= n && s.current != nil })
}

func (s *server) awaitAcks(ids ...uint16) {
	s.t.Helper()
	s.await("acknowledgements", func() bool { return len(s.acks) >= len(ids) })
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(s.t, ids, s.acks)
	require.Empty(s.t, s.stray)
}

func (s *server) acknowledged() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acks)
}
