package mosquitto

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/topic/topictest"
)

// modelRule is a line of an ACL file for the model.
type modelRule struct {
	user    string // "" for anonymous clients
	pattern bool
	access  access
	topic   string
}

// modelAllows is mosquitto_acl_check_default of Mosquitto 2.0.11, in its order: a user's denials, what the user may do,
// the patterns' denials, what the patterns allow.
func modelAllows(rules []modelRule, user, client, topic string, asked access) bool {
	names := strings.NewReplacer("%u", user, "%c", client)
	for _, pattern := range []bool{false, true} {
		for _, denials := range []bool{true, false} {
			for _, r := range rules {
				filter := r.topic
				if pattern {
					filter = names.Replace(filter)
				}
				switch {
				case r.pattern != pattern, !pattern && r.user != user, (r.access == deny) != denials, !topictest.Matches(filter, topic):
				case denials:
					return false
				case r.access&asked != 0:
					return true
				}
			}
		}
	}
	return false
}

// allowed is what PlantOps makes of an account's rules.
func allowed(filters []string, user, client, topic string) bool {
	names := strings.NewReplacer("%u", user, "%c", client)
	return !strings.HasPrefix(topic, "$") && slices.ContainsFunc(filters, func(f string) bool { return topictest.Matches(names.Replace(f), topic) })
}

// Random rules over a small alphabet: no account may do more than in Mosquitto, and one whose file has nothing without
// equivalent may do the same.
func TestAccountsMayDoWhatMosquittoAllowsAndNeverMore(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	users := []string{"ann", "bob"}
	words := map[access]string{read: "read", write: "write", read | write: "readwrite", deny: "deny"}
	exact, narrower := 0, 0
	for range 400 {
		var rules []modelRule
		var text strings.Builder
		user := ""
		for range 1 + random.IntN(7) {
			if random.IntN(3) == 0 {
				user = pick(users...)
				fmt.Fprintf(&text, "user %s\n", user)
			}
			r := modelRule{user: user, pattern: random.IntN(3) == 0, access: access(random.IntN(4))}
			levels := []string{}
			for range 1 + random.IntN(3) {
				levels = append(levels, pick("a", "b", "ann", "+", "+", "%u", "%c", "c1", "#"))
			}
			if i := slices.Index(levels, "#"); i >= 0 {
				levels = levels[:i+1]
			}
			if random.IntN(20) == 0 {
				levels[0] = "$SYS"
			}
			r.topic = strings.Join(levels, "/")
			rules = append(rules, r)
			fmt.Fprintf(&text, "%s %s %s\n", map[bool]string{false: "topic", true: "pattern"}[r.pattern], words[r.access], r.topic)
		}
		files := fstest.MapFS{
			"m.conf":    {Data: []byte("listener 1883\npassword_file passwords\nacl_file rules\nmax_packet_size 1000000")},
			"passwords": {Data: []byte("ann:" + hashForTests + "\nbob:" + hashForTests)}, "rules": {Data: []byte(text.String())},
		}
		result, err := Translate(options4(files, "/m.conf"))
		require.NoError(t, err)
		require.Len(t, result.Accounts, len(users))
		same := true
		for _, account := range result.Accounts {
			for _, topic := range modelTopics() {
				for asked, filters := range map[access][]string{write: account.Publish, read: account.Subscribe} {
					theirs := modelAllows(rules, account.Name, "c1", topic, asked)
					ours := allowed(filters, account.Name, "c1", topic)
					if !assert.False(t, ours && !theirs, "%s may %s %s in\n%s", account.Name, words[asked], topic, &text) {
						return
					}
					same = same && ours == theirs
				}
			}
		}
		if listed := slices.ContainsFunc(result.Of(NoEquivalent), func(l *Line) bool { return l.File == "/rules" }); listed {
			narrower++
			continue
		}
		exact++
		require.True(t, same, "nothing is listed, and yet it is not the same:\n%s", &text)
	}
	assert.Greater(t, exact, 40)
	assert.Greater(t, narrower, 40)
}

func modelTopics() []string {
	levels := []string{"a", "b", "ann", "bob", "c1", "%u"}
	topics := append([]string{"$SYS", "$SYS/a"}, levels...)
	for _, first := range levels {
		for _, second := range levels {
			topics = append(topics, first+"/"+second, first+"/"+second+"/a", first+"/"+second+"/c1", first+"/"+second+"/a/b")
		}
	}
	return topics
}
