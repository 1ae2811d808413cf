package mosquitto

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// login is a line of a password file.
type login struct {
	*Line
	name, hash string // hash is "" when the line makes no account
	plain      bool   // the password stands there as it is
}

// readLogins reads the lines of a password file. A line is NAME:HASH; what follows a second colon is not read.
func readLogins(lines []string, add func(number int, text string) *Line) (logins []*login) {
	byName := map[string]*login{}
	for i, text := range lines {
		if blank(text) {
			continue
		}
		name, rest, colon := strings.Cut(text, ":")
		name = strings.TrimSpace(name)
		if !colon {
			// Not repeated: it may be a password.
			add(i+1, "(a line without a colon)").settle(NoEquivalent, "it is no NAME:HASH; Mosquitto skips it too")
			continue
		}
		hash, _, _ := strings.Cut(rest, ":")
		l := &login{Line: add(i+1, name+":(not shown)"), name: name}
		logins = append(logins, l)
		hash = strings.TrimSpace(hash)
		switch {
		case hash == "":
			l.settle(NoEquivalent, "it has no password; Mosquitto lets nobody in with it")
			continue
		case !strings.HasPrefix(hash, "$"):
			l.plain = true
			continue // how it can be hashed depends on the other lines
		case !validHash(hash):
			l.settle(NoEquivalent, `its hash is of no known kind ($6$, $7$ or $argon2id$) or damaged: make the account with "plantops user add"`)
			continue
		}
		if before := byName[name]; before != nil {
			before.hash = ""
			before.settle(NoEquivalent, "line %d is about the same user and wins, as in Mosquitto 2.0", i+1)
		}
		l.hash, byName[name] = hash, l
	}
	remedy := "mosquitto_passwd -U FILE"
	if slices.ContainsFunc(logins, func(l *login) bool { return !l.plain }) {
		// With -U, Mosquitto 2.0.11 takes hashes for passwords and hashes them again.
		remedy = "mosquitto_passwd FILE NAME (not with -U, which would spoil the lines that are hashed already)"
	}
	for _, l := range logins {
		if l.plain {
			l.settle(NoEquivalent, "its password is not hashed, and Mosquitto lets nobody in with it: hash it with %s, then import again", remedy)
		}
	}
	return logins
}

// validHash reports whether this is a hash as mosquitto_passwd writes it. Lengths of salts differ between versions.
func validHash(hash string) bool {
	parts := strings.Split(hash, "$")
	switch {
	case len(parts) == 4 && parts[1] == "6":
		return encoded(parts[2], 1) && encoded(parts[3], 64)
	case len(parts) == 5 && parts[1] == "7":
		iterations, err := strconv.Atoi(parts[2])
		return err == nil && iterations > 0 && encoded(parts[3], 1) && encoded(parts[4], 64)
	case len(parts) == 6 && parts[1] == "argon2id":
		return true
	}
	return false
}

func encoded(text string, leastBytes int) bool {
	data, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(data) >= leastBytes
}
