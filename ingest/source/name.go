package source

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxIDBytes  = 64 // of an id in the store
	digestBytes = 4  // of what a name that is cut ends with
)

// ID is the id of a device behind a gateway: SOURCE.NAME. The name is put into Unicode's form NFC; of what is no letter, mark or
// digit and none of - _ . each run becomes one -, and - at the ends goes. An id of more than 64 bytes is cut, and ends
// with - and eight hexadecimal digits of the name's SHA-256. It is empty when nothing is left of the name.
func ID(source, name string) string {
	var b strings.Builder
	b.WriteString(source)
	b.WriteByte('.')
	first, gap := b.Len(), false
	for _, r := range norm.NFC.String(strings.ToValidUTF8(name, "-")) {
		if !strings.ContainsRune("_.", r) && !unicode.In(r, unicode.L, unicode.M, unicode.N) {
			gap = true // a hyphen too, so that no two of them stand together
			continue
		}
		if gap && b.Len() > first {
			b.WriteByte('-')
		}
		gap = false
		b.WriteRune(r)
	}
	id := b.String()
	switch {
	case len(id) == first:
		return ""
	case len(id) <= maxIDBytes:
		return id
	}
	digest := sha256.Sum256([]byte(name))
	end := "-" + hex.EncodeToString(digest[:digestBytes])
	cut := maxIDBytes - len(end)
	for !utf8.RuneStart(id[cut]) {
		cut--
	}
	return id[:cut] + end
}
