// Package password hashes passwords of people and programs, and verifies hashes that Mosquitto made. It leaves to others who
// may choose which password, and where hashes are kept.
package password

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// How new passwords are hashed: argon2id as OWASP recommends it. It took 25 ms on the machine that this was measured on; a
// Pi 4 takes about 0.1 s, a Pi Zero half a second.
const (
	argonMemoryKiB = 19 << 10
	argonTime      = 2
	argonThreads   = 1
	argonSumBytes  = 32
	saltBytes      = 16
)

// Bounds on hashes that come from elsewhere: none may cost more than a login is worth.
const (
	maxArgonMemoryKiB = 64 << 10
	maxArgonTime      = 16
	maxArgonThreads   = 4
	maxIterations     = 500_000 // OWASP recommends 210,000
	maxHashText       = 4096
)

// Hash is a hash of a password, with how it was made.
type Hash struct {
	kind      form
	time      int // passes over the memory, or iterations of PBKDF2
	memoryKiB int // argon2id only, as threads
	threads   int
	salt, sum []byte
}

// form is what the text of a hash begins with, between dollar signs.
type form string

const (
	argon2id form = "argon2id" // $argon2id$v=19$m=19456,t=2,p=1$SALT$SUM, the PHC string format
	ofSHA512 form = "6"        // $6$SALT$SUM, of mosquitto_passwd: no slow hash at all
	ofPBKDF2 form = "7"        // $7$ITERATIONS$SALT$SUM, of mosquitto_passwd
)

// New hashes a password as new ones are.
func New(password []byte) Hash {
	h := Hash{kind: argon2id, time: argonTime, memoryKiB: argonMemoryKiB, threads: argonThreads,
		salt: make([]byte, saltBytes), sum: make([]byte, argonSumBytes)}
	_, _ = rand.Read(h.salt) // it never fails
	h.sum = h.derive(password)
	return h
}

// Outdated says that a new hash of the same password would be made in another way.
func (h Hash) Outdated() bool {
	return h.kind != argon2id || h.time != argonTime || h.memoryKiB != argonMemoryKiB || h.threads != argonThreads
}

// Matches tells whether a password is the one that was hashed, in a time that says nothing of it.
func (h Hash) Matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.sum) == 1
}

// derive returns what sum is for the right password.
func (h Hash) derive(password []byte) []byte {
	switch h.kind {
	case argon2id:
		return argon2.IDKey(password, h.salt, uint32(h.time), uint32(h.memoryKiB), uint8(h.threads), uint32(len(h.sum)))
	case ofPBKDF2:
		// Its only error is FIPS 140 mode with a short salt; no sum is nil, so nothing matches.
		sum, _ := pbkdf2.Key(sha512.New, string(password), h.salt, h.time, len(h.sum))
		return sum
	default:
		sum := sha512.Sum512(slices.Concat(password, h.salt))
		return sum[:]
	}
}

// String is the text that Parse reads.
func (h Hash) String() string {
	encode := base64.StdEncoding.EncodeToString
	switch h.kind {
	case argon2id:
		encode = base64.RawStdEncoding.EncodeToString
		return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memoryKiB, h.time, h.threads, encode(h.salt), encode(h.sum))
	case ofPBKDF2:
		return fmt.Sprintf("$7$%d$%s$%s", h.time, encode(h.salt), encode(h.sum))
	default:
		return fmt.Sprintf("$6$%s$%s", encode(h.salt), encode(h.sum))
	}
}

// Parse reads a hash as text: argon2id in PHC format, or what mosquitto_passwd writes. Salts may have any length: that
// of Mosquitto 2.0 has 12 bytes, that of 2.1 has 64. The errors do not quote it.
func Parse(text string) (h Hash, err error) {
	if len(text) > maxHashText {
		return h, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxHashText)
	}
	fields := strings.Split(text, "$")
	if len(fields) < 2 || fields[0] != "" {
		return h, errors.New("it does not begin with $6$, $7$ or $argon2id$")
	}
	h.kind, fields = form(fields[1]), fields[2:]
	encoding := base64.StdEncoding
	switch {
	case h.kind == argon2id && len(fields) == 4:
		encoding = base64.RawStdEncoding
		err = h.parseArgon(fields[0], fields[1])
	case h.kind == ofPBKDF2 && len(fields) == 3:
		err = parseBounded("iterations", fields[0], maxIterations, &h.time)
	case h.kind == ofSHA512 && len(fields) == 2:
	case h.kind == argon2id, h.kind == ofPBKDF2, h.kind == ofSHA512:
		return h, fmt.Errorf("it begins with $%s$ and then has %d parts", h.kind, len(fields))
	default:
		return h, errors.New("it does not begin with $6$, $7$ or $argon2id$")
	}
	if err != nil {
		return h, err
	}
	if h.salt, err = encoding.DecodeString(fields[len(fields)-2]); err != nil || len(h.salt) == 0 {
		return h, errors.New("its salt is not base64")
	}
	if h.sum, err = encoding.DecodeString(fields[len(fields)-1]); err != nil {
		return h, errors.New("its last part is not base64")
	}
	return h, h.checkSum()
}

// checkSum refuses sums that are cut short: they would match many passwords.
func (h Hash) checkSum() error {
	least, most := sha512.Size, sha512.Size
	if h.kind == argon2id {
		least = 16
	}
	if len(h.sum) < least || len(h.sum) > most {
		return fmt.Errorf("its last part has %d bytes, %d to %d are allowed", len(h.sum), least, most)
	}
	return nil
}

func (h *Hash) parseArgon(version, parameters string) error {
	if version != fmt.Sprintf("v=%d", argon2.Version) {
		return fmt.Errorf("its argon2 version is not v=%d", argon2.Version)
	}
	values := strings.Split(parameters, ",")
	if len(values) != 3 {
		return errors.New("its parameters are not m=,t=,p=")
	}
	for i, p := range []struct {
		name string
		most int
		to   *int
	}{{"m", maxArgonMemoryKiB, &h.memoryKiB}, {"t", maxArgonTime, &h.time}, {"p", maxArgonThreads, &h.threads}} {
		value, found := strings.CutPrefix(values[i], p.name+"=")
		if !found {
			return errors.New("its parameters are not m=,t=,p=")
		}
		if err := parseBounded(p.name, value, p.most, p.to); err != nil {
			return err
		}
	}
	return nil
}

func parseBounded(name, text string, most int, to *int) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n < 1 || n > uint64(most) {
		return fmt.Errorf("%s is %.20q, 1 to %d are allowed", name, text, most)
	}
	*to = int(n)
	return nil
}
