package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/ingest"
	"github.com/plantops/plantops/store"
)

const (
	simulatedMetric = "temperature" // in every message, so that counting it counts messages
	reconnectWait   = time.Second
	// Without an acknowledgement for so long a device gives up.
	simulatedPatience = 30 * time.Second
	// How long acknowledged messages may take to show in the database.
	accountPatience = 10 * time.Second
	accountPoll     = 50 * time.Millisecond
)

// simulation is a number of devices that share one budget of messages.
type simulation struct {
	devices  []*simulated
	interval time.Duration
	endless  bool
	now      func() time.Time

	mu   sync.Mutex
	left int64
}

// simulated is one device. Its fields belong to its goroutine until run has returned.
type simulated struct {
	index       int
	options     ingest.PublisherOptions
	publisher   *ingest.Publisher
	first, last int64 // times of its messages, UTC milliseconds

	sent, acknowledged int64
}

// result is what became of a simulation's messages.
type result struct {
	Sent         int64 `json:"sent"`
	Acknowledged int64 `json:"acknowledged"`
	Stored       int64 `json:"stored"`
}

// run returns when the budget is used up, ctx ends, or no device gets through any more. Then it returns
// why they gave up.
func (s *simulation) run(ctx context.Context) error {
	var working sync.WaitGroup
	var firstErr atomic.Pointer[error]
	for _, d := range s.devices {
		working.Go(func() {
			if err := d.send(ctx, s); err != nil {
				firstErr.CompareAndSwap(nil, &err)
			}
		})
	}
	working.Wait()
	if err := firstErr.Load(); err != nil && ctx.Err() == nil {
		return *err
	}
	return nil
}

// take takes one message out of the budget.
func (s *simulation) take() bool {
	if s.endless {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return false
	}
	s.left--
	return true
}

// send sends messages until the budget is used up or ctx ends.
func (d *simulated) send(ctx context.Context, s *simulation) error {
	defer d.disconnect()
	for n := 0; s.take(); n++ {
		if n > 0 && !pause(ctx, s.interval) {
			return nil
		}
		// Each message has a time of its own: that is its identity in the database.
		at := max(s.now().UnixMilli(), d.last+1)
		if d.first == 0 {
			d.first = at
		}
		d.last = at
		payload, err := json.Marshal(sample(d.index, time.UnixMilli(at)))
		if err != nil {
			return err
		}
		d.sent++
		if err := d.deliver(ctx, payload); err != nil {
			return err
		}
		d.acknowledged++
	}
	return nil
}

// deliver publishes until it is acknowledged, connecting again as often as it takes.
func (d *simulated) deliver(ctx context.Context, payload []byte) error {
	topic := "devices/" + d.options.Username + "/telemetry"
	began := time.Now()
	for {
		err := d.connect(ctx)
		if err == nil {
			err = d.publisher.Publish(ctx, topic, payload, 1)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(began) > simulatedPatience:
			return fmt.Errorf("device %s gives up: %w", d.options.Username, err)
		}
		d.disconnect()
		if !pause(ctx, reconnectWait) {
			return ctx.Err()
		}
	}
}

func (d *simulated) connect(ctx context.Context) (err error) {
	if d.publisher == nil {
		d.publisher, err = ingest.Connect(ctx, d.options)
	}
	return err
}

func (d *simulated) disconnect() {
	if d.publisher != nil {
		_ = d.publisher.Close() // whatever was not acknowledged is sent again
		d.publisher = nil
	}
}

// pause waits and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// account compares what the devices sent with what the database holds.
func (s *simulation) account(ctx context.Context, db *store.Store) (result, error) {
	var r result
	for _, d := range s.devices {
		r.Sent += d.sent
		r.Acknowledged += d.acknowledged
	}
	deadline := time.Now().Add(accountPatience)
	for {
		r.Stored = 0
		for _, d := range s.devices {
			n, err := d.stored(ctx, db)
			if err != nil {
				return r, fmt.Errorf("count what is stored of %s: %w", d.options.Username, err)
			}
			r.Stored += n
		}
		if r.Stored >= r.Acknowledged || time.Now().After(deadline) {
			return r, nil
		}
		pause(ctx, accountPoll)
	}
}

func (d *simulated) stored(ctx context.Context, db *store.Store) (n int64, err error) {
	if d.sent == 0 {
		return 0, nil
	}
	q := store.Query{Devices: []string{d.options.Username}, Metric: simulatedMetric, From: d.first, To: d.last + 1}
	for _, err := range db.Readings(ctx, q) {
		if errors.Is(err, store.ErrNotFound) {
			return 0, nil // nothing yet
		}
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// telemetry is a message as a greenhouse sensor sends it.
type telemetry struct {
	Timestamp    string  `json:"timestamp"`
	SoilMoisture float64 `json:"soil_moisture"`
	Temperature  float64 `json:"temperature"`
	Humidity     float64 `json:"humidity"`
	LightLevel   float64 `json:"light_level"`
	Battery      float64 `json:"battery"`
}

// sample returns plausible values for a device at a time: the sun rises and sets, warmth follows it, the
// soil dries between waterings every third day.
func sample(device int, at time.Time) telemetry {
	hour := float64(at.UTC().Hour()) + float64(at.UTC().Minute())/60
	sun := max(0, math.Sin((hour-6)/12*math.Pi))
	warmth := math.Sin((hour - 9) / 24 * 2 * math.Pi)
	dry := math.Mod(float64(at.Unix())/86400+float64(device)*0.37, 3) / 3
	noise := func(width float64) float64 { return (rand.Float64() - 0.5) * width }
	return telemetry{
		Timestamp:    control.Moment(at.UnixMilli()).String(),
		SoilMoisture: tenth(62 - 30*dry + noise(0.6)),
		Temperature:  tenth(20 + 5*warmth + float64(device%5)*0.4 + noise(0.4)),
		Humidity:     tenth(62 - 12*warmth + noise(2)),
		LightLevel:   math.Round(900*sun + 3 + noise(6)*sun),
		Battery:      tenth(3.9 - 0.1*dry + noise(0.02)),
	}
}

func tenth(v float64) float64 { return math.Round(v*10) / 10 }
