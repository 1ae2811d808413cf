package broker

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
		"a name that others guess at":            {0, freeFailures + 20, false, time.Second},
		"the same, from where somebody is known": {0, freeFailures + 20, true, time.Second},
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
	assert.Equal(t, rankFailing, s.rank(family, epoch.Add(89*time.Second)))
	assert.Equal(t, rankStranger, s.rank(family, epoch.Add(91*time.Second)), "forgotten")
	s.succeeded(family, "", epoch)
	s.failTimes(10_000, family, "", epoch)
	assert.Equal(t, rankKnown, s.rank(family, epoch), "guesses from one address do not make strangers of the devices behind it")
	assert.False(t, s.crowded(family, epoch))
	assert.Equal(t, rankStranger, s.rank(family, epoch.Add(goodFor)))
}

func TestGuessesForOneNameAreFewAtATime(t *testing.T) {
	s := newStanding()
	var done []func()
	looked := 0
	for i := range 1000 {
		s.failTimes(2, v4(i), "anna", epoch)
		if end, ok := s.guess(v4(i), "anna", epoch); ok {
			looked++
			done = append(done, end)
		}
	}
	assert.LessOrEqual(t, looked, freeFailures/2+guessesAtATime, "what is free, and a few")
	_, ok := s.guess(v4(0), "bert", epoch)
	assert.True(t, ok, "another name")
	_, ok = s.guess(v4(5000), "anna", epoch)
	assert.True(t, ok, "an address without failures")
	s.succeeded(family, "anna", epoch)
	s.failTimes(10, family, "anna", epoch)
	for range guessesAtATimeHome - looked - 1 {
		_, ok = s.guess(family, "anna", epoch)
		assert.True(t, ok, "at home")
	}
	_, ok = s.guess(family, "anna", epoch)
	assert.False(t, ok, "not without end")
	for _, end := range done {
		end()
	}
	_, ok = s.guess(family, "anna", epoch)
	assert.True(t, ok)
	s.failTimes(10, v4(5001), "anna", epoch)
	_, ok = s.guess(v4(5001), "anna", epoch.Add(time.Minute*10))
	assert.True(t, ok, "when the flood is over")
}

// Whatever attackers do: a login from an address without failures is looked at, no answer waits longer than maxDelay, an
// address that somebody logged in from stays known, and the memory is bounded.
func TestNoHistoryKeepsALoginFromAnotherAddressOut(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		s, now := newStanding(), epoch
		s.succeeded(family, "anna", now)
		var running []func()
		for range 20_000 {
			now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
			a, name := v4(random.IntN(6000)), []string{"anna", "bert", "bed-1", ""}[random.IntN(4)]
			switch random.IntN(8) {
			case 0:
				if len(running) > 0 {
					i := random.IntN(len(running))
					running[i]()
					running[i] = running[len(running)-1]
					running = running[:len(running)-1]
				}
			case 1:
				s.succeeded(a, "bert", now) // attackers may have an account of their own
			default:
				if end, ok := s.guess(a, "anna", now); ok && len(running) < 2000 {
					running = append(running, end)
				} else if ok {
					end()
				}
				s.failed(a, name, now)
			}
			_, _, d := s.delay(a, name, now)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, maxDelay)
		}
		end, ok := s.guess(netip.MustParsePrefix("2001:db8::/64"), "anna", now)
		require.True(t, ok, "seed %d", seed)
		end()
		_, ok = s.guess(family, "anna", now)
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
