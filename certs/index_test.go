package certs

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConcurrentCommandsLoseNoRecord(t *testing.T) {
	o := options(t)
	create(t, o)
	out := t.TempDir()
	var running sync.WaitGroup
	const commands, each = 4, 4
	for n := range commands {
		running.Go(func() {
			a, err := Open(o) // as a process of its own would
			if !assert.NoError(t, err) {
				return
			}
			for m := range each {
				name := fmt.Sprintf("bed-%d-%d", n, m)
				_, err := a.IssueFiles(name, filepath.Join(out, name+".crt"), filepath.Join(out, name+".key"))
				assert.NoError(t, err)
				if m%2 == 0 {
					_, err = a.Revoke(name)
					assert.NoError(t, err)
				}
			}
		})
	}
	running.Wait()
	a, err := Open(o)
	require.NoError(t, err)
	issued, err := a.Issued()
	require.NoError(t, err)
	assert.Len(t, issued, commands*each)
	for _, i := range issued {
		want := Valid
		if i.Name[len(i.Name)-1]%2 == '0'%2 {
			want = Revoked
		}
		assert.Equal(t, want, i.State, i.Name)
	}
	info, err := os.Stat(a.index)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// A command that opened the old authority must leave nothing of it in the directory of the new one.
func TestNothingIsIssuedOrRevokedByAnAuthorityThatWasReplaced(t *testing.T) {
	o := options(t)
	a := create(t, o)
	old := issue(t, a, "bed-1")
	file := filepath.Join(t.TempDir(), "old.crt")
	write(t, string(old.CertPEM), file)
	_, err := Create(o, true)
	require.NoError(t, err)
	_, err = a.IssueFiles("bed-2", filepath.Join(o.Dir, "2.crt"), filepath.Join(o.Dir, "2.key"))
	require.ErrorContains(t, err, "is not signed by the authority in use")
	assert.NoFileExists(t, filepath.Join(o.Dir, "2.crt"))
	_, err = a.RevokeFile(file)
	require.ErrorContains(t, err, "is not signed by the authority in use")
	_, err = a.Revoke("bed-1")
	require.ErrorIs(t, err, ErrNotIssued)
	assert.NoFileExists(t, a.ownList)
	assert.NoFileExists(t, a.index)
	_, err = Open(o)
	require.NoError(t, err)
}

func TestAnAuthorityIsMadeWhenNoOtherCommandWrites(t *testing.T) {
	o := options(t)
	a := create(t, o)
	made := make(chan error, 1)
	require.NoError(t, a.exclusively(func() error {
		go func() {
			_, err := Create(o, true)
			made <- err
		}()
		select {
		case err := <-made:
			return fmt.Errorf("made meanwhile: %w", err)
		case <-time.After(100 * time.Millisecond): // it would have taken a few
			return nil
		}
	}))
	require.NoError(t, <-made)
}

func TestDamagedIndexIsAnErrorThatNamesTheLine(t *testing.T) {
	o := options(t)
	a := create(t, o)
	issue(t, a, "bed-1")
	issue(t, a, "bed-2")
	good := read(t, a.index)
	first, second, _ := strings.Cut(good, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"cut":              {good[:len(good)-20], "line 2"},
		"no line end":      {good[:len(good)-1], "line 2"},
		"empty line":       {first + "\n\n" + second, "line 2"},
		"garbage":          {"\x00\x00\n" + good, "line 1"},
		"the same twice":   {good + first + "\n", "serial of line 1"},
		"serial":           {strings.Replace(good, `"serial":"`, `"serial":"0`, 1), "is no serial"},
		"negative":         {strings.Replace(good, `"serial":"`, `"serial":"-`, 1), "is no serial"},
		"with a state":     {strings.Replace(good, "}\n", `,"state":"valid"}`+"\n", 1), "line 1"},
		"unknown field":    {strings.Replace(good, "}\n", `,"x":1}`+"\n", 1), "line 1"},
		"name twice":       {strings.Replace(good, `{"name"`, `{"name":"x","name"`, 1), "line 1"},
		"spaces":           {strings.Replace(good, ",", ", ", 1), "line 1"},
		"dates":            {strings.Replace(good, `"not_after":"2036`, `"not_after":"2006`, 1), "dates make no sense"},
		"Windows line end": {strings.Replace(good, "\n", "\r\n", 1), "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, good, c.text)
			write(t, c.text, a.index)
			_, err := a.Issued()
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, a.index)
			_, err = a.Revoke("bed-1")
			require.ErrorContains(t, err, c.want, "it could be the line that was lost")
			_, err = a.IssueFiles("bed-3", filepath.Join(o.Dir, "3.crt"), filepath.Join(o.Dir, "3.key"))
			require.ErrorContains(t, err, c.want)
			assert.NoFileExists(t, filepath.Join(o.Dir, "3.crt"), "no certificate without a record")
			assert.Equal(t, c.text, read(t, a.index))
		})
	}
	write(t, good, a.index)
	_, err := a.Revoke("bed-1")
	require.NoError(t, err)
}

func TestRevokeByFile(t *testing.T) {
	o := options(t)
	a, other := create(t, o), create(t, options(t))
	dir := t.TempDir()
	path := func(name string, pemText []byte) string {
		p := filepath.Join(dir, name)
		write(t, string(pemText), p)
		return p
	}
	old, err := a.Issue("bed-1") // before there was an index
	require.NoError(t, err)
	foreign, err := other.Issue("bed-1")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		pem  []byte
		want string
	}{
		"of another authority": {foreign.CertPEM, "is not signed by the authority in use"},
		"of the authority":     {a.RootPEM(), "is that of an authority"},
		"of the server":        {a.ServerPEM(), "is not meant for clients"},
		"a key":                {old.KeyPEM, "holds a private key"},
	} {
		_, err := a.RevokeFile(path(name, c.pem))
		require.ErrorContains(t, err, c.want, name)
	}
	issued, err := a.Issued()
	require.NoError(t, err)
	assert.Empty(t, issued)

	g := a.current.Load()
	key, err := newKey()
	require.NoError(t, err)
	zero, err := certify(&x509.Certificate{SerialNumber: new(big.Int), NotBefore: noon, NotAfter: noon.Add(day)}, g.roots[0], key.Public(), g.caKey)
	require.NoError(t, err)
	_, err = a.RevokeFile(path("zero.crt", encodeCert(zero)))
	require.NoError(t, err)
	assert.True(t, a.Revoked([][]*x509.Certificate{{zero}}))
	issued, err = a.Issued()
	require.NoError(t, err)
	assert.Empty(t, issued, "the index takes no serial 0")

	file := path("bed-1.crt", old.CertPEM)
	revoked, err := a.RevokeFile(file)
	require.NoError(t, err)
	assert.Equal(t, issuedOf(old.leaf), revoked)
	_, err = a.RevokeFile(file)
	require.ErrorIs(t, err, ErrNotIssued)
	issued, err = a.Issued()
	require.NoError(t, err)
	revoked.State = Revoked
	assert.Equal(t, []Issued{revoked}, issued, "it is in the index from now on")
}

func TestCertificatesOfThisProcessAreNotRecorded(t *testing.T) {
	a := create(t, options(t))
	own, err := a.Issue("plantops_backend")
	require.NoError(t, err)
	issue(t, a, "plantops_backend")
	revoked, err := a.Revoke("plantops_backend")
	require.NoError(t, err)
	require.Len(t, revoked, 1)
	assert.False(t, a.current.Load().revoked.has(own.leaf), "the subscriber's own stays good")
}

func TestExpiredCertificatesAreListedAsSuch(t *testing.T) {
	o := options(t)
	a := create(t, o)
	issue(t, a, "bed-1")
	o.ReadOnly, o.Now = true, at(noon.Add(20*365*24*time.Hour))
	a, err := Open(o)
	require.NoError(t, err)
	issued, err := a.Issued()
	require.NoError(t, err)
	require.Len(t, issued, 1)
	assert.Equal(t, Expired, issued[0].State)
}

// What is accepted is exactly what would be written, each serial once.
func FuzzParseIndex(f *testing.F) {
	line := `{"name":"bed-1","serial":"0A1B","not_before":"2026-03-01T11:00:00Z","not_after":"2036-02-27T11:00:00Z"}` + "\n"
	for _, seed := range []string{"", line, line + line, line[:50], strings.Replace(line, "bed-1", `Süd <1> é`, 1),
		strings.Replace(line, "Z", "+01:00", 1), strings.Replace(line, "0A1B", "0a1b", 1), "null\n", "{}\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseIndex(data)
		if err != nil {
			return
		}
		require.Equal(t, string(data), string(encodeIndex(list)))
		serials := map[string]bool{}
		for _, i := range list {
			require.Positive(t, i.serial().Sign())
			serials[i.serial().String()] = true
		}
		require.Len(t, serials, len(list))
	})
}
