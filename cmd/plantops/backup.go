package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/plantops/plantops/cmd/plantops/progress"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

func newBackup(a *app) *cobra.Command {
	var force, withoutCerts, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a checked copy of the database and the certificates into one file",
		Long: `Write everything into one file: readings, accounts, the broker's state, and the certificates with the key of the certificate
authority, on which all devices depend. The server may run meanwhile, or not. The file is complete, checked and synced before it has
its name. Keep it where nobody else can read it, and not on the same card. For a folder the name is plantops-TIME.db in it.

By itself: the settings below backup, see docs/settings.md. Back: plantops restore FILE.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			r, err := a.backUp(cmd.Context(), loaded.Config, given[0], force, !withoutCerts)
			switch {
			case errors.Is(err, fs.ErrExist):
				return control.WithHint(err, "name another file, or replace it with --force")
			case err != nil:
				return err
			case asJSON:
				return printJSON(a.stdout, r)
			}
			_, err = fmt.Fprintf(a.stdout, "%s: %s, %s of %s and %s, checked, in %s\n", r.Path, control.Bytes(r.Bytes), count(r.Messages, "message"),
				count(r.Devices, "device"), count(r.Files, "certificate file"), r.Took.Round(time.Millisecond))
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a backup that is there")
	cmd.Flags().BoolVar(&withoutCerts, "without-certs", false, "leave out the certificates and their keys")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// backUp makes one backup beside the running server, or without one.
func (a *app) backUp(ctx context.Context, cfg config.Config, to string, force, withCerts bool) (backup.Result, error) {
	if err := readable(cfg); err != nil {
		return backup.Result{}, err
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, backup.Name(a.now()))
	}
	o, err := a.backupOptions(cfg, withCerts)
	if err != nil {
		return backup.Result{}, err
	}
	giveWay()
	server, err := control.Dial(ctx, cfg.SocketPath())
	o.To, o.Force, o.Gently, o.By = to, force, err == nil, backup.ByPerson
	p := newProgress(a)
	o.Told = p.Tell
	r, err := backup.Make(ctx, o)
	p.End()
	if err == nil && server != nil {
		path, err := filepath.Abs(r.Path)
		if err != nil {
			path = r.Path
		}
		if err := server.NoteBackup(ctx, backup.Entry{Made: a.now().UnixMilli(), Path: path, Bytes: r.Bytes}); err != nil {
			a.warn("the server does not know of this backup: %v", err)
		}
	}
	return r, err
}

// giveWay lets every other process go first, above all a server on a board with one core.
func giveWay() {
	const behind = 10 // as nice(1) does
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // it only costs others time
	}
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, behind) // the same
		}
	}
}

// backupOptions are those of every backup.
func (a *app) backupOptions(cfg config.Config, withCerts bool) (o backup.Options, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "" // it is only told
	}
	o = backup.Options{Database: cfg.StorePath(), Version: a.build.Version, Host: host, Now: a.now()}
	if withCerts {
		if o.Files, err = backup.ReadFiles(cfg.CertsDir()); err != nil {
			return o, fmt.Errorf("read the certificates: %w", err)
		}
	}
	return o, nil
}

// backups are those that a running server makes by itself.
func (a *app) backups(cfg config.Config, db *store.Store, unsure func() bool, log *slog.Logger) *backup.Schedule {
	return &backup.Schedule{
		Every: cfg.Backup.Every, Keep: cfg.Backup.Keep, Dir: cfg.BackupDir(), After: cfg.Backup.After,
		Settings: db, Now: a.now, Unsure: unsure, Log: log,
		Make: func(ctx context.Context, to string) (backup.Result, error) {
			o, err := a.backupOptions(cfg, cfg.Backup.Certs)
			if err != nil {
				return backup.Result{}, err
			}
			o.To, o.Gently, o.By, o.Unsure = to, true, backup.BySchedule, unsure()
			return backup.Make(ctx, o)
		},
	}
}

// readable says why a database cannot be read.
func readable(cfg config.Config) error {
	// Not by opening it: closing any descriptor of the file would end this process's locks on the database.
	err := unix.Access(cfg.StorePath(), unix.R_OK)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDatabase(cfg)
	case errors.Is(err, fs.ErrPermission):
		return control.Unauthorized(fmt.Errorf("open database %s: %w", cfg.StorePath(), err))
	case err != nil:
		return fmt.Errorf("open database %s: %w", cfg.StorePath(), err)
	}
	return nil
}

func newRestore(a *app) *cobra.Command {
	var keepCerts, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the database",
		Long: `Check a backup, then put it in the place of the database. The server must be stopped. The database that was there stays beside it as
plantops.db.before-restore-TIME. The certificates of the backup come back too where others are in use, so that devices find the server that
they know; those that were there stay as certs.before-restore-TIME.

What came after the backup was made is not in it; it is in the old database. Sessions go on as they were then: what waited in their
queues is sent, some of it a second time.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			loaded, err := a.load()
			if err != nil {
				return err
			}
			p := newProgress(a)
			r, err := a.restore(cmd.Context(), loaded.Config, given[0], !keepCerts, p.Tell)
			p.End()
			if err != nil {
				return restoreHints(err)
			}
			if asJSON {
				return printJSON(a.stdout, r)
			}
			return printRestored(a, r)
		},
	}
	cmd.Flags().BoolVar(&keepCerts, "keep-certs", false, "leave the certificates as they are")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// restored is what became of a backup.
type restored struct {
	Database    string        `json:"database"`
	OldDatabase string        `json:"old_database,omitempty"`
	Messages    int64         `json:"messages"`
	Devices     int64         `json:"devices"`
	Backup      *backup.Info  `json:"backup"`
	Certs       restoredCerts `json:"certs"`
	OldCerts    string        `json:"old_certs,omitempty"`
}

// restoredCerts says what became of the certificates.
type restoredCerts string

const (
	certsNone     restoredCerts = "none"     // in the backup
	certsSame     restoredCerts = "same"     // the authority in use is that of the backup
	certsRestored restoredCerts = "restored" //
	certsKept     restoredCerts = "kept"     // others than in the backup, because of --keep-certs
)

func (a *app) restore(ctx context.Context, cfg config.Config, from string, withCerts bool, told backup.Told) (r restored, err error) {
	if err := makeDataDir(cfg.DataDir); err != nil {
		return r, err
	}
	lock, err := control.AcquireLock(ctx, cfg.DataDir, lockWait)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	database, err := control.AcquireDatabase(ctx, cfg.StorePath(), lockWait)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, database.Release()) }()
	report, err := backup.Verify(ctx, from, told)
	if err != nil {
		return r, err
	}
	now := a.now()
	done, err := backup.Restore(ctx, backup.RestoreOptions{From: from, Database: cfg.StorePath(), Now: now, Told: told})
	if err != nil {
		return r, err
	}
	r = restored{Database: cfg.StorePath(), OldDatabase: done.Old, Messages: report.Messages, Devices: report.Devices, Backup: report.Backup}
	r.Certs, r.OldCerts, err = restoreCerts(cfg.CertsDir(), done.Files, withCerts, now)
	if err != nil {
		err = control.WithHint(fmt.Errorf("the database is restored, the certificates are not: %w", err),
			"make room or mend the permissions of "+cfg.CertsDir()+", then run the same command again")
	}
	return r, err
}

// restoreCerts puts the certificates of a backup in the place of others. A server certificate that was renewed since is no other
// authority.
func restoreCerts(dir string, files []backup.File, wanted bool, now time.Time) (restoredCerts, string, error) {
	if len(files) == 0 {
		return certsNone, "", nil
	}
	there, err := backup.ReadFiles(dir)
	if err != nil {
		return "", "", err
	}
	if sameAuthority(there, files) {
		return certsSame, "", nil
	}
	if !wanted {
		return certsKept, "", nil
	}
	old := ""
	if len(there) > 0 {
		old = filepath.Clean(dir) + ".before-restore-" + now.UTC().Format("20060102T150405.000Z")
		if err := backup.WriteFiles(old, there); err != nil {
			return "", "", err
		}
	}
	return certsRestored, old, backup.WriteFiles(dir, authorityLast(files))
}

// authorityLast puts files into the order in which they are restored: what is broken off is found unfinished by the next attempt, as long
// as the authority is still another one.
func authorityLast(files []backup.File) []backup.File {
	last := func(f backup.File) int {
		if f.Name == "ca.key" || f.Name == "ca.crt" {
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(files), func(a, b backup.File) int { return last(a) - last(b) })
}

func sameAuthority(a, b []backup.File) bool {
	content := func(files []backup.File, name string) string {
		for _, f := range files {
			if f.Name == name {
				return string(f.Content)
			}
		}
		return ""
	}
	for _, name := range []string{"ca.key", "ca.crt"} {
		if content(a, name) != content(b, name) {
			return false
		}
	}
	return true
}

// restoreHints says how to go on.
func restoreHints(err error) error {
	var locked *control.LockedError
	var database *control.DatabaseLockedError
	switch {
	case errors.As(err, &locked), errors.As(err, &database):
		return control.WithHint(err, "stop the server first: sudo systemctl stop plantops; start it again afterwards")
	case errors.Is(err, backup.ErrUnfinished):
		return control.WithHint(err, `start the server once ("plantops serve"), which finishes it, or move that file away; then restore again`)
	case errors.Is(err, store.ErrNewerSchema):
		return control.WithHint(err, "restore it with the version of plantops that made it, or a later one")
	case errors.Is(err, store.ErrForeign):
		return control.WithHint(err, `name a file that "plantops backup" made`)
	case errors.Is(err, store.ErrDamaged):
		return control.WithHint(err, `try an older backup; "plantops check FILE" says all that is wrong with one`)
	}
	return err
}

func printRestored(a *app, r restored) error {
	made := "."
	if r.Backup != nil && !r.Backup.Made.IsZero() {
		made = ", as of " + local(control.Moment(r.Backup.Made.UnixMilli())) + "."
	}
	text := fmt.Sprintf("%s is restored: %s of %s%s\n", r.Database, count(r.Messages, "message"), count(r.Devices, "device"), made)
	if r.OldDatabase != "" {
		text += fmt.Sprintf("The database that was there is %s: remove it when all is well.\n", r.OldDatabase)
	}
	switch r.Certs {
	case certsNone:
		text += "There are no certificates in this backup: those in use stay.\n"
	case certsSame:
		text += "The certificate authority is the same.\n"
	case certsKept:
		text += "The certificate authority in use is another one than in the backup, and stays: devices of the backup do not trust it.\n"
	case certsRestored:
		text += "The certificates are those of the backup again.\n"
		if r.OldCerts != "" {
			text += fmt.Sprintf("Those that were there are in %s.\n", r.OldCerts)
		}
	}
	_, err := fmt.Fprint(a.stdout, text+"Now start the server.\n")
	return err
}

func newCheck(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read all of the database or of a backup, and say what is damaged",
		Long: `Read the whole database, also while the server runs, or a backup: SQLite's own check, every blob, and whether as many messages are
there as were counted.

Exit code 0: all is well; 1: something is damaged, and it stands there what and what to do; 3: not a database of this program, or a newer
one.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			r, err := a.check(cmd.Context(), given)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.stdout, r)
			} else {
				err = printCheck(a, r)
			}
			if err != nil || len(r.Findings) == 0 {
				return err
			}
			remedy := `restart the server: it makes a damaged database anew from what can be read, and says in "plantops status" what is lost; ` +
				`or put a backup in its place: "plantops restore FILE"`
			if len(given) > 0 {
				remedy = `do not rely on this file: look at older ones, and make another with "plantops backup FILE"`
			}
			return control.WithHint(fmt.Errorf("%s is %w: %s", r.Path, store.ErrDamaged, count(len(r.Findings), "finding")), remedy)
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// check looks at a file or, without one, at the database and at what the running server counts.
func (a *app) check(ctx context.Context, given []string) (backup.Report, error) {
	p := newProgress(a)
	defer p.End()
	giveWay()
	if len(given) > 0 {
		return backup.Check(ctx, given[0], backup.CheckOptions{Told: p.Tell})
	}
	loaded, err := a.load()
	if err != nil {
		return backup.Report{}, err
	}
	cfg := loaded.Config
	if err := readable(cfg); err != nil {
		return backup.Report{}, err
	}
	r, err := backup.Check(ctx, cfg.StorePath(), backup.CheckOptions{Told: p.Tell})
	if err != nil {
		return r, err
	}
	if server, err := control.Dial(ctx, cfg.SocketPath()); err == nil {
		s, err := server.Status(ctx)
		if err != nil {
			return r, err
		}
		if n := s.Messages.Difference; n != 0 {
			r.Findings = append(r.Findings, backup.Finding{Where: "the running server", What: fmt.Sprintf("%d messages are not accounted for", n)})
		}
	}
	return r, nil
}

func printCheck(a *app, r backup.Report) error {
	rows := [][]string{{"file", r.Path}, {"size", control.Bytes(r.Bytes).String()}, {"schema", fmt.Sprint(r.Schema)}}
	if b := r.Backup; b != nil {
		made := "at a time that is not known"
		if !b.Made.IsZero() {
			made = local(control.Moment(b.Made.UnixMilli()))
		}
		rows = append(rows, []string{"backup", fmt.Sprintf("made %s by version %s on %s, with %s", made, b.Version, orDash(b.Host), count(len(b.Files), "certificate file"))})
	}
	if r.Older {
		rows = append(rows, []string{"stored", "of an older version: what is in it is checked when a start has brought it up to date"})
	} else {
		rows = append(rows, []string{"stored", fmt.Sprintf("%s of %s", count(r.Messages, "message"), count(r.Devices, "device"))})
	}
	result := "all is well"
	if len(r.Findings) > 0 {
		result = count(len(r.Findings), "finding")
	}
	rows = append(rows, []string{"result", fmt.Sprintf("%s, in %s", result, r.Took.Round(time.Millisecond))})
	for _, f := range r.Findings {
		rows = append(rows, []string{"damaged", f.Text()})
	}
	return table(a.stdout, foldRows(rows))
}

// newProgress shows nothing where standard error is no terminal.
func newProgress(a *app) *progress.Bar {
	if !isTerminal(a.stderr) {
		return nil
	}
	return progress.New(a.stderr, nil)
}
