package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/store"
)

// History are readings of long ago that are to be stored, as messages by column: each has one device, one time and the values
// of some metrics.
type History struct {
	Devices []string `json:"devices"` // names that Device counts
	Metrics []string `json:"metrics"` // names that Metric counts

	Device   []int   `json:"device"`
	Time     []int64 `json:"time"`               // UTC ms
	Received []int64 `json:"received,omitempty"` // UTC ms, 0: now; none at all: now for each
	Count    []int   `json:"count"`              // how many of the values are its

	Metric []int     `json:"metric"`
	Value  []float64 `json:"value"`

	// Place is remembered when all of them are stored, unless its key is empty.
	Place HistoryPlace `json:"place,omitzero"`
}

// HistoryPlace is up to where a source of histories is stored. Text "" forgets it.
type HistoryPlace struct {
	Key  string `json:"key"` // names the source
	Text string `json:"text"`
}

// HistoryOutcome is what became of a History: one outcome for each message, in order.
type HistoryOutcome struct {
	Outcomes []store.Outcome `json:"outcomes"`
}

const (
	// One transaction of a history takes about this long: what devices have sent waits for it.
	historyStep = 20 * time.Millisecond

	minHistoryStep, maxHistoryStep = 100, 4096 // messages

	// historyPause bounds how long a history waits for live readings after each step.
	historyPause = 200 * time.Millisecond

	// historyTries is how often a transaction is given again of which it is not known whether it is stored.
	historyTries = 50

	historyPlacePrefix = "history."
)

var errHistory = errors.New("the columns of the history do not fit together")

// imports are the messages of histories since the start. They come in here and not through the broker, so the equation must know
// of them. The zero value is ready.
type imports struct {
	mu      sync.Mutex
	all     broker.DeviceStats
	devices map[string]broker.DeviceStats
	step    int // messages in one transaction; 0: not known
}

// note adds what has come in and what is on its way; negative is less.
func (i *imports) note(batch []store.Message, received, pending func(n int) int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.devices == nil {
		i.devices = map[string]broker.DeviceStats{}
	}
	for n := range batch {
		r, p := received(n), pending(n)
		i.all.Received, i.all.Pending = i.all.Received+r, i.all.Pending+p
		d := i.devices[batch[n].Device]
		d.Received, d.Pending = d.Received+r, d.Pending+p
		i.devices[batch[n].Device] = d
	}
}

// addTo adds them to what has come in elsewhere.
func (i *imports) addTo(in broker.IngestStats) broker.IngestStats {
	i.mu.Lock()
	defer i.mu.Unlock()
	in.Received, in.Pending = in.Received+i.all.Received, in.Pending+i.all.Pending
	if len(i.devices) == 0 || in.Devices == nil {
		return in
	}
	in.Devices = maps.Clone(in.Devices)
	for name, more := range i.devices {
		d := in.Devices[name]
		d.Received, d.Pending = d.Received+more.Received, d.Pending+more.Pending
		in.Devices[name] = d
	}
	return in
}

// arrived is what has come in since the start.
func (s *Server) arrived() broker.IngestStats { return s.imports.addTo(s.running.arrived()) }

// ImportHistory implements Operator. It stores in small transactions, between which live readings come first.
func (s *Server) ImportHistory(ctx context.Context, h History) (HistoryOutcome, error) {
	messages, err := h.messages(s.now().UnixMilli(), s.doubt() == "")
	if err != nil {
		return HistoryOutcome{}, fmt.Errorf("import history: %w", err)
	}
	result := HistoryOutcome{}
	for done := 0; done < len(messages); {
		if err := ctx.Err(); err != nil {
			return result, fmt.Errorf("import history: %w", err)
		}
		batch := messages[done:min(done+s.imports.nextStep(), len(messages))]
		began := time.Now()
		outcomes, err := s.appendHistory(ctx, batch)
		if err != nil {
			return result, fmt.Errorf("import history: %w", err)
		}
		took := time.Since(began)
		s.imports.took(len(batch), took)
		result.Outcomes = append(result.Outcomes, outcomes...)
		done += len(batch)
		s.letLiveReadingsPass(ctx, took)
	}
	if h.Place.Key == "" {
		return result, nil
	}
	return result, s.store.SetSetting(ctx, historyPlacePrefix+h.Place.Key, h.Place.Text)
}

// HistoryPlace implements Operator.
func (s *Server) HistoryPlace(ctx context.Context, key string) (string, error) {
	return s.store.Setting(ctx, historyPlacePrefix+key)
}

// appendHistory stores some messages; the equation holds meanwhile.
func (s *Server) appendHistory(ctx context.Context, batch []store.Message) ([]store.Outcome, error) {
	one, back := func(int) int64 { return 1 }, func(int) int64 { return -1 }
	s.imports.note(batch, one, one)
	outcomes, err := s.store.Append(ctx, batch, nil)
	for try := 0; errors.Is(err, store.ErrInDoubt) && try < historyTries && pause(ctx, historyPause) == nil; try++ {
		outcomes, err = s.store.Append(ctx, batch[len(outcomes):], outcomes)
	}
	s.imports.note(batch, func(n int) int64 {
		if n < len(outcomes) && counts(outcomes[n]) {
			return 0
		}
		return -1
	}, back)
	return outcomes, err
}

// counts tells whether a message with that outcome is in the counters of the store.
func counts(o store.Outcome) bool { return o <= store.Quarantined || o == store.Partly }

func (i *imports) nextStep() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.step == 0 {
		i.step = minHistoryStep
	}
	return i.step
}

// took sets how many messages the next transaction takes, so that it lasts about historyStep; at most twice as many as the last.
func (i *imports) took(messages int, took time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	fit := int(float64(messages) * float64(historyStep) / float64(max(took, time.Millisecond)))
	i.step = min(max(fit, minHistoryStep), 2*max(messages, minHistoryStep), maxHistoryStep)
}

// letLiveReadingsPass waits until nothing is on its way from devices into the store, or for as long as the last step took.
func (s *Server) letLiveReadingsPass(ctx context.Context, took time.Duration) {
	if s.running == nil {
		return
	}
	for until := time.Now().Add(min(took, historyPause)); s.running.arrived().Pending > 0 && time.Now().Before(until); {
		if pause(ctx, accountPause) != nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// messages are those of the columns. Where the clock is not sure, now is not when a reading was received.
func (h *History) messages(now int64, sure bool) ([]store.Message, error) {
	n := len(h.Time)
	if len(h.Device) != n || len(h.Count) != n || len(h.Received) != 0 && len(h.Received) != n || len(h.Metric) != len(h.Value) {
		return nil, errHistory
	}
	values := make([]store.Value, len(h.Value))
	for i, metric := range h.Metric {
		if metric < 0 || metric >= len(h.Metrics) {
			return nil, errHistory
		}
		values[i] = store.Value{Metric: h.Metrics[metric], Value: h.Value[i]}
	}
	list := make([]store.Message, n)
	for i := range list {
		if h.Device[i] < 0 || h.Device[i] >= len(h.Devices) || h.Count[i] < 0 || h.Count[i] > len(values) {
			return nil, errHistory
		}
		m := &list[i]
		*m = store.Message{Kind: store.History, Device: h.Devices[h.Device[i]], Time: h.Time[i], Values: values[:h.Count[i]]}
		values = values[h.Count[i]:]
		switch {
		case len(h.Received) > 0 && h.Received[i] != 0:
			m.Received = h.Received[i]
		case sure:
			m.Received = now
		default:
			m.Received = m.Time
		}
	}
	return list, nil
}

// ImportHistory implements Operator.
func (c *Client) ImportHistory(ctx context.Context, h History) (HistoryOutcome, error) {
	return ask[HistoryOutcome](ctx, c, http.MethodPost, "/history/import", h)
}

// HistoryPlace implements Operator.
func (c *Client) HistoryPlace(ctx context.Context, key string) (string, error) {
	place, err := ask[HistoryPlace](ctx, c, http.MethodPost, "/history/place", HistoryPlace{Key: key})
	return place.Text, err
}
