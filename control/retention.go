package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/keep"
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

// LaneRetention is what deleting by age has done with the readings that are kept for one time, and what it waits with. Each such
// lane has its own budget.
type LaneRetention struct {
	KeepSeconds int64  `json:"keep_seconds"` // 0: for ever
	Due         Moment `json:"due_before"`   // what is too old is older than this; null: nothing ever is
	Gone        Moment `json:"gone_before"`  // what is older has been deleted
	Confirmed   Moment `json:"confirmed_before"`
	// Oldest is the oldest reading that is due and has not been deleted yet; null when there is none.
	Oldest Moment `json:"oldest_waiting"`
	// Waits: more than a day of readings is due. It goes by and by, or at once when a person confirms it.
	Waits bool `json:"waits"`
}

// Retention is that of store.retention, and of its rules, which are for some devices in place of it.
type Retention struct {
	LaneRetention
	// Doubt says why the clock is not to be trusted; then nothing is deleted.
	Doubt string          `json:"clock_doubt,omitempty"`
	Rules []RuleRetention `json:"rules,omitempty"`
}

// RuleRetention is that of one item of store.retention_rules. What waits is counted where it is in WaitingRetention.
type RuleRetention struct {
	Device string `json:"device"` // the pattern
	LaneRetention
	Messages int64  `json:"messages_waiting,omitempty"`
	Newest   Moment `json:"newest_waiting,omitempty"`
}

// WaitingRetention is Retention with what it costs to count.
type WaitingRetention struct {
	Retention
	Messages int64  `json:"messages_waiting"`
	Newest   Moment `json:"newest_waiting"`
}

// All is how many messages wait, from when to when.
func (w *WaitingRetention) All() (messages int64, oldest, newest Moment) {
	messages, oldest, newest = w.Messages, w.Oldest, w.Newest
	for _, r := range w.Rules {
		messages, newest = messages+r.Messages, max(newest, r.Newest)
		if r.Oldest != 0 && (oldest == 0 || r.Oldest < oldest) {
			oldest = r.Oldest
		}
	}
	return messages, oldest, newest
}

// AnyWaits reports whether more than a day of readings is due, by store.retention or by a rule.
func (r *Retention) AnyWaits() bool {
	return r.Waits || slices.ContainsFunc(r.Rules, func(one RuleRetention) bool { return one.Waits })
}

// Deletes reports whether any readings are ever too old.
func (r *Retention) Deletes() bool {
	return r.KeepSeconds > 0 || slices.ContainsFunc(r.Rules, func(one RuleRetention) bool { return one.KeepSeconds > 0 })
}

// retentionState is what is remembered of one lane in the database, UTC ms.
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

// lane is the devices whose readings are kept for one time: those of a rule, or at last those of none.
type lane struct {
	of   store.Devices // nil: all
	keep time.Duration
}

func (s *Server) lanes() []lane {
	if len(s.rules) == 0 {
		return []lane{{nil, s.keep}}
	}
	list := make([]lane, len(s.rules)+1)
	for i := range list {
		list[i] = lane{func(device string) bool { return s.rules.Of(device) == i }, s.keep}
		if i < len(s.rules) {
			list[i].keep = s.rules[i].Keep
		}
	}
	return list
}

// rememberedLanes is how the states of lanes are written where there are rules, behind the zeros of a version that knows none. They
// are of these patterns: with others, devices would come into a lane that says that what they have is gone long since.
type rememberedLanes struct {
	Devices []string   `json:"devices"`
	Lanes   [][2]int64 `json:"lanes"`
}

// retentionStates are those of s.lanes.
func (s *Server) retentionStates(ctx context.Context) ([]retentionState, error) {
	states := make([]retentionState, len(s.rules)+1)
	text, err := s.store.Setting(ctx, store.SettingRetention)
	if err != nil || text == "" {
		return states, err
	}
	damaged := fmt.Errorf("setting %s is damaged: %q", store.SettingRetention, text)
	numbers, rest, ruled := strings.Cut(text, "{")
	var one retentionState
	if _, err := fmt.Sscanf(numbers, "%d %d", &one.gone, &one.confirmed); err != nil {
		return nil, damaged
	}
	var known rememberedLanes
	if ruled && json.Unmarshal([]byte("{"+rest), &known) != nil {
		return nil, damaged
	}
	switch {
	case !slices.Equal(known.Devices, s.rules.Patterns()): // other rules, or none: nothing goes at once
	case !ruled:
		states[0] = one
	case len(known.Lanes) != len(states):
		return nil, damaged
	default:
		for i, l := range known.Lanes {
			states[i] = retentionState{l[0], l[1]}
		}
	}
	return states, nil
}

func (s *Server) setRetentionStates(ctx context.Context, states []retentionState) error {
	text := fmt.Sprintf("%d %d", states[0].gone, states[0].confirmed)
	if len(s.rules) > 0 {
		known := rememberedLanes{Devices: s.rules.Patterns()}
		for _, state := range states {
			known.Lanes = append(known.Lanes, [2]int64{state.gone, state.confirmed})
		}
		body, err := json.Marshal(known)
		if err != nil {
			return err
		}
		text = "0 0 " + string(body)
	}
	return s.store.SetSetting(ctx, store.SettingRetention, text)
}

// DeleteOld deletes readings older than Options.Keep, or than the rule of their device says, and returns how many rows that were and
// before when. Budget is how much uptime has passed since the last call. What is kept for ever stays, and while the clock is not to be
// trusted all does.
func (s *Server) DeleteOld(ctx context.Context, budget time.Duration) (deleted int64, before time.Time, err error) {
	s.retaining.Lock()
	defer s.retaining.Unlock()
	if s.doubt() != "" {
		return 0, time.Time{}, nil
	}
	states, err := s.retentionStates(ctx)
	if err != nil {
		return 0, time.Time{}, err
	}
	was := slices.Clone(states)
	for i, l := range s.lanes() {
		if s.doubt() != "" {
			break // it began while another lane was at work
		}
		if l.keep <= 0 {
			states[i] = retentionState{} // who keeps for ever has let nothing go when that ends
			continue
		}
		n, laneErr := s.deleteLane(ctx, l, &states[i], budget)
		if deleted += n; n > 0 || before.IsZero() {
			before = later(before, time.UnixMilli(states[i].gone))
		}
		err = errors.Join(err, laneErr)
	}
	if err == nil && !slices.Equal(states, was) {
		err = s.setRetentionStates(ctx, states)
	}
	return deleted, before, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *Server) deleteLane(ctx context.Context, l lane, state *retentionState, budget time.Duration) (deleted int64, err error) {
	due, left := s.now().Add(-l.keep).UnixMilli(), budget.Milliseconds()
	for again := true; again && err == nil; {
		oldest, found, lookErr := s.store.OldestReadingOf(ctx, l.of, time.UnixMilli(state.gone))
		if lookErr != nil {
			return deleted, lookErr
		}
		at := oldest.UnixMilli()
		if !found {
			at = due
		}
		var n int64
		state.gone, left = nextCutoff(*state, at, due, left)
		n, err = s.store.DeleteBeforeOf(ctx, l.of, time.UnixMilli(state.gone))
		deleted += n
		again = left > 0 && state.gone < due
	}
	return deleted, err
}

// retention is Retention without counting.
func (s *Server) retention(ctx context.Context) (r Retention, err error) {
	states, err := s.retentionStates(ctx)
	if err != nil {
		return Retention{}, err
	}
	r.Doubt = s.doubt()
	for i, l := range s.lanes() {
		one, err := s.laneRetention(ctx, l, states[i])
		if err != nil {
			return Retention{}, err
		}
		if i < len(s.rules) {
			r.Rules = append(r.Rules, RuleRetention{Device: s.rules[i].Device, LaneRetention: one})
		} else {
			r.LaneRetention = one
		}
	}
	return r, nil
}

func (s *Server) laneRetention(ctx context.Context, l lane, state retentionState) (LaneRetention, error) {
	r := LaneRetention{KeepSeconds: int64(l.keep.Seconds()), Gone: Moment(state.gone), Confirmed: Moment(state.confirmed)}
	if l.keep <= 0 {
		return r, nil
	}
	r.Due = Moment(s.now().Add(-l.keep).UnixMilli())
	oldest, found, err := s.store.OldestReadingOf(ctx, l.of, time.UnixMilli(state.gone))
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
	if err != nil {
		return w, err
	}
	for i, l := range s.lanes() {
		one, messages, newest := w.LaneRetention, &w.Messages, &w.Newest
		if i < len(w.Rules) {
			one, messages, newest = w.Rules[i].LaneRetention, &w.Rules[i].Messages, &w.Rules[i].Newest
		}
		if one.Oldest == 0 {
			continue
		}
		rows, last, err := s.store.CountBeforeOf(ctx, l.of, one.Due.Time())
		if err != nil {
			return w, err
		}
		*messages, *newest = rows, Moment(last.UnixMilli())
	}
	return w, nil
}

// ConfirmRetention implements Operator.
func (s *Server) ConfirmRetention(ctx context.Context, seen Retention) error {
	if why := s.doubt(); why != "" {
		return fmt.Errorf("confirm: the clock is not to be trusted: %s", why)
	}
	s.retaining.Lock()
	defer s.retaining.Unlock()
	states, err := s.retentionStates(ctx)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(seen.Rules, s.rules, func(r RuleRetention, rule keep.Rule) bool { return r.Device == rule.Device }) {
		return fmt.Errorf("confirm: store.retention_rules has changed meanwhile: %w", ErrNothingToConfirm)
	}
	any := false
	for i, l := range s.lanes() {
		before := int64(seen.Due)
		if i < len(seen.Rules) {
			before = int64(seen.Rules[i].Due)
		}
		if due := s.now().Add(-l.keep).UnixMilli(); l.keep > 0 && before > states[i].gone && before <= due {
			states[i].confirmed = max(states[i].confirmed, before)
			any = true
		}
	}
	if !any {
		return fmt.Errorf("confirm: %w before %s", ErrNothingToConfirm, seen.Due)
	}
	if err := s.setRetentionStates(ctx, states); err != nil {
		return err
	}
	if s.running != nil && s.running.Retain != nil {
		s.running.Retain()
	}
	return nil
}
