package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/plantops/plantops/store"
)

// How fast the database grows is measured from what it had some days ago: the bytes in use, which a deletion makes fewer
// while the file keeps its size.

const (
	growthEvery = 6 * time.Hour      // between two samples
	growthKept  = 7 * 24 * time.Hour // samples are forgotten
	// growthLeast is the span below which nothing is said: the first hours of a box are like no others.
	growthLeast = 24 * time.Hour
)

// sample is how large the database was at a time.
type sample struct {
	At   int64 `json:"at"` // UTC ms
	Used int64 `json:"used"`
}

// usedBytes is what a database has in use, without the pages that are free in it.
func usedBytes(h store.Health) int64 { return (h.Pages - h.FreePages) * h.PageBytes }

// addSample returns the samples with a new one, unless the last one is fresh. Those of another time, before a clock was set or
// since it was set back, go.
func addSample(list []sample, now time.Time, used int64) []sample {
	at := now.UnixMilli()
	var kept []sample
	for _, s := range list {
		if s.At < at && at-s.At <= (growthKept+growthEvery).Milliseconds() {
			kept = append(kept, s)
		}
	}
	if n := len(kept); n > 0 && at-kept[n-1].At < growthEvery.Milliseconds() {
		return kept
	}
	return append(kept, sample{at, used})
}

// growth returns how many bytes a day the database has grown by since the oldest sample; ok is false while that is too short ago.
func growth(list []sample, now time.Time, used int64) (perDay int64, ok bool) {
	at := now.UnixMilli()
	for _, s := range list {
		span := at - s.At
		if span < growthLeast.Milliseconds() || span > (growthKept+2*growthEvery).Milliseconds() {
			continue
		}
		return int64(float64(used-s.Used) / float64(span) * float64(24*time.Hour.Milliseconds())), true
	}
	return 0, false
}

func (s *Server) samples(ctx context.Context) (list []sample, err error) {
	text, err := s.store.Setting(ctx, store.SettingGrowth)
	if err != nil || text == "" {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("setting %s is damaged: %w", store.SettingGrowth, err)
	}
	return list, nil
}

// NoteGrowth remembers how large the database is, for the rate that Status tells. It is called every hour or so, and does nothing
// while the clock is not to be trusted.
func (s *Server) NoteGrowth(ctx context.Context) error {
	if s.doubt() != "" {
		return nil
	}
	list, err := s.samples(ctx)
	if err != nil {
		list = nil // begin anew
	}
	h, err := s.store.Health(ctx)
	if err != nil {
		return err
	}
	now := addSample(list, s.now(), usedBytes(h))
	if len(now) == len(list) && len(now) > 0 && now[0] == list[0] {
		return nil
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return s.store.SetSetting(ctx, store.SettingGrowth, string(text))
}

// maxLasts is more than anybody plans for; beyond it the disk lasts for ever.
const maxLasts = 100 * 365 * 24 * time.Hour

// addReach tells how far back readings go, how fast the database grows, and how long the disk lasts.
func (s *Server) addReach(ctx context.Context, st *Status, h store.Health) error {
	st.Storage.UsedBytes, st.Storage.MaxBytes = usedBytes(h), s.maxBytes
	oldest, found, err := s.store.OldestReading(ctx, time.UnixMilli(0))
	if err != nil {
		return err
	}
	if found {
		st.Storage.Oldest = Moment(oldest.UnixMilli())
	}
	list, err := s.samples(ctx)
	if err != nil || st.ClockDoubt != "" {
		return err
	}
	perDay, ok := growth(list, s.now(), st.Storage.UsedBytes)
	if !ok {
		return nil
	}
	st.Storage.GrowthPerDay = &perDay
	if seconds, ends := lasts(h.FreeBytes+h.FreePages*h.PageBytes, perDay); ends {
		st.Storage.LastsSeconds = &seconds
	}
	return nil
}

// lasts is after how many seconds room is used up.
func lasts(room, perDay int64) (seconds int64, ends bool) {
	if perDay <= 0 {
		return 0, false
	}
	s := float64(room) / float64(perDay) * (24 * time.Hour).Seconds()
	return int64(s), s < maxLasts.Seconds()
}

const (
	// sizeSlack is the share of store.max_size, one in so many, that is freed beyond it, and above which status says so.
	sizeSlack = 50
	// sizeShare is the share of the database, one in so many, that goes per day of uptime at most, beside twice what has come: the
	// setting may be a mistake.
	sizeShare = 20
	// sizeKept is never deleted for the size: what has just come.
	sizeKept = 24 * time.Hour
)

// DeleteForSize deletes the oldest readings while the database has more than Options.MaxBytes in use, and returns how many rows that
// were and before when. Budget is how much uptime has passed since the last call. While the clock is not to be trusted it does
// nothing.
func (s *Server) DeleteForSize(ctx context.Context, budget time.Duration) (deleted int64, before time.Time, err error) {
	s.retaining.Lock()
	defer s.retaining.Unlock()
	if s.maxBytes <= 0 || s.doubt() != "" {
		return 0, time.Time{}, nil
	}
	h, err := s.store.Health(ctx)
	if err != nil {
		return 0, time.Time{}, err
	}
	began := usedBytes(h)
	grown := int64(0)
	if s.lastUsed > 0 {
		grown = max(began-s.lastUsed, 0)
	}
	defer func() {
		if h, healthErr := s.store.Health(ctx); healthErr == nil {
			s.lastUsed = usedBytes(h)
		}
	}()
	least := began - 2*grown - int64(float64(began/sizeShare)*budget.Hours()/24) // not below this now
	goal := max(s.maxBytes-s.maxBytes/sizeSlack, least)
	// What is deleted frees room only when the journal is cut too: so the share of readings that go is bounded as well.
	most := int64(float64(h.Readings) * float64(began-goal) / float64(max(began, 1)))
	end := s.now().Add(-sizeKept)
	step := retentionStep
	for used := began; used > s.maxBytes-s.maxBytes/sizeSlack && began > s.maxBytes && used > goal && deleted < most; {
		oldest, found, err := s.store.OldestReading(ctx, time.UnixMilli(0))
		if err != nil || !found {
			return deleted, before, err
		}
		if oldest.After(before) {
			before = oldest
		}
		if before = before.Add(step); before.After(end) {
			return deleted, end, nil
		}
		n, err := s.store.DeleteBefore(ctx, before)
		if deleted += n; err != nil {
			return deleted, before, err
		}
		if n == 0 { // rows lie in blocks that go as a whole
			step = min(2*step, 24*time.Hour)
		} else {
			step = retentionStep
		}
		if h, err = s.store.Health(ctx); err != nil {
			return deleted, before, err
		}
		used = usedBytes(h)
	}
	return deleted, before, nil
}

// addSize says that the database is larger than it may be.
func (st *Status) addSize() {
	if most := st.Storage.MaxBytes; most > 0 && st.Storage.UsedBytes > most+most/sizeSlack {
		st.problem("the database has %s in use, store.max_size is %s: the oldest readings go, a twentieth of it a day at most",
			Bytes(st.Storage.UsedBytes), Bytes(most))
	}
}
