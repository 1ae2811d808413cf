package certs

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// running is an authority whose Run goes on in a synctest bubble, with a calendar that tests can turn.
type running struct {
	Options
	*Authority
	log  *bytes.Buffer
	skip *atomic.Int64 // added to the clock
}

// inBubble runs body beside Run.
func inBubble(t *testing.T, prepare func(o *Options), body func(r running)) {
	o := options(t)
	synctest.Test(t, func(t *testing.T) {
		r := running{Options: o, log: &bytes.Buffer{}, skip: &atomic.Int64{}}
		start := time.Now()
		r.Now = func() time.Time { return noon.Add(time.Since(start) + time.Duration(r.skip.Load())) }
		create(t, r.Options)
		r.Log = slog.New(slog.NewTextHandler(r.log, nil))
		if prepare != nil {
			prepare(&r.Options)
		}
		var err error
		r.Authority, err = Open(r.Options)
		require.NoError(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx, func() {}) }()
		synctest.Wait()
		body(r)
		cancel()
		require.NoError(t, <-ended)
	})
}

// later turns the calendar and waits for the next look.
func (r running) later(d time.Duration) {
	r.skip.Add(int64(d))
	time.Sleep(checkEvery)
	synctest.Wait()
}

func (r running) logged(text string) int { return strings.Count(r.log.String(), text) }

func TestRunRenewsAtTwoThirdsOfLife(t *testing.T) {
	inBubble(t, nil, func(r running) {
		first, key := r.ServerPEM(), read(t, r.Dir, "server.key")
		r.later(264 * day)
		assert.Equal(t, first, r.ServerPEM())
		r.later(day)
		assert.NotEqual(t, first, r.ServerPEM())
		assert.Equal(t, read(t, r.Dir, "server.crt"), string(r.ServerPEM()))
		assert.Equal(t, key, read(t, r.Dir, "server.key"))
		second := r.ServerPEM()
		r.later(0)
		assert.Equal(t, second, r.ServerPEM(), "once")
		assert.Equal(t, 1, r.logged("renewed server certificate"))
		assert.NotContains(t, r.log.String(), "level=ERROR")
	})
}

func TestRunRenewsWhenTheHostHasANewName(t *testing.T) {
	inBubble(t, nil, func(r running) {
		r.mu.Lock()
		before := r.names
		r.names = func() []string { return append(before(), "192.0.2.99") }
		r.mu.Unlock()
		r.later(0)
		assert.Contains(t, r.Certificates()[1].Names, "192.0.2.99")
		assert.Contains(t, r.log.String(), "it does not cover 192.0.2.99")
	})
}

func TestRunTakesOverWhatAnotherProcessRenewed(t *testing.T) {
	inBubble(t, nil, func(r running) {
		other, err := Open(Options{Dir: r.Dir, Now: r.Now})
		require.NoError(t, err)
		info, err := other.Renew()
		require.NoError(t, err)
		assert.NotEqual(t, info, r.Certificates()[1])
		r.later(0)
		assert.Equal(t, info, r.Certificates()[1])
		r.later(0)
		assert.Equal(t, 1, r.logged("took over changed certificates"))
	})
}

func TestRunKeepsServingWhenTheFilesAreBad(t *testing.T) {
	inBubble(t, nil, func(r running) {
		good, path := r.ServerPEM(), filepath.Join(r.Dir, "server.crt")
		require.NoError(t, os.WriteFile(path, good[:200], 0o600))
		r.later(0)
		r.later(0)
		r.later(0)
		assert.Equal(t, good, r.ServerPEM())
		assert.Equal(t, 1, r.logged("changed certificates are not usable"))
		require.ErrorContains(t, r.Reload(), "server.crt holds no complete certificate")

		require.NoError(t, os.WriteFile(path, good, 0o600))
		r.later(0)
		assert.Equal(t, 1, r.logged("took over changed certificates"))
		require.NoError(t, r.Reload())

		require.NoError(t, os.Chmod(filepath.Join(r.Dir, "server.key"), 0o644))
		r.later(0)
		assert.Equal(t, 1, r.logged("private key is open to other users"))
	})
}

func TestRunIssuesAServerCertificateThatWasRemoved(t *testing.T) {
	inBubble(t, nil, func(r running) {
		remove(t, r.Dir, "server.crt")
		r.later(0)
		assert.Equal(t, read(t, r.Dir, "server.crt"), string(r.ServerPEM()))
	})
}

func TestRunSaysOnceThatRenewalFails(t *testing.T) {
	inBubble(t, nil, func(r running) {
		first := r.ServerPEM()
		r.mu.Lock()
		good := r.names
		r.names = func() []string { return []string{"größe"} } // no certificate can hold it
		r.mu.Unlock()
		r.later(0)
		r.later(0)
		assert.Equal(t, first, r.ServerPEM())
		assert.Equal(t, 1, r.logged("could not be renewed"))

		r.mu.Lock()
		r.names = good
		r.mu.Unlock()
		r.later(270 * day)
		assert.NotEqual(t, first, r.ServerPEM(), "it goes on trying")
	})
}

func TestRunSaysAgainWhenRenewalFailsAgain(t *testing.T) {
	inBubble(t, nil, func(r running) {
		good := r.names
		for _, names := range [][]string{{"größe"}, good(), {"größe"}} { // no certificate can hold the first
			r.mu.Lock()
			r.names = func() []string { return names }
			r.mu.Unlock()
			r.later(0)
		}
		assert.Equal(t, 2, r.logged("could not be renewed"))
	})
}

func TestRunOutlivesAKeyThatChangesWhileItRenews(t *testing.T) {
	other := options(t)
	create(t, other)
	key := read(t, other.Dir, "server.key")
	inBubble(t, nil, func(r running) {
		first := r.ServerPEM()
		good := r.names
		r.mu.Lock()
		r.names = func() []string {
			write(t, key, r.Dir, "server.key")
			return append(good(), "192.0.2.99")
		}
		r.mu.Unlock()
		r.later(0)
		assert.Equal(t, first, r.ServerPEM())
		assert.Equal(t, 1, r.logged("could not be renewed"))
		r.later(0)
		assert.NotEqual(t, first, r.ServerPEM(), "issued for the new key")
	})
}

func TestRunSignsNothingWhileTheClockIsWrong(t *testing.T) {
	inBubble(t, func(o *Options) { o.NotBeforeClock = noon.Add(-time.Minute) }, func(r running) {
		first, before := r.ServerPEM(), r.log.String()
		r.later(-20000 * day)
		assert.Equal(t, first, r.ServerPEM())
		assert.Equal(t, before, r.log.String())
	})
}

func TestRunWarnsBeforeCertificatesFromOutsideExpire(t *testing.T) {
	outside := func(o *Options) { remove(t, o.Dir, "ca.key") }
	inBubble(t, outside, func(r running) {
		for _, c := range []struct {
			day   time.Duration // since the certificate began
			lines int
		}{{330, 0}, {338, 1}, {350, 1}, {368, 2}, {389, 2}, {391, 3}, {396, 3}} {
			r.skip.Store(int64(c.day * day))
			r.later(0)
			assert.Equal(t, c.lines, r.logged("certificate expires soon"), "day %d", c.day)
		}
		assert.Contains(t, r.log.String(), "days=5")
		r.skip.Store(int64(398 * day))
		r.later(0)
		r.later(0)
		assert.Equal(t, 1, r.logged("certificate is expired"))
		assert.Equal(t, read(t, r.Dir, "server.crt"), string(r.ServerPEM()), "still served as it is")
	})
}

func TestOpenRenewsWhatExpiredWhileTheBoxWasOff(t *testing.T) {
	o := options(t)
	create(t, o)
	o.Now = at(noon.Add(800 * day))
	a, err := Open(o)
	require.NoError(t, err)
	assert.Equal(t, o.Now().Add(-time.Hour), a.Certificates()[1].NotBefore)
}

func TestOpenCoversNamesThatAreNewInTheConfiguration(t *testing.T) {
	o := options(t)
	create(t, o)
	o.ExtraNames = []string{"plantops.farm"}
	a, err := Open(o)
	require.NoError(t, err)
	assert.Contains(t, a.Certificates()[1].Names, "plantops.farm")
}

func TestReloadGoesOnWhenOnlyTheRenewalFails(t *testing.T) {
	o, log := options(t), &bytes.Buffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	a := create(t, o)
	before := a.ServerPEM()
	a.names = func() []string { return []string{"größe"} } // no certificate can hold it
	require.NoError(t, a.Reload(), "the certificate there still holds")
	assert.Equal(t, before, a.ServerPEM())
	assert.Contains(t, log.String(), "could not be renewed")

	remove(t, o.Dir, "server.crt")
	require.ErrorContains(t, a.Reload(), "renew server certificate because there is none")
	assert.Equal(t, before, a.ServerPEM())
}
