package password

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const horse = "correct horse ü"

// hashes of horse. Those of mosquitto_passwd 2.0.11 are its own; the other lengths were made with Python's hashlib; the
// last is of "password", from the test suite of the reference implementation of argon2.
var (
	hashes = map[string]string{
		"mosquitto 2.0, SHA-512":         "$6$3E2qxZ06256dSMvD$EZ3sUCwyammUqdKJECShMXd0L3L+ye/UgR8kzVHZs/oA5HhsUnPRjKZK/tH83xHix5ii6rEkCTN+fVWombfm4w==",
		"SHA-512, salt of one byte":      "$6$Bw==$4Jiw4qnsS0EZp2ugekWz0XWjb3Gk2WpufK7vbNj+2tYtM4DCSYDexd67A+WOlv6C4jdCeu3NN1nFE7r+RuDRpw==",
		"mosquitto 2.0, 101 iterations":  "$7$101$o5KG498l5PD4qGbz$8p6YLQjB3RYDatHeyKs/b1Vq1SMZ9UKlTHGI1N+2WtaAYuf6YJaJ1FwYOonEYO4OLAi7wMOM9OSpnbM2LYE9Qw==",
		"mosquitto 2.0, 1000 iterations": "$7$1000$98Jn8RB+nx4V4RqM$D+yI3pFnmNWZ/QWMiiukjbsD5KOYMaA7kSUKYuKN5fSHbMzp3uuerErsGplGKaIZH97ZOS0HhpkvjQkee/ABnw==",
		"mosquitto 2.1, salt of 64":      "$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$UPnV2Nkce3B6k8JvnoW4UKCM/dSdq2icmQAI546mfEV9BOEGtMS+7xv4PNlkc48o3wRWklRFs8AB5wV5xCVu3w==",
	}
	argonOfPassword = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
)

func TestHashesOfOtherProgramsVerify(t *testing.T) {
	check := func(text, password string) {
		h, err := Parse(text)
		require.NoError(t, err)
		assert.True(t, h.Matches([]byte(password)), text)
		assert.False(t, h.Matches([]byte(password+"x")), text)
		assert.False(t, h.Matches(nil), text)
		assert.True(t, h.Outdated(), "made in another way than ours")
		assert.Equal(t, text, h.String())
	}
	for _, text := range hashes {
		check(text, horse)
	}
	check(argonOfPassword, "password")
}

func TestHashesOfTheInstalledMosquittoVerify(t *testing.T) {
	program, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	for _, options := range [][]string{{"-H", "sha512"}, {"-H", "sha512-pbkdf2"}, {"-H", "sha512-pbkdf2", "-I", "2500"}} {
		path := filepath.Join(t.TempDir(), "passwords")
		out, err := exec.Command(program, append(options, "-c", "-b", path, "anna", horse)...).CombinedOutput()
		require.NoError(t, err, string(out))
		line, err := os.ReadFile(path)
		require.NoError(t, err)
		_, text, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		h, err := Parse(text)
		require.NoError(t, err, text)
		assert.True(t, h.Matches([]byte(horse)), text)
		assert.False(t, h.Matches([]byte("correct horse u")), text)
	}
}

func TestNewHashIsArgon2idWithItsOwnSalt(t *testing.T) {
	a, b := New([]byte(horse)), New([]byte(horse))
	assert.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, a.String())
	assert.NotEqual(t, a.String(), b.String())
	assert.False(t, a.Outdated())
	assert.True(t, a.Matches([]byte(horse)))
	parsed, err := Parse(b.String())
	require.NoError(t, err)
	assert.Equal(t, b, parsed)
}

func TestHashesThatAreNoneOrCostTooMuchAreRefused(t *testing.T) {
	sum := strings.Repeat("A", 86) + "=="
	for name, c := range map[string]struct{ text, says string }{
		"plain text":          {"secret of anna", "does not begin with"},
		"empty":               {"", "does not begin with"},
		"bcrypt":              {"$2b$10$abcdefghijklmnopqrstuv", "does not begin with"},
		"argon2i":             {strings.Replace(argonOfPassword, "2id", "2i", 1), "does not begin with"},
		"part missing":        {"$7$101$c2FsdA==", "2 parts"},
		"part too much":       {"$6$c2FsdA==$" + sum + "$x", "3 parts"},
		"no iterations":       {"$7$0$c2FsdA==$" + sum, `iterations is "0", 1 to 500000`},
		"negative":            {"$7$-1$c2FsdA==$" + sum, "iterations"},
		"too many iterations": {"$7$500001$c2FsdA==$" + sum, "1 to 500000 are allowed"},
		"beyond every number": {"$7$99999999999999999999$c2FsdA==$" + sum, "iterations"},
		"salt empty":          {"$6$$" + sum, "salt"},
		"salt not base64":     {"$6$?$" + sum, "salt"},
		"sum not base64":      {"$6$c2FsdA==$?", "last part is not base64"},
		"sum cut short":       {"$6$c2FsdA==$AAAA", "3 bytes"},
		"sum empty":           {"$7$101$c2FsdA==$", "0 bytes"},
		"argon2 version":      {strings.Replace(argonOfPassword, "v=19", "v=16", 1), "version"},
		"argon2 memory":       {strings.Replace(argonOfPassword, "m=256", "m=1048576", 1), "1 to 65536"},
		"argon2 time":         {strings.Replace(argonOfPassword, "t=2", "t=0", 1), "1 to 16"},
		"argon2 parameters":   {strings.Replace(argonOfPassword, "m=256,t=2", "t=2,m=256", 1), "m=,t=,p="},
		"very long":           {"$6$" + strings.Repeat("A", 1<<20), "at most 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.text)
			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "secret", "no part of it is quoted")
		})
	}
}

// What Parse takes can be written to the file and read back, and never costs more than the bounds say.
func FuzzParseHash(f *testing.F) {
	for _, text := range hashes {
		f.Add(text)
	}
	f.Add(argonOfPassword)
	f.Add("$7$$$")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := Parse(text)
		if err != nil {
			return
		}
		assert.LessOrEqual(t, h.time, maxIterations)
		assert.LessOrEqual(t, h.memoryKiB, maxArgonMemoryKiB)
		assert.NotEmpty(t, h.salt)
		assert.GreaterOrEqual(t, len(h.sum), 16)
		again, err := Parse(h.String())
		require.NoError(t, err)
		assert.Equal(t, h, again)
	})
}
