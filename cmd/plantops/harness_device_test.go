//go:build linux

package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	window     = 20                   // readings that a device leaves unacknowledged
	tick       = 5 * time.Millisecond // how often a device looks whether a reading is due
	redialWait = 20 * time.Millisecond
	metricName = "soil_moisture"
)

// device publishes numbered readings, remembers which were acknowledged, and after every loss of the connection
// connects again and sends what was not: with DUP and the same packet id. Reading n has a time of its own and the
// value n. Readings fall due at a steady rate, whether the device is connected or not.
type device struct {
	id, secret   string
	version, qos byte
	rate         float64 // readings a second
	source       net.IP  // address that it connects from; nil leaves it to the system
	address      string
	tls          *tls.Config // nil: plain
	websocket    bool        // over a websocket, without TLS
	epoch        time.Time   // of reading 0; reading n is n milliseconds later
	expected     []byte      // reasons of CONNACK and DISCONNECT that are no faults

	mu           sync.Mutex
	began        time.Time
	limit        int // no reading after it, 0 while there is no end
	sent         int // readings 1 to sent were published at least once
	inflight     []flight
	acknowledged []bool // by number of the reading
	faults       []error
	connections  int
	sentAway     int // MQTT 5: times that it was told to try again later
}

// flight is a reading on its way.
type flight struct {
	number   int
	recorded bool // QoS 2: PUBREC came, so it is PUBREL's turn
}

// packetID is the same in every connection.
func packetID(number int) uint16 { return uint16((number-1)%65535) + 1 }

func (d *device) time(number int) int64 { return d.epoch.UnixMilli() + int64(number) }

func (d *device) payload(number int) []byte {
	return fmt.Appendf(nil, `{"timestamp":%d,%q:%d}`, d.time(number), metricName, number)
}

// run connects again and again until ctx ends or everything is acknowledged after finish.
func (d *device) run(ctx context.Context) {
	d.mu.Lock()
	d.began, d.acknowledged = time.Now(), []bool{true} // there is no reading 0
	d.mu.Unlock()
	for ctx.Err() == nil && !d.finished() {
		if err := d.connect(ctx); err != nil {
			select { // a real device waits before it tries again
			case <-ctx.Done():
			case <-time.After(redialWait):
			}
		}
	}
}

// finish makes what is due now the last readings.
func (d *device) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = max(d.due(), 1)
}

func (d *device) finished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit > 0 && d.sent >= d.limit && len(d.inflight) == 0
}

// due is how many readings there are by now.
func (d *device) due() int {
	if d.limit > 0 {
		return d.limit
	}
	return int(time.Since(d.began).Seconds() * d.rate)
}

// connect makes one connection and uses it until it ends.
func (d *device) connect(ctx context.Context) error {
	dialer := &net.Dialer{Timeout: patience}
	if d.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: d.source}
	}
	socket, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	conn := socket
	if d.tls != nil {
		conn = tls.Client(socket, d.tls)
	}
	if d.websocket {
		if conn, err = overWebsocket(socket); err != nil {
			return err
		}
	}
	if err := write(conn, encodeConnect(d.version, d.id, d.secret)); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	first, err := readPacket(r)
	if err != nil {
		return err
	}
	if first.kind == connack && (slices.Contains(notNow, first.reason) || slices.Contains(d.expected, first.reason)) {
		return errEnded
	}
	if first.kind != connack || first.reason != 0 {
		return d.fault(fmt.Errorf("device %s: instead of a good CONNACK packet type %d, reason %#x", d.id, first.kind, first.reason))
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	arrived := make(chan packet, 4*window)
	go func() {
		defer close(arrived)
		for {
			p, err := readPacket(r)
			if err != nil {
				return
			}
			arrived <- p
		}
	}()
	err = d.talk(ctx, conn, arrived)
	socket.Close()
	for p := range arrived { // what was read off the socket was received
		d.receive(p)
	}
	return err
}

// notNow are the reasons for which a CONNACK may send a device away for the moment: unavailable (MQTT 3.1.1 and 5),
// busy, quota exceeded.
var notNow = []byte{3, 0x88, 0x89, quotaExceeded}

var errEnded = errors.New("connection ended")

// talk publishes and receives until the connection ends or there is nothing left to do.
func (d *device) talk(ctx context.Context, conn net.Conn, arrived <-chan packet) error {
	if err := write(conn, d.resend()); err != nil {
		return err
	}
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for !d.finished() {
		var answer []byte
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, open := <-arrived:
			if !open {
				return errEnded
			}
			answer = d.receive(p)
		case <-clock.C:
		}
		if err := write(conn, append(answer, d.publishDue()...)); err != nil {
			return err
		}
	}
	return write(conn, encode(disconnect<<4, nil))
}

// write bounds how long a device waits for a server that does not read.
func write(conn net.Conn, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := conn.Write(p)
	return err
}

// resend returns what was not acknowledged on the connection before.
func (d *device) resend() (p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connections++
	for _, f := range d.inflight {
		if f.recorded {
			p = append(p, encodePubrel(packetID(f.number))...)
		} else {
			p = append(p, d.encode(f.number, true)...)
		}
	}
	return p
}

// publishDue returns the readings that are due, as many as fit into the window.
func (d *device) publishDue() (p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for due := d.due(); d.sent < due && len(d.inflight) < window; {
		d.sent++
		d.acknowledged = append(d.acknowledged, false)
		d.inflight = append(d.inflight, flight{number: d.sent})
		p = append(p, d.encode(d.sent, false)...)
	}
	return p
}

func (d *device) encode(number int, dup bool) []byte {
	return encodePublish(d.version, d.qos, dup, "devices/"+d.id+"/telemetry", packetID(number), d.payload(number))
}

// receive takes note of a packet and returns the answer to it.
func (d *device) receive(p packet) (answer []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.kind == disconnect {
		if p.reason == quotaExceeded {
			d.sentAway++
		} else if !slices.Contains(d.expected, p.reason) {
			d.faults = append(d.faults, fmt.Errorf("device %s: DISCONNECT with reason %#x", d.id, p.reason))
		}
		return nil
	}
	i := slices.IndexFunc(d.inflight, func(f flight) bool { return packetID(f.number) == p.id })
	if i < 0 {
		if p.kind == pubrec {
			return encodePubrel(p.id)
		}
		return nil // acknowledged twice: once on a connection before
	}
	number := d.inflight[i].number
	switch {
	case acknowledges(p, d.qos):
		d.acknowledged[number] = true
		if p.kind == pubrec {
			d.inflight[i].recorded = true
			return encodePubrel(p.id)
		}
	case p.kind == pubcomp && d.inflight[i].recorded: // also 0x92, packet id not found: the server was restarted in between
	default:
		d.faults = append(d.faults, fmt.Errorf("device %s: reading %d was answered with packet type %d, reason %#x",
			d.id, number, p.kind, p.reason))
		return nil
	}
	d.inflight = slices.Delete(d.inflight, i, i+1)
	return nil
}

// acknowledges tells whether a packet is the server's word that the reading is stored: PUBACK for QoS 1, PUBREC for
// QoS 2 (from then on the sender may forget the payload).
func acknowledges(p packet, qos byte) bool {
	promise := map[byte]byte{1: puback, 2: pubrec}[qos]
	return p.kind == promise && p.reason < firstFailure
}

// fault remembers what a server must never do.
func (d *device) fault(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, err)
	return err
}

// snapshot is what a device, or all of a fleet, knows at one moment.
type snapshot struct {
	device                *device
	received              []bool // by number of the reading: acknowledged
	sent, acknowledged    int
	connections, sentAway int
	faults                []error
}

func (d *device) snapshot() snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := snapshot{device: d, received: slices.Clone(d.acknowledged), sent: d.sent,
		connections: d.connections, sentAway: d.sentAway, faults: slices.Clone(d.faults)}
	for number := 1; number <= d.sent; number++ {
		if d.acknowledged[number] {
			s.acknowledged++
		}
	}
	return s
}
