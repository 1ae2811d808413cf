//go:build linux

package load

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// Load is what a scenario of the benchmark sends: raw MQTT 3.1.1, so that the client costs little beside the server.
type Load struct {
	Address  string
	TLS      *tls.Config // nil: plain
	QoS      byte
	Devices  int
	Readings int // of all devices
	Window   int // unacknowledged readings per device
	Rate     int // readings a second of all devices; 0: as fast as it goes
	Secrets  map[string]string
}

// Result is what the clients saw.
type Result struct {
	Acknowledged int
	latencies    []time.Duration // sorted
}

// Quantile is the time that so large a part of the acknowledgements took at most.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(q*float64(len(r.latencies)-1))]
}

// Add adds what the clients of another run saw.
func (r *Result) Add(other *Result) {
	r.Acknowledged += other.Acknowledged
	r.latencies = append(r.latencies, other.latencies...)
	slices.Sort(r.latencies)
}

// Publisher is one device of a load.
type Publisher struct {
	load *Load
	id   string
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	mu   sync.Mutex // of out, while two write

	slots     chan struct{} // one for each unacknowledged reading
	sentAt    []time.Time   // by packet id
	latencies []time.Duration
}

// DeviceID is the name of device i of a load.
func DeviceID(i int) string { return fmt.Sprint("bed-", i+1) }

// Connect connects all devices, a few at a time.
func (l *Load) Connect() (all []*Publisher, err error) {
	all = make([]*Publisher, l.Devices)
	return all, eachOf(l.Devices, func(i int) (err error) {
		id := DeviceID(i)
		all[i], err = l.enter(Account{User: id, Secret: l.Secrets[id], ClientID: id}, true)
		return err
	})
}

// Run sends everything and returns when it is acknowledged or, with QoS 0, read by the server.
func (l *Load) Run(all []*Publisher) (*Result, error) {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { errs[i] = p.run(i) })
	}
	wg.Wait()
	r := &Result{}
	for _, p := range all {
		r.latencies = append(r.latencies, p.latencies...)
		p.conn.Close()
	}
	r.Acknowledged = len(r.latencies)
	slices.Sort(r.latencies)
	return r, errors.Join(errs...)
}

func (p *Publisher) run(number int) error {
	count := p.load.Readings / p.load.Devices
	received := make(chan error, 1)
	if p.load.QoS == 0 {
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

func (p *Publisher) send(number, count int) error {
	l := p.load
	epoch := time.Now().Add(-time.Hour).UnixMilli()
	topic := "devices/" + p.id + "/telemetry"
	var gap time.Duration
	if l.Rate > 0 {
		gap = time.Second * time.Duration(l.Devices) / time.Duration(l.Rate)
	}
	next := time.Now().Add(gap * time.Duration(number) / time.Duration(l.Devices)) // not all at one moment
	var packet, payload []byte
	for n := 1; n <= count; n++ {
		if gap > 0 {
			if err := p.out.Flush(); err != nil {
				return err
			}
			<-time.After(time.Until(next))
			next = next.Add(gap)
		}
		if l.QoS > 0 {
			if err := p.takeSlot(); err != nil {
				return err
			}
			p.sentAt[n] = time.Now()
		}
		payload = appendReading(payload[:0], epoch+int64(n), n)
		packet = rawmqtt.AppendPublish(packet[:0], topic, l.QoS, uint16(n), payload)
		if _, err := p.out.Write(packet); err != nil {
			return err
		}
	}
	if l.QoS == 0 {
		if _, err := p.out.Write(rawmqtt.Encode(rawmqtt.Pingreq<<4, nil)); err != nil {
			return err
		}
	}
	return p.out.Flush()
}

// takeSlot waits for room in the window; what was written leaves before a wait.
func (p *Publisher) takeSlot() error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	p.mu.Lock()
	err := p.out.Flush()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-time.After(setting.Patience):
		return errors.New("no acknowledgement comes")
	}
}

func (p *Publisher) awaitAcknowledgements(count int) error {
	p.latencies = make([]time.Duration, 0, count)
	for len(p.latencies) < count {
		answer, err := rawmqtt.Read(p.in)
		if err != nil {
			return fmt.Errorf("device %s: acknowledgement %d of %d: %w", p.id, len(p.latencies)+1, count, err)
		}
		if answer.Kind == rawmqtt.Puback {
			p.latencies = append(p.latencies, time.Since(p.sentAt[answer.ID]))
			<-p.slots
		}
	}
	return nil
}

// awaitPong waits for the answer to a ping behind everything else: then the server has read it.
func (p *Publisher) awaitPong() error {
	for {
		answer, err := rawmqtt.Read(p.in)
		if err != nil {
			return fmt.Errorf("device %s: answer to a ping: %w", p.id, err)
		}
		if answer.Kind == rawmqtt.Pingresp {
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

// Milliseconds writes a duration as tables have it.
func Milliseconds(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
