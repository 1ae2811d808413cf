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
more may wait: "retention show" says how much, and "retention confirm" lets it go at once. Each rule of store.retention_rules has a day per
day of its own; when the rules are changed, what was confirmed is forgotten.`,
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

// retentionRows are a few for each rule, the devices before their colon, and for the devices of none.
func retentionRows(w control.WaitingRetention) (rows [][]string) {
	others := ""
	for _, r := range w.Rules {
		rows = append(rows, laneRows(r.Device+": ", r.LaneRetention, r.Messages, r.Newest)...)
		others = "others: "
	}
	if len(w.Rules) == 0 && w.KeepSeconds == 0 {
		return [][]string{{"kept", "for ever (store.retention is 0)"}}
	}
	rows = append(rows, laneRows(others, w.LaneRetention, w.Messages, w.Newest)...)
	if w.Doubt != "" {
		rows = append(rows, []string{"clock", "not to be trusted, so nothing is deleted: " + w.Doubt})
	}
	return rows
}

func laneRows(of string, r control.LaneRetention, messages int64, newest control.Moment) [][]string {
	if r.KeepSeconds == 0 {
		return [][]string{{of + "kept", "for ever"}}
	}
	rows := [][]string{
		{of + "kept", control.Span(time.Duration(r.KeepSeconds) * time.Second)},
		{of + "deleted", "what is older than " + local(r.Gone)},
		{of + "waiting", "nothing"},
	}
	if r.Gone == 0 {
		rows[1][1] = "nothing yet"
	}
	if messages > 0 {
		rows[2][1] = fmt.Sprintf("%s, from %s to %s", count(messages, "message"), local(r.Oldest), local(newest))
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
				messages, _, _ := w.All()
				switch {
				case err != nil:
					return err
				case !w.Deletes():
					return fmt.Errorf("%w: store.retention is 0, readings are kept for ever", control.ErrNothingToConfirm)
				case w.Doubt != "":
					return fmt.Errorf("the clock is not to be trusted: %s", w.Doubt)
				case messages == 0:
					return fmt.Errorf("%w: no reading is older than store.retention", control.ErrNothingToConfirm)
				case !yes:
					if err := a.askWhetherToDelete(cmd, w); err != nil {
						return err
					}
				}
				if err := o.ConfirmRetention(cmd.Context(), w.Retention); err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, w)
				}
				_, err = fmt.Fprintf(a.stdout, "Confirmed: the running server, or the next one, deletes %s.\n", waitingText(w))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// waitingText is for people: "12 messages before …", or with rules "12 messages of greenhouse-* before …, 3 of other devices before …".
func waitingText(w control.WaitingRetention) string {
	var parts []string
	add := func(messages int64, of string, due control.Moment) {
		if messages > 0 {
			parts = append(parts, fmt.Sprintf("%s%s before %s", count(messages, "message"), of, local(due)))
		}
	}
	for _, r := range w.Rules {
		add(r.Messages, " of "+r.Device, r.Due)
	}
	others := ""
	if len(w.Rules) > 0 {
		others = " of other devices"
	}
	add(w.Messages, others, w.Due)
	return strings.Join(parts, ", ")
}

// askWhetherToDelete returns nil when a person at a terminal types yes.
func (a *app) askWhetherToDelete(cmd *cobra.Command, w control.WaitingRetention) error {
	_, oldest, newest := w.All()
	what := fmt.Sprintf("This deletes %s, from %s to %s, for good", waitingText(w), local(oldest), local(newest))
	if a.stdin == nil || !term.IsTerminal(int(a.stdin.Fd())) {
		return usageError(cmd, fmt.Errorf("%s: add --yes if you mean it", strings.Replace(what, "This", "this", 1)))
	}
	fmt.Fprintf(a.stderr, "%s. Type yes to go on: ", what)
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
