package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/plantops/plantops/store"
)

// Deleting by age is bounded, because the clock may be wrong and the setting a mistake: per day of uptime at most a day of
// readings goes, not counting time without readings, and what a person has confirmed goes at once. While the clock is not to be
// trusted nothing goes. So a clock that jumps ahead by years, or a store.retention that is a tenth of what was meant, is
// reported, and costs a day a day until somebody sees it.

// reportAfter is how much may wait without anybody being told: a box that is off at night always has some.
const reportAfter = 24 * time.Hour

// retentionStep is how finely time without readings is told from time with some.
const retentionStep = time.Hour

// ErrNothingToConfirm: nothing waits to be deleted by age.
var ErrNothingToConfirm = errors.New("nothing waits to be deleted")

// Retention is what deleting by age has done, and what it waits with.
type Retention struct {
	KeepSeconds int64  `json:"keep_seconds"` // store.retention; 0: for ever
	Due         Moment `json:"due_before"`   // what is older than store.retention is older than this; null: nothing ever is
	Gone        Moment `json:"gone_before"`  // what is older has been deleted
	Confirmed   Moment `json:"confirmed_before"`
	// Oldest is the oldest reading that is due and has not been deleted yet; null when there is none.
	Oldest Moment `json:"oldest_waiting"`
	// Waits: more than a day of readings is due. It goes by and by, or at once when a person confirms it.
	Waits bool `json:"waits"`
	// Doubt says why the clock is not to be trusted; then nothing is deleted.
	Doubt string `json:"clock_doubt,omitempty"`
}

// WaitingRetention is Retention with what it costs to count.
type WaitingRetention struct {
	Retention
	Messages int64  `json:"messages_waiting"`
	Newest   Moment `json:"newest_waiting"`
}

// retentionState is what is remembered in the database, UTC ms.
type retentionState struct{ gone, confirmed int64 }

// nextCutoff returns up to when readings go in one step, and what is left of the budget. Oldest is the time of the oldest
// reading that is not gone. All are milliseconds.
func nextCutoff(s retentionState, oldest, due, budget int64) (cutoff, left int64) {
	if due <= s.gone {
		return due, budget // kept for longer than before, or the clock was ahead
	}
	cutoff = max(s.gone, min(due, s.confirmed))
	start := max(cutoff, oldest)
	if start >= due {
		return due, budget // there is nothing until then
	}
	step := min(budget, retentionStep.Milliseconds(), due-start)
	return start + step, budget - step
}

func (s *Server) retentionState(ctx context.Context) (state retentionState, err error) {
	text, err := s.store.Setting(ctx, store.SettingRetention)
	if err != nil || text == "" {
		return state, err
	}
	if _, err := fmt.Sscanf(text, "%d %d", &state.gone, &state.confirmed); err != nil {
		return state, fmt.Errorf("setting %s is damaged: %q", store.SettingRetention, text)
	}
	return state, nil
}

func (s *Server) setRetentionState(ctx context.Context, state retentionState) error {
	return s.store.SetSetting(ctx, store.SettingRetention, fmt.Sprintf("%d %d", state.gone, state.confirmed))
}

// DeleteOld deletes readings older than Options.Keep and returns how many rows that were and before when. Budget is how much
// uptime has passed since the last call. Without Options.Keep, and while the clock is not to be trusted, it does nothing.
func (s *Server) DeleteOld(ctx context.Context, budget time.Duration) (deleted int64, before time.Time, err error) {
	s.retaining.Lock()
	defer s.retaining.Unlock()
	if s.keep <= 0 || s.doubt() != "" {
		return 0, time.Time{}, nil
	}
	state, err := s.retentionState(ctx)
	if err != nil {
		return 0, time.Time{}, err
	}
	was, due, left := state, s.now().Add(-s.keep).UnixMilli(), budget.Milliseconds()
	for again := true; again && err == nil; {
		oldest, found, lookErr := s.store.OldestReading(ctx, time.UnixMilli(state.gone))
		if lookErr != nil {
			return deleted, time.UnixMilli(state.gone), lookErr
		}
		at := oldest.UnixMilli()
		if !found {
			at = due
		}
		var n int64
		state.gone, left = nextCutoff(state, at, due, left)
		n, err = s.store.DeleteBefore(ctx, time.UnixMilli(state.gone))
		deleted += n
		again = left > 0 && state.gone < due
	}
	if err == nil && state != was {
		err = s.setRetentionState(ctx, state)
	}
	return deleted, time.UnixMilli(state.gone), err
}

// retention is Retention without counting.
func (s *Server) retention(ctx context.Context) (Retention, error) {
	state, err := s.retentionState(ctx)
	if err != nil {
		return Retention{}, err
	}
	r := Retention{KeepSeconds: int64(s.keep.Seconds()), Gone: Moment(state.gone), Confirmed: Moment(state.confirmed), Doubt: s.doubt()}
	if s.keep <= 0 {
		return r, nil
	}
	r.Due = Moment(s.now().Add(-s.keep).UnixMilli())
	oldest, found, err := s.store.OldestReading(ctx, time.UnixMilli(state.gone))
	if at := oldest.UnixMilli(); err == nil && found && at < int64(r.Due) {
		r.Oldest = Moment(at)
		r.Waits = int64(r.Due)-max(at, state.confirmed) > reportAfter.Milliseconds()
	}
	return r, err
}

// Retention implements Operator.
func (s *Server) Retention(ctx context.Context) (WaitingRetention, error) {
	r, err := s.retention(ctx)
	w := WaitingRetention{Retention: r}
	if err != nil || r.Oldest == 0 {
		return w, err
	}
	rows, newest, err := s.store.CountBefore(ctx, r.Due.Time())
	w.Messages, w.Newest = rows, Moment(newest.UnixMilli())
	return w, err
}

// ConfirmRetention implements Operator.
func (s *Server) ConfirmRetention(ctx context.Context, before Moment) error {
	if why := s.doubt(); why != "" {
		return fmt.Errorf("confirm: the clock is not to be trusted: %s", why)
	}
	s.retaining.Lock()
	defer s.retaining.Unlock()
	state, err := s.retentionState(ctx)
	if err != nil {
		return err
	}
	if due := s.now().Add(-s.keep).UnixMilli(); s.keep <= 0 || int64(before) <= state.gone || int64(before) > due {
		return fmt.Errorf("confirm: %w before %s", ErrNothingToConfirm, before)
	}
	state.confirmed = max(state.confirmed, int64(before))
	if err := s.setRetentionState(ctx, state); err != nil {
		return err
	}
	if s.running != nil && s.running.Retain != nil {
		s.running.Retain()
	}
	return nil
}
