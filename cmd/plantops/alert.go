package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/plantops/plantops/alert"
	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/cmd/plantops/mqttcli"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

func newAlert(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "alert",
		Short: "Show alerts, acknowledge and snooze them, test a channel",
		Long: `The running server judges thresholds of plants, devices that are offline, sensors and itself, and tells it to the channels of
alerts.channels: see docs/alerts.md.`,
	}, newAlertList(a), newAlertTest(a), newAlertAck(a), newAlertSnooze(a))
}

func newAlertList(a *app) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List alerts, the newest first, and the channels that they go to",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usageError(cmd, fmt.Errorf("--limit %d: use a positive number", limit))
			}
			return a.askServer(cmd.Context(), func(_ config.Config, server *control.Client) error {
				list, err := server.Alerts(cmd.Context(), limit)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(a.stdout, list)
				}
				return a.printAlerts(list)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func (a *app) printAlerts(list control.Alerts) error {
	if len(list.Alerts) == 0 {
		fmt.Fprintln(a.stdout, "There is no alert.")
	} else {
		rows := [][]string{{"ID", "ALERT", "BEGAN", "STATE"}}
		for _, one := range list.Alerts {
			n := alert.Notice{What: alert.Begins, Alert: one}
			rows = append(rows, []string{strconv.FormatInt(one.ID, 10), visible(n.Title()), ago(control.Moment(one.Opened), a.now()), alertState(one, a.now())})
		}
		if err := table(a.stdout, rows); err != nil {
			return err
		}
	}
	if len(list.Channels) == 0 {
		a.warn("no channel: alerts go to nobody; see alerts.channels in docs/alerts.md")
		return nil
	}
	fmt.Fprintln(a.stdout)
	rows := [][]string{{"CHANNEL", "TYPE", "WAITING", "STATE"}}
	for _, c := range list.Channels {
		state := "nothing sent yet"
		switch {
		case c.Trouble != "":
			state = visible(c.Trouble)
		case c.Sent != 0:
			state = "the last one " + ago(control.Moment(c.Sent), a.now())
		}
		rows = append(rows, []string{c.Name, c.Type, strconv.Itoa(c.Waiting), state})
	}
	return table(a.stdout, rows)
}

func alertState(one alert.Alert, now time.Time) string {
	switch {
	case one.Gone:
		return "no longer watched since " + local(control.Moment(one.Closed))
	case one.Closed != 0:
		return "over since " + local(control.Moment(one.Closed))
	case one.Acknowledged != 0:
		return "acknowledged by " + visible(one.By)
	case one.Snoozed > now.UnixMilli():
		return "snoozed until " + local(control.Moment(one.Snoozed))
	}
	return "lasts"
}

func newAlertTest(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test CHANNEL",
		Short: "Send a test message to a channel now",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.askServer(cmd.Context(), func(_ config.Config, server *control.Client) error {
				if err := server.TestAlerts(cmd.Context(), given[0]); err != nil {
					return err
				}
				return a.said(asJSON, map[string]string{"channel": given[0]}, "Sent a test message to %s.", given[0])
			})
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// said prints what was done.
func (a *app) said(asJSON bool, content any, format string, values ...any) error {
	if asJSON {
		return printJSON(a.stdout, content)
	}
	_, err := fmt.Fprintf(a.stdout, format+"\n", values...)
	return err
}

func alertID(cmd *cobra.Command, text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, usageError(cmd, fmt.Errorf("%q is no number of an alert: plantops alert list has them", text))
	}
	return id, nil
}

func newAlertAck(a *app) *cobra.Command {
	var asJSON bool
	var by string
	cmd := &cobra.Command{
		Use:   "ack ID",
		Short: "Note that somebody knows of an alert: it is not said again, only that it is over",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			id, err := alertID(cmd, given[0])
			if err != nil {
				return err
			}
			return a.askServer(cmd.Context(), func(_ config.Config, server *control.Client) error {
				if err := server.AcknowledgeAlert(cmd.Context(), id, by); err != nil {
					return err
				}
				return a.said(asJSON, map[string]any{"id": id, "by": by}, "Alert %d is acknowledged.", id)
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", "somebody at this machine", "who")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newAlertSnooze(a *app) *cobra.Command {
	var asJSON bool
	var length time.Duration
	cmd := &cobra.Command{
		Use:     "snooze ID",
		Short:   "Have nothing said of an alert for a time, but that it is over",
		Example: "  plantops alert snooze 12 --for 2h",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			id, err := alertID(cmd, given[0])
			if err != nil {
				return err
			}
			if length < time.Minute {
				return usageError(cmd, fmt.Errorf("--for %s: use a minute or more", length))
			}
			return a.askServer(cmd.Context(), func(_ config.Config, server *control.Client) error {
				if err := server.SnoozeAlert(cmd.Context(), id, length); err != nil {
					return err
				}
				return a.said(asJSON, map[string]any{"id": id, "seconds": int64(length.Seconds())}, "Alert %d is snoozed for %s.", id, control.Span(length))
			})
		},
	}
	cmd.Flags().DurationVar(&length, "for", 2*time.Hour, "how long")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// publisher publishes to the broker that the subscriber is connected to.
type publisher struct {
	broker         *broker.Broker // nil: another program
	address        string
	tls            *tls.Config
	user, password string
}

// Publish implements notify.Publisher.
func (p publisher) Publish(ctx context.Context, topic string, payload []byte) error {
	o := mqttcli.Options{Address: p.address, TLS: p.tls, Version: 4, Username: p.user, Password: p.password}
	if p.broker != nil {
		o.Username, o.Password = p.broker.Pass()
	}
	conn, err := mqttcli.Dial(ctx, o)
	if err != nil {
		return err
	}
	defer conn.Close()
	line := mqttcli.Pipeline{Conn: conn, Patience: mqttPatience}
	if err := line.Publish(ctx, mqttcli.Message{Topic: topic, Payload: payload, QoS: 1}); err != nil {
		return err
	}
	return line.Finish(ctx)
}
