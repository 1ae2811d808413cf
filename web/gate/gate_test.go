package gate

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheWindowClosesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		w := Window{Opening: func() error { said = append(said, "opening"); return nil }, Closed: func() { said = append(said, "closed") }}
		assert.False(t, w.IsOpen())
		for _, wrong := range []time.Duration{-1, 0, 9 * time.Second, time.Hour + 1} {
			_, err := w.Open(wrong)
			require.Error(t, err, wrong)
		}
		until, err := w.Open(time.Minute)
		require.NoError(t, err)
		assert.Equal(t, time.Now().Add(time.Minute), until)
		time.Sleep(50 * time.Second)
		assert.True(t, w.IsOpen())
		_, err = w.Open(time.Minute) // it stays open, and is not opened twice
		require.NoError(t, err)
		time.Sleep(50 * time.Second)
		assert.True(t, w.IsOpen())
		time.Sleep(11 * time.Second)
		synctest.Wait()
		assert.False(t, w.IsOpen())
		assert.Equal(t, []string{"opening", "closed"}, said)
		w.Close()
		assert.Len(t, said, 2)

		_, err = w.Open(time.Minute)
		require.NoError(t, err)
		w.Close()
		assert.False(t, w.IsOpen())
		_, err = w.Open(10 * time.Second) // a timer of before does not close it
		require.NoError(t, err)
		time.Sleep(9 * time.Second)
		assert.True(t, w.IsOpen())
		w.Close()

		w.Opening = func() error { return errors.New("the port is taken") }
		_, err = w.Open(time.Minute)
		require.ErrorContains(t, err, "the port is taken")
		assert.False(t, w.IsOpen())
	})
}

type known map[string]Role

func (k known) Account(name string) (Account, bool) {
	role, there := k[name]
	return Account{name, role}, there
}

func (k known) Authenticate(name, _ string, _ <-chan struct{}) (Account, bool) {
	return k.Account(name)
}

func TestLinksAndWhoCameByThemEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Accounts: known{"anna": Admin}, Log: slog.New(slog.DiscardHandler)})
		secretOf := func(path string) string { return path[len(LinkPath+"?"+linkParameter+"="):] }
		path, _, err := g.Link("anna")
		require.NoError(t, err)
		time.Sleep(LinkLifetime - time.Second)
		account, good := g.links.use(secretOf(path), time.Now())
		assert.True(t, good)
		assert.Equal(t, "anna", account)
		path, _, err = g.Link("")
		require.NoError(t, err)
		time.Sleep(LinkLifetime)
		_, good = g.links.use(secretOf(path), time.Now())
		assert.False(t, good, "it is too old")

		first, _, err := g.Link("")
		require.NoError(t, err)
		for range maxLinks {
			time.Sleep(time.Second)
			_, _, err = g.Link("")
			require.NoError(t, err)
		}
		assert.Len(t, g.links.open, maxLinks)
		_, good = g.links.use(secretOf(first), time.Now())
		assert.False(t, good, "the oldest gave way")

		cookie := g.links.logIn(time.Now())
		time.Sleep(linkSession - time.Second)
		assert.True(t, g.links.loggedIn(cookie))
		time.Sleep(time.Second)
		assert.False(t, g.links.loggedIn(cookie))
		assert.False(t, g.links.loggedIn(""))
	})
}

func TestGuessesAreCountedInBoundedMemory(t *testing.T) {
	var g guesses
	now := time.Unix(1_800_000_000, 0)
	of := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxGuessers {
		assert.Zero(t, g.take(now, of(i), fmt.Sprint(i)))
	}
	assert.LessOrEqual(t, len(g.byAddress), maxGuessers)
	assert.LessOrEqual(t, len(g.byAccount), maxGuessers)

	one, neighbour := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	for i := range addressBurst {
		assert.Zero(t, g.take(now, one, fmt.Sprint("x", i)))
	}
	assert.Equal(t, addressEvery, g.take(now, neighbour, "y"), "a /64 is one household")
	assert.Equal(t, addressEvery, g.take(now, one, "y"), "who is held up does not make it longer")
	assert.Zero(t, g.take(now.Add(addressEvery), one, "y"))
	for i := range 20 {
		g.right(of(i), "z")
	}
	assert.Len(t, g.known["z"], maxKnownPlaces)
}

func TestNeedAsksForARole(t *testing.T) {
	h := Need(Operator, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for role, want := range map[Role]int{"": 401, Viewer: 403, Operator: 200, Admin: 200, "root": 403} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if role != "" {
			r = r.WithContext(With(r.Context(), Principal{Name: "x", Role: role}))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Equal(t, want, w.Code, role)
	}
}

// What is a plain path has no part that means another folder, whatever it is made of.
func FuzzPlainPath(f *testing.F) {
	for _, seed := range []string{"/", "/a/b", "/..", "/a/../b", "//", "", "a", "/a\\b", "/.", "/...", "/a/.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !plainPath(path) {
			return
		}
		assert.Equal(t, byte('/'), path[0])
		assert.NotRegexp(t, `(^|/)\.\.?(/|$)`, path)
		assert.NotContains(t, path, "//")
	})
}
