package mosquitto

import (
	"slices"
	"strings"

	"github.com/plantops/plantops/broker/topic"
)

// access is what a rule is about.
type access uint8

const (
	read  access = 1
	write access = 2
	deny  access = 0 // both, taken away
)

var accessWords = map[string]access{"read": read, "write": write, "readwrite": read | write, "deny": deny}

// rule is a topic or pattern line of an ACL file.
type rule struct {
	*Line
	user    string // "" for anonymous clients; unused for a pattern
	pattern bool   // %u and %c stand for names, and it is about every client
	access  access
	topic   string
}

// acl is an ACL file.
type acl struct {
	users map[string][]*Line // the "user" lines of each user
	rules []*rule
}

// readACL reads the lines of an ACL file. Mosquitto does not start with a line that it does not understand.
func readACL(lines []string, add func(number int, text string) *Line) *acl {
	a := &acl{users: map[string][]*Line{}}
	user := ""
	for i, text := range lines {
		if blank(text) {
			continue
		}
		line := add(i+1, text)
		word, rest, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "user":
			if rest == "" {
				line.settle(NoEquivalent, "it names no user; Mosquitto refuses it too")
				continue
			}
			user = rest
			a.users[user] = append(a.users[user], line)
		case "topic", "pattern":
			r := &rule{Line: line, user: user, pattern: word == "pattern", access: read | write, topic: rest}
			if how, filter, more := strings.Cut(rest, " "); more {
				known := false
				r.access, known = accessWords[how]
				r.topic = strings.TrimSpace(filter)
				if !known {
					line.settle(NoEquivalent, "there is no access %q (read, write, readwrite, deny); Mosquitto refuses it too", how)
					continue
				}
			}
			if aclFilters.Fault(r.topic) != topic.Faultless {
				line.settle(NoEquivalent, "this is no topic filter; Mosquitto refuses it too")
				continue
			}
			a.rules = append(a.rules, r)
		default:
			line.settle(NoEquivalent, "it is neither user, topic nor pattern; Mosquitto refuses it too")
		}
	}
	return a
}

// grant gives the accounts what the ACL file allows them, and settles its lines.
func (a *acl) grant(accounts []*Account, o Options) {
	for _, account := range accounts {
		a.grantOne(account, o)
	}
	created := func(name string) bool {
		return slices.ContainsFunc(accounts, func(x *Account) bool { return x.Name == name })
	}
	for name, lines := range a.users {
		for _, line := range lines {
			if created(name) {
				line.settle(TakenOver, "")
			} else {
				line.settle(NoEquivalent, `no account of this name is imported: if it is needed, "plantops user add"`)
			}
		}
	}
	for _, r := range a.rules {
		switch {
		case r.Kind != 0:
		case r.pattern && r.access == deny, !r.pattern && r.access == deny && created(r.user):
			r.settle(TakenOver, "no other rule allows it, and what no rule allows is denied")
		case r.pattern:
			r.settle(NoEquivalent, "no account is imported that it could be about")
		case r.user == "":
			r.settle(NoEquivalent, `it is about anonymous clients, which are refused here: "plantops user add NAME" with --publish and --subscribe, and the name and password in the client`)
		default:
			r.settle(NoEquivalent, "no account %q is imported", r.user)
		}
	}
}

// grantOne adds the rules of one account. In Mosquitto the denials of a user come first, then what is allowed to the
// user, then the denials among the patterns, then what the patterns allow.
func (a *acl) grantOne(account *Account, o Options) {
	var own, general []*rule // denials
	for _, r := range a.rules {
		switch {
		case r.access != deny:
		case r.pattern:
			general = append(general, r)
		case r.user == account.Name:
			own = append(own, r)
		}
	}
	for _, r := range a.rules {
		switch {
		case r.access == deny:
		case r.pattern:
			r.allow(account, append(slices.Clip(own), general...), o)
		case r.user == account.Name:
			r.allow(account, own, o)
		}
	}
}

// allow gives the account what the rule allows, if all of it can be given.
func (r *rule) allow(account *Account, denials []*rule, o Options) {
	switch {
	case !r.pattern && (strings.Contains(r.topic, "%u") || strings.Contains(r.topic, "%c")):
		r.escalate(NoEquivalent, "%%u and %%c stand for names in every rule here, in Mosquitto only in patterns: left out")
		return
	case strings.HasPrefix(r.topic, topic.SystemPrefix):
		r.escalate(NoEquivalent, `only administrators may read $SYS here: "plantops user add NAME --role admin"`)
		return
	case strings.HasPrefix(r.topic, "$"):
		r.escalate(NoEquivalent, "topics that begin with $ belong to the broker here: use another topic")
		return
	}
	if err := o.CheckFilter(r.topic); err != nil {
		r.escalate(NoEquivalent, "%v: left out", err)
		return
	}
	for _, d := range denials {
		allowed, denied := r.expand(account.Name), d.expand(account.Name)
		switch {
		case topic.Covers(denied, allowed):
			r.escalate(TakenOver, "for %s it is denied by line %d, so it is not among the rules", account.Name, d.Number)
			d.escalate(TakenOver, "the rule of line %d, all of which it denies to %s, is not among the rules of that account", r.Number, account.Name)
			return
		case overlap(denied, allowed):
			r.escalate(NoEquivalent, "line %d denies a part of it to %s, and there are no denials here; so the whole rule was left out for that account: write narrower rules instead and import again", d.Number, account.Name)
			d.escalate(NoEquivalent, "there are no denials here; so for %s the wider rule of line %d was left out: write narrower rules instead and import again", account.Name, r.Number)
			return
		}
	}
	if n := topic.Levels(r.topic); n > o.MaxLevels && o.MaxLevels > 0 {
		r.escalate(Differently, "it has %d levels and limits.max_topic_levels is %d: raise that", n, o.MaxLevels)
	} else {
		r.escalate(TakenOver, "")
	}
	if r.access&write != 0 && !slices.Contains(account.Publish, r.topic) {
		account.Publish = append(account.Publish, r.topic)
	}
	if r.access&read != 0 && !slices.Contains(account.Subscribe, r.topic) {
		account.Subscribe = append(account.Subscribe, r.topic)
	}
}

// expand returns the topic with the user name filled in, for comparing rules of one account.
func (r *rule) expand(user string) string {
	if !r.pattern {
		return strings.ReplaceAll(r.topic, "%c", "%\x00c") // it stands for itself: no level of a pattern is the same
	}
	return strings.ReplaceAll(r.topic, "%u", user)
}
