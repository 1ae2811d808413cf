// Package access says who an account is and what it may do: the rules of accounts, with names filled in, against topics
// and filters. Where accounts come from is for others.
package access

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/broker/topic"
)

// Account is who a client has proved to be, and what it may do.
type Account struct {
	// Name is the user name, the name in a client certificate and, for a device, its id in topics.
	Name string
	// Publish and Subscribe are topic filters; %u stands for the user name and %c for the client id. Empty allows nothing.
	Publish, Subscribe []string
	// Admin may read $SYS.
	Admin bool
	// Guessable says that a person chose the password: guesses are limited (network/standing.go). That of a device is random.
	Guessable bool
}

// Wait says how a login waits for its turn, where looking at a password takes long.
type Wait struct {
	Gone <-chan struct{} // closed when the client is gone: the answer does not matter any more
	Rank int             // of several logins for one account the lowest is next
}

// Accounts is where identities come from. Its methods are called from many goroutines.
type Accounts interface {
	// Authenticate returns the account whose name and password these are. It may wait for its turn as w says.
	Authenticate(user string, password []byte, w Wait) (Account, bool)
	// Lookup returns the account of that name: a client id that is somebody's name is that account's alone.
	Lookup(name string) (Account, bool)
}

// The longest names that ValidName is asked for.
const (
	MaxUserBytes     = 64
	MaxClientIDBytes = 128
)

// ValidName reports whether a user name or a client id may stand in a topic: nothing in it can act as a wildcard,
// a level separator, a substitution or a line break in a log.
func ValidName(name string, maxBytes int) bool {
	return name != "" && len(name) <= maxBytes && utf8.ValidString(name) &&
		!strings.ContainsAny(name, "+#/$%") && !strings.ContainsFunc(name, unicode.IsControl)
}

// ValidClientID is ValidName for a client id, which may have slashes: programs make up such ones. See MayCallItself.
func ValidClientID(id string) bool {
	return ValidName(strings.ReplaceAll(id, "/", "-"), MaxClientIDBytes)
}

// MayCallItself reports whether a valid client id fits the rules of the account: where %c stands in one, a slash in the client
// id would reach into other levels.
func (a Account) MayCallItself(clientID string) bool {
	uses := func(rule string) bool { return strings.Contains(rule, "%c") }
	return !strings.Contains(clientID, "/") || !slices.ContainsFunc(a.Publish, uses) && !slices.ContainsFunc(a.Subscribe, uses)
}

// Rights is what one connection may do: its account's rules with the names filled in. The zero value allows nothing. Many connections
// can have the same.
type Rights struct {
	publish, subscribe []string
	admin              bool
	// Internal allows to read the topics on which the program speaks to itself.
	Internal bool
}

// RightsOf fills in the rules. Both names have passed ValidName, or the account MayCallItself, so that a name can never widen a rule.
func RightsOf(a Account, clientID string) *Rights {
	names := strings.NewReplacer("%u", a.Name, "%c", clientID)
	fill := func(rules []string) []string {
		filled := make([]string, len(rules))
		for i, rule := range rules {
			filled[i] = names.Replace(rule)
		}
		return filled
	}
	return &Rights{publish: fill(a.Publish), subscribe: fill(a.Subscribe), admin: a.Admin}
}

// Equal reports whether other allows the very same.
func (r *Rights) Equal(other *Rights) bool {
	return r.ReadsLike(other) && slices.Equal(r.publish, other.publish)
}

// MayPublish judges a topic that topic.Check accepted.
func (r *Rights) MayPublish(topic string) bool { return covered(r.publish, topic) }

// MayRead judges a filter that topic.CheckFilter accepted, or the topic of a message about to be delivered.
func (r *Rights) MayRead(filter string) bool {
	bare, err := topic.Unshare(filter)
	if err != nil {
		return false
	}
	switch first, _, _ := strings.Cut(bare, "/"); {
	case strings.EqualFold(first, topic.SystemPrefix):
		return r.admin
	case first == topic.InternalPrefix:
		return r.Internal
	}
	return covered(r.subscribe, bare)
}

// ReadsLike reports whether other allows to read the very same.
func (r *Rights) ReadsLike(other *Rights) bool {
	return r.admin == other.admin && r.Internal == other.Internal && slices.Equal(r.subscribe, other.subscribe)
}

// MayPublishText names the rules for publishing in a log line.
func (r *Rights) MayPublishText() string { return "publish " + strings.Join(r.publish, " ") }

// MayReadText is MayPublishText for subscribing.
func (r *Rights) MayReadText() string { return "subscribe " + strings.Join(r.subscribe, " ") }

// covered asks for one rule that allows all of it: two rules that only together would do are not enough.
func covered(rules []string, asked string) bool {
	for _, rule := range rules {
		if topic.Covers(rule, asked) {
			return true
		}
	}
	return false
}
