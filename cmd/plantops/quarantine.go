package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
)

func newQuarantine(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "quarantine",
		Short: "Look at messages that could not be stored as readings, try them again, delete them",
	}, newQuarantineList(a), newQuarantineShow(a), newQuarantineReplay(a), newQuarantinePurge(a))
}

// quarantinedMessage is a quarantined message as commands print it.
type quarantinedMessage struct {
	ID      int64          `json:"id"`
	Time    control.Moment `json:"time"`
	Device  string         `json:"device"`
	Topic   string         `json:"topic"`
	Reason  string         `json:"reason"`
	Bytes   int            `json:"bytes"`
	Payload []byte         `json:"payload"` // Base64 in JSON: it may be anything
}

func newQuarantinedMessage(q store.QuarantineEntry) quarantinedMessage {
	return quarantinedMessage{q.ID, control.Moment(q.Time), q.Device, q.Topic, q.Reason, q.Size, q.Payload}
}

func newQuarantineList(a *app) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the newest quarantined messages, in order of arrival",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError(cmd, fmt.Errorf("--limit %d: use a positive number", limit))
			}
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				rows := [][]string{{"ID", "TIME", "DEVICE", "REASON", "PAYLOAD"}}
				list := []quarantinedMessage{}
				for q, err := range db.Quarantine(cmd.Context(), limit) {
					if err != nil {
						return err
					}
					list = append(list, newQuarantinedMessage(q))
					rows = append(rows, []string{strconv.FormatInt(q.ID, 10), local(control.Moment(q.Time)), orDash(q.Device),
						q.Reason, fmt.Sprintf("%.64q", q.Payload)})
				}
				if asJSON {
					return printJSON(a.stdout, list)
				}
				if len(list) == 0 {
					a.warn("the quarantine is empty")
				}
				if err := table(a.stdout, rows); err != nil {
					return err
				}
				return a.printSummaries(cmd.Context(), db)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// printSummaries says what is only counted any more, after an empty line, or nothing.
func (a *app) printSummaries(ctx context.Context, db *store.Store) error {
	gone, err := db.QuarantineSummaries(ctx)
	if err != nil || len(gone) == 0 {
		return err
	}
	rows := [][]string{{"DEVICE", "MADE ROOM, ONLY COUNTED", "TIMES", "FIRST", "LAST"}}
	for _, g := range gone {
		rows = append(rows, []string{orDash(g.Device), g.Reason, fmt.Sprint(g.Count), local(control.Moment(g.First)), local(control.Moment(g.Last))})
	}
	fmt.Fprintln(a.stdout)
	return table(a.stdout, rows)
}

func newQuarantineShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one quarantined message whole",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := parseIDs(args)
			if err != nil {
				return usageError(cmd, err)
			}
			return a.read(cmd.Context(), func(_ config.Config, db *store.Store) error {
				q, err := db.QuarantineEntry(cmd.Context(), ids[0])
				if err != nil {
					return control.WithHint(err, "the ids are in: plantops quarantine list")
				}
				if asJSON {
					return printJSON(a.stdout, newQuarantinedMessage(q))
				}
				if err := table(a.stdout, [][]string{
					{"id", strconv.FormatInt(q.ID, 10)}, {"time", local(control.Moment(q.Time))}, {"device", orDash(q.Device)},
					{"topic", strconv.Quote(q.Topic)}, {"reason", q.Reason}, {"size", control.Bytes(q.Size).String()},
				}); err != nil {
					return err
				}
				// Quoted: what a device sends must not drive the terminal.
				_, err = fmt.Fprintf(a.stdout, "payload\n%q\n", q.Payload)
				return err
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newQuarantineReplay(a *app) *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "replay [ID...]",
		Short: "Decode quarantined messages again, for instance after an upgrade",
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := selectIDs(args, all)
			if err != nil {
				return usageError(cmd, err)
			}
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				result, err := o.ReplayQuarantine(cmd.Context(), ids)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, result)
				}
				_, err = fmt.Fprintf(a.stdout, "%d stored, %d still in quarantine\n", result.Stored, result.Remaining)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newQuarantinePurge(a *app) *cobra.Command {
	var all, yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Delete quarantined messages for good",
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := selectIDs(args, all)
			if err == nil && !yes {
				err = errors.New("this deletes messages for good: add --yes if you mean it")
			}
			if err != nil {
				return usageError(cmd, err)
			}
			return a.operateExisting(cmd.Context(), func(_ config.Config, o control.Operator) error {
				n, err := o.PurgeQuarantine(cmd.Context(), ids)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, map[string]int64{"purged": n})
				}
				_, err = fmt.Fprintf(a.stdout, "%d deleted\n", n)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete them")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// selectIDs returns the ids given; none stands for all, which must be asked for.
func selectIDs(args []string, all bool) ([]int64, error) {
	switch {
	case all && len(args) > 0:
		return nil, errors.New("name ids or use --all, not both")
	case !all && len(args) == 0:
		return nil, errors.New("name the ids, or use --all")
	}
	return parseIDs(args)
}

func parseIDs(args []string) ([]int64, error) {
	ids := make([]int64, len(args))
	for i, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return nil, fmt.Errorf("%q is no id of a quarantined message", arg)
		}
		ids[i] = id
	}
	return ids, nil
}
