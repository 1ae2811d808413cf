package control

import "github.com/plantops/plantops/broker"

// AccountRefusal is what an account was refused for one reason since the server started: logins under its name,
// connections, messages.
type AccountRefusal struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
	Last   Moment `json:"last"`
	Remote string `json:"remote,omitempty"` // where the last one came from; empty: nobody was connected
}

// Refusals are by account, the latest first. Accounts without any are left out.
type Refusals map[string][]AccountRefusal

func newRefusals(all map[string][]broker.AccountRefusal) Refusals {
	list := make(Refusals, len(all))
	for name, mine := range all {
		for _, r := range mine {
			list[name] = append(list[name], AccountRefusal{r.Reason, r.Count, Moment(r.Last.UnixMilli()), r.Remote})
		}
	}
	return list
}
