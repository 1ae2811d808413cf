package store

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const patience, tick = 10 * time.Second, time.Millisecond

func anna() NewUser {
	return NewUser{Name: "anna", Password: horse, Admin: true, Subscribe: []string{"devices/#", "a/+/b", "devices/#"}}
}

func (s *Store) lets(name, password string) bool {
	a, ok := s.Authenticate(name, []byte(password))
	return ok && a.Name == name
}

func TestUserFromAddToRemove(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	want := Account{Name: "anna", Role: RoleUser, Admin: true, Publish: []string{}, Subscribe: []string{"a/+/b", "devices/#"}, Created: noon}
	check := func(password string, right bool) {
		t.Helper()
		a, ok := s.Authenticate("anna", []byte(password))
		assert.Equal(t, right, ok)
		if right {
			assert.Equal(t, want, a)
		}
	}
	check(horse, true)
	check(horse, true)
	check("wrong horse", false)
	check("", false)

	const second = "battery staple"
	require.NoError(t, s.SetPassword(t.Context(), "anna", second))
	check(horse, false)
	check(second, true)

	require.NoError(t, s.Close())
	s = openTest(t, Options{Path: s.path})
	check(horse, false)
	check(second, true)
	a, ok := s.Account("anna")
	assert.True(t, ok)
	assert.Equal(t, want, a)
	users, err := s.Users(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []Account{want}, users)
	devices, err := s.Devices(t.Context())
	require.NoError(t, err)
	assert.Empty(t, devices, "a user is no device")

	require.NoError(t, s.RemoveUser(t.Context(), "anna"))
	check(second, false)
	_, ok = s.Account("anna")
	assert.False(t, ok)
	require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Password: horse}))
	a, _ = s.Account("anna")
	assert.Empty(t, a.Subscribe, "the rules went with the account")
}

func TestDevicesAndUsersShareOneNameSpace(t *testing.T) {
	s := openTest(t, Options{})
	secret, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.NoError(t, s.AddUser(t.Context(), anna()))

	_, err = s.AddDevice(t.Context(), "anna")
	require.ErrorIs(t, err, ErrOtherRole)
	require.EqualError(t, err, `add device: "anna": the name is taken by a user`)
	err = s.AddUser(t.Context(), NewUser{Name: "bed-1", Password: horse})
	require.EqualError(t, err, `add user: "bed-1": the name is taken by a device`)
	require.ErrorIs(t, s.AddUser(t.Context(), anna()), ErrExists)

	require.ErrorIs(t, s.SetPassword(t.Context(), "bed-1", horse), ErrNotFound)
	require.ErrorIs(t, s.RemoveUser(t.Context(), "bed-1"), ErrNotFound)
	require.ErrorIs(t, s.RemoveDevice(t.Context(), "anna"), ErrNotFound)
	_, err = s.RotateDevice(t.Context(), "anna")
	require.ErrorIs(t, err, ErrNotFound)
	assert.True(t, s.lets("bed-1", secret))
	assert.True(t, s.lets("anna", horse))
}

func TestUsersThatCannotBe(t *testing.T) {
	s := openTest(t, Options{})
	for name, c := range map[string]struct {
		change func(*NewUser)
		want   error
	}{
		"name in a topic":       {func(u *NewUser) { u.Name = "a/b" }, ErrInvalidID},
		"reserved name":         {func(u *NewUser) { u.Name = "plantops_backend" }, ErrInvalidID},
		"bad publish filter":    {func(u *NewUser) { u.Publish = []string{"a/#/b"} }, ErrInvalidFilter},
		"bad subscribe filter":  {func(u *NewUser) { u.Subscribe = []string{"devices/#", ""} }, ErrInvalidFilter},
		"too many rules":        {func(u *NewUser) { u.Publish = make([]string, maxRules) }, ErrInvalidFilter},
		"no password":           {func(u *NewUser) { u.Password = "" }, ErrInvalidPassword},
		"short password":        {func(u *NewUser) { u.Password = "secret" }, ErrInvalidPassword},
		"password and hash":     {func(u *NewUser) { u.Hash = argonOfPassword }, ErrInvalidPassword},
		"hash that is not one":  {func(u *NewUser) { u.Password, u.Hash = "", "secret" }, ErrInvalidPassword},
		"hash that costs hours": {func(u *NewUser) { u.Password, u.Hash = "", "$7$2000000000$c2FsdA==$AA==" }, ErrInvalidPassword},
	} {
		u := anna()
		c.change(&u)
		err := s.AddUser(t.Context(), u)
		require.ErrorIs(t, err, c.want, name)
		assert.NotContains(t, err.Error(), "secret", name)
		assert.NotContains(t, err.Error(), horse, name)
	}
	users, err := s.Users(t.Context())
	require.NoError(t, err)
	assert.Empty(t, users)
}

func TestDisabledUserIsRefusedWithoutASlowHash(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	require.NoError(t, s.w.run(t.Context(), `UPDATE account SET disabled = 1`))
	require.NoError(t, s.loadAccounts(t.Context()))
	s.slowHash.Lock()
	defer s.slowHash.Unlock()
	assert.False(t, s.lets("anna", horse))
}

func TestPasswordsAreNotInTheFile(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	for _, suffix := range []string{"", walSuffix} {
		data, err := readOutside(s.path + suffix)
		require.NoError(t, err)
		assert.NotContains(t, string(data), horse)
	}
}

// While the one slow hash that may run is running, devices, unknown names and whoever has logged in before get in.
func TestOnlyTheFirstLoginOfAUserWaitsForSlowHashes(t *testing.T) {
	s := openTest(t, Options{})
	secret, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.NoError(t, s.AddUser(t.Context(), anna()))
	require.True(t, s.lets("anna", horse))

	s.slowHash.Lock()
	assert.True(t, s.lets("anna", horse))
	assert.True(t, s.lets("bed-1", secret))
	assert.False(t, s.lets("bed-1", "wrong"))
	assert.False(t, s.lets("nobody", "whatever"))
	answer := make(chan bool)
	go func() { answer <- s.lets("anna", "wrong horse") }()
	p := (*s.accounts.Load())["anna"].password
	require.Eventually(t, func() bool { return p.waiting.Load() == 1 }, patience, tick)
	select {
	case <-answer:
		assert.Fail(t, "a wrong password was judged without a hash")
	default:
	}
	assert.True(t, s.lets("anna", horse), "also while wrong ones for the same name wait")
	s.slowHash.Unlock()
	assert.False(t, <-answer)
	assert.Zero(t, p.waiting.Load())

	require.NoError(t, s.SetPassword(t.Context(), "anna", "battery staple"))
	s.slowHash.Lock()
	go func() { answer <- s.lets("anna", horse) }()
	p = (*s.accounts.Load())["anna"].password
	require.Eventually(t, func() bool { return p.waiting.Load() == 1 }, patience, tick, "what was known is forgotten")
	s.slowHash.Unlock()
	assert.False(t, <-answer)
}

// A hundred clients with one account come back after a restart: one hash is enough for all.
func TestClientsWithOneAccountShareItsHash(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	p := (*s.accounts.Load())["anna"].password
	s.slowHash.Lock()
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() { assert.True(t, s.lets("anna", horse)) })
	}
	require.Eventually(t, func() bool { return p.waiting.Load() == 100 }, patience, tick)
	s.slowHash.Unlock()
	require.True(t, s.lets("anna", horse))
	s.slowHash.Lock() // nobody may need it any more
	clients.Wait()
	s.slowHash.Unlock()
}

func TestLoginsThatWaitAreBounded(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	p := (*s.accounts.Load())["anna"].password
	p.waiting.Store(maxLoginsWaiting)
	s.slowHash.Lock()
	assert.False(t, s.lets("anna", horse))
	s.slowHash.Unlock()
	assert.Equal(t, int32(maxLoginsWaiting), p.waiting.Load())
	p.waiting.Store(0)
	assert.True(t, s.lets("anna", horse))
}

func TestFloodOfWrongPasswordsNeedsTheMemoryOfOneHash(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before, highest := heap(), uint64(0)
	var flood sync.WaitGroup
	for range 8 {
		flood.Go(func() { assert.False(t, s.lets("anna", "wrong horse")) })
	}
	ended := make(chan struct{})
	go func() { flood.Wait(); close(ended) }()
	sample := time.NewTicker(tick)
	defer sample.Stop()
	for running := true; running; {
		highest = max(highest, heap())
		select {
		case <-ended:
			running = false
		case <-sample.C:
		}
	}
	assert.Less(t, highest-before, uint64(argonMemoryKiB<<10+argonMemoryKiB<<9), "bytes, one hash and a half")
}

func TestImportedHashIsReplacedAtTheNextLogin(t *testing.T) {
	for name, text := range hashes {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := openTest(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Hash: text, Publish: []string{"a"}}))
			stored := func() string { return (*s.accounts.Load())["anna"].password.hash.String() }
			assert.False(t, s.lets("anna", "wrong horse"))
			assert.Equal(t, text, stored())
			assert.True(t, s.lets("anna", horse))
			assert.True(t, strings.HasPrefix(stored(), "$argon2id$v=19$m=19456,t=2,p=1$"), stored())
			s.slowHash.Lock()
			assert.True(t, s.lets("anna", horse), "known since then")
			s.slowHash.Unlock()
			assert.Contains(t, log.String(), "replaced the imported hash")
			assert.NotContains(t, log.String(), horse)

			upgraded := stored()
			require.NoError(t, s.Close())
			s = openTest(t, Options{Path: s.path})
			assert.Equal(t, upgraded, stored())
			assert.True(t, s.lets("anna", horse))
			a, _ := s.Account("anna")
			assert.Equal(t, []string{"a"}, a.Publish)
		})
	}
}

func TestImportedHashStaysWhereItCannotBeReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	s := openTest(t, Options{Path: path})
	text := hashes["mosquitto 2.0, 101 iterations"]
	require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Hash: text}))
	reader := openTest(t, Options{Path: path, ReadOnly: true})
	assert.True(t, reader.lets("anna", horse))

	c := (*s.accounts.Load())["anna"]
	require.NoError(t, s.SetPassword(t.Context(), "anna", "battery staple"))
	s.upgrade("anna", c.password, []byte(horse), s.mark([]byte(horse)))
	assert.False(t, s.lets("anna", horse), "a password that was changed during the login of the old one")
	assert.True(t, s.lets("anna", "battery staple"))
}

func TestUserOfAnotherProcessIsSeen(t *testing.T) {
	s := openTest(t, Options{})
	reader := openTest(t, Options{Path: s.path, ReadOnly: true})
	require.NoError(t, s.AddUser(context.Background(), anna()))
	users, err := reader.Users(t.Context())
	require.NoError(t, err)
	require.Len(t, users, 1)
	assert.Equal(t, "anna", users[0].Name)
}
