package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

func newRetention(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "retention",
		Short: "Show what store.retention deletes, and confirm a large deletion",
		Long: `Readings that are older than store.retention are deleted by and by: never more per day of uptime than a day of
readings, because the clock may be wrong or the setting a mistake. After store.retention was lowered, or set for the first time,
more may wait: "retention show" says how much, and "retention confirm" lets it go at once.`,
	}, newRetentionShow(a), newRetentionConfirm(a))
}

func newRetentionShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how long readings are kept, and what waits to be deleted",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.operate(cmd.Context(), func(_ config.Config, o control.Operator) error {
				w, err := o.Retention(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, w)
				}
				return table(a.stdout, retentionRows(w))
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func retentionRows(w control.WaitingRetention) [][]string {
	if w.KeepSeconds == 0 {
		return [][]string{{"kept", "for ever (store.retention is 0)"}}
	}
	rows := [][]string{
		{"kept", control.Span(time.Duration(w.KeepSeconds) * time.Second)},
		{"deleted", "what is older than " + local(w.Gone)},
		{"waiting", "nothing"},
	}
	if w.Gone == 0 {
		rows[1][1] = "nothing yet"
	}
	if w.Messages > 0 {
		rows[2][1] = fmt.Sprintf("%s, from %s to %s", count(w.Messages, "message"), local(w.Oldest), local(w.Newest))
	}
	if w.Doubt != "" {
		rows = append(rows, []string{"clock", "not to be trusted, so nothing is deleted: " + w.Doubt})
	}
	return rows
}

func newRetentionConfirm(a *app) *cobra.Command {
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Delete at once what is older than store.retention",
		Long: `Say what is older than store.retention, ask, and delete it for good. Without a terminal add --yes. Where no server
runs the next one deletes it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.operate(cmd.Context(), func(_ config.Config, o control.Operator) error {
				w, err := o.Retention(cmd.Context())
				switch {
				case err != nil:
					return err
				case w.KeepSeconds == 0:
					return fmt.Errorf("%w: store.retention is 0, readings are kept for ever", control.ErrNothingToConfirm)
				case w.Doubt != "":
					return fmt.Errorf("the clock is not to be trusted: %s", w.Doubt)
				case w.Messages == 0:
					return fmt.Errorf("%w: no reading is older than store.retention", control.ErrNothingToConfirm)
				case !yes:
					if err := a.askWhetherToDelete(cmd, w); err != nil {
						return err
					}
				}
				if err := o.ConfirmRetention(cmd.Context(), w.Due); err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, w)
				}
				_, err = fmt.Fprintf(a.stdout, "Confirmed: the running server, or the next one, deletes %s before %s.\n",
					count(w.Messages, "message"), local(w.Due))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// askWhetherToDelete returns nil when a person at a terminal types yes.
func (a *app) askWhetherToDelete(cmd *cobra.Command, w control.WaitingRetention) error {
	if a.stdin == nil || !term.IsTerminal(int(a.stdin.Fd())) {
		return usageError(cmd, fmt.Errorf("this deletes %s, from %s to %s, for good: add --yes if you mean it",
			count(w.Messages, "message"), local(w.Oldest), local(w.Newest)))
	}
	fmt.Fprintf(a.stderr, "This deletes %s, from %s to %s, for good. Type yes to go on: ", count(w.Messages, "message"), local(w.Oldest), local(w.Newest))
	answer, err := readLine(cmd.Context(), a)
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("nothing was deleted")
	}
	return nil
}

// readLine reads a line from the terminal, or gives up when ctx ends.
func readLine(ctx context.Context, a *app) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() { // ends with the process: a read from a terminal cannot be broken off
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
