package network

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// v4 is the n-th address of the attackers.
func v4(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

var (
	epoch  = time.Unix(1_000_000, 0)
	family = netip.MustParsePrefix("192.0.2.7/32")
)

func (s *standing) failTimes(times int, a netip.Prefix, name string, now time.Time) {
	for range times {
		s.failed(a, name, now)
	}
}

func TestFailuresAreForgottenByHalves(t *testing.T) {
	s := newStanding()
	s.failTimes(40, family, "anna", epoch)
	for seconds, want := range map[int]float64{-5: 40, 0: 40, 30: 20, 60: 10, 300: 40.0 / 1024} {
		assert.InDelta(t, want, s.failing.get(family).level(epoch.Add(time.Duration(seconds)*time.Second)), 1e-9, "after %d s", seconds)
	}
	s.failed(family, "", epoch.Add(time.Minute))
	assert.InDelta(t, 11, s.failing.get(family).level(epoch.Add(time.Minute)), 1e-9)
	assert.InDelta(t, 10, s.names.get("anna").level(epoch.Add(time.Minute)), 1e-9)
}

func TestAnswersAreDelayedMoreAndMore(t *testing.T) {
	for name, c := range map[string]struct {
		failed, ofName int // failures of the address and, from elsewhere, of the name
		good           bool
		want           time.Duration
	}{
		"nothing is known":                       {0, 0, false, 0},
		"a test suite":                           {freeFailures, 0, false, 0},
		"one more":                               {freeFailures + 1, 0, false, delayPerFailure},
		"twenty more":                            {freeFailures + 20, 0, false, time.Second},
		"a flood":                                {10_000, 0, false, maxDelay},
		"a household with an old password":       {freeFailuresGood, 0, true, 0},
		"a household and a flood":                {10_000, 0, true, maxDelay},
		"a name that others guess at":            {0, freeFailures + 20, false, delayForName},
		"the same, after two mistakes":           {2, freeFailures + 20, false, 3 * delayForName},
		"the same, from where somebody is known": {0, freeFailures + 20, true, delayForName},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStanding()
			if c.good {
				s.succeeded(family, "", epoch)
			}
			s.failTimes(c.failed, family, "", epoch)
			for i := range c.ofName {
				s.failed(v4(i), "anna", epoch)
			}
			_, _, d := s.delay(family, "anna", epoch)
			assert.InDelta(t, c.want, d, float64(time.Microsecond))
		})
	}
}

func TestRankOfAnAddress(t *testing.T) {
	s := newStanding()
	assert.Equal(t, rankStranger, s.rank(family, epoch))
	s.failTimes(1, family, "", epoch)
	assert.Equal(t, rankStranger+1, s.rank(family, epoch.Add(89*time.Second)))
	assert.Equal(t, rankStranger, s.rank(family, epoch.Add(91*time.Second)), "forgotten")
	s.failTimes(3, family, "", epoch)
	assert.Equal(t, rankFailing, s.rank(family, epoch))
	s.succeeded(family, "", epoch)
	s.failTimes(10_000, family, "", epoch)
	assert.Equal(t, rankKnown, s.rank(family, epoch), "guesses from one address do not make strangers of the devices behind it")
	assert.False(t, s.restricted(family, epoch))
	assert.Equal(t, rankStranger, s.rank(family, epoch.Add(goodFor)))
}

// asks makes an attempt for a user's name.
func (s *standing) asks(a netip.Prefix, name string, now time.Time) (t *Attempt, victims []*Attempt, ok bool) {
	t = &Attempt{from: a, user: name, guessable: true}
	victims, ok = s.guess(t, now)
	return t, victims, ok
}

func TestGuessesForOneNameAreFewAtATime(t *testing.T) {
	s := newStanding()
	for i := range 50 { // a crowd with one account
		_, victims, ok := s.asks(v4(i), "anna", epoch)
		require.True(t, ok)
		require.Empty(t, victims)
	}
	s.failTimes(guessedAtFrom, v4(7), "anna", epoch)
	clean, victims, ok := s.asks(v4(1000), "anna", epoch)
	require.True(t, ok, "an address without failures")
	require.Len(t, victims, 50-guessesAtATime+1)
	assert.Equal(t, v4(7), victims[0].from, "first the one that has failed")
	assert.Equal(t, v4(0), victims[1].from, "then the oldest")
	assert.Contains(t, s.names.get("anna").waiting, clean)
	s.failTimes(2, v4(1), "anna", epoch)
	_, _, ok = s.asks(v4(1), "anna", epoch)
	assert.False(t, ok, "an address with failures")
	_, _, ok = s.asks(v4(1), "bert", epoch)
	assert.True(t, ok, "another name")

	s.succeeded(family, "anna", epoch)
	s.failTimes(10, family, "anna", epoch)
	for range guessesAtATimeHome {
		_, victims, ok = s.asks(family, "anna", epoch)
		assert.True(t, ok, "at home")
		assert.Empty(t, victims)
	}
	_, _, ok = s.asks(family, "anna", epoch)
	assert.False(t, ok, "not without end")
	_, victims, ok = s.asks(v4(1001), "anna", epoch)
	assert.True(t, ok)
	assert.Len(t, victims, 1)
	assert.False(t, victims[0].home, "those at home stay")

	s.answered(clean)
	_, _, ok = s.asks(v4(1), "anna", epoch)
	assert.True(t, ok, "there is room again")
	s.answered(clean)
	assert.Len(t, s.names.get("anna").waiting, guessesAtATime+guessesAtATimeHome)
	_, _, ok = s.asks(v4(1), "anna", epoch.Add(10*time.Minute))
	assert.True(t, ok, "the flood is over")
}

// Whatever attackers do: a login from an address without failures is looked at, no answer waits longer than maxDelay, an
// address that somebody logged in from stays known, and the memory is bounded.
func TestNoHistoryKeepsALoginFromAnotherAddressOut(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		s, now := newStanding(), epoch
		s.succeeded(family, "anna", now)
		var running []*Attempt
		for range 20_000 {
			now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			a, name := v4(random.IntN(6000)), []string{"anna", "bert", "bed-1", ""}[random.IntN(4)]
			switch random.IntN(8) {
			case 0:
				if len(running) > 0 {
					i := random.IntN(len(running))
					s.answered(running[i])
					running[i] = running[len(running)-1]
					running = running[:len(running)-1]
				}
			case 1:
				s.succeeded(a, "bert", now) // attackers may have an account of their own
			default:
				guess, _, ok := s.asks(a, "anna", now)
				if ok {
					running = append(running, guess)
				}
				s.failed(a, name, now)
				require.LessOrEqual(t, len(s.names.get("anna").waiting), 5*guessesAtATime, "seed %d", seed)
			}
			_, _, d := s.delay(a, name, now)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, maxDelay)
		}
		_, _, ok := s.asks(netip.MustParsePrefix("2001:db8::/64"), "anna", now)
		require.True(t, ok, "seed %d", seed)
		_, _, ok = s.asks(family, "anna", now)
		require.True(t, ok, "seed %d: where she logged in before", seed)
		require.Equal(t, rankKnown, s.rank(family, now))
		require.LessOrEqual(t, s.failing.order.Len(), rememberedAddresses)
		require.LessOrEqual(t, s.good.order.Len(), rememberedAddresses)
		require.LessOrEqual(t, s.names.order.Len(), rememberedNames)
	}
}

func TestRecentForgetsWhatWasTouchedLongestAgo(t *testing.T) {
	r := newRecent[int, string](3)
	for i := range 4 {
		*r.touch(i) = fmt.Sprint(i)
		r.touch(0)
	}
	assert.Nil(t, r.get(1), "forgotten")
	assert.Equal(t, "0", *r.get(0), "touched since")
	assert.Equal(t, "3", *r.get(3))
	assert.Len(t, r.byKey, 3)
	assert.Equal(t, 3, r.order.Len())
}

// BenchmarkStandingAtItsBound reports the memory of everything that is remembered.
func BenchmarkStandingAtItsBound(b *testing.B) {
	for b.Loop() {
		s := newStanding()
		for i := range 2 * rememberedAddresses {
			name := fmt.Sprintf("%060d", i)
			s.failed(v4(i), name, epoch)
			s.succeeded(v4(i), name, epoch)
		}
	}
}
