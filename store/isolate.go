package store

import (
	"context"
	"fmt"
	"time"
)

// SQLite's result codes of trouble that can pass: a batch is given again as it is.
func mayPass(code int) bool {
	switch code {
	case codeBusy, 6, 7, codeReadOnly, 9, codeIO, codeFull, codeCannotUse, 15: // LOCKED, NOMEM, INTERRUPT, PROTOCOL
		return true
	}
	return false
}

// isLasting reports whether the same statements would fail again: something in the file is damaged, or what is to be stored
// does not fit into it.
func isLasting(err error) bool {
	if isDamage(err) {
		return true
	}
	n := code(err)
	return n != 0 && !mayPass(n)
}

// isolate stores a batch of which something cannot be stored: it is halved until what fails is one message. That one goes
// where it can be kept (setAside), the others are stored. outcomes is appended to as by Append.
func (s *Store) isolate(batch []Message, outcomes []Outcome, cause error) ([]Outcome, error) {
	if len(batch) == 1 {
		outcome, err := s.setAside(&batch[0], cause)
		if err != nil {
			return outcomes, err
		}
		return append(outcomes, outcome), nil
	}
	results := outcomes
	for _, half := range [][]Message{batch[:len(batch)/2], batch[len(batch)/2:]} {
		var err error
		before := results
		if results, err = s.appendAll(half, before); isLasting(err) {
			results, err = s.isolate(half, before, err)
		}
		if err != nil {
			return outcomes, err
		}
	}
	return results, nil
}

// setAside keeps a message that cannot be stored: in the quarantine, there without its device when that is what is damaged,
// or in a file of its own.
func (s *Store) setAside(m *Message, cause error) (Outcome, error) {
	if m.Kind == Probe { // it proves that messages are kept
		return Proved, s.transact(func() error { return nil })
	}
	reason := fmt.Sprintf("cannot be stored: %.200s", cause)
	for _, anonymous := range []bool{false, true} {
		err := s.transact(func() error {
			d := s.state.devices[""]
			if !anonymous {
				var err error
				if d, _, err = s.deviceOf(m); err != nil {
					return err
				}
			}
			s.touch(d)
			d.next.counts.add(Quarantined, 1)
			return s.addEntry(d, m, reason, Quarantined)
		})
		if err == nil {
			s.log.Error("a message cannot be stored; it is in the quarantine", "device", m.Device, "topic", m.Topic, "err", cause)
			return Quarantined, nil
		}
		if !isLasting(err) {
			return 0, err
		}
	}
	if err := s.aside.add(m, reason); err != nil {
		return 0, fmt.Errorf("keep a message that the database refuses (%w): %w", cause, err)
	}
	s.log.Error("a message cannot be stored, nor quarantined; it is in a file beside the database until the next start",
		"device", m.Device, "topic", m.Topic, "file", s.aside.path, "err", cause)
	return Quarantined, nil
}

// mend makes the file anew when a write found it damaged, unless that was just done. The caller has the right to write.
func (s *Store) mend(ctx context.Context, cause error) error {
	if !s.mended.IsZero() && time.Since(s.mended) < rebuildEvery {
		return cause
	}
	s.mended = time.Now()
	err := s.rebuild(ctx, cause)
	if err != nil {
		s.log.Error("cannot make the database anew", "err", err)
		if s.w == nil { // go on with the damaged file as well as it goes
			return s.openWriter(ctx, false)
		}
		return cause
	}
	select {
	case s.rebuilt <- struct{}{}:
	default:
	}
	return nil
}
