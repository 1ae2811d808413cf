package mosquitto

import (
	"fmt"
	"slices"
	"strings"
)

// readSecurity reads the password and ACL files and makes the accounts.
func (t *translator) readSecurity() error {
	groups := []*security{t.global}
	if t.perListener {
		for _, l := range t.listeners {
			groups = append(groups, l.security)
		}
		if t.first.security != t.global {
			groups = append(groups, t.first.security)
		}
	}
	members := map[*acl][]*Account{} // who has the rules of which file
	files := map[*acl]*directive{}
	var order []*acl
	var made []*Account
	for i, s := range groups {
		if slices.Contains(groups[:i], s) {
			continue
		}
		t.settleAnonymous(s)
		accounts, err := t.readPasswords(s)
		if err != nil {
			return err
		}
		made = append(made, accounts...)
		if s.aclFile == nil {
			for _, a := range accounts {
				a.Publish, a.Subscribe = []string{"#"}, []string{"#"}
			}
			if len(accounts) > 0 {
				t.imply("(no acl_file)", Differently, "every account of %s may publish and subscribe to everything, but not to topics that begin with $: $SYS is for administrators", s.passwordFile.value)
			}
			continue
		}
		file, err := t.readRules(s)
		if err != nil {
			return err
		}
		if _, known := members[file]; !known {
			order = append(order, file)
			files[file] = s.aclFile
		}
		members[file] = append(members[file], accounts...)
	}
	for _, file := range order {
		file.grant(members[file], t.options)
		settleRules(files[file], members[file])
	}
	for _, a := range made {
		t.accounts = append(t.accounts, *a)
	}
	return nil
}

func (t *translator) settleAnonymous(s *security) {
	if s.anonymous == nil {
		return
	}
	switch yes, ok := s.anonymous.yes(); {
	case !ok:
	case yes:
		s.anonymous.settle(NoEquivalent, `everybody needs an account here: "plantops user add NAME" with --publish and --subscribe, and the name and password in the clients`)
	default:
		s.anonymous.settle(TakenOver, "anonymous clients are always refused")
	}
}

// readPasswords makes the accounts of a password file, without rules.
func (t *translator) readPasswords(s *security) ([]*Account, error) {
	d := s.passwordFile
	if d == nil {
		return nil, nil
	}
	file := t.absolute(d.value)
	if by := t.passwords[file]; by != nil {
		d.settle(Differently, "line %d names the same file; its accounts have the rules that go with that line", by.Number)
		return nil, nil
	}
	t.passwords[file] = d
	lines, err := t.read(file)
	if err != nil {
		return nil, fmt.Errorf("read password file (%s): %w", d.Position(), err)
	}
	d.settle(TakenOver, "accounts, see %s", file)
	var accounts []*Account
	for _, l := range readLogins(lines, func(n int, text string) *Line { return t.add(file, n, text) }) {
		if l.plain {
			t.plainText = append(t.plainText, l.Line)
		}
		if l.hash == "" {
			continue
		}
		if err := t.options.CheckName(l.name); err != nil {
			l.settle(NoEquivalent, `%v: make the account under another name with "plantops user add", and change the client`, err)
			continue
		}
		if other := t.account(l.name); other != nil {
			l.settle(NoEquivalent, "%s is about the same user and wins: there is one set of accounts for all listeners", other.Line.Position())
			continue
		}
		l.settle(TakenOver, "")
		accounts = append(accounts, &Account{Name: l.name, Hash: l.hash, Line: l.Line})
	}
	t.known = append(t.known, accounts...)
	return accounts, nil
}

func (t *translator) account(name string) *Account {
	for _, a := range t.known {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// readRules reads an ACL file, once.
func (t *translator) readRules(s *security) (*acl, error) {
	file := t.absolute(s.aclFile.value)
	if known := t.acls[file]; known != nil {
		s.aclFile.settle(TakenOver, "the same file as before")
		return known, nil
	}
	lines, err := t.read(file)
	if err != nil {
		return nil, fmt.Errorf("read ACL file (%s): %w", s.aclFile.Position(), err)
	}
	t.acls[file] = readACL(lines, func(n int, text string) *Line { return t.add(file, n, text) })
	return t.acls[file], nil
}

// settleRules says on the acl_file line for whom subscribing changes: Mosquitto grants every SUBSCRIBE and looks at the
// rules when it delivers.
func settleRules(d *directive, accounts []*Account) {
	var narrow []string
	for _, a := range accounts {
		switch {
		case len(a.Subscribe) == 0:
			narrow = append(narrow, a.Name+" (nothing)")
		case !slices.Contains(a.Subscribe, "#"):
			narrow = append(narrow, a.Name+" ("+strings.Join(a.Subscribe, ", ")+")")
		}
	}
	if len(narrow) == 0 {
		d.settle(TakenOver, "rules of the accounts")
		return
	}
	more := ""
	if n := len(narrow) - 20; n > 0 {
		narrow, more = narrow[:20], fmt.Sprintf(" and %d more", n)
	}
	d.settle(Differently, "rules of the accounts; Mosquitto grants every SUBSCRIBE and delivers what may be read, here a SUBSCRIBE is refused unless one rule covers all of it: see that these subscribe to no more than they may read: %s%s",
		strings.Join(narrow, "; "), more)
}

const (
	leastPacket = 1024        // the least of limits.max_packet_bytes
	mostPacket  = 268_435_455 // the most that MQTT can write [MQTT 5, 1.5.5]
	headroom    = 1024        // for the topic and the properties beside a payload
)

// settleBroker judges what is about the whole broker.
func (t *translator) settleBroker() {
	t.settlePackets()
	t.settleConnections()
	t.settleLog()
}

func (t *translator) settlePackets() {
	d, extra := t.maxPacket, 0
	if t.maxMessage != nil && d == nil {
		d, extra = t.maxMessage, headroom
	} else if t.maxMessage != nil {
		t.maxMessage.settle(Differently, "limits.max_packet_bytes is the one limit, taken from line %d", d.Number)
	}
	if d == nil {
		t.imply("(no max_packet_size)", Differently, "Mosquitto 2.0 takes packets of any size, 2.1 of 2,000,000 bytes; here limits.max_packet_bytes is 262,144: raise it if a client sends more")
		return
	}
	n, ok := d.number()
	if !ok {
		return
	}
	size := n + extra
	if n <= 0 {
		size = mostPacket
	}
	size = min(max(size, leastPacket), mostPacket)
	t.set("limits.max_packet_bytes", size, d.Position())
	switch {
	case extra > 0:
		d.settle(Differently, "limits.max_packet_bytes is about the whole packet: 1 KiB was added for the topic; and a larger packet ends the connection")
	case size != n && n > 0:
		d.settle(Differently, "limits.max_packet_bytes; the least is %d, the most %d", leastPacket, mostPacket)
	default:
		d.settle(TakenOver, "limits.max_packet_bytes")
	}
}

// settleConnections adds up the listeners' limits: there is one for all of them.
func (t *translator) settleConnections() {
	sum, limited, from := 0, true, ""
	for _, l := range []*listener{t.taken.plain, t.taken.tls, t.taken.websocket} {
		if l == nil {
			continue
		}
		d := l.given["max_connections"]
		if d == nil || d.Kind != 0 {
			limited = false
			continue
		}
		n, _ := d.number() // a number, or it would have its verdict
		sum, from = min(sum+n, 1_000_000), d.Position()
	}
	const note = "limits.max_connections is for all listeners together"
	if d := t.maxConnections; d != nil {
		if n, ok := d.number(); ok && n > 0 {
			t.set("limits.max_connections", min(n, 1_000_000), d.Position())
			d.settle(TakenOver, "limits.max_connections")
			limited = false
		} else if ok {
			d.settle(Differently, "limits.max_connections cannot be unlimited; the default stays")
		}
	}
	if limited && sum > 0 {
		t.set("limits.max_connections", sum, from)
	}
	for _, l := range t.listeners {
		switch {
		case limited && sum > 0:
			l.settle("max_connections", Differently, note+": their sum")
		default:
			l.settle("max_connections", NoEquivalent, note+", and not all of them have one here: set it")
		}
	}
}

// settleLog finds the one level that shows what the log_type lines ask for.
func (t *translator) settleLog() {
	if len(t.logTypes) == 0 {
		return
	}
	levels := []string{"error", "warn", "info", "debug"}
	of := map[string]int{"none": 0, "error": 0, "warning": 1, "notice": 2, "information": 2, "internal": 2, "all": 3, "debug": 3, "subscribe": 3, "unsubscribe": 3, "websockets": 3}
	level := 0
	for _, d := range t.logTypes {
		n, known := of[d.word()]
		if !known {
			d.settle(NoEquivalent, "no such type; Mosquitto refuses it too")
			continue
		}
		level = max(level, n)
	}
	for _, d := range t.logTypes {
		if d.Kind == 0 {
			d.settle(Differently, "log.level %s: the log has one level, which holds all below it", levels[level])
			t.set("log.level", levels[level], d.Position())
		}
	}
}
