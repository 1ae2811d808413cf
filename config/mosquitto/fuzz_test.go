package mosquitto

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/topic"
)

// seed adds the files of testdata with that ending.
func seed(f *testing.F, ending string) {
	paths, err := filepath.Glob("testdata/*" + ending)
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(string(data))
	}
}

// translated checks what holds for all input: each line that is no comment has one verdict and is in one list, reports
// are printable, accounts have a hash and rules that Mosquitto has too.
func translated(t *testing.T, conf, passwords, rules string) {
	files := fstest.MapFS{
		"m.conf": {Data: []byte(conf)}, "passwords": {Data: []byte(passwords)}, "rules": {Data: []byte(rules)},
	}
	r, err := Translate(options4(files, "/m.conf"))
	if err != nil {
		return // it names a file that is not there
	}
	seen := map[string]int{}
	for _, l := range r.Lines {
		assert.Contains(t, []Kind{TakenOver, Differently, NoEquivalent}, l.Kind, "%s %q", l.Position(), l.Text)
		for _, r := range l.Text + l.Note {
			assert.True(t, unicode.IsPrint(r), "%s %q", l.Position(), l.Text+l.Note)
		}
		if l.Number > 0 {
			seen[l.Position()]++
		}
	}
	for name, text := range map[string]string{"/m.conf": conf, "/passwords": passwords, "/rules": rules} {
		whole := false // a file is read as a whole or not at all
		for position := range seen {
			whole = whole || strings.HasPrefix(position, name+":")
		}
		for i, line := range strings.Split(text, "\n") {
			want := 1
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" || !whole {
				want = 0
			}
			assert.Equal(t, want, seen[Line{File: name, Number: i + 1}.Position()], "%s line %d: %q", name, i+1, line)
		}
	}
	for _, a := range r.Accounts {
		assert.True(t, validHash(a.Hash))
		for _, filter := range append(a.Publish, a.Subscribe...) {
			assert.Equal(t, topic.Faultless, aclFilters.Fault(filter), "%q", filter)
			assert.NotEqual(t, "$", filter[:1])
		}
	}
	assert.NoError(t, WriteYAML(io.Discard, r.Settings))
}

func FuzzConfiguration(f *testing.F) {
	seed(f, ".conf")
	f.Add("per_listener_settings 1\nlistener 0x75b\npassword_file passwords\nlistener 2\nport 1\nacl_file rules\npassword_file /passwords")
	f.Fuzz(func(t *testing.T, conf string) {
		translated(t, conf, "a:"+hashForTests, "user a\ntopic #\npattern deny %u/+")
	})
}

func FuzzPasswordFile(f *testing.F) {
	seed(f, ".passwd")
	f.Fuzz(func(t *testing.T, passwords string) {
		translated(t, "password_file passwords\nacl_file rules", passwords, "user old\ntopic #\npattern deny %u/+")
	})
}

func FuzzACLFile(f *testing.F) {
	seed(f, ".acl")
	f.Fuzz(func(t *testing.T, rules string) {
		translated(t, "password_file passwords\nacl_file rules", "a:"+hashForTests+"\ngreenhouse:"+hashForTests, rules)
	})
}

const hashForTests = "$6$NpOsNSDOXrJmaBrd$8M6IO/y0uLcbLAmMTcQh41kDOTlCBVlPvfKGjnpUlVzKzYYkyO2WYyMhMQkKo0N1nkJwAMUzLQVfDkLG3NcG3w=="
