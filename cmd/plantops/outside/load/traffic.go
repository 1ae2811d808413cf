//go:build linux

package load

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Account is who logs in, and as which client; the zero value is nobody with an id that the broker gives.
type Account struct {
	User, Secret, ClientID string
}

// Traffic is messages from publishers to subscribers, as fast as it goes, in raw MQTT 3.1.1.
type Traffic struct {
	Address    string
	QoS        byte
	Retain     bool
	Publishers int
	Messages   int // of all publishers
	Window     int // unacknowledged messages per publisher
	Size       int // of a payload in bytes; 0: a reading
	Login      func(i int) Account
	Topic      func(i, n int) string // of message n, from 1, of publisher i
	Readers    []Reader
	Silence    time.Duration // so long nothing comes when nothing comes any more; 0: 5 s
	Begins     func()        // called when all are connected and nothing is sent yet; nil: not
	Ends       func()        // called when nothing comes any more and all are connected still; nil: not
}

// Reader is a subscriber.
type Reader struct {
	Account
	Filter string
	QoS    byte
	Resume bool // it keeps its session
	Away   bool // it subscribes and goes, and comes back when the publishers have sent everything
	Rate   int  // messages a second that it reads while the publishers send, and at full speed afterwards; 0: always that
}

// Seen is what the clients of a traffic saw.
type Seen struct {
	Result
	Sent     int
	Took     time.Duration   // from the first message to the last acknowledgement
	Received []int           // by reader
	Last     []time.Duration // when its last message came, by reader
	Late     []int           // of Received, those after Took
}

// Delivered is how many messages came in all, and when the last of them did.
func (s *Seen) Delivered() (count int, last time.Duration) {
	for _, n := range s.Received {
		count += n
	}
	return count, max(s.Took, slices.Max(append(s.Last, 0)))
}

// Go connects all, sends everything, and returns when every reader has everything or nothing comes any more.
func (t *Traffic) Go() (*Seen, error) {
	readers, err := t.enter()
	defer func() {
		for _, r := range readers {
			r.conn.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	l := &Load{Address: t.Address, QoS: t.QoS, Devices: t.Publishers, Readings: t.Messages, Window: t.Window}
	all := make([]*Publisher, t.Publishers)
	if err := eachOf(len(all), func(i int) (err error) {
		a := t.Login(i)
		all[i], err = l.enter(a, false)
		return err
	}); err != nil {
		return nil, err
	}
	if t.Begins != nil {
		t.Begins()
	}
	began, done := time.Now(), make(chan struct{})
	for _, r := range readers {
		if r.Away {
			if err := r.leave(); err != nil {
				return nil, err
			}
			continue
		}
		go r.run(began, done)
	}
	s := &Seen{Sent: t.Messages / t.Publishers * t.Publishers}
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { errs[i] = p.carry(t, i) })
	}
	wg.Wait()
	s.Took = time.Since(began)
	for _, r := range readers {
		r.early = r.count.Load()
		if r.Away {
			errs = append(errs, r.comeBack(t, began, done))
		}
	}
	close(done)
	for _, p := range all {
		s.latencies = append(s.latencies, p.latencies...)
	}
	s.Acknowledged = len(s.latencies)
	slices.Sort(s.latencies)
	t.await(readers, s.Sent)
	if t.Ends != nil {
		t.Ends()
	}
	for _, p := range all {
		p.conn.Close()
	}
	for _, r := range readers {
		s.Received = append(s.Received, int(r.count.Load()))
		s.Late = append(s.Late, int(r.count.Load()-r.early))
		s.Last = append(s.Last, time.Duration(r.last.Load()))
	}
	return s, errors.Join(errs...)
}

// eachOf does something for each of so many, a few at a time.
func eachOf(count int, do func(i int) error) error {
	errs := make([]error, count)
	var wg sync.WaitGroup
	few := make(chan struct{}, 16)
	for i := range count {
		few <- struct{}{}
		wg.Go(func() {
			errs[i] = do(i)
			<-few
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// await waits until all readers have everything, or none gets anything any more.
func (t *Traffic) await(readers []*reader, all int) {
	silence := t.Silence
	if silence == 0 {
		silence = 5 * time.Second
	}
	before, since := int64(-1), time.Now()
	for {
		sum, complete := int64(0), true
		for _, r := range readers {
			n := r.count.Load()
			sum, complete = sum+n, complete && n >= int64(all)
		}
		if complete || sum == before && time.Since(since) > silence {
			return
		}
		if sum != before {
			before, since = sum, time.Now()
		}
		<-time.After(2 * time.Millisecond)
	}
}

// enter logs in as anybody.
func (l *Load) enter(a Account, resume bool) (*Publisher, error) {
	conn, err := net.DialTimeout("tcp", l.Address, setting.Patience)
	if err != nil {
		return nil, err
	}
	if l.TLS != nil {
		conn = tls.Client(conn, l.TLS)
	}
	p := &Publisher{load: l, id: a.ClientID, conn: conn, in: bufio.NewReaderSize(conn, 4<<10), out: bufio.NewWriterSize(conn, 16<<10),
		slots: make(chan struct{}, max(l.Window, 1)), sentAt: make([]time.Time, l.Readings/max(l.Devices, 1)+1)}
	login := rawmqtt.Login{User: a.User, Secret: a.Secret, ClientID: a.ClientID, Version: 4, Resume: resume, NoKeepalive: true}
	if _, err := conn.Write(login.Encode()); err != nil {
		return nil, err
	}
	answer, err := rawmqtt.Read(p.in)
	if err == nil && (answer.Kind != rawmqtt.Connack || answer.Reason != 0) {
		err = fmt.Errorf("client %s: instead of a good CONNACK packet type %d, reason %d", a.ClientID, answer.Kind, answer.Reason)
	}
	return p, err
}

// carry sends the messages of one publisher of a traffic and returns when they are acknowledged, QoS 2 to its end.
func (p *Publisher) carry(t *Traffic, i int) error {
	count := t.Messages / t.Publishers
	received := make(chan error, 1)
	if t.QoS == 0 {
		go func() { received <- p.awaitPong() }()
	} else {
		go func() { received <- p.await(t.QoS, count) }()
	}
	if err := p.write(t, i, count); err != nil {
		p.conn.Close()
		return errors.Join(fmt.Errorf("publisher %s: %w", p.id, err), <-received)
	}
	return <-received
}

func (p *Publisher) write(t *Traffic, i, count int) error {
	epoch := time.Now().Add(-time.Hour).UnixMilli()
	payload := make([]byte, t.Size)
	for n := range payload {
		payload[n] = 'x'
	}
	var packet []byte
	for n := 1; n <= count; n++ {
		if t.QoS > 0 {
			if err := p.takeSlot(); err != nil {
				return err
			}
			p.sentAt[n] = time.Now()
		}
		if t.Size == 0 {
			payload = appendReading(payload[:0], epoch+int64(n), n)
		}
		packet = rawmqtt.AppendPublish(packet[:0], t.Topic(i, n), t.QoS, uint16(n), payload)
		if t.Retain {
			packet[0] |= 1
		}
		p.mu.Lock()
		_, err := p.out.Write(packet)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.QoS == 0 {
		if _, err := p.out.Write(rawmqtt.Encode(rawmqtt.Pingreq<<4, nil)); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

// await takes acknowledgements. A message of QoS 2 is acknowledged with its PUBREC, and keeps its place in the window until
// its PUBCOMP.
func (p *Publisher) await(qos byte, count int) error {
	p.latencies = make([]time.Duration, 0, count)
	for done := 0; done < count; {
		answer, err := rawmqtt.Read(p.in)
		if err != nil {
			return fmt.Errorf("publisher %s: acknowledgement %d of %d: %w", p.id, done+1, count, err)
		}
		if answer.Reason >= rawmqtt.FirstFailure {
			return fmt.Errorf("publisher %s: packet type %d, reason %#x", p.id, answer.Kind, answer.Reason)
		}
		switch answer.Kind {
		case rawmqtt.Puback:
			p.latencies = append(p.latencies, time.Since(p.sentAt[answer.ID]))
			done++
			<-p.slots
		case rawmqtt.Pubrec:
			p.latencies = append(p.latencies, time.Since(p.sentAt[answer.ID]))
			p.mu.Lock()
			_, err := p.out.Write(rawmqtt.EncodePubrel(answer.ID))
			if err == nil && p.in.Buffered() == 0 {
				err = p.out.Flush()
			}
			p.mu.Unlock()
			if err != nil {
				return err
			}
		case rawmqtt.Pubcomp:
			done++
			<-p.slots
			if p.in.Buffered() == 0 {
				p.mu.Lock()
				err := p.out.Flush()
				p.mu.Unlock()
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// reader is a subscriber that is there.
type reader struct {
	Reader
	conn  net.Conn
	in    *bufio.Reader
	count atomic.Int64
	early int64        // of them, those that came while the publishers sent
	last  atomic.Int64 // when the last message came: a time.Duration since the beginning
}

// enter lets the subscribers in.
func (t *Traffic) enter() ([]*reader, error) {
	all := make([]*reader, len(t.Readers))
	err := eachOf(len(all), func(i int) error {
		r := t.Readers[i]
		p, err := (&Load{Address: t.Address}).enter(r.Account, r.Resume)
		if err != nil {
			return err
		}
		all[i] = &reader{Reader: r, conn: p.conn, in: bufio.NewReaderSize(p.in, 64<<10)}
		if _, err := p.conn.Write(rawmqtt.EncodeSubscribe(4, r.QoS, 1, r.Filter)); err != nil {
			return err
		}
		for {
			answer, err := rawmqtt.Read(all[i].in)
			switch {
			case err != nil:
				return err
			case answer.Kind == rawmqtt.Suback && answer.Body[len(answer.Body)-1] > 2:
				return fmt.Errorf("%s may not subscribe to %s", r.ClientID, r.Filter)
			case answer.Kind == rawmqtt.Suback:
				return nil
			}
		}
	})
	return slices.DeleteFunc(all, func(r *reader) bool { return r == nil }), err
}

// leave goes, as who comes back.
func (r *reader) leave() error {
	_, err := r.conn.Write(rawmqtt.Encode(rawmqtt.Disconnect<<4, nil))
	return errors.Join(err, r.conn.Close())
}

// comeBack goes on with the session and reads.
func (r *reader) comeBack(t *Traffic, began time.Time, done <-chan struct{}) error {
	p, err := (&Load{Address: t.Address}).enter(r.Account, r.Resume)
	if err != nil {
		return err
	}
	r.conn, r.in = p.conn, bufio.NewReaderSize(p.in, 64<<10) // what waited may have come with the CONNACK
	go r.run(began, done)
	return nil
}

// run reads and acknowledges until the connection is closed.
func (r *reader) run(began time.Time, done <-chan struct{}) {
	out := bufio.NewWriterSize(r.conn, 16<<10)
	next := time.Now()
	for slow := r.Rate > 0; ; {
		first, err := r.in.ReadByte()
		if err != nil {
			return
		}
		length, err := binary.ReadUvarint(r.in)
		if err != nil {
			return
		}
		packet, err := r.in.Peek(int(length))
		if err != nil {
			return
		}
		switch first >> 4 {
		case rawmqtt.Publish:
			if qos := first >> 1 & 3; qos > 0 {
				at := 2 + int(binary.BigEndian.Uint16(packet))
				kind := byte(rawmqtt.Puback)
				if qos == 2 {
					kind = rawmqtt.Pubrec
				}
				_, _ = out.Write([]byte{kind << 4, 2, packet[at], packet[at+1]}) // Flush says
			}
			r.count.Add(1)
			r.last.Store(int64(time.Since(began)))
			if slow {
				next = next.Add(time.Second / time.Duration(r.Rate))
				if out.Flush() != nil {
					return
				}
				select {
				case <-done:
					slow = false
				case <-time.After(time.Until(next)):
				}
			}
		case rawmqtt.Pubrel:
			_, _ = out.Write([]byte{rawmqtt.Pubcomp << 4, 2, packet[0], packet[1]})
		}
		_, _ = r.in.Discard(int(length)) // it was peeked
		if r.in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}
