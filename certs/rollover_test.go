package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// years of the authority that create makes: it ends ten years after noon.
var (
	theEnd   = noon.Add(-backdate + rootLifetime)
	handover = theEnd.Add(-rolloverBefore)
	switched = theEnd.Add(-switchBefore)
)

// calendar is an authority that looks at its certificates when told to.
type calendar struct {
	*Authority
	Options
	now time.Time
	t   *testing.T
}

func newCalendar(t *testing.T) *calendar {
	t.Helper()
	c := &calendar{Options: options(t), now: noon, t: t}
	c.Now = func() time.Time { return c.now }
	c.Authority = create(t, c.Options)
	c.makeRSAKey(t.Context())
	c.check()
	return c
}

// until goes on in steps of three days, where Run takes minutes.
func (c *calendar) until(t time.Time) {
	for ; c.now.Before(t); c.now = c.now.Add(3 * day) {
		c.check()
	}
	c.now = t
	c.check()
}

func (c *calendar) roots() []*x509.Certificate {
	roots, err := parseCertificates(c.RootPEM())
	require.NoError(c.t, err)
	return roots
}

// connects reports whether a client that trusts these authorities alone accepts what it is shown at that time: first
// with both of Go's versions of TLS, then with openssl.
func (c *calendar) connects(address string, trusted ...*x509.Certificate) (accepted map[string]bool) {
	pool := x509.NewCertPool()
	for _, root := range trusted {
		pool.AddCert(root)
	}
	accepted = map[string]bool{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		_, err := dial(c.t, address, &tls.Config{RootCAs: pool, Time: c.Now, MaxVersion: version})
		accepted["Go with "+tls.VersionName(version)] = err == nil
	}
	rsaOnly := &tls.Config{RootCAs: pool, Time: c.Now}
	only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)(rsaOnly)
	_, err := dial(c.t, address, rsaOnly)
	accepted["Go with RSA"] = err == nil
	if _, err := exec.LookPath("openssl"); err == nil {
		file := filepath.Join(c.t.TempDir(), "trusted.crt")
		require.NoError(c.t, os.WriteFile(file, encodeCert(trusted...), 0o600))
		out, _ := exec.CommandContext(c.t.Context(), "openssl", "s_client", "-connect", address, "-CAfile", file, "-x509_strict",
			"-verify_return_error", "-verify_hostname", "localhost", "-attime", fmt.Sprint(c.now.Unix())).CombinedOutput()
		accepted["openssl"] = strings.Contains(string(out), "Verify return code: 0 (ok)")
	}
	return accepted
}

func TestNobodyStandsOutsideWhileTheAuthorityRollsOver(t *testing.T) {
	c := newCalendar(t)
	address := echo(t, c.ServerTLS(false))
	old := c.roots()[0]
	for _, moment := range []struct {
		name             string
		at               time.Time
		handed           int
		onlyOld, onlyNew bool
	}{
		{"on the first day", noon, 1, true, false},
		{"before the next authority is made", handover.Add(-day), 1, true, false},
		{"when it has been made", handover.Add(2 * day), 2, true, true},
		{"in the years between", handover.Add(400 * day), 2, true, true},
		{"before the switch", switched.Add(-time.Hour), 2, true, true},
		{"after the switch", switched.Add(time.Hour), 2, true, true},
		{"an hour before the old one's end", theEnd.Add(-time.Hour), 2, true, true},
		{"after the old one's end", theEnd.Add(time.Hour), 1, false, true},
		{"years later", theEnd.Add(3 * 365 * day), 1, false, true},
	} {
		c.until(moment.at)
		handed := c.roots()
		require.Len(t, handed, moment.handed, moment.name)
		next := handed[len(handed)-1]
		if moment.onlyOld {
			for how, ok := range c.connects(address, old) {
				assert.True(t, ok, "%s trusting the old one alone, %s", how, moment.name)
			}
		} else {
			for how, ok := range c.connects(address, old) {
				assert.False(t, ok, "%s trusting the old one alone, %s", how, moment.name)
			}
		}
		if moment.onlyNew {
			for how, ok := range c.connects(address, next) {
				assert.True(t, ok, "%s trusting the new one alone, %s", how, moment.name)
			}
		}
		for how, ok := range c.connects(address, handed...) {
			assert.True(t, ok, "%s trusting what is handed out, %s", how, moment.name)
		}
		onDisk, err := Open(c.Options)
		require.NoError(t, err, moment.name)
		assert.Equal(t, c.Certificates(), onDisk.Certificates(), moment.name)
	}
	assert.FileExists(t, filepath.Join(c.Dir, "ca.key"), "no key is ever removed")
	assert.FileExists(t, filepath.Join(c.Dir, "ca-2.key"))
}

// The next authority is followed as the first one was.
func TestAuthoritiesFollowEachOther(t *testing.T) {
	c := newCalendar(t)
	address := echo(t, c.ServerTLS(false))
	last := c.roots()
	for year := range 40 {
		c.until(noon.Add(time.Duration(year) * 365 * day))
		roots := c.roots()
		for how, ok := range c.connects(address, last...) {
			assert.True(t, ok, "%s, with what was handed out a year ago, in year %d", how, year)
		}
		assert.LessOrEqual(t, len(roots), 2)
		last = roots
	}
	assert.FileExists(t, filepath.Join(c.Dir, "ca-5.key"))
	assert.NoFileExists(t, filepath.Join(c.Dir, "ca-7.key"))
}

// BearSSL with small buffers says so, and gets the server's certificate alone.
func TestSmallClientsGetNoBridge(t *testing.T) {
	c := newCalendar(t)
	c.until(handover.Add(2 * day))
	for extensions, certificates := range map[uint16]int{0: 2, maxFragmentLength: 1} {
		shown, err := c.certificateFor(&tls.ClientHelloInfo{Extensions: []uint16{0, 10, extensions}})
		require.NoError(t, err)
		assert.Len(t, shown.Certificate, certificates)
	}
}

func TestClientCertificatesOfBothAuthoritiesHoldAndCanBeRevoked(t *testing.T) {
	c := newCalendar(t)
	address := echo(t, c.ServerTLS(true))
	issue := func(name string) Pair {
		pair, err := c.IssueFiles(name, filepath.Join(c.Dir, name+".crt"), filepath.Join(c.Dir, name+".key"))
		require.NoError(t, err)
		return pair
	}
	welcome := func(p Pair) bool {
		_, err := dial(t, address, withPair(t, client(c.Authority), p))
		return err == nil
	}
	early, gone := issue("early"), issue("gone")
	_, err := c.Revoke("gone")
	require.NoError(t, err)
	c.until(handover.Add(2 * day))
	late, lost := issue("late"), issue("lost")
	assert.True(t, late.NotAfter.After(theEnd.Add(6*365*day)), "it is issued by who lasts longer")
	assert.Equal(t, theEnd.Unix(), early.NotAfter.Unix())
	for _, moment := range []time.Time{c.now, switched.Add(day)} {
		c.until(moment)
		assert.True(t, welcome(early))
		assert.True(t, welcome(late))
		assert.False(t, welcome(gone), "revoked before the roll-over")
	}
	for _, name := range []string{"early", "lost"} {
		_, err := c.Revoke(name)
		require.NoError(t, err)
	}
	assert.False(t, welcome(early))
	assert.False(t, welcome(lost))
	assert.True(t, welcome(late))
	list, err := c.Issued()
	require.NoError(t, err)
	states := map[string]State{}
	for _, i := range list {
		states[i.Name] = i.State
	}
	assert.Equal(t, map[string]State{"early": Revoked, "gone": Revoked, "late": Valid, "lost": Revoked}, states)

	out := openssl(t, "verify", "-attime", fmt.Sprint(c.now.Unix()), "-crl_check", "-CAfile", filepath.Join(c.Dir, "ca.crt"),
		"-CRLfile", filepath.Join(c.Dir, "ca.crl"), filepath.Join(c.Dir, "late.crt"))
	assert.Contains(t, out, "OK", "every authority has its list")
}

// A clock that jumps and comes back leaves nothing that harms.
func TestClockThatJumpsRollsNothingOver(t *testing.T) {
	for name, jump := range map[string]time.Duration{"into the years between": rootLifetime - 2*365*day, "past the end": rootLifetime + 365*day, "to 1970": -noon.Sub(time.Unix(0, 0))} {
		c := newCalendar(t)
		before := read(t, c.Dir, "ca.crt")
		address := echo(t, c.ServerTLS(false))
		old := c.roots()[0]
		c.now = noon.Add(jump)
		c.check()
		c.now = c.now.Add(8 * time.Second)
		c.check()
		assert.Equal(t, before, read(t, c.Dir, "ca.crt"), name)
		c.now = noon.Add(time.Minute)
		c.check()
		for how, ok := range c.connects(address, old) {
			assert.True(t, ok, "%s: %s", name, how)
		}
		assert.Equal(t, before, read(t, c.Dir, "ca.crt"), name)
	}
}

// One that stays wrong for long makes an authority too many, and the right one comes in its time.
func TestClockThatWasYearsAheadForADayTakesNothingAway(t *testing.T) {
	c := newCalendar(t)
	address := echo(t, c.ServerTLS(false))
	old := c.roots()[0]
	c.now = theEnd.Add(-365 * day)
	c.until(c.now.Add(2 * day))
	require.Len(t, c.roots(), 2)
	c.now = noon.Add(3 * day)
	c.check()
	assert.Len(t, c.roots(), 1, "what is not valid yet is not handed out")
	for how, ok := range c.connects(address, old) {
		assert.True(t, ok, how)
	}
	c.until(handover.Add(2 * day))
	assert.Len(t, c.roots(), 2)
	for how, ok := range c.connects(address, old) {
		assert.True(t, ok, how)
	}
}

// A power cut between the files leaves a key, which the next try takes.
func TestInterruptedRolloverIsFinished(t *testing.T) {
	c := newCalendar(t)
	before := read(t, c.Dir, "ca.crt")
	c.until(handover.Add(2 * day))
	key := read(t, c.Dir, "ca-2.key")
	write(t, before, c.Dir, "ca.crt")
	remove(t, c.Dir, "server.crt", "server-rsa.crt")
	require.NoError(t, c.Reload())
	assert.Len(t, c.roots(), 1)
	c.until(c.now.Add(2 * day))
	assert.Len(t, c.roots(), 2)
	assert.Equal(t, key, read(t, c.Dir, "ca-2.key"), "a key is never overwritten")
}
