package certs

import (
	"crypto/tls"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLostCertificateOfTheAuthorityIsRestored(t *testing.T) {
	for name, c := range map[string]struct {
		lost []string
		want error
	}{
		"ca.crt alone":                     {[]string{"ca.crt"}, nil},
		"ca.crt and the server's":          {[]string{"ca.crt", "server.crt", "server.key"}, nil},
		"ca.crt and ca.key":                {[]string{"ca.crt", "ca.key"}, nil},
		"everything of the authority":      {[]string{"ca.crt", "ca.key", "server.crt"}, ErrNoAuthority},
		"everything but the server's cert": {[]string{"ca.crt", "ca.key", "server.key"}, ErrNoAuthority},
		"nothing":                          {nil, ErrExists},
	} {
		o := options(t)
		a := create(t, o)
		before, remembered := read(t, o.Dir, "ca.crt"), a.AuthoritiesPEM()
		remove(t, o.Dir, c.lost...)
		err := Restore(o, remembered)
		if c.want != nil {
			require.ErrorIs(t, err, c.want, name)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, before, read(t, o.Dir, "ca.crt"), name)
		again, err := Open(o)
		require.NoError(t, err, name)
		assert.Equal(t, a.Fingerprints(), again.Fingerprints(), name)
	}
}

func TestAuthorityOfAnotherKeyIsNotRestored(t *testing.T) {
	o := options(t)
	remembered := create(t, options(t)).AuthoritiesPEM()
	create(t, o)
	remove(t, o.Dir, "ca.crt") // certs init --force was interrupted here
	require.ErrorIs(t, Restore(o, remembered), ErrNoAuthority)
	assert.NoFileExists(t, filepath.Join(o.Dir, "ca.crt"))
	require.ErrorContains(t, Restore(o, []byte("nonsense")), "what was remembered holds no complete certificate")
}

func TestRolloverTellsItsDates(t *testing.T) {
	c := newCalendar(t)
	_, going := c.Rollover()
	assert.False(t, going)
	require.NoError(t, c.RollOver())
	r, going := c.Rollover()
	require.True(t, going)
	assert.Equal(t, noon.Add(time.Second), r.Since)
	assert.Equal(t, theEnd, r.OldEnds)
	assert.Equal(t, switched, r.Switch)
	assert.Equal(t, []string{r.Old, r.New}, c.Fingerprints())
	require.ErrorIs(t, c.RollOver(), ErrExists)
	c.until(theEnd.Add(time.Hour))
	_, going = c.Rollover()
	assert.False(t, going)
}

// A subscriber that started years ago trusts the authority that followed, and none that replaced it.
func TestWhoFollowsTrustsWhatFollows(t *testing.T) {
	c := newCalendar(t)
	address := echo(t, c.ServerTLS(false))
	trusted := c.Follow(c.current.Load().rootPool())
	connects := func() error {
		_, err := dial(t, address, &tls.Config{RootCAs: trusted(), Time: c.Now})
		return err
	}
	require.NoError(t, connects())
	c.until(theEnd.Add(day))
	require.NoError(t, connects())
	_, err := Create(c.Options, true)
	require.NoError(t, err)
	require.NoError(t, c.Reload())
	require.Error(t, connects())
}

func TestOwnCertificateIsJudgedAtATimeThatSuitsIt(t *testing.T) {
	a := create(t, options(t))
	assert.Equal(t, noon, a.TimeWithin(noon))
	for _, now := range []time.Time{time.Unix(0, 0), noon.Add(-3 * day), noon.Add(400 * day), noon.Add(11 * 365 * day)} {
		assert.Equal(t, noon.Add(-backdate), a.TimeWithin(now))
	}
}
