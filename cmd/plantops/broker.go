package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/plantops/plantops/broker/topic"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

// askBroker is for commands about the broker, which only a running server has.
func (a *app) askBroker(ctx context.Context, do func(*control.Client) error) error {
	err := a.askServer(ctx, func(_ config.Config, server *control.Client) error { return do(server) })
	if errors.Is(err, control.ErrNoBroker) {
		err = control.WithHint(err, "ask that one; plantops sub and plantops pub speak to any broker")
	}
	return err
}

func newRetained(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "retained",
		Short: "List and clear the messages that the broker keeps for later subscribers",
	}, newRetainedList(a), newRetainedClear(a))
}

func newRetainedList(a *app) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list [FILTER]",
		Short: "List retained messages by topic",
		Long:  `List the retained messages that FILTER matches; without it all but those below $SYS. "plantops sub --retained-only" shows what is in them.`,
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			filter := "#"
			if len(given) > 0 {
				filter = given[0]
			}
			if err := checkRetainedFilter(filter); err != nil {
				return usageError(cmd, err)
			}
			if limit < 0 {
				return usageError(cmd, fmt.Errorf("--limit %d: use a positive number, or 0 for all", limit))
			}
			return a.askBroker(cmd.Context(), func(server *control.Client) error {
				more := limit // one more than is shown tells whether there are more
				if limit > 0 && limit < math.MaxInt {
					more++
				}
				list, err := server.Retained(cmd.Context(), filter, more)
				if err != nil {
					return err
				}
				if limit > 0 && len(list) > limit {
					list = list[:limit]
					a.warn("there are more than %d: --limit 0 shows all", limit)
				}
				if asJSON {
					return printJSON(a.stdout, list)
				}
				if len(list) == 0 {
					a.warn("no retained message matches %s", visible(filter))
					return nil
				}
				rows := [][]string{{"TOPIC", "SIZE", "ACCOUNT", "PUBLISHED"}}
				for _, r := range list {
					rows = append(rows, []string{r.Topic, r.Bytes.String(), orDash(r.Account), ago(r.Published, a.now())})
				}
				return table(a.stdout, rows)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many; 0: all")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func checkRetainedFilter(filter string) error {
	if err := topic.CheckFilter(filter, topic.Levels(filter)); err != nil {
		return fmt.Errorf("%q: %w", filter, err)
	}
	if topic.Shared(filter) {
		return fmt.Errorf("%q: retained messages belong to no share group", filter)
	}
	return nil
}

func newRetainedClear(a *app) *cobra.Command {
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "clear FILTER|TOPIC",
		Short: "Remove retained messages",
		Long: `Say how many retained messages there are, ask, and remove them as if somebody had published nothing to their topics:
subscribers get that empty message. Without a terminal add --yes.`,
		Example: `  plantops retained clear home/door
  plantops retained clear 'homeassistant/#' --yes`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			filter := given[0]
			err := checkRetainedFilter(filter)
			if err == nil && strings.HasPrefix(filter, "$") {
				err = fmt.Errorf("%q: what is below $ is the broker's own", filter)
			}
			if err != nil {
				return usageError(cmd, err)
			}
			return a.askBroker(cmd.Context(), func(server *control.Client) error {
				if !yes {
					if err := a.askWhetherToClear(cmd, server, filter); err != nil {
						return err
					}
				}
				n, err := server.ClearRetained(cmd.Context(), filter)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, map[string]int64{"cleared": n})
				}
				_, err = fmt.Fprintf(a.stdout, "Cleared %s.\n", count(n, "retained message"))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// askWhetherToClear returns nil when a person at a terminal types yes, or when there is nothing to ask about.
func (a *app) askWhetherToClear(cmd *cobra.Command, server *control.Client, filter string) error {
	list, err := server.Retained(cmd.Context(), filter, 0)
	if err != nil || len(list) == 0 {
		return err
	}
	what := count(len(list), "retained message")
	if a.stdin == nil || !term.IsTerminal(int(a.stdin.Fd())) {
		return usageError(cmd, fmt.Errorf("this removes %s: add --yes if you mean it", what))
	}
	fmt.Fprintf(a.stderr, "This removes %s, of %s. Type yes to go on: ", what, visible(list[0].Topic)+andSoOn(len(list)))
	answer, err := readLine(cmd.Context(), a)
	if err == nil && strings.TrimSpace(answer) != "yes" {
		err = errors.New("nothing was removed")
	}
	return err
}

func andSoOn(n int) string {
	if n == 1 {
		return ""
	}
	return " and others"
}

func newSession(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "session",
		Short: "List and end the sessions of the broker's clients",
	}, newSessionList(a), newSessionEnd(a))
}

func newSessionList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the clients that are connected, and those that are away and may come back",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askBroker(cmd.Context(), func(server *control.Client) error {
				list, err := server.Sessions(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, list)
				}
				if len(list) == 0 {
					a.warn("no client is connected, and none may come back")
					return nil
				}
				rows := [][]string{{"CLIENT", "ACCOUNT", "STATE", "EXPIRES", "SUBSCRIPTIONS", "WAITING", "IN FLIGHT", "MEMORY", "DISK"}}
				for _, s := range list {
					rows = append(rows, []string{s.Client, s.Account, sessionState(s, a.now()), sessionEnd(s), strconv.Itoa(s.Subscriptions),
						strconv.Itoa(s.Waiting), strconv.Itoa(s.InFlight), s.Bytes.String(), s.DiskBytes.String()})
				}
				return table(a.stdout, rows)
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func sessionState(s control.Session, now time.Time) string {
	span := control.Span(now.Sub(s.Since.Time()))
	if s.Connected {
		return "connected " + span
	}
	return "away " + span
}

// sessionEnd says when a session ends: with its connection, some time after that or, while it is away, from now.
func sessionEnd(s control.Session) string {
	switch {
	case s.ExpirySeconds == nil:
		return "never"
	case s.Connected && *s.ExpirySeconds == 0:
		return "with the connection"
	case s.Connected:
		return control.Span(time.Duration(*s.ExpirySeconds)*time.Second) + " after it"
	}
	return "in " + control.Span(time.Duration(*s.ExpirySeconds)*time.Second)
}

func newSessionEnd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "end CLIENT",
		Short: "End a session: its connection, its subscriptions and what waits in it",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.askBroker(cmd.Context(), func(server *control.Client) error {
				if err := server.EndSession(cmd.Context(), given[0]); err != nil {
					return control.WithHint(err, `sessions: plantops session list`)
				}
				_, err := fmt.Fprintf(a.stdout, "Session %s is ended. Its client may connect again; an account that must not is removed with \"plantops user remove\" or \"plantops device remove\".\n", visible(given[0]))
				return err
			})
		},
	}
}
