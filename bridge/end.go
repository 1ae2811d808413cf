package bridge

import (
	"bufio"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

const (
	// fullBytes is how much may wait for a broker's socket before messages of QoS 0 wait; messages of QoS 1 and 2 are bounded by
	// receiveMaximum.
	fullBytes = 1 << 20
	// longestWait is how long a message of QoS 0 waits for a broker that takes nothing; those after it do not wait. It holds up
	// the acknowledgements behind it, and those who publish at the other broker.
	longestWait = time.Second
	// farewell is how long a connection may take to end in order.
	farewell = time.Second
	// chunkBytes is the most that is written within Options.Patience.
	chunkBytes = 16 << 10
)

// end is the connection to one broker.
type end struct {
	o        *Broker
	conn     net.Conn // TCP or TLS
	socket   net.Conn // the TCP connection below, to cut it without ceremony
	in       *bufio.Reader
	patience time.Duration

	// What its CONNACK says.
	present   bool
	keepalive time.Duration
	window    int // messages of QoS 1 and 2 that it takes at a time
	largest   int // bytes of a packet
	maxQoS    byte
	noRetain  bool
	box       string // what a broker of ours, but the local one, calls itself; "": it is none

	mu      sync.Mutex
	waiting []byte        // to be written
	wake    chan struct{} // there is something in waiting
	room    chan struct{} // closed and made anew when waiting was taken
	deaf    bool          // a message has waited for room in vain, and nothing was taken since
	over    bool          // cut
	leaving bool          // what waits is the last
	written chan struct{} // write has ended
}

func newEnd(o *Broker, socket net.Conn, patience time.Duration) *end {
	return &end{o: o, conn: socket, socket: socket, patience: patience, window: 65535, largest: 268_435_460, maxQoS: 2,
		wake: make(chan struct{}, 1), room: make(chan struct{}), written: make(chan struct{})}
}

// receive reads the next packet, or fails when none has come in time.
func (e *end) receive(within time.Duration) (*packets.ControlPacket, error) {
	if err := e.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	return readPacket(e.in, e.o.MaxPacketBytes)
}

// sendNow writes a packet before write runs.
func (e *end) sendNow(p *packets.ControlPacket) error { return e.writeNow(encode(p)) }

func (e *end) writeNow(data []byte) error {
	if err := e.conn.SetWriteDeadline(time.Now().Add(e.patience)); err != nil {
		return err
	}
	_, err := e.conn.Write(data)
	return err
}

// send puts a packet behind those that wait to be written. It never waits itself.
func (e *end) send(data []byte) {
	e.mu.Lock()
	e.waiting = append(e.waiting, data...)
	e.mu.Unlock()
	e.rouse()
}

// rouse lets write look.
func (e *end) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// offer is send for a message of QoS 0, which nobody sends again: it waits for room, a second at most without progress, and
// reports whether there was some.
func (e *end) offer(data []byte) bool {
	for {
		e.mu.Lock()
		full, room, deaf := len(e.waiting) >= fullBytes && !e.over, e.room, e.deaf
		e.mu.Unlock()
		switch {
		case !full:
			e.send(data)
			return true
		case deaf:
			return false
		}
		late := time.NewTimer(longestWait)
		select {
		case <-room:
			late.Stop()
		case <-late.C:
			e.mu.Lock()
			e.deaf = true
			e.mu.Unlock()
			return false
		}
	}
}

// write writes what send is given until the connection ends, and a PINGREQ twice in each keepalive, so that the answer shows
// that the broker is there.
func (e *end) write() error {
	defer close(e.written)
	ping := time.NewTicker(e.keepalive / 2)
	defer ping.Stop()
	var data []byte
	for {
		select {
		case <-e.wake:
		case <-ping.C:
			e.send([]byte{packets.PINGREQ << 4, 0})
		}
		e.mu.Lock()
		data, e.waiting = e.waiting, data[:0]
		over, leaving := e.over, e.leaving
		close(e.room)
		e.room = make(chan struct{})
		e.mu.Unlock()
		if over {
			return net.ErrClosed
		}
		if leaving {
			data = append(data, goodbye...)
		}
		for part := range slices.Chunk(data, chunkBytes) { // each has its own deadline: a link may be slow
			if err := e.writeNow(part); err != nil {
				return err
			}
			e.mu.Lock()
			e.deaf = false
			e.mu.Unlock()
		}
		if leaving {
			return net.ErrClosed
		}
		if cap(data) > 2*fullBytes {
			data = nil
		}
	}
}

// goodbye ends a connection in order: the session stays for as long as CONNECT said.
var goodbye = []byte{packets.DISCONNECT << 4, 0}

// leave lets write send what waits, acknowledgements above all, and a goodbye, and end.
func (e *end) leave() {
	e.mu.Lock()
	e.leaving = true
	e.mu.Unlock()
	e.rouse()
}

// close ends a connection that write does not serve.
func (e *end) close() {
	_ = e.conn.SetWriteDeadline(time.Now().Add(farewell))
	_, _ = e.conn.Write(goodbye) // it may be gone
	e.cut()
}

// cut ends the connection, and write with it.
func (e *end) cut() {
	e.mu.Lock()
	e.over = true
	e.mu.Unlock()
	e.rouse()
	e.socket.Close()
}
