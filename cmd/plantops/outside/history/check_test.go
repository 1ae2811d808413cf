package history_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

type events = []history.Event

// of is the kinds of the faults of a history, each once.
func of(h events, rules history.Rules) (kinds []string) {
	for i := range h {
		if h[i].At == 0 {
			h[i].At = time.Duration(i) * time.Millisecond
		}
	}
	for _, f := range history.Check(h, rules) {
		if len(kinds) == 0 || kinds[len(kinds)-1] != f.What {
			kinds = append(kinds, f.What)
		}
	}
	return kinds
}

func msg(n int) history.Message { return history.Message{From: "p", Number: n} }

func enter(client string, resume, present bool) events {
	return events{{Kind: history.Connecting, Client: client, Resume: resume}, {Kind: history.Connected, Client: client, Present: present}}
}

func enterWithWill(client string, will history.Will) events {
	return events{{Kind: history.Connecting, Client: client, Resume: true, Will: &will}, {Kind: history.Connected, Client: client}}
}

func subscribe(client, filter string, qos byte) events {
	return events{{Kind: history.Subscribing, Client: client, Filter: filter, QoS: qos}, {Kind: history.Subscribed, Client: client, Filter: filter, QoS: qos}}
}

func unsubscribe(client string) events {
	return events{{Kind: history.Unsubscribing, Client: client, Filter: "t"}}
}

func send(n int, qos byte) events {
	return events{{Kind: history.Sending, Client: "p", Message: msg(n), Topic: "t", QoS: qos}}
}

func taken(n int) events {
	return events{{Kind: history.Taken, Client: "p", Message: msg(n)}, {Kind: history.Completed, Client: "p", Message: msg(n)}}
}

func got(client string, n int, qos byte) events {
	return events{{Kind: history.Got, Client: client, Message: msg(n), Topic: "t", QoS: qos, ID: uint16(n)}}
}

func again(client string, n int, qos byte) events {
	g := got(client, n, qos)
	g[0].Again = true
	return g
}

func kept(n int) events {
	return events{{Kind: history.Kept, Topic: "t", Message: msg(n)}}
}

func retain(n int, qos byte) events {
	s := send(n, qos)
	s[0].Retain = true
	return s
}

func shown(client string, n int) events {
	g := got(client, n, 1)
	g[0].Retain = true
	return g
}

func willComes(client, of string, connection int) events {
	return events{{Kind: history.Got, Client: client, Message: history.Message{From: history.WillOf(of), Number: connection}, Topic: "w", QoS: 1, ID: 99}}
}

func one(kind history.Kind, client string) events { return events{{Kind: kind, Client: client}} }

func join(parts ...events) (all events) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// start is a publisher and a subscriber that keeps its session.
func start(qos byte) events {
	return join(enter("p", true, false), enter("s", true, false), subscribe("s", "t", qos))
}

func TestFaultsAreFound(t *testing.T) {
	ended := one(history.Ended, "")
	killed := one(history.Killed, "")
	drop := func(client string) events { return one(history.Dropped, client) }
	part := func(client string) events { return one(history.Parted, client) }
	group := join(enter("p", true, false), enter("a", true, false), subscribe("a", "$share/g/t", 2), enter("b", true, false), subscribe("b", "$share/g/t", 2))
	for name, c := range map[string]struct {
		history events
		want    string // "" for none
	}{
		"delivered":                                {join(start(1), send(1, 1), got("s", 1, 1), taken(1)), ""},
		"acknowledged, never delivered":            {join(start(1), send(1, 1), taken(1)), history.Lost},
		"not acknowledged, never delivered":        {join(start(1), send(1, 1)), ""},
		"QoS 0, never delivered":                   {join(start(1), send(1, 0)), ""},
		"sent before the SUBACK":                   {join(enter("p", true, false), send(1, 1), enter("s", true, false), subscribe("s", "t", 1), taken(1)), ""},
		"subscribed at QoS 0":                      {join(start(0), send(1, 1), taken(1)), ""},
		"unsubscribed later":                       {join(start(1), send(1, 1), taken(1), events{{Kind: history.Unsubscribing, Client: "s", Filter: "t"}}), ""},
		"away, then delivered":                     {join(start(1), drop("s"), send(1, 1), taken(1), enter("s", true, true), got("s", 1, 1)), ""},
		"away, then not delivered":                 {join(start(1), drop("s"), send(1, 1), taken(1), enter("s", true, true)), history.Lost},
		"away for good":                            {join(start(1), drop("s"), send(1, 1), taken(1)), ""},
		"ended by a clean start":                   {join(start(1), drop("s"), send(1, 1), taken(1), enter("s", false, false)), ""},
		"the session is gone":                      {join(start(1), drop("s"), enter("s", true, false)), history.SessionLost},
		"the session is gone, with a message":      {join(start(1), drop("s"), send(1, 1), taken(1), killed, enter("s", true, false), subscribe("s", "t", 1)), history.SessionLost},
		"a session that was ended is there":        {join(start(1), drop("s"), enter("s", false, false), drop("s"), enter("s", true, true)), history.Strange},
		"a later one came, the connection is gone": {join(enter("s", false, false), subscribe("s", "t", 1), enter("p", true, false), send(1, 1), send(2, 1), taken(1), taken(2), got("s", 2, 1), drop("s")), history.Lost},
		"before a DISCONNECT that was read":        {join(start(1), send(1, 1), part("p"), enter("p", true, true)), history.Lost},
		"before a DISCONNECT, and a kill":          {join(start(1), send(1, 1), part("p"), killed, enter("p", true, true)), ""},
		"QoS 2 twice":                              {join(start(2), send(1, 2), taken(1), got("s", 1, 2), got("s", 1, 2)), history.Doubled},
		"QoS 2 twice after a kill":                 {join(start(2), send(1, 2), taken(1), got("s", 1, 2), killed, drop("s"), enter("s", true, true), again("s", 1, 2)), history.Doubled},
		"QoS 2 with an id that is held":            {join(start(2), send(1, 2), taken(1), got("s", 1, 2), drop("s"), enter("s", true, true), events{{Kind: history.Got, Client: "s", Message: msg(1), Topic: "t", QoS: 2, ID: 1, Again: true, Held: true}}), ""},
		"QoS 1 twice on one connection":            {join(start(1), send(1, 1), taken(1), got("s", 1, 1), again("s", 1, 1)), history.Doubled},
		"QoS 1 again after a lost connection":      {join(start(1), send(1, 1), taken(1), got("s", 1, 1), drop("s"), enter("s", true, true), again("s", 1, 1)), ""},
		"the same without DUP":                     {join(start(1), send(1, 1), taken(1), got("s", 1, 1), drop("s"), enter("s", true, true), got("s", 1, 1)), history.Doubled},
		"the same after a kill":                    {join(start(1), send(1, 1), taken(1), got("s", 1, 1), killed, drop("s"), enter("s", true, true), got("s", 1, 1)), ""},
		"QoS 1 again although acknowledged":        {join(start(1), send(1, 1), taken(1), got("s", 1, 1), events{{Kind: history.Answered, Client: "s", Message: msg(1)}}, part("s"), enter("s", true, true), again("s", 1, 1)), history.Doubled},
		"its publisher sent it twice":              {join(start(1), send(1, 1), got("s", 1, 1), drop("p"), enter("p", true, true), send(1, 1), got("s", 1, 1), taken(1)), ""},
		"two copies of it, both again": {join(start(1), send(1, 1), got("s", 1, 1), drop("p"), enter("p", true, true), send(1, 1), got("s", 1, 1), taken(1),
			drop("s"), enter("s", true, true), again("s", 1, 1), again("s", 1, 1)), ""},
		"two copies of it, and three again": {join(start(1), send(1, 1), got("s", 1, 1), drop("p"), enter("p", true, true), send(1, 1), got("s", 1, 1), taken(1),
			drop("s"), enter("s", true, true), again("s", 1, 1), again("s", 1, 1), again("s", 1, 1)), history.Doubled},
		"QoS 0 twice": {join(start(0), send(1, 0), got("s", 1, 0), got("s", 1, 0)), history.Doubled},
		"QoS 2 to who subscribed at QoS 0, a kill":   {join(start(0), send(1, 2), got("s", 1, 0), killed, drop("s"), drop("p"), enter("s", true, true), enter("p", true, true), send(1, 2), got("s", 1, 0), taken(1)), ""},
		"the same without a kill":                    {join(start(0), send(1, 2), got("s", 1, 0), drop("s"), drop("p"), enter("s", true, true), enter("p", true, true), send(1, 2), got("s", 1, 0), taken(1)), history.Doubled},
		"older after newer, sent again":              {join(start(1), send(1, 1), send(2, 1), got("s", 2, 1), drop("p"), enter("p", true, true), send(1, 1), send(2, 1), got("s", 1, 1), got("s", 2, 1), taken(1), taken(2)), history.Reordered},
		"older after newer, sent again to a new one": {join(start(1), unsubscribe("s"), send(1, 1), subscribe("s", "t", 1), send(2, 1), got("s", 2, 1), drop("p"), enter("p", true, true), send(1, 1), send(2, 1), got("s", 1, 1), got("s", 2, 1), taken(1), taken(2)), ""},
		"older after newer":                          {join(start(1), send(1, 1), send(2, 1), taken(1), taken(2), got("s", 2, 1), got("s", 1, 1)), history.Reordered},
		"older after newer, of another QoS":          {join(start(2), send(1, 1), send(2, 2), taken(1), taken(2), got("s", 2, 2), got("s", 1, 1)), ""},
		"older again after newer":                    {join(start(1), send(1, 1), send(2, 1), taken(1), taken(2), got("s", 1, 1), got("s", 2, 1), drop("s"), enter("s", true, true), again("s", 1, 1)), ""},
		"what nobody sent":                           {join(start(1), got("s", 7, 1)), history.Strange},
		"what was not subscribed to":                 {join(enter("p", true, false), enter("s", true, false), send(1, 1), taken(1), got("s", 1, 1)), history.Strange},
		"retained":                                   {join(start(1), retain(1, 1), taken(1), got("s", 1, 1), retain(2, 1), taken(2), got("s", 2, 1), kept(2)), ""},
		"retained, the one before":                   {join(start(1), retain(1, 1), taken(1), got("s", 1, 1), retain(2, 1), taken(2), got("s", 2, 1), kept(1)), history.Stale},
		"retained, an unacknowledged one":            {join(start(1), retain(1, 1), taken(1), got("s", 1, 1), retain(2, 1), got("s", 2, 1), kept(2)), ""},
		"the last value is another one":              {join(start(1), retain(1, 1), got("s", 1, 1), taken(1), retain(2, 1), kept(2)), history.Stale},
		"nothing is retained":                        {join(start(1), retain(1, 1), taken(1), got("s", 1, 1), events{{Kind: history.Kept, Topic: "other", Message: msg(1)}}), history.Stale},
		"shown what is new":                          {join(enter("p", true, false), retain(1, 1), taken(1), retain(2, 1), taken(2), enter("s", true, false), subscribe("s", "t", 1), shown("s", 2)), ""},
		"shown what is old":                          {join(enter("p", true, false), retain(1, 1), taken(1), retain(2, 1), taken(2), enter("s", true, false), subscribe("s", "t", 1), shown("s", 1)), history.Stale},
		"a will":                                     {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), drop("c"), willComes("s", "c", 1), ended), ""},
		"a will that is missing":                     {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), drop("c"), ended), history.MissingWill},
		"a will of a client that parted":             {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), part("c"), willComes("s", "c", 1), ended), history.FalseWill},
		"a client that parted, and is back":          {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), part("c"), enter("c", true, true), ended), ""},
		"a will of a client that is there":           {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), willComes("s", "c", 1), ended), history.FalseWill},
		"a will after a kill":                        {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), killed, drop("c"), willComes("s", "c", 1), ended), ""},
		"a will twice":                               {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w"}), drop("c"), willComes("s", "c", 1), willComes("s", "c", 1), ended), history.Doubled},
		"a delayed will of a client that came back":  {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w", Delay: time.Minute}), drop("c"), enter("c", true, true), willComes("s", "c", 1), ended), history.FalseWill},
		"a delayed will that is missing":             {join(enter("s", true, false), subscribe("s", "w", 1), enterWithWill("c", history.Will{Topic: "w", Delay: time.Minute}), drop("c"), events{{Kind: history.Ended, At: time.Hour}}), history.MissingWill},
		"shared":                                     {join(group, send(1, 1), got("a", 1, 1), taken(1), send(2, 1), got("b", 2, 1), taken(2)), ""},
		"shared, to nobody":                          {join(group, send(1, 1), taken(1)), history.SharedLost},
		"shared, to both":                            {join(group, send(1, 1), got("a", 1, 1), got("b", 1, 1), taken(1)), history.SharedTwice},
		"shared, to both, the first is gone":         {join(group, send(1, 1), got("a", 1, 1), drop("a"), got("b", 1, 1), taken(1)), ""},
		"shared at QoS 2, to both, the first gone":   {join(group, send(1, 2), taken(1), got("a", 1, 2), drop("a"), got("b", 1, 2)), history.SharedTwice},
		"shared at QoS 1, then at 2, the first gone": {join(group, send(1, 2), taken(1), got("a", 1, 1), drop("a"), got("b", 1, 2)), ""},
		"shared at QoS 2, then at 1, the first gone": {join(group, send(1, 2), taken(1), got("a", 1, 2), drop("a"), got("b", 1, 1)), history.SharedTwice},
		"shared, lost with a member that ended":      {join(group, send(1, 1), taken(1), drop("a"), enter("a", false, false)), history.SharedLost},
		"shared, lost at QoS 2 with one that ended":  {join(group, send(1, 2), taken(1), drop("a"), enter("a", false, false)), ""},
		"shared, sent twice and got by both, again": {join(group, send(1, 1), got("a", 1, 1), drop("p"), enter("p", true, true), send(1, 1), got("b", 1, 1), taken(1),
			drop("a"), drop("b"), enter("a", true, true), enter("b", true, true), again("a", 1, 1), again("b", 1, 1)), ""},
		"shared, to both, and again to the first":    {join(group, send(1, 1), got("a", 1, 1), got("b", 1, 1), taken(1), again("a", 1, 1)), history.SharedTwice},
		"shared, sent twice and got by both members": {join(group, send(1, 1), got("a", 1, 1), drop("p"), enter("p", true, true), send(1, 1), got("b", 1, 1), taken(1)), ""},
	} {
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		assert.Subset(t, of(c.history, history.Rules{}), want, name)
		if c.want == "" {
			assert.Empty(t, history.Summary(history.Check(c.history, history.Rules{}), 3), name)
		}
	}
	lostWithMember := join(group, send(1, 1), taken(1), drop("a"), enter("a", false, false))
	assert.Empty(t, of(lostWithMember, history.Rules{NoGiveBack: true}))
}

func TestPayloadsAreRead(t *testing.T) {
	m := history.Message{From: "a:b!", Number: 12}
	for _, size := range []int{0, 64, 1024} {
		read, ok := history.ParseMessage(m.Payload(size))
		assert.True(t, ok)
		assert.Equal(t, m, read)
	}
	assert.Len(t, m.Payload(64), 64)
	for _, text := range []string{"", "x", "x y", "x:y z", "x:1"} {
		_, ok := history.ParseMessage([]byte(text))
		assert.False(t, ok, text)
	}
}

func TestADrainWaitsForWhatIsUnderWay(t *testing.T) {
	var h events
	for i, step := range []struct {
		then events
		want int
	}{
		{enter("p", true, false)[:1], 1},
		{enter("p", true, false)[1:], 0},
		{send(1, 1), 1},
		{send(2, 0), 1},
		{events{{Kind: history.Dropped, Client: "p"}}, 0},
		{enter("p", true, true), 0},
		{send(1, 1), 1},
		{taken(1), 0},
		{send(3, 2), 1},
		{events{{Kind: history.Refused, Client: "p", Message: msg(3)}}, 0},
	} {
		h = append(h, step.then...)
		assert.Equal(t, step.want, history.Expected(h, history.Rules{}), i)
	}
}

// BenchmarkLongRecord judges half a million events: sessions that stay and thousands that do not, two of them in a group.
func BenchmarkLongRecord(b *testing.B) {
	ack := func(client string, n int) events {
		return events{{Kind: history.Answered, Client: client, Message: msg(n)}}
	}
	h := join(enter("s", true, false), subscribe("s", "t", 1), enter("p", false, false))
	for n := 1; n <= 40_000; n++ {
		if n%10 == 1 {
			h = append(h, join(enter("c", false, false), subscribe("c", "t", 1), enter("m", false, false), subscribe("m", "$share/g/t", 1))...)
		}
		h = append(h, join(send(n, 1), taken(n), got("s", n, 1), ack("s", n), got("c", n, 1), ack("c", n), got("m", n, 1), ack("m", n))...)
		if n%10 == 0 {
			h = append(h, join(one(history.Parted, "c"), one(history.Parted, "m"))...)
		}
	}
	for b.Loop() {
		assert.Empty(b, of(h, history.Rules{}))
	}
	b.ReportMetric(float64(len(h)), "events")
}
