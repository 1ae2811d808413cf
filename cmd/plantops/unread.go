package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/control"
)

// unread asks the server. Without one there are none: they are kept in memory.
func (a *app) unread(ctx context.Context, cfg config.Config) control.Unread {
	server, err := control.Dial(ctx, cfg.SocketPath())
	if err != nil {
		return nil
	}
	all, err := server.Unread(ctx)
	if err != nil {
		a.warn("%v", err)
	}
	return all
}

// skippedText is for people: `temperature "21,5", 14 times, last 2m ago`.
func skippedText(f control.SkippedField, now time.Time) string {
	times := "once"
	if f.Count > 1 {
		times = fmt.Sprintf("%d times, last", f.Count)
	}
	return fmt.Sprintf("%s %q, %s %s", f.Field, f.Text, times, ago(f.Last, now))
}

// unreadText is for people: "devices/bed-1/Telemetry, did it mean devices/bed-1/telemetry? 14 messages, last 2m ago".
func unreadText(u control.UnreadTopic, now time.Time) string {
	text := u.Topic
	if u.Meant != "" {
		text += ", did it mean " + u.Meant + "?"
	}
	return fmt.Sprintf("%s %d messages, last %s", text, u.Count, ago(u.Last, now))
}

// printUnread writes what could not be read of which device, and which topics nobody reads; or nothing.
func printUnread(a *app, s control.Status, now time.Time, all bool) error {
	skipped := [][]string{{"DEVICE", "NOT READ", "LAST FIELD", "LAST TEXT", "LAST", "GIVEN UP"}}
	for _, d := range s.Devices {
		if last := d.LastSkipped; last != nil {
			skipped = append(skipped, []string{clip(d.ID, 20), fmt.Sprint(d.Skipped), clip(last.Field, 16), clip(fmt.Sprintf("%q", last.Text), 16), ago(last.Last, now), fmt.Sprint(d.Dropped)})
		} else if d.Dropped > 0 {
			skipped = append(skipped, []string{clip(d.ID, 20), "0", "-", "-", "-", fmt.Sprint(d.Dropped)})
		}
	}
	topics := [][]string{{"ACCOUNT", "TOPIC THAT NOBODY READS", "MEANT", "TIMES", "LAST"}}
	for _, name := range slices.Sorted(maps.Keys(s.Unread)) {
		u := s.Unread[name]
		topics = append(topics, []string{clip(name, 10), clip(u.Topic, 25), clip(orDash(u.Meant), 23), fmt.Sprint(u.Count), ago(u.Last, now)})
	}
	for _, rows := range [][][]string{skipped, topics} {
		if len(rows) == 1 {
			continue
		}
		more := 0
		if !all && len(rows) > mostListed+1 {
			more = len(rows) - mostListed - 1
			rows = rows[:mostListed+1]
		}
		fmt.Fprintln(a.stdout)
		if err := table(a.stdout, rows); err != nil {
			return err
		}
		if more > 0 {
			fmt.Fprintf(a.stdout, "… and %d more: plantops status --all\n", more)
		}
	}
	return nil
}
