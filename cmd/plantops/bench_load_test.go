//go:build linux

package main_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// load is what a scenario of the benchmark sends: raw MQTT 3.1.1, so that the client costs little beside the server.
type load struct {
	address  string
	tls      *tls.Config // nil: plain
	qos      byte
	devices  int
	readings int // of all devices
	window   int // unacknowledged readings per device
	rate     int // readings a second of all devices; 0: as fast as it goes
	secrets  map[string]string
}

// result is what the clients saw.
type result struct {
	acknowledged int
	latencies    []time.Duration // sorted
}

func (r *result) quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(q*float64(len(r.latencies)-1))]
}

// publisher is one device of a load.
type publisher struct {
	load *load
	id   string
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer

	slots     chan struct{} // one for each unacknowledged reading
	sentAt    []time.Time   // by packet id
	latencies []time.Duration
}

func deviceID(i int) string { return fmt.Sprint("bed-", i+1) }

// connect connects all devices, a few at a time.
func (l *load) connect() (all []*publisher, err error) {
	all = make([]*publisher, l.devices)
	errs := make([]error, l.devices)
	var wg sync.WaitGroup
	few := make(chan struct{}, 16)
	for i := range all {
		few <- struct{}{}
		wg.Go(func() {
			all[i], errs[i] = l.login(deviceID(i))
			<-few
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

func (l *load) login(id string) (*publisher, error) {
	conn, err := net.DialTimeout("tcp", l.address, patience)
	if err != nil {
		return nil, err
	}
	if l.tls != nil {
		conn = tls.Client(conn, l.tls)
	}
	p := &publisher{load: l, id: id, conn: conn, in: bufio.NewReaderSize(conn, 4<<10), out: bufio.NewWriterSize(conn, 16<<10),
		slots: make(chan struct{}, l.window), sentAt: make([]time.Time, l.readings/l.devices+1)}
	if _, err := conn.Write(encodeConnect(4, id, l.secrets[id])); err != nil {
		return nil, err
	}
	answer, err := readPacket(p.in)
	if err == nil && (answer.kind != connack || answer.reason != 0) {
		err = fmt.Errorf("device %s: instead of a good CONNACK packet type %d, reason %d", id, answer.kind, answer.reason)
	}
	return p, err
}

// run sends everything and returns when it is acknowledged or, with QoS 0, read by the server.
func (l *load) run(all []*publisher) (*result, error) {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { errs[i] = p.run(i) })
	}
	wg.Wait()
	r := &result{}
	for _, p := range all {
		r.latencies = append(r.latencies, p.latencies...)
		p.conn.Close()
	}
	r.acknowledged = len(r.latencies)
	slices.Sort(r.latencies)
	return r, errors.Join(errs...)
}

func (p *publisher) run(number int) error {
	count := p.load.readings / p.load.devices
	received := make(chan error, 1)
	if p.load.qos == 0 {
		go func() { received <- p.awaitPong() }()
	} else {
		go func() { received <- p.awaitAcknowledgements(count) }()
	}
	if err := p.send(number, count); err != nil {
		p.conn.Close()
		return errors.Join(fmt.Errorf("device %s: %w", p.id, err), <-received)
	}
	return <-received
}

func (p *publisher) send(number, count int) error {
	l := p.load
	epoch := time.Now().Add(-time.Hour).UnixMilli()
	topic := "devices/" + p.id + "/telemetry"
	var gap time.Duration
	if l.rate > 0 {
		gap = time.Second * time.Duration(l.devices) / time.Duration(l.rate)
	}
	next := time.Now().Add(gap * time.Duration(number) / time.Duration(l.devices)) // not all at one moment
	var packet, payload []byte
	for n := 1; n <= count; n++ {
		if gap > 0 {
			if err := p.out.Flush(); err != nil {
				return err
			}
			<-time.After(time.Until(next))
			next = next.Add(gap)
		}
		if l.qos > 0 {
			if err := p.takeSlot(); err != nil {
				return err
			}
			p.sentAt[n] = time.Now()
		}
		payload = appendReading(payload[:0], epoch+int64(n), n)
		packet = appendPublish(packet[:0], topic, l.qos, uint16(n), payload)
		if _, err := p.out.Write(packet); err != nil {
			return err
		}
	}
	if l.qos == 0 {
		if _, err := p.out.Write(encode(pingreq<<4, nil)); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

// takeSlot waits for room in the window; what was written leaves before a wait.
func (p *publisher) takeSlot() error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	if err := p.out.Flush(); err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-time.After(patience):
		return errors.New("no acknowledgement comes")
	}
}

func (p *publisher) awaitAcknowledgements(count int) error {
	p.latencies = make([]time.Duration, 0, count)
	for len(p.latencies) < count {
		answer, err := readPacket(p.in)
		if err != nil {
			return fmt.Errorf("device %s: acknowledgement %d of %d: %w", p.id, len(p.latencies)+1, count, err)
		}
		if answer.kind == puback {
			p.latencies = append(p.latencies, time.Since(p.sentAt[answer.id]))
			<-p.slots
		}
	}
	return nil
}

const (
	subscribe = 8
	suback    = 9
	pingreq   = 12
	pingresp  = 13
)

// awaitPong waits for the answer to a ping behind everything else: then the server has read it.
func (p *publisher) awaitPong() error {
	for {
		answer, err := readPacket(p.in)
		if err != nil {
			return fmt.Errorf("device %s: answer to a ping: %w", p.id, err)
		}
		if answer.kind == pingresp {
			return nil
		}
	}
}

// appendReading appends what a sensor sends.
func appendReading(p []byte, time int64, n int) []byte {
	p = strconv.AppendInt(append(p, `{"timestamp":`...), time, 10)
	p = strconv.AppendFloat(append(p, `,"soil_moisture":`...), 30+float64(n%400)/10, 'f', 1, 64)
	p = strconv.AppendFloat(append(p, `,"temperature":`...), 18+float64(n%100)/10, 'f', 1, 64)
	p = strconv.AppendFloat(append(p, `,"humidity":`...), 40+float64(n%300)/10, 'f', 1, 64)
	p = strconv.AppendInt(append(p, `,"light_level":`...), int64(200+n%800), 10)
	return append(p, '}')
}

// appendPublish is encodePublish for MQTT 3.1.1 without garbage, and for QoS 0 too.
func appendPublish(p []byte, topic string, qos byte, id uint16, payload []byte) []byte {
	length := 2 + len(topic) + len(payload)
	if qos > 0 {
		length += 2
	}
	p = binary.AppendUvarint(append(p, publish<<4|qos<<1), uint64(length))
	p = appendString(p, topic)
	if qos > 0 {
		p = binary.BigEndian.AppendUint16(p, id)
	}
	return append(p, payload...)
}
