package topic_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/topic/topictest"
	"github.com/plantops/plantops/config"
	"github.com/plantops/plantops/config/mosquitto"
	"github.com/plantops/plantops/store"
)

const (
	inBroker    = "broker"    // a SUBSCRIBE of an account that may read everything
	inStore     = "store"     // a rule of an account
	inConfig    = "config"    // ingest.topics
	inMosquitto = "mosquitto" // an ACL file
)

var callers = []string{inBroker, inStore, inConfig, inMosquitto}

// wellFormed is [MQTT-4.7.1] by itself, written another way than in package topic: the rule that all callers share.
func wellFormed(filter string) bool {
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		wild := strings.Count(level, "+") + strings.Count(level, "#")
		if wild > 0 && (level != "+" && level != "#" || level == "#" && i != len(levels)-1) {
			return false
		}
	}
	return filter != "" && utf8.ValidString(filter) && !strings.ContainsRune(filter, 0)
}

func isShare(filter string) bool {
	first, _, _ := strings.Cut(filter, "/")
	return strings.EqualFold(first, "$share")
}

// badShare is [MQTT-4.8.2], and mochi's freedom to take $SHARE for it.
func badShare(filter string) bool {
	parts := strings.SplitN(filter, "/", 3)
	return isShare(filter) && (len(parts) < 3 || parts[0] != "$share" || parts[1] == "" || parts[2] == "" || strings.ContainsAny(parts[1], "+#"))
}

func levelsOf(filter string) int {
	if isShare(filter) {
		return strings.Count(filter, "/") - 1
	}
	return strings.Count(filter, "/") + 1
}

// differences are all that the callers may disagree about.
var differences = []struct {
	name    string
	about   func(filter string) bool
	refused []string // by whom
}{
	{"a shared subscription needs a group and a filter where clients subscribe", badShare, []string{inBroker, inConfig}},
	{"a rule says nothing about topics that begin with $", func(f string) bool { return strings.HasPrefix(f, "$") }, []string{inStore}},
	{"a line of YAML or of a log has no control characters", func(f string) bool { return strings.ContainsFunc(f, unicode.IsControl) }, []string{inStore, inConfig}},
	{"a rule has at most 1024 bytes", func(f string) bool { return len(f) > 1024 }, []string{inStore}},
	{"limits.max_topic_levels is about what is subscribed to", func(f string) bool { return levelsOf(f) > 32 }, []string{inBroker, inConfig}},
	{"MQTT can write 65,535 bytes", func(f string) bool { return len(f) > 65535 }, []string{inBroker, inConfig, inMosquitto}},
}

// subscriber tells what a real broker says to a SUBSCRIBE. A filter that MQTT calls malformed ends the connection, and
// what cannot be written in a packet is refused by MQTT itself.
type subscriber struct {
	t      *testing.T
	broker *brokertest.Broker
	client *brokertest.Client
}

func (s *subscriber) takes(filter string) bool {
	if len(filter) > 65535 {
		return false
	}
	if s.client == nil {
		s.client = brokertest.Dial(s.t, s.broker, brokertest.TCP, brokertest.Login{User: "ann", Password: "pw", Version: 5})
	}
	s.client.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: filter}}})
	require.Eventually(s.t, func() bool { return s.client.Has(packets.Suback) || s.client.Ended() }, brokertest.Patience, time.Millisecond)
	if !s.client.Has(packets.Suback) {
		s.client = nil
		return false
	}
	codes := s.client.Await(packets.Suback).ReasonCodes
	require.Len(s.t, codes, 1)
	if codes[0] == packets.ErrNotAuthorized.Code {
		assert.True(s.t, strings.Contains(filter, "$"), "%.80q is refused for want of rights", filter)
		return true // the filter itself is good
	}
	return codes[0] < 0x80
}

// mosquittoTakes reads an ACL file with one rule.
func mosquittoTakes(t *testing.T, filter string) bool {
	line := aclLine(t, "user ann\ntopic read "+filter+"\n", 2)
	return !strings.Contains(line.Note, "no topic filter") && !strings.Contains(line.Note, "no access")
}

const someHash = "$6$NpOsNSDOXrJmaBrd$8M6IO/y0uLcbLAmMTcQh41kDOTlCBVlPvfKGjnpUlVzKzYYkyO2WYyMhMQkKo0N1nkJwAMUzLQVfDkLG3NcG3w=="

func aclLine(t *testing.T, acl string, number int) *mosquitto.Line {
	t.Helper()
	r, err := mosquitto.Translate(mosquitto.Options{Path: "/etc/m.conf", Files: fstest.MapFS{
		"etc/m.conf": {Data: []byte("listener 1883\npassword_file /etc/pw\nacl_file /etc/acl\n")},
		"etc/pw":     {Data: []byte("ann:" + someHash + "\n")},
		"etc/acl":    {Data: []byte(acl)},
	}})
	require.NoError(t, err)
	require.Len(t, r.Accounts, 1)
	for _, line := range r.Lines {
		if line.File == "/etc/acl" && line.Number == number {
			return line
		}
	}
	require.Fail(t, "no verdict", "%q", acl)
	return nil
}

func configTakes(filter string) bool {
	c := config.Default()
	c.Ingest.Topics = []string{filter}
	return c.Validate() == nil
}

func TestEveryPlaceTakesTheSameFiltersButForNamedDifferences(t *testing.T) {
	everything := []string{"#", "$x/#"}
	s := &subscriber{t: t, broker: brokertest.Start(t,
		brokertest.Account{Account: broker.Account{Name: "ann", Subscribe: everything}, Password: "pw"})}
	takes := map[string]func(string) bool{
		inBroker: s.takes, inConfig: configTakes,
		inStore:     func(f string) bool { return store.CheckFilter(f) == nil },
		inMosquitto: func(f string) bool { return mosquittoTakes(t, f) },
	}
	filters := topictest.Filters()
	require.Greater(t, len(filters), 400)
	seen := map[string]int{}
	for _, filter := range filters {
		if filter == "" || strings.Contains(filter, " ") {
			continue // an ACL file has words; each place's own tests have these
		}
		refused, why := map[string]bool{}, map[string][]string{}
		for _, d := range differences {
			if wellFormed(filter) && d.about(filter) {
				seen[d.name]++
				for _, caller := range d.refused {
					refused[caller] = true
					why[caller] = append(why[caller], d.name)
				}
			}
		}
		for _, caller := range callers {
			want := wellFormed(filter) && !refused[caller]
			assert.Equal(t, want, takes[caller](filter), "%s: %.80q (%d bytes): %v", caller, filter, len(filter), why[caller])
		}
	}
	for _, d := range differences {
		assert.NotZero(t, seen[d.name], "no filter shows it: %s", d.name)
	}
}

// What a rule allows is judged at a SUBSCRIBE, and what a denial takes away when Mosquitto's ACL file is read: both must
// mean the same topics by a filter.
func TestRulesCoverTheSameEverywhere(t *testing.T) {
	filters := []string{"#", "+", "+/#", "+/+", "a", "a/#", "a/+", "a/+/#", "a/b", "a/b/#", "a/", "/", "/#", "+/a", "+/a/#", "b/+", "a/+/+", "a//#", "+/+/#", "b"}
	var accounts []brokertest.Account
	for i, rule := range filters {
		accounts = append(accounts, brokertest.Account{Password: "pw",
			Account: broker.Account{Name: fmt.Sprint("rule-", i), Subscribe: []string{rule}}})
	}
	b := brokertest.Start(t, accounts...)
	universe := topictest.Universe()
	for i, rule := range filters {
		c := brokertest.Dial(t, b, brokertest.TCP, brokertest.Login{User: fmt.Sprint("rule-", i), Password: "pw", Version: 5})
		for _, asked := range filters {
			want := true
			for _, name := range universe {
				want = want && (!topictest.Matches(asked, name) || topictest.Matches(rule, name))
			}
			assert.Equal(t, want, c.Subscribe(asked, 0) < 0x80, "broker: %q is subscribed to under the rule %q", asked, rule)
			note := aclLine(t, "user ann\ntopic deny "+rule+"\ntopic read "+asked+"\n", 3).Note
			assert.Equal(t, want, strings.Contains(note, "for ann it is denied by line 2"), "mosquitto: %q denied by %q: %s", asked, rule, note)
		}
		c.Close()
	}
}
