package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/plantops/plantops/store/swap"
)

// Entry is a backup that was made.
type Entry struct {
	Made   int64  `json:"made"` // UTC ms
	Unsure bool   `json:"unsure,omitempty"`
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
}

// State is what is remembered of backups that were made by themselves.
type State struct {
	Made       []Entry `json:"made,omitempty"`   // those that are to be kept or to go by the schedule, the oldest first
	Last       *Entry  `json:"last,omitempty"`   // the newest good one
	Unsure     int     `json:"unsure,omitempty"` // how many were called by a number
	Making     string  `json:"making,omitempty"` // what is on its way, or was when the power went
	Failed     int64   `json:"failed,omitempty"` // UTC ms; 0: the last attempt was good
	Error      string  `json:"error,omitempty"`
	AfterError string  `json:"after_error,omitempty"` // of the user's command, for Last
}

// Settings is where State is remembered.
type Settings interface {
	Setting(ctx context.Context, name string) (string, error)
	SetSetting(ctx context.Context, name, value string) error
}

// The names of the settings: what the schedule remembers, and the Entry of the newest backup that a person made.
const (
	SettingSchedule = "backup_schedule"
	SettingByPerson = "backup_by_person"
)

// Remembered returns what is remembered.
func Remembered(ctx context.Context, from Settings) (state State, byPerson *Entry, err error) {
	for name, to := range map[string]any{SettingSchedule: &state, SettingByPerson: &byPerson} {
		text, err := from.Setting(ctx, name)
		if err != nil {
			return state, nil, err
		}
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), to); err != nil {
			return state, nil, fmt.Errorf("setting %s is damaged: %w", name, err)
		}
	}
	return state, byPerson, nil
}

// Note remembers a backup that a person made.
func Note(ctx context.Context, in Settings, e Entry) error { return set(ctx, in, SettingByPerson, e) }

func set(ctx context.Context, in Settings, name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return in.SetSetting(ctx, name, string(text))
}

// Schedule makes backups by itself.
type Schedule struct {
	Every time.Duration
	Keep  int    // so many of those that it made; at least one
	Dir   string // is made when it is not there
	After string // a command of the user, for a shell; "" is none

	Settings Settings
	// Make makes and checks the backup to.
	Make   func(ctx context.Context, to string) (Result, error)
	Now    func() time.Time
	Unsure func() bool // Now is not to be trusted
	Log    *slog.Logger
}

const (
	firstLook = 2 * time.Minute // after the start, when devices have come back
	lookEvery = time.Minute
	// A backup that failed is tried again after retryFirst, then after twice as long each time, up to retryMost.
	retryFirst = 10 * time.Minute
	retryMost  = 6 * time.Hour
	// clockSlack is how far in the future the last backup may be: clocks are set.
	clockSlack = time.Hour
)

// Run makes backups when they are due, until ctx ends.
func (s *Schedule) Run(ctx context.Context) error {
	due := time.NewTimer(firstLook)
	defer due.Stop()
	began, retry := time.Now(), retryFirst
	var tried time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		}
		due.Reset(lookEvery)
		state, _, err := Remembered(ctx, s.Settings)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("what is known of earlier backups cannot be read", "err", err)
		}
		if !tried.IsZero() && state.Failed != 0 && time.Since(tried) < retry {
			continue
		}
		up := time.Since(began)
		if !tried.IsZero() {
			up = time.Since(tried)
		}
		if !isDue(state, s.Now(), s.Unsure(), up, s.Every) {
			continue
		}
		tried = time.Now()
		if s.Once(ctx) == nil {
			retry = retryFirst
		} else {
			retry = min(2*retry, retryMost, max(s.Every, retryFirst))
		}
	}
}

// isDue decides whether a backup is due. up is how long this process has run since it tried last, or since it began.
func isDue(state State, now time.Time, unsure bool, up, every time.Duration) bool {
	if state.Last == nil || state.Failed != 0 {
		return true
	}
	last := time.UnixMilli(state.Last.Made)
	if unsure || state.Last.Unsure || last.After(now.Add(clockSlack)) { // the two times cannot be compared
		return up >= every
	}
	return now.Sub(last) >= every
}

// Name is what a backup is called that was made at a time.
func Name(now time.Time) string { return "plantops-" + now.UTC().Format("20060102T150405Z") + ".db" }

// freeName is a name in the folder that no file has. While the clock is not to be trusted it has no time in it: two starts could
// say the same, and what looks old would not be.
func (s *Schedule) freeName(state *State, now time.Time, unsure bool) string {
	for ; ; now = now.Add(time.Second) {
		name := Name(now)
		if unsure {
			state.Unsure++
			name = fmt.Sprintf("plantops-clock-unsure-%d.db", state.Unsure)
		}
		path := filepath.Join(s.Dir, name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
}

// Once makes a backup, lets those go that are too many, and runs the user's command. The error says that there is no new backup;
// it is in the log and remembered.
func (s *Schedule) Once(ctx context.Context) error {
	state, _, err := Remembered(ctx, s.Settings)
	if err != nil {
		state = State{} // what it names is left alone
	}
	now, unsure := s.Now(), s.Unsure()
	r, err := s.makeOne(ctx, &state, now, unsure)
	if err != nil {
		if ctx.Err() != nil {
			return err // told to stop: nothing has failed
		}
		state.Failed, state.Error, state.Making = max(now.UnixMilli(), 1), err.Error(), ""
		s.Log.Error("the backup failed", "err", err)
		s.save(ctx, state)
		return err
	}
	e := Entry{Made: now.UnixMilli(), Unsure: unsure, Path: r.Path, Bytes: r.Bytes}
	state.Made, state.Last = append(state.Made, e), &e
	state.Failed, state.Error, state.Making, state.AfterError = 0, "", "", ""
	s.Log.Info("made a backup", "file", r.Path, "bytes", r.Bytes, "count", r.Messages, "took", r.Took.Round(time.Millisecond))
	state.Made = s.rotate(state.Made)
	s.save(ctx, state)
	if s.After != "" {
		if err := runAfter(ctx, s.After, r.Path, min(s.Every, afterLimit)); err != nil && ctx.Err() == nil {
			state.AfterError = err.Error()
			s.Log.Error("the command of backup.after failed; the backup itself is there", "file", r.Path, "err", err)
			s.save(ctx, state)
		}
	}
	return nil
}

func (s *Schedule) makeOne(ctx context.Context, state *State, now time.Time, unsure bool) (Result, error) {
	dir, err := filepath.Abs(s.Dir) // what is remembered must not depend on where the server was started
	if err != nil {
		return Result{}, err
	}
	s.Dir = dir
	if _, err := os.Stat(s.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(s.Dir, 0o700); err != nil {
			return Result{}, fmt.Errorf("make the folder of backups: %w", err)
		}
		if err := giveToOwnerOf(filepath.Dir(s.Dir), s.Dir); err != nil {
			return Result{}, err
		}
	}
	if state.Making != "" { // by a process that was killed, or lost its power
		if err := removePart(state.Making + partSuffix); err != nil {
			return Result{}, err
		}
		state.adopt()
	}
	state.Making = s.freeName(state, now, unsure)
	s.save(ctx, *state)
	return s.Make(ctx, state.Making)
}

// adopt takes a backup that was on its way and has its name, so that it goes in its turn: it is complete.
func (state *State) adopt() {
	info, err := os.Lstat(state.Making)
	known := slices.ContainsFunc(state.Made, func(e Entry) bool { return e.Path == state.Making })
	if err != nil || known || !info.Mode().IsRegular() {
		return
	}
	state.Made = append(state.Made, Entry{Made: info.ModTime().UnixMilli(), Unsure: true, Path: state.Making, Bytes: info.Size()})
}

// save remembers the state. That it cannot be is no reason not to go on: at worst a backup stays for ever.
func (s *Schedule) save(ctx context.Context, state State) {
	if err := set(ctx, s.Settings, SettingSchedule, state); err != nil && ctx.Err() == nil {
		s.Log.Warn("what is known of backups cannot be written down", "err", err)
	}
}

// maxRemembered bounds what is remembered of other folders.
const maxRemembered = 1000

// rotate removes the oldest of the backups that it made in its folder, beyond those to keep. Old is what was made first, whatever
// times the names have. What is not as it was made is not its own any more and stays.
func (s *Schedule) rotate(made []Entry) []Entry {
	var here, elsewhere []Entry
	for _, e := range made {
		info, err := os.Lstat(e.Path)
		switch {
		case filepath.Dir(e.Path) != s.Dir:
			elsewhere = append(elsewhere, e)
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			here = append(here, e)
		case !info.Mode().IsRegular() || info.Size() != e.Bytes:
			s.Log.Warn("a backup was changed by somebody: it stays, and counts no more", "file", e.Path)
		default:
			here = append(here, e)
		}
	}
	for len(here) > max(s.Keep, 1) {
		oldest := here[0]
		if err := os.Remove(oldest.Path); err != nil {
			s.Log.Warn("an old backup cannot be removed", "err", err)
			break
		}
		// Before it is forgotten: a power cut could bring it back, and nobody would know of it.
		if err := swap.SyncDir(oldest.Path); err != nil {
			s.Log.Warn("an old backup is removed, and may be back after a power cut", "err", err)
			break
		}
		s.Log.Info("removed an old backup", "file", oldest.Path)
		here = here[1:]
	}
	return append(elsewhere[max(0, len(elsewhere)-maxRemembered):], here...)
}
