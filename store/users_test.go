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

const (
	horse = "correct horse ü"

	// Of "password", from the test suite of the reference implementation of argon2.
	argonOfPassword = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
)

// hashesOfHorse are by mosquitto_passwd 2.0.11; the other lengths were made with Python's hashlib.
var hashesOfHorse = map[string]string{
	"mosquitto 2.0, SHA-512":         "$6$3E2qxZ06256dSMvD$EZ3sUCwyammUqdKJECShMXd0L3L+ye/UgR8kzVHZs/oA5HhsUnPRjKZK/tH83xHix5ii6rEkCTN+fVWombfm4w==",
	"SHA-512, salt of one byte":      "$6$Bw==$4Jiw4qnsS0EZp2ugekWz0XWjb3Gk2WpufK7vbNj+2tYtM4DCSYDexd67A+WOlv6C4jdCeu3NN1nFE7r+RuDRpw==",
	"mosquitto 2.0, 101 iterations":  "$7$101$o5KG498l5PD4qGbz$8p6YLQjB3RYDatHeyKs/b1Vq1SMZ9UKlTHGI1N+2WtaAYuf6YJaJ1FwYOonEYO4OLAi7wMOM9OSpnbM2LYE9Qw==",
	"mosquitto 2.0, 1000 iterations": "$7$1000$98Jn8RB+nx4V4RqM$D+yI3pFnmNWZ/QWMiiukjbsD5KOYMaA7kSUKYuKN5fSHbMzp3uuerErsGplGKaIZH97ZOS0HhpkvjQkee/ABnw==",
	"mosquitto 2.1, salt of 64":      "$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$UPnV2Nkce3B6k8JvnoW4UKCM/dSdq2icmQAI546mfEV9BOEGtMS+7xv4PNlkc48o3wRWklRFs8AB5wV5xCVu3w==",
}

const patience, tick = 30 * time.Second, time.Millisecond

func anna() NewUser {
	return NewUser{Name: "anna", Password: horse, Admin: true, Subscribe: []string{"devices/#", "a/+/b", "devices/#"}}
}

func (s *Store) lets(name, password string) bool {
	a, ok := s.Authenticate(name, []byte(password), Wait{})
	return ok && a.Name == name
}

func TestUserFromAddToRemove(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	want := Account{Name: "anna", Role: RoleUser, Admin: true, Publish: []string{}, Subscribe: []string{"a/+/b", "devices/#"}, Created: noon}
	check := func(password string, right bool) {
		t.Helper()
		a, ok := s.Authenticate("anna", []byte(password), Wait{})
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

func TestPasswordsAreNotInTheFile(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	for _, suffix := range []string{"", walSuffix} {
		data, err := readOutside(s.path + suffix)
		require.NoError(t, err)
		assert.NotContains(t, string(data), horse)
	}
}

// occupy has the one slow hash that may run run until free is called.
func (q *slowQueue) occupy(t *testing.T) (free func()) {
	t.Helper()
	var another password
	mine, ok := q.enter(&another, Wait{})
	require.True(t, mine && ok)
	return func() { q.leave(&another, false) }
}

// waits counts those who wait for the slow hash of a user's password.
func (s *Store) waits(name string) int {
	s.slow.mu.Lock()
	defer s.slow.mu.Unlock()
	return len(s.slow.waiting[(*s.accounts.Load())[name].password])
}

// While the one slow hash that may run is running, devices, unknown names and whoever has logged in before get in.
func TestOnlyTheFirstLoginOfAUserWaitsForSlowHashes(t *testing.T) {
	s := openTest(t, Options{})
	secret, err := s.AddDevice(t.Context(), "bed-1")
	require.NoError(t, err)
	require.NoError(t, s.AddUser(t.Context(), anna()))
	require.True(t, s.lets("anna", horse))

	free := s.slow.occupy(t)
	assert.True(t, s.lets("anna", horse))
	assert.True(t, s.lets("bed-1", secret))
	assert.False(t, s.lets("bed-1", "wrong"))
	assert.False(t, s.lets("nobody", "whatever"))
	assert.False(t, s.lets("anna", "wrong horse"), "the right one is known, so this one is wrong")
	free()

	require.NoError(t, s.SetPassword(t.Context(), "anna", "battery staple"))
	free = s.slow.occupy(t)
	answer := make(chan bool)
	go func() { answer <- s.lets("anna", horse) }()
	require.Eventually(t, func() bool { return s.waits("anna") == 1 }, patience, tick, "what was known is forgotten")
	free()
	assert.False(t, <-answer)
	assert.True(t, s.lets("anna", "battery staple"))
	assert.False(t, s.lets("anna", horse))
}

// A hundred clients with one account come back after a restart: one hash is enough for all.
func TestClientsWithOneAccountShareItsHash(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	free := s.slow.occupy(t)
	var clients sync.WaitGroup
	for i := range 101 {
		clients.Go(func() { assert.Equal(t, i > 0, s.lets("anna", []string{"wrong horse", horse}[min(i, 1)])) })
	}
	require.Eventually(t, func() bool { return s.waits("anna") == 101 }, patience, tick)
	free()
	require.True(t, s.lets("anna", horse))
	free = s.slow.occupy(t) // nobody may need it any more
	clients.Wait()
	free()
}

func TestLoginsThatWaitAreBounded(t *testing.T) {
	s := openTest(t, Options{})
	require.NoError(t, s.AddUser(t.Context(), anna()))
	p := (*s.accounts.Load())["anna"].password
	free := s.slow.occupy(t)
	gone := make(chan struct{})
	var flood sync.WaitGroup
	for range maxLoginsWaiting {
		flood.Go(func() { _, ok := s.slow.enter(p, Wait{Gone: gone}); assert.False(t, ok) })
	}
	require.Eventually(t, func() bool { return s.waits("anna") == maxLoginsWaiting }, patience, tick)
	assert.False(t, s.lets("anna", horse))
	close(gone)
	flood.Wait()
	assert.Empty(t, s.slow.waiting, "nothing outlives its connection")
	assert.Empty(t, s.slow.turn)
	free()
	assert.True(t, s.lets("anna", horse))
}

// However many guess, whoever comes from an address without failures is next, and another account's turn is next but one.
func TestSlowHashesAreServedFairly(t *testing.T) {
	var q slowQueue
	free := q.occupy(t)
	var anna, bert password
	served := make(chan string, 10)
	var all sync.WaitGroup
	enter := func(p *password, who string, rank int) {
		before := len(q.waiting[p])
		all.Go(func() {
			mine, ok := q.enter(p, Wait{Rank: rank})
			assert.True(t, mine && ok)
			served <- who
			q.leave(p, false)
		})
		require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return len(q.waiting[p]) == before+1 }, patience, tick)
	}
	enter(&anna, "first guess", 7)
	enter(&anna, "second guess", 7)
	enter(&anna, "worst", 9)
	enter(&anna, "anna", 0)
	enter(&anna, "anna's telephone", 0)
	enter(&bert, "bert", 3)
	free()
	all.Wait()
	close(served)
	var order []string
	for who := range served {
		order = append(order, who)
	}
	assert.Equal(t, []string{"anna", "bert", "anna's telephone", "first guess", "second guess", "worst"}, order)
	assert.False(t, q.running)
}

func TestARightPasswordReleasesAllWhoWaitForIt(t *testing.T) {
	var q slowQueue
	var anna password
	_, ok := q.enter(&anna, Wait{})
	require.True(t, ok)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			mine, ok := q.enter(&anna, Wait{})
			assert.True(t, ok)
			assert.False(t, mine, "nobody needs a turn any more")
		})
	}
	require.Eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return len(q.waiting[&anna]) == 5 }, patience, tick)
	q.leave(&anna, true)
	all.Wait()
	assert.False(t, q.running)
}

// Waiters that give up at every moment leave a queue that still serves.
func TestWaitersThatGiveUpLeaveNothingBehind(t *testing.T) {
	var q slowQueue
	passwords := make([]password, 3)
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			gone := make(chan struct{})
			if i%2 == 0 {
				go close(gone)
			}
			p := &passwords[i%3]
			if mine, ok := q.enter(p, Wait{Gone: gone, Rank: i % 5}); mine && ok {
				q.leave(p, i%7 == 0)
			}
		})
	}
	all.Wait()
	assert.False(t, q.running)
	assert.Empty(t, q.waiting)
	assert.Empty(t, q.turn)
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
	assert.Less(t, highest-before, uint64(19<<20+19<<19), "bytes, one hash and a half")
}

func TestImportedHashIsReplacedAtTheNextLogin(t *testing.T) {
	for name, text := range hashesOfHorse {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			s := openTest(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Hash: text, Publish: []string{"a"}}))
			stored := func() string { return (*s.accounts.Load())["anna"].password.hash.String() }
			assert.False(t, s.lets("anna", "wrong horse"))
			assert.Equal(t, text, stored())
			assert.True(t, s.lets("anna", horse))
			assert.True(t, strings.HasPrefix(stored(), "$argon2id$v=19$m=19456,t=2,p=1$"), stored())
			free := s.slow.occupy(t)
			assert.True(t, s.lets("anna", horse), "known since then")
			free()
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
	text := hashesOfHorse["mosquitto 2.0, 101 iterations"]
	require.NoError(t, s.AddUser(t.Context(), NewUser{Name: "anna", Hash: text}))
	reader := openTest(t, Options{Path: path, ReadOnly: true})
	assert.True(t, reader.lets("anna", horse))

	c := (*s.accounts.Load())["anna"]
	require.NoError(t, s.SetPassword(t.Context(), "anna", "battery staple"))
	s.upgrade("anna", c.password, []byte(horse), s.mark([]byte(horse)), Wait{})
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

func TestCheckPassword(t *testing.T) {
	for _, password := range []string{"12345678", horse, strings.Repeat("x", 1024)} {
		assert.NoError(t, CheckPassword(password))
	}
	for password, says := range map[string]string{
		"":                        "0 bytes, 8 to 1024",
		"1234567":                 "7 bytes",
		strings.Repeat("x", 1025): "1025 bytes",
		"secret-secret\n":         "line break",
		"secret-secret\x00":       "control",
		"secret-secret\xff":       "UTF-8",
	} {
		err := CheckPassword(password)
		require.ErrorIs(t, err, ErrInvalidPassword)
		assert.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "secret-secret")
	}
}

func TestCheckFilter(t *testing.T) {
	for _, filter := range []string{"#", "+", "+/#", "devices/#", "devices/+/commands/#", "people/%u/%c/#", "home/%u-%c", "/", "a//b", "100%/x", "a b"} {
		assert.NoError(t, CheckFilter(filter), filter)
	}
	for filter, says := range map[string]string{
		"":                        "0 bytes",
		strings.Repeat("x", 1025): "1025 bytes",
		"devices/#/x":             "# must be the last level",
		"#/":                      "# must be the last level",
		"devices#":                "level of their own",
		"devices/+x":              "level of their own",
		"devices/\x00":            "control",
		"devices/\n":              "control",
		"\xff":                    "UTF-8",
		"$SYS/#":                  "administrators read $SYS",
		"$share/g/devices/#":      "leave out $share/GROUP/",
	} {
		err := CheckFilter(filter)
		require.ErrorIs(t, err, ErrInvalidFilter, "%q", filter)
		assert.ErrorContains(t, err, says, "%q", filter)
	}
}
