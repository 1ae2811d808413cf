package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/config"
)

// refusal is what an account was refused for one reason since the server started: logins under its name, connections, messages.
type refusal struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
	Last   moment `json:"last"`
	Remote string `json:"remote,omitempty"` // where the last one came from; empty: nobody was connected
}

// refusals are by account, the latest first. Accounts without any are left out.
type refusals map[string][]refusal

func newRefusals(all map[string][]broker.AccountRefusal) refusals {
	list := make(refusals, len(all))
	for name, mine := range all {
		for _, r := range mine {
			list[name] = append(list[name], refusal{r.Reason, r.Count, moment(r.Last.UnixMilli()), r.Remote})
		}
	}
	return list
}

// Refusals are those of the embedded broker; another broker does not tell.
func (b *box) Refusals(context.Context) (refusals, error) {
	if b.broker == nil {
		return refusals{}, nil
	}
	return newRefusals(b.broker.Refusals()), nil
}

// refusals asks the server. Without one there are none: they are kept in memory.
func (a *app) refusals(ctx context.Context, cfg config.Config) refusals {
	server, err := dialControl(ctx, cfg.SocketPath())
	if err != nil {
		return nil
	}
	all, err := server.Refusals(ctx)
	if err != nil {
		a.warn("%v", err)
	}
	return all
}

// text is for people: "wrong password, 14 times, last 2m ago from 192.168.1.7".
func (r refusal) text(now time.Time) string {
	times := "once"
	if r.Count > 1 {
		times = fmt.Sprintf("%d times, last", r.Count)
	}
	text := fmt.Sprintf("%s, %s %s", r.Reason, times, r.Last.ago(now))
	if r.Remote != "" {
		text += " from " + r.Remote
	}
	return text
}

// print writes a table of them all, after an empty line, or nothing.
func (r refusals) print(a *app, now time.Time) error {
	if len(r) == 0 {
		return nil
	}
	rows := [][]string{{"ACCOUNT", "REFUSED SINCE THE START", "TIMES", "LAST", "FROM"}}
	for _, name := range slices.Sorted(maps.Keys(r)) {
		for _, one := range r[name] {
			rows = append(rows, []string{name, one.Reason, fmt.Sprint(one.Count), one.Last.ago(now), orDash(one.Remote)})
		}
	}
	fmt.Fprintln(a.stdout)
	return table(a.stdout, rows)
}
