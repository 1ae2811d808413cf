package store

import (
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// How new passwords are hashed: argon2id as OWASP recommends it. It took 25 ms on the machine that this was measured on; a
// Pi 4 takes about 0.1 s, a Pi Zero half a second.
const (
	argonMemoryKiB = 19 << 10
	argonTime      = 2
	argonThreads   = 1
	argonSumBytes  = 32
)

// Bounds on hashes that come from elsewhere: none may cost more than a login is worth.
const (
	maxArgonMemoryKiB = 64 << 10
	maxArgonTime      = 16
	maxArgonThreads   = 4
	maxIterations     = 500_000 // OWASP recommends 210,000
	maxHashText       = 4096
)

// Bounds on passwords that people choose.
const (
	minPasswordBytes = 8
	maxPasswordBytes = 1024
)

// CheckPassword tells whether a person may choose this password: 8 to 1024 bytes of UTF-8 without control characters. The
// error wraps ErrInvalidPassword and does not quote it.
func CheckPassword(password string) error {
	why := ""
	switch {
	case len(password) < minPasswordBytes || len(password) > maxPasswordBytes:
		why = fmt.Sprintf("it has %d bytes, %d to %d are allowed", len(password), minPasswordBytes, maxPasswordBytes)
	case !utf8.ValidString(password):
		why = "it is not valid UTF-8"
	case strings.ContainsFunc(password, unicode.IsControl):
		why = "it holds a line break or another control character"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInvalidPassword, why)
}

// passwordHash is a hash of a password, with how it was made.
type passwordHash struct {
	kind      hashKind
	time      int // passes over the memory, or iterations of PBKDF2
	memoryKiB int // argon2id only, as threads
	threads   int
	salt, sum []byte
}

// hashKind is what the text of a hash begins with, between dollar signs.
type hashKind string

const (
	hashArgon2id hashKind = "argon2id" // $argon2id$v=19$m=19456,t=2,p=1$SALT$SUM, the PHC string format
	hashSHA512   hashKind = "6"        // $6$SALT$SUM, of mosquitto_passwd: no slow hash at all
	hashPBKDF2   hashKind = "7"        // $7$ITERATIONS$SALT$SUM, of mosquitto_passwd
)

// newPasswordHash hashes a password as new ones are.
func newPasswordHash(password []byte) passwordHash {
	h := passwordHash{kind: hashArgon2id, time: argonTime, memoryKiB: argonMemoryKiB, threads: argonThreads,
		salt: random(saltBytes), sum: make([]byte, argonSumBytes)}
	h.sum = h.derive(password)
	return h
}

// outdated says that a new hash of the same password would be made in another way.
func (h passwordHash) outdated() bool {
	return h.kind != hashArgon2id || h.time != argonTime || h.memoryKiB != argonMemoryKiB || h.threads != argonThreads
}

func (h passwordHash) matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.sum) == 1
}

// derive returns what sum is for the right password.
func (h passwordHash) derive(password []byte) []byte {
	switch h.kind {
	case hashArgon2id:
		return argon2.IDKey(password, h.salt, uint32(h.time), uint32(h.memoryKiB), uint8(h.threads), uint32(len(h.sum)))
	case hashPBKDF2:
		// Its only error is FIPS 140 mode with a short salt; no sum is nil, so nothing matches.
		sum, _ := pbkdf2.Key(sha512.New, string(password), h.salt, h.time, len(h.sum))
		return sum
	default:
		sum := sha512.Sum512(slices.Concat(password, h.salt))
		return sum[:]
	}
}

// String is the text that parseHash reads.
func (h passwordHash) String() string {
	encode := base64.StdEncoding.EncodeToString
	switch h.kind {
	case hashArgon2id:
		encode = base64.RawStdEncoding.EncodeToString
		return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memoryKiB, h.time, h.threads, encode(h.salt), encode(h.sum))
	case hashPBKDF2:
		return fmt.Sprintf("$7$%d$%s$%s", h.time, encode(h.salt), encode(h.sum))
	default:
		return fmt.Sprintf("$6$%s$%s", encode(h.salt), encode(h.sum))
	}
}

// parseHash reads a hash as text: argon2id in PHC format, or what mosquitto_passwd writes. Salts may have any length: that
// of Mosquitto 2.0 has 12 bytes, that of 2.1 has 64. The errors do not quote it.
func parseHash(text string) (h passwordHash, err error) {
	if len(text) > maxHashText {
		return h, fmt.Errorf("it has %d bytes, at most %d are allowed", len(text), maxHashText)
	}
	fields := strings.Split(text, "$")
	if len(fields) < 2 || fields[0] != "" {
		return h, errors.New("it does not begin with $6$, $7$ or $argon2id$")
	}
	h.kind, fields = hashKind(fields[1]), fields[2:]
	encoding := base64.StdEncoding
	switch {
	case h.kind == hashArgon2id && len(fields) == 4:
		encoding = base64.RawStdEncoding
		err = h.parseArgon(fields[0], fields[1])
	case h.kind == hashPBKDF2 && len(fields) == 3:
		err = parseBounded("iterations", fields[0], maxIterations, &h.time)
	case h.kind == hashSHA512 && len(fields) == 2:
	case h.kind == hashArgon2id, h.kind == hashPBKDF2, h.kind == hashSHA512:
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
func (h passwordHash) checkSum() error {
	least, most := sha512.Size, sha512.Size
	if h.kind == hashArgon2id {
		least = 16
	}
	if len(h.sum) < least || len(h.sum) > most {
		return fmt.Errorf("its last part has %d bytes, %d to %d are allowed", len(h.sum), least, most)
	}
	return nil
}

func (h *passwordHash) parseArgon(version, parameters string) error {
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
