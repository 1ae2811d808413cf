package store

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/numbered"
	"github.com/plantops/plantops/store/pack"
)

// Reasons for the quarantine that only the store can give.
const (
	reasonConflict    = "conflict"
	reasonMetrics     = "too many metrics"
	reasonMetricName  = "invalid metric name"
	reasonNotFinite   = "not a finite number"
	reasonNoDevice    = "no device"
	reasonDeviceID    = "invalid device id"
	reasonManyDevices = "too many devices"
	reasonDamagedRow  = "stored row is damaged"
	reasonNone        = "no reason given"
)

// maxArrivalSteps bounds the search for a free millisecond.
const maxArrivalSteps = 1000

// Append stores a batch in one transaction, together with the counters, and has it on disk when it returns. It appends
// one outcome per message to outcomes, in order. A message that Append saw before becomes a duplicate, so a batch may be
// given again after an error.
//
// A message that the file cannot take is isolated (place.go) and the others are stored; a file that is damaged is made anew
// first (rebuild.go).
//
// The context bounds the wait for other writers, not the commit. After an error nothing of the batch is stored and outcomes
// is returned as it came; only when the error wraps ErrPartly, the first messages of the batch are stored and counted, their
// outcomes are there, and the rest alone is to be given again, and when it wraps ErrInDoubt, it is not known yet whether the
// batch is stored: given again, it has the outcomes that it had then, if it is. The next Append works again when the cause is gone (no space
// left, file locked by another program for more than a second).
func (s *Store) Append(ctx context.Context, batch []Message, outcomes []Outcome) ([]Outcome, error) {
	if err := ctx.Err(); err != nil {
		return outcomes, fmt.Errorf("store %d messages: %w", len(batch), err)
	}
	if s.pace.May(len(batch) == 0 || len(batch) >= s.options.FullBatch || batch[0].Kind == History) {
		select {
		case s.writing <- struct{}{}:
			defer s.release()
			return s.serve(batch, outcomes)
		default:
		}
	}
	return s.appendLater(ctx, &waiting{batch: batch, outcomes: outcomes, done: make(chan struct{})})
}

// Gather waits until it is time to store the next batch: so what comes meanwhile can be in it. busy tells that something came while
// the last one was stored; on an idle box it returns at once. It also does at a value from full, when Hasten or Hurry is called, and
// when ctx ends; without Options.MinCommitInterval at one from usual too: more may not come before something is acknowledged.
func (s *Store) Gather(ctx context.Context, busy bool, usual, full <-chan struct{}) {
	s.pace.Gather(ctx, busy, usual, full)
}

// Hasten makes the next commit begin at once, for who knows that nothing more will come before it.
func (s *Store) Hasten() { s.pace.Hasten() }

// Hurry makes all commits from now on begin at once: the program stops.
func (s *Store) Hurry() { s.pace.Hurry() }

// appendHere stores a batch as Append says. The caller has the right to write.
func (s *Store) appendHere(batch []Message, outcomes []Outcome) ([]Outcome, error) {
	err := s.ready()
	if err != nil {
		return outcomes, fmt.Errorf("store %d messages: %w", len(batch), err)
	}
	results, err := s.appendAll(batch, outcomes)
	if isDamage(err) {
		if mendErr := s.mend(context.Background(), err); mendErr == nil {
			results, err = s.appendAll(batch, outcomes)
		}
	}
	if isLasting(err) && len(batch) > 0 && s.w != nil {
		results, err = s.isolate(batch, outcomes, err)
	}
	s.idle.Reset(idleAfter)
	if err != nil {
		if done := len(results) - len(outcomes); done > 0 {
			err = fmt.Errorf("%d messages are %w: %w", done, ErrPartly, err)
		}
		return results, fmt.Errorf("store %d messages: %w", len(batch), err)
	}
	return results, nil
}

// ready sees to it that there is a file to write to, and that damage that a reader found is mended.
func (s *Store) ready() error {
	switch {
	case s.closed:
		return ErrClosed
	case s.options.ReadOnly:
		return errors.New("opened read-only")
	}
	if err := s.reopen(); err != nil {
		return err
	}
	if found := s.suspected.Swap(nil); found != nil {
		_ = s.mend(context.Background(), *found) // said in the log; what this batch needs may be whole
	}
	return s.reopen()
}

// appendAll stores a batch in one transaction, or nothing of it.
func (s *Store) appendAll(batch []Message, outcomes []Outcome) ([]Outcome, error) {
	if err := s.settlePending(); err != nil {
		return outcomes, err
	}
	if known := s.recall(batch); known != nil {
		return append(outcomes, known...), nil
	}
	results := outcomes
	err := s.transact(func() (err error) {
		if results, err = s.appendBatch(batch, outcomes); err != nil {
			return err
		}
		return s.evict()
	})
	if errors.Is(err, ErrInDoubt) {
		s.keepAnswer(batch, results[len(outcomes):])
	}
	if err != nil {
		return outcomes, err
	}
	return results, nil
}

// appendBatch gives each message its outcome inside the running transaction.
func (s *Store) appendBatch(batch []Message, outcomes []Outcome) ([]Outcome, error) {
	for i := range batch {
		outcome, err := s.appendMessage(&batch[i])
		if err != nil {
			return outcomes, err
		}
		outcomes = append(outcomes, outcome)
	}
	s.noteArrival(batch)
	return outcomes, nil
}

// appendMessage gives one message its outcome inside the running transaction.
func (s *Store) appendMessage(m *Message) (Outcome, error) {
	if m.Kind == Probe {
		nobody := s.state.devices[""]
		s.touch(nobody)
		nobody.next.see(m) // a change, so that there is something to write
		return Proved, nil
	}
	d, reason, err := s.deviceOf(m)
	if err != nil {
		return 0, err
	}
	s.touch(d)
	d.heard(m)
	outcome, leftover, err := s.appendParts(d, m, reason)
	if m.Kind == History {
		outcome, leftover = outcome.ofHistory(leftover), ""
	}
	if err == nil && leftover != "" {
		err = s.addEntry(d, m, leftover, outcome)
	}
	if err == nil && len(m.Skipped) > 0 && outcome != Duplicate {
		err = s.noteSkipped(d, m, leftover == "")
	}
	d.next.counts.add(outcome, 1)
	return outcome, err
}

// heard notes what the arrival of a message says about its device.
func (d *device) heard(m *Message) {
	n := &d.next
	switch {
	case m.Kind == Farewell:
		n.leftAt = max(m.Received, 1)
	case m.Kind == Nothing, m.Kind == History, m.Retained:
	default:
		n.see(m)
		n.leftAt = 0
	}
}

// appendParts gives a message the best of what becomes of its parts: it is stored if any is, and a duplicate only if all
// are. A reason refuses all that is new.
func (s *Store) appendParts(d *device, m *Message, reason string) (outcome Outcome, leftover string, err error) {
	outcome = Duplicate
	for i := range m.parts() {
		p := m.part(i)
		of, why, err := s.appendPart(d, m, &p, reason)
		if err != nil {
			return 0, "", err
		}
		leftover = cmp.Or(leftover, why)
		if of == Stored || outcome == Duplicate {
			outcome = of
		}
	}
	return outcome, leftover, nil
}

func (s *Store) appendPart(d *device, m *Message, p *Part, reason string) (outcome Outcome, leftover string, err error) {
	standing, err := s.recognise(d, p)
	switch {
	case err != nil:
		return 0, "", err
	case standing == numbered.Again:
		return Duplicate, "", nil
	case standing == numbered.Other:
		return Quarantined, reasonConflict, nil
	}
	d.next.dropped += min(p.Numbering.Dropped, math.MaxInt64-d.next.dropped)
	switch {
	case m.Kind == Bad:
		return Quarantined, cmp.Or(m.Reason, reasonNone), nil
	case reason != "":
		return Quarantined, reason, nil
	case (m.Kind == Telemetry || m.Kind == History) && len(p.Values) > 0:
		return s.appendReading(d, m, p)
	}
	return Stored, "", nil
}

// deviceOf finds or creates the device of a message. A reason means that it cannot have one; device "" stands in.
func (s *Store) deviceOf(m *Message) (d *device, reason string, err error) {
	if m.Behind.Source != "" && m.Device != "" {
		return s.behindOf(m)
	}
	if d, known := s.state.devices[m.Device]; known {
		if m.Device == "" && m.Kind != Nothing {
			reason = reasonNoDevice
		}
		return d, reason, nil
	}
	switch {
	case CheckID(m.Device) != nil:
		return s.state.devices[""], reasonDeviceID, nil
	case len(s.state.devices) > maxDevices:
		return s.state.devices[""], reasonManyDevices, nil
	}
	d, err = s.createDevice(m.Device)
	return d, "", err
}

// appendReading stores what is new of a part with values. A leftover is the reason why some of it, or with outcome
// Quarantined all of it, is not stored.
func (s *Store) appendReading(d *device, m *Message, p *Part) (outcome Outcome, leftover string, err error) {
	if reason := s.refuse(d, p.Values); reason != "" {
		return Quarantined, reason, nil
	}
	conflict, err := s.resolve(d, p.Values)
	if err != nil {
		return 0, "", err
	}
	outcome = Stored
	switch p.TimeSource {
	case FromDevice:
		var isNew bool
		if isNew, err = s.insertReading(d, m, p, p.Time); err == nil && !isNew {
			outcome, leftover, err = s.merge(d, p, m.Received, p.Time)
		}
	case FromAge:
		err = s.insertAtFree(d, m, p, p.Time)
	default:
		err = s.insertAtFree(d, m, p, m.Received)
	}
	if err != nil {
		return 0, "", fmt.Errorf("reading of device %q: %w", d.name, err)
	}
	if conflict && leftover == "" {
		leftover = reasonConflict
	}
	if leftover != "" && outcome == Duplicate {
		outcome = Quarantined
	}
	return outcome, leftover, nil
}

// refuse returns why no value of a part can be stored. It comes before any change, so that a part that is refused leaves no
// new metric names.
func (s *Store) refuse(d *device, values []Value) (reason string) {
	if len(values) > maxMetrics {
		return reasonMetrics
	}
	fresh := 0
	for i := range values {
		v := &values[i]
		if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
			return reasonNotFinite
		}
		if _, known := s.state.metrics[v.Metric]; !known {
			if v.Metric == "" || len(v.Metric) > maxMetricNameBytes || !utf8.ValidString(v.Metric) {
				return reasonMetricName
			}
			fresh++
		}
	}
	if d.metrics+fresh > maxMetrics {
		return reasonMetrics
	}
	if !s.roomForMetrics(d, fresh) {
		return reasonManyMetrics
	}
	return ""
}

// resolve puts the values of a part into s.tx.pairs, each metric once, in their order. A metric that it has twice, with different values, is
// a conflict; the first value counts.
func (s *Store) resolve(d *device, values []Value) (conflict bool, err error) {
	pairs := s.tx.pairs[:0]
	for i := range values {
		v := &values[i]
		metric, known := s.state.metrics[v.Metric]
		if !known {
			if metric, err = s.createMetric(d, v.Metric); err != nil {
				return false, err
			}
		}
		if old, there := find(pairs, metric); !there {
			pairs = append(pairs, block.Value{Metric: metric, Value: v.Value})
		} else if !pack.Same(old, v.Value) {
			conflict = true
		}
	}
	sortValues(pairs)
	s.tx.pairs = pairs
	return conflict, nil
}

func find(pairs []block.Value, metric uint32) (value float64, ok bool) {
	for _, p := range pairs {
		if p.Metric == metric {
			return p.Value, true
		}
	}
	return 0, false
}

// insertAtFree stores the reading at the first free millisecond from a time on.
func (s *Store) insertAtFree(d *device, m *Message, p *Part, time int64) error {
	taken := &d.next.arrivals
	if taken.first <= time && time <= taken.last {
		time = taken.last + 1
	} else {
		taken.first = time
	}
	for step := 0; ; step++ {
		isNew, err := s.insertReading(d, m, p, time)
		if err != nil {
			return err
		}
		if isNew {
			taken.last = time
			return nil
		}
		if time++; step == maxArrivalSteps {
			time = max(time, d.next.lastReading+1) // certainly free
		}
	}
}

// ReplayQuarantined stores m, which is what ingest makes of the entry today. With outcome Stored or Duplicate the entry
// is gone and the message counts as that instead of as quarantined; what conflicts still stays as an entry. With
// Quarantined nothing has changed. ErrNotFound: no such entry.
func (s *Store) ReplayQuarantined(ctx context.Context, id int64, m Message) (outcome Outcome, err error) {
	if err := s.acquire(ctx); err != nil {
		return 0, fmt.Errorf("replay quarantine entry %d: %w", id, err)
	}
	defer s.release()
	err = s.transact(func() error {
		outcome, err = s.replay(id, &m)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("replay quarantine entry %d: %w", id, err)
	}
	return outcome, nil
}

type replayStatements struct {
	selectEntry, updateEntry *statement
}

func (q *replayStatements) all() []compile {
	return []compile{
		{&q.selectEntry, `SELECT device, flags, size, reason FROM quarantine WHERE id = ?`},
		{&q.updateEntry, `UPDATE quarantine SET flags = ?, reason = ? WHERE id = ?`},
	}
}

func (s *Store) replay(id int64, m *Message) (Outcome, error) {
	var entry []driver.Value
	err := s.w.selectEntry.query(func(row []driver.Value) error {
		entry = slices.Clone(row)
		return nil
	}, id)
	switch {
	case err != nil:
		return 0, err
	case entry == nil:
		return 0, ErrNotFound
	case m.Kind == Bad, entry[3].(string) == reasonOtherAccount: // who sent it is not kept
		return Quarantined, nil
	}
	before, flags, size := s.state.byID[entry[0].(int64)], entry[1].(int64), entry[2].(int64)
	for i := range m.parts() {
		switch p := m.part(i); {
		case flags&flagUncounted != 0 && m.Kind == Telemetry && p.TimeSource != FromDevice:
			return Quarantined, nil // a row of its own has taken all that it can; another one would hold that twice
		case p.Numbering.Boot != "" && entry[3].(string) == reasonConflict:
			return Quarantined, nil // its number is taken by another message
		}
	}

	d, reason, err := s.deviceOf(m)
	if err != nil || reason != "" {
		return Quarantined, err
	}
	s.touch(d)
	outcome, leftover, err := s.replayParts(d, m)
	if err != nil || outcome == Quarantined {
		return outcome, err
	}
	if flags&flagUncounted == 0 {
		s.touch(before)
		before.next.counts.Quarantined--
		d.next.counts.add(outcome, 1)
	}
	if len(m.Skipped) > 0 && outcome == Stored && leftover == "" {
		if err := s.keepOriginal(d, m); err != nil { // the entry goes, and with it what was not read
			return outcome, err
		}
	}
	if leftover != "" {
		return outcome, s.w.updateEntry.run(flags|flagUncounted, leftover, id)
	}
	s.tx.quarantine.next -= size
	s.tx.quarantine.nextEntries--
	return outcome, s.w.deleteEntry.run(id)
}

// replayParts is appendParts for what came before: its numbers are known, and what it says beside its readings is counted.
func (s *Store) replayParts(d *device, m *Message) (outcome Outcome, leftover string, err error) {
	outcome = Duplicate
	for i := range m.parts() {
		p, of, why := m.part(i), Stored, ""
		if m.Kind == Telemetry && len(p.Values) > 0 {
			if of, why, err = s.appendReading(d, m, &p); err != nil {
				return 0, "", err
			}
		}
		leftover = cmp.Or(leftover, why)
		if of == Stored || outcome == Duplicate {
			outcome = of
		}
	}
	return outcome, leftover, nil
}
