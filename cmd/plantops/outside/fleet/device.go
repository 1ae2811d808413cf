//go:build linux

package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

const (
	window     = 20                   // readings that a device leaves unacknowledged
	tick       = 5 * time.Millisecond // how often a device looks whether a reading is due
	redialWait = 20 * time.Millisecond
)

// MetricName is the metric of every reading that a Device sends.
const MetricName = "soil_moisture"

// Device publishes numbered readings, remembers which were acknowledged, and after every loss of the connection
// connects again and sends what was not: with DUP and the same packet id. Reading n has a time of its own and the
// value n. Readings fall due at a steady rate, whether the device is connected or not.
type Device struct {
	ID, Secret   string
	Version, QoS byte
	Rate         float64   // readings a second
	Source       net.IP    // address that it connects from; nil leaves it to the system
	Through      door.Door // to the broker
	Epoch        time.Time // of reading 0; reading n is n milliseconds later
	Expected     []byte    // reasons of CONNACK and DISCONNECT that are no faults

	mu           sync.Mutex
	began        time.Time
	limit        int // no reading after it, 0 while there is no end
	sent         int // readings 1 to sent were published at least once
	inflight     []flight
	acknowledged []bool // by number of the reading
	faults       []error
	connections  int
	sentAway     int    // MQTT 5: times that it was told to try again later
	cut          func() // ends the connection; nil before the first one
}

// flight is a reading on its way.
type flight struct {
	number   int
	recorded bool // QoS 2: PUBREC came, so it is PUBREL's turn
}

// packetID is the same in every connection.
func packetID(number int) uint16 { return uint16((number-1)%65535) + 1 }

// Time is the one of a reading, in milliseconds.
func (d *Device) Time(number int) int64 { return d.Epoch.UnixMilli() + int64(number) }

// Payload is a reading as it is sent.
func (d *Device) Payload(number int) []byte {
	return fmt.Appendf(nil, `{"timestamp":%d,%q:%d}`, d.Time(number), MetricName, number)
}

// run connects again and again until ctx ends or everything is acknowledged after finish.
func (d *Device) run(ctx context.Context) {
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
func (d *Device) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = max(d.due(), 1)
}

func (d *Device) finished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit > 0 && d.sent >= d.limit && len(d.inflight) == 0
}

// due is how many readings there are by now.
func (d *Device) due() int {
	if d.limit > 0 {
		return d.limit
	}
	return int(time.Since(d.began).Seconds() * d.Rate)
}

// connect makes one connection and uses it until it ends.
func (d *Device) connect(ctx context.Context) error {
	ctx, done := context.WithCancel(ctx) // ends the connection
	defer done()
	d.mu.Lock()
	d.cut = done
	d.mu.Unlock()
	conn, err := d.Through.Dial(ctx, d.Source)
	if err != nil {
		return err
	}
	if err := write(conn, rawmqtt.Login{User: d.ID, Secret: d.Secret, ClientID: d.ID, Version: d.Version, Resume: true}.Encode()); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	if err := conn.SetReadDeadline(time.Now().Add(setting.Patience)); err != nil {
		return err
	}
	first, err := rawmqtt.Read(r)
	if err != nil {
		return err
	}
	if first.Kind == rawmqtt.Connack && (slices.Contains(notNow, first.Reason) || slices.Contains(d.Expected, first.Reason)) {
		return errEnded
	}
	if first.Kind != rawmqtt.Connack || first.Reason != 0 {
		return d.fault(fmt.Errorf("device %s: instead of a good CONNACK packet type %d, reason %#x", d.ID, first.Kind, first.Reason))
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	arrived := make(chan rawmqtt.Packet, 4*window)
	go func() {
		defer close(arrived)
		for {
			p, err := rawmqtt.Read(r)
			if err != nil {
				return
			}
			arrived <- p
		}
	}()
	err = d.talk(ctx, conn, arrived)
	done()
	for p := range arrived { // what was read off the socket was received
		d.receive(p)
	}
	return err
}

// notNow are the reasons for which a CONNACK may send a device away for the moment: unavailable (MQTT 3.1.1 and 5),
// busy, quota exceeded.
var notNow = []byte{3, 0x88, 0x89, rawmqtt.QuotaExceeded}

var errEnded = errors.New("connection ended")

// talk publishes and receives until the connection ends or there is nothing left to do.
func (d *Device) talk(ctx context.Context, conn net.Conn, arrived <-chan rawmqtt.Packet) error {
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
	return write(conn, rawmqtt.Encode(rawmqtt.Disconnect<<4, nil))
}

// write bounds how long a device waits for a server that does not read.
func write(conn net.Conn, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := conn.SetWriteDeadline(time.Now().Add(setting.Patience)); err != nil {
		return err
	}
	_, err := conn.Write(p)
	return err
}

// resend returns what was not acknowledged on the connection before.
func (d *Device) resend() (p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connections++
	for _, f := range d.inflight {
		if f.recorded {
			p = append(p, rawmqtt.EncodePubrel(packetID(f.number))...)
		} else {
			p = append(p, d.encode(f.number, true)...)
		}
	}
	return p
}

// publishDue returns the readings that are due, as many as fit into the window.
func (d *Device) publishDue() (p []byte) {
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

func (d *Device) encode(number int, dup bool) []byte {
	return rawmqtt.Message{QoS: d.QoS, Again: dup, V4: d.Version == 4, Topic: "devices/" + d.ID + "/telemetry", ID: packetID(number), Payload: d.Payload(number)}.Encode()
}

// receive takes note of a packet and returns the answer to it.
func (d *Device) receive(p rawmqtt.Packet) (answer []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.Kind == rawmqtt.Disconnect {
		if p.Reason == rawmqtt.QuotaExceeded {
			d.sentAway++
		} else if !slices.Contains(d.Expected, p.Reason) {
			d.faults = append(d.faults, fmt.Errorf("device %s: DISCONNECT with reason %#x", d.ID, p.Reason))
		}
		return nil
	}
	i := slices.IndexFunc(d.inflight, func(f flight) bool { return packetID(f.number) == p.ID })
	if i < 0 {
		if p.Kind == rawmqtt.Pubrec {
			return rawmqtt.EncodePubrel(p.ID)
		}
		return nil // acknowledged twice: once on a connection before
	}
	number := d.inflight[i].number
	switch {
	case Acknowledges(p, d.QoS):
		d.acknowledged[number] = true
		if p.Kind == rawmqtt.Pubrec {
			d.inflight[i].recorded = true
			return rawmqtt.EncodePubrel(p.ID)
		}
	case p.Kind == rawmqtt.Pubcomp && d.inflight[i].recorded: // also 0x92, packet id not found: the server was restarted in between
	default:
		d.faults = append(d.faults, fmt.Errorf("device %s: reading %d was answered with packet type %d, reason %#x",
			d.ID, number, p.Kind, p.Reason))
		return nil
	}
	d.inflight = slices.Delete(d.inflight, i, i+1)
	return nil
}

// Acknowledges tells whether a packet is the server's word that the reading is stored: PUBACK for QoS 1, PUBREC for
// QoS 2 (from then on the sender may forget the payload).
func Acknowledges(p rawmqtt.Packet, qos byte) bool {
	promise := map[byte]byte{1: rawmqtt.Puback, 2: rawmqtt.Pubrec}[qos]
	return p.Kind == promise && p.Reason < rawmqtt.FirstFailure
}

// fault remembers what a server must never do.
func (d *Device) fault(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, err)
	return err
}

// Snapshot is what a device, or all of a fleet, knows at one moment.
type Snapshot struct {
	Device                *Device
	Received              []bool // by number of the reading: acknowledged
	Sent, Acknowledged    int
	Connections, SentAway int
	Faults                []error
}

func (d *Device) snapshot() Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Snapshot{Device: d, Received: slices.Clone(d.acknowledged), Sent: d.sent,
		Connections: d.connections, SentAway: d.sentAway, Faults: slices.Clone(d.faults)}
	for number := 1; number <= d.sent; number++ {
		if d.acknowledged[number] {
			s.Acknowledged++
		}
	}
	return s
}
