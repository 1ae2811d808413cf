package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/sqldoor"
)

// maxStatementBytes is more than SQLite takes (SQLITE_MAX_SQL_LENGTH is 1,000,000,000, but nobody types that).
const maxStatementBytes = 1 << 20

func newSQL(a *app) *cobra.Command {
	var format string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sql STATEMENT",
		Short: "Answer a question in SQL; nothing is ever written",
		Long: `Answer a question in SQL, beside the running server or without one. Nothing is ever written. STATEMENT is one SELECT (or WITH,
VALUES, EXPLAIN) as SQLite takes it; - reads it from standard input.

Tables to ask:
  reading(device, time, metric, value, received)              all readings; ask for a device or a time, or all are read
  latest(device, time, metric, value)                         the newest reading of each metric
  hourly(time, device, metric, min, avg, max, count)          each hour that has readings; time in seconds
  devices(device, created, registered, last_seen, last_reading)
  metrics(device, metric)                                     which metrics each has

Times are milliseconds since 1970, UTC: datetime(time/1000, 'unixepoch') shows them, and
unixepoch('2026-03-01')*1000 or unixepoch('now', '-7 days')*1000 make them. docs/sql.md has more.

Exit code 1: also when some readings could not be read; the answer is of the others.`,
		Example: `  plantops sql "SELECT * FROM latest"
  plantops sql "SELECT datetime(time/1000,'unixepoch') AS at, value FROM reading
                WHERE device='bed-1' AND metric='temperature' AND time > unixepoch('now','-1 day')*1000"
  plantops sql --format csv - < question.sql`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				format = "json"
			}
			if format != "table" && format != "csv" && format != "json" {
				return usageError(cmd, fmt.Errorf("--format %s: use table, csv or json", format))
			}
			text := args[0]
			if text == "-" {
				read, err := a.readStatement()
				if err != nil {
					return err
				}
				text = read
			}
			statement, err := sqldoor.Statement(text)
			if err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(cfg config.Config, db *store.Store) error {
				return a.askSQL(cmd.Context(), cfg, db, statement, format)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "table, csv or json")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --format json")
	return cmd
}

func (a *app) readStatement() (string, error) {
	if a.stdin == nil {
		return "", errors.New("read the statement: there is no standard input")
	}
	text, err := io.ReadAll(io.LimitReader(a.stdin, maxStatementBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the statement: %w", err)
	case len(text) > maxStatementBytes:
		return "", fmt.Errorf("read the statement: it has more than %d bytes", maxStatementBytes)
	}
	return string(text), nil
}

// askSQL prints the answer as it comes.
func (a *app) askSQL(ctx context.Context, cfg config.Config, db *store.Store, statement, format string) error {
	path, err := store.RealPath(cfg.StorePath())
	if err != nil {
		return err
	}
	var missing []error
	more := 0
	door, err := sqldoor.Open(ctx, sqldoor.Options{Path: path, View: db.View, Damaged: func(d *store.DamagedError) {
		if more++; len(missing) < maxDamageSaid {
			missing = append(missing, d)
		}
	}})
	if err != nil {
		return err
	}
	defer door.Close() // it only reads
	buffered := bufio.NewWriter(a.stdout)
	out := listing.NewRowWriter(format, buffered)
	begun := false
	err = door.Query(ctx, statement, func(columns []string) error {
		begun = true
		return out.Begin(columns)
	}, out.Write)
	if begun {
		err = errors.Join(err, out.End(), buffered.Flush()) // also what came until then
	}
	if errors.Is(err, sqldoor.ErrWrites) {
		return control.WithHint(fmt.Errorf("answer: %w", err), `"plantops export --sqlite FILE" makes a file of its own that may be written`)
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	a.warnOfSalvage(ctx, db)
	if more > len(missing) {
		missing = append(missing, fmt.Errorf("and %s more", count(more-len(missing), "stretch of readings")))
	}
	return errors.Join(missing...)
}

// maxDamageSaid is how much of what cannot be read is said one by one.
const maxDamageSaid = 20
