package control

import (
	"context"
	"time"

	"github.com/plantops/plantops/store/backup"
)

// BackupPlan is what the configuration says about backups.
type BackupPlan struct {
	Every time.Duration // 0: none are made by themselves
	Dir   string
}

// Backups is what is known of backups.
type Backups struct {
	EverySeconds int64  `json:"every_seconds"` // 0: none are made by themselves
	Dir          string `json:"dir,omitempty"`
	Last         Moment `json:"last"` // the newest good one, by whomever; null: none is known
	Path         string `json:"path,omitempty"`
	SizeBytes    int64  `json:"size_bytes,omitempty"`
	ByPerson     bool   `json:"by_person,omitempty"` // the newest was made by a command
	Failed       Moment `json:"failed"`              // null: the last attempt was good
	Error        string `json:"error,omitempty"`
	AfterError   string `json:"after_error,omitempty"` // of the command of backup.after
	Next         Moment `json:"next"`                  // null: not by themselves
}

// lateAfter is how many times backup.every the newest backup may be old.
const lateAfter = 2

// addBackups tells how old the newest backup is.
func (st *Status) addBackups(ctx context.Context, plan BackupPlan, from backup.Settings, now time.Time) error {
	state, byPerson, err := backup.Remembered(ctx, from)
	if err != nil {
		return err
	}
	b := Backups{EverySeconds: int64(plan.Every.Seconds()), Failed: Moment(state.Failed), Error: state.Error, AfterError: state.AfterError}
	newest := state.Last
	if byPerson != nil && (newest == nil || byPerson.Made > newest.Made) {
		newest, b.ByPerson = byPerson, true
	}
	if newest != nil {
		b.Last, b.Path, b.SizeBytes = Moment(newest.Made), newest.Path, newest.Bytes
	}
	if plan.Every > 0 {
		b.Dir = plan.Dir
		b.Next = Moment(now.UnixMilli())
		if state.Last != nil {
			b.Next = max(b.Next, Moment(state.Last.Made+plan.Every.Milliseconds()))
		}
		switch {
		case b.Error != "":
			st.problem("the last backup failed: %s", b.Error)
		case state.Last != nil && st.ClockDoubt == "" && now.Sub(time.UnixMilli(state.Last.Made)) > lateAfter*plan.Every+time.Hour:
			st.problem("the newest backup is %s old", Span(now.Sub(time.UnixMilli(state.Last.Made))))
		}
		if b.AfterError != "" {
			st.problem("the command of backup.after failed, so that the newest backup is only here: %s", b.AfterError)
		}
	}
	st.Backups = b
	return nil
}

// NoteBackup implements Operator.
func (s *Server) NoteBackup(ctx context.Context, e backup.Entry) error {
	return backup.Note(ctx, s.store, e)
}
