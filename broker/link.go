package broker

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/validate"
)

// clientLink is one connection as the core sees it: the network's Conn, and who is behind it. Everything about it happens in its reader's goroutine, except where a field says otherwise.
type clientLink struct {
	*network.Conn
	hook  *hook
	ended ending // of all that concerns the connection

	// Written before sessions.claim and only read afterwards, by anybody.
	id        string // the client id, once there is a CONNECT
	asked     asked
	account   string
	rights    *access.Rights // that of others of the account, where they are the same
	since     int64          // Unix time, ns
	willBytes int32          // of the CONNECT, if there is a will in it
	throttled bool           // its password was refused unseen, or answered late
	asksName  bool           // it wants to know Options.Name

	attached        bool                  // to the session of peer
	present         bool                  // there was a session: for the CONNACK
	lasting         bool                  // the session outlives the connection, on disk
	goodbye         bool                  // the client sent DISCONNECT 0x00: no will
	lost            bool                  // nothing more can be read
	impatient       bool                  // it sent what ingest stores soon after the last time
	untaken         bool                  // it ended before a message was let into the store
	emptyWill       bool                  // the will has no payload
	noWill          bool                  // the will is that of a bridge, and ignored
	stateSaid       bool                  // that is logged
	bridge          validate.BridgeBit    // whether it is a bridge of Mosquitto's
	peer            *peer                 // set by claim
	work            *work                 // of the round; nil between two
	turn            *turn                 // its place in the queue for credits; nil: it has never waited there
	now             time.Time             // of the last Read: a clock for what was read together
	screen          validate.Screen       // what is read goes through it
	wrong           *validate.PacketFault // with the packet after those that were read
	partial         partial               // of what was read last
	aliases         *aliases              // nil: no topic has a number yet
	sentAt          time.Duration         // when that was, since the start
	lastTopic       string                // the topic that it published to last, judged and found right
	lastSubscribers *subscribers          // of that topic

	started     bool                   // CONNACK is in the queue; guarded by peer.mu
	over        bool                   // finished, nothing more may be written; guarded by peer.mu
	established atomic.Bool            // CONNACK sent
	evicted     atomic.Bool            // nothing of its session may stay
	revoked     atomic.Bool            // its certificate is: no will
	cause       atomic.Pointer[string] // why we ended it, for the log
}

// asked is what the CONNECT has said of the packets that the client gets.
type asked struct {
	version   byte   // of the protocol
	noReasons bool   // in words
	maxPacket uint32 // bytes; 0: no limit
}

// mochi makes what mochi writes a packet with. It costs more than a kilobyte, which is why nobody keeps it.
func (l *clientLink) mochi() *mqtt.Client {
	cl := l.hook.server.NewClient(l, l.Kind(), l.id, false)
	cl.Properties.ProtocolVersion = l.asked.version
	cl.Properties.Props.MaximumPacketSize = l.asked.maxPacket
	cl.Properties.Props.RequestProblemInfoFlag = l.asked.noReasons // what is asked is 0
	return cl
}

// defaultPacketTimeout, and another second for each KiB, is how long the rest of a packet may take. TCP doubles its
// pauses between attempts, so after a gap of 100 s in a radio link the client is heard again within this time; 1 KiB/s
// is less than a GPRS modem does. The keepalive does not help here: a byte now and then is a sign of life.
const defaultPacketTimeout = 2 * time.Minute

func newLink(h *hook, c *network.Conn) *clientLink {
	return &clientLink{Conn: c, hook: h}
}

// Read reads what has come and judges the form of it. It ends before a packet of wrong form, and the next call returns what
// is wrong with that, a *validate.PacketFault. It sends nothing.
func (l *clientLink) Read(p []byte) (int, error) {
	if l.wrong != nil {
		return 0, l.wrong
	}
	n, err := l.Conn.Read(p)
	if l.attached && (n > 0 || err != network.ErrNoInput) {
		l.now, l.lost = l.hook.now(), err != nil && err != network.ErrNoInput
	}
	if l.screen.Version == 0 {
		l.bridge.Take(p[:n])
	}
	good, wrong := l.screen.Pass(p[:n])
	if l.wrong = wrong; wrong != nil && good == 0 {
		return 0, wrong
	}
	underWay, fresh, size := l.screen.UnderWay()
	l.AwaitPacket(underWay, fresh, l.hook.packetTimeout+time.Duration(size>>10)*time.Second)
	if err != nil && l.Late() {
		return 0, validate.Violation(packets.Reserved, refusal.PacketUnfinished)
	}
	return good, err
}

// ending is something that ends, which others may wait for. Mostly nobody does.
type ending struct {
	mu   sync.Mutex
	over bool
	done chan struct{} // nil: nobody has asked for it
}

// come says that it has ended. It is called once.
func (e *ending) come() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	if e.done != nil {
		close(e.done)
	}
}

func (e *ending) isOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over
}

// Done is closed when it has ended.
func (e *ending) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = make(chan struct{})
		if e.over {
			close(e.done)
		}
	}
	return e.done
}

// hasEnded reports whether we have let go of the connection, or there is none.
func (l *clientLink) hasEnded() bool { return l == nil || l.ended.isOver() }

// endsWithin waits until we have let go of the connection, at most d, and reports whether we have.
func (l *clientLink) endsWithin(d time.Duration) bool {
	if l.hasEnded() {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.ended.Done():
		return true
	case <-timer.C:
		return false
	}
}

// because notes why the connection ends, for the log, and reports whether it is the first reason, which counts.
func (l *clientLink) because(reason string) bool { return l.cause.CompareAndSwap(nil, &reason) }

// attrs says which connection a log line is about.
func (l *clientLink) attrs() []any {
	return []any{"user", l.account, "client", l.id, "listener", l.Kind(), "remote", l.RemoteAddr().String()}
}

// endReason puts why a connection ended into words: our reason, else the client's goodbye, else what the socket said.
func endReason(l *clientLink, err error) string {
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	if err == nil {
		return "disconnected by client"
	}
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "keepalive timeout"
	}
	if errors.Is(err, io.EOF) {
		return "connection closed by client"
	}
	return err.Error()
}
