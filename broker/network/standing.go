package network

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// Logins that fail are remembered for their address and for the name that they were for. From that follow three things,
// and none of them keeps a right password out that comes from another address:
//
//   - Who is served next: addresses that somebody logged in from of late come before those of strangers, and those
//     before addresses from which logins have failed.
//   - How long the answer to a wrong password is delayed; that to a right one never is. The connection keeps its place
//     meanwhile, and an address with many failures has few places.
//   - Whether a password that a person chose is looked at. It can be guessed, so while a name is guessed at, at most
//     guessesAtATime of its logins are looked at or wait for their answer; further ones are refused unseen. One from an
//     address with fewer failures takes the place of another one, and one from where this name logged in of late is not
//     counted with the others. The secret of a device cannot be guessed and is always looked at.
//
// What is remembered is bounded; what was touched longest ago is forgotten first. Whoever has so many addresses that his
// failures are forgotten before he comes back to the first one gains nothing by it: each of the others was as good as new.
const (
	rememberedAddresses = 4096
	rememberedNames     = 1024

	failureHalfLife = 30 * time.Second // one attempt a second makes 43 failures, one in ten seconds makes 4
	goodFor         = 24 * time.Hour   // after the last sign of a client that has logged in

	freeFailures     = 20  // for an address of strangers, and for a name: test suites, and devices with old passwords
	freeFailuresGood = 100 // for an address that somebody logged in from: a household with a few of those
	delayPerFailure  = 50 * time.Millisecond
	delayForName     = 250 * time.Millisecond // at most, for each failure of the address: few come from where people are
	maxDelay         = 2 * time.Second

	guessedAtFrom      = 3 // failures for a name, from wherever
	guessesAtATime     = 10
	guessesAtATimeHome = 25 // from addresses that the name logged in from: dashboards with an old password
	cleanBelow         = 1  // failures of an address: two mistakes are free
)

// standing is what is remembered of addresses and names. It has no clock and no lock.
type standing struct {
	failing recent[netip.Prefix, failures]
	names   recent[string, failures] // of accounts only
	good    recent[netip.Prefix, time.Time]
	homes   recent[home, time.Time] // for names whose passwords can be guessed
}

// home is an address that an account logged in from.
type home struct {
	name    string
	address netip.Prefix
}

// failures is a count of which half is forgotten in each failureHalfLife.
type failures struct {
	count   float64
	at      time.Time
	waiting []*Attempt // that are looked at, or wait for their answer; of names only
}

func newStanding() standing {
	return standing{
		failing: newRecent[netip.Prefix, failures](rememberedAddresses),
		names:   newRecent[string, failures](rememberedNames),
		good:    newRecent[netip.Prefix, time.Time](rememberedAddresses),
		homes:   newRecent[home, time.Time](rememberedAddresses),
	}
}

// level is the count at this moment; nil counts nothing.
func (f *failures) level(now time.Time) float64 {
	if f == nil || f.count == 0 {
		return 0
	}
	return f.count * math.Exp2(-float64(max(now.Sub(f.at), 0))/float64(failureHalfLife))
}

func (f *failures) add(now time.Time) {
	f.count, f.at = f.level(now)+1, now
}

// rank is the order in which addresses get places.
type rank int

const (
	rankKnown    rank = iota // somebody logged in from there
	rankStranger             // nothing is known
	rankFailing  = rankStranger + rank(len(doubts))
	ranks        = rankFailing + 1
)

// doubts are the failures that put a stranger's address one rank back. The first does so for a minute and a half.
var doubts = [...]float64{1.0 / 8, 1, 2, 4}

func fresh(at *time.Time, now time.Time) bool { return at != nil && now.Sub(*at) < goodFor }

func (s *standing) isGood(a netip.Prefix, now time.Time) bool { return fresh(s.good.get(a), now) }

func (s *standing) rank(a netip.Prefix, now time.Time) rank {
	if s.isGood(a, now) {
		return rankKnown
	}
	r, level := rankStranger, s.failing.get(a).level(now)
	for _, from := range doubts {
		if level >= from {
			r++
		}
	}
	return r
}

// free is how many failures of an address have no consequences for it.
func (s *standing) free(a netip.Prefix, now time.Time) float64 {
	if s.isGood(a, now) {
		return freeFailuresGood
	}
	return freeFailures
}

// restricted says that an address has had its share of failures and now gets few places only.
func (s *standing) restricted(a netip.Prefix, now time.Time) bool {
	return !s.isGood(a, now) && s.failing.get(a).level(now) > freeFailures
}

// failed counts a connection from an address that ended without a login. name is the account that it was for, "" for none.
func (s *standing) failed(a netip.Prefix, name string, now time.Time) {
	s.failing.touch(a).add(now)
	if name != "" {
		s.names.touch(name).add(now)
	}
}

// succeeded notes that somebody is in. name is "" for one whose password cannot be guessed.
func (s *standing) succeeded(a netip.Prefix, name string, now time.Time) {
	*s.good.touch(a) = now
	if name != "" {
		*s.homes.touch(home{name, a}) = now
	}
}

// delay is how long the answer to a wrong password has to wait, and by how many failures its address and its name are
// above what is free.
func (s *standing) delay(a netip.Prefix, name string, now time.Time) (ofAddress, ofName float64, d time.Duration) {
	ofAddress = max(s.failing.get(a).level(now)-s.free(a, now), 0)
	ofName = max(s.names.get(name).level(now)-freeFailures, 0)
	d = time.Duration(ofName * float64(delayPerFailure))
	d = min(d, time.Duration((1+s.failing.get(a).level(now))*float64(delayForName)))
	d = max(d, time.Duration(ofAddress*float64(delayPerFailure)))
	return ofAddress, ofName, min(d, maxDelay)
}

// guess says whether a password for a name that can be guessed is looked at. If so, the caller calls answered when it
// has been. In any case it ends victims, which made room.
func (s *standing) guess(t *Attempt, now time.Time) (victims []*Attempt, ok bool) {
	n := s.names.touch(t.user)
	t.of, t.home = n, fresh(s.homes.get(home{t.user, t.from}), now)
	if n.level(now) >= guessedAtFrom {
		limit := guessesAtATime
		if t.home {
			limit = guessesAtATimeHome
		}
		rivals := 0
		for _, other := range n.waiting {
			if other.home == t.home {
				rivals++
			}
		}
		mine := s.failing.get(t.from).level(now)
		for ; rivals >= limit; rivals-- {
			victim, worst := s.worst(n, now)
			if t.home || mine >= max(worst, cleanBelow) {
				return victims, false
			}
			victims = append(victims, victim)
			s.answered(victim)
		}
	}
	n.waiting = append(n.waiting, t)
	return victims, true
}

// worst is the attempt from the address with the most failures, of equals the oldest, of those that are not at home.
func (s *standing) worst(n *failures, now time.Time) (found *Attempt, most float64) {
	most = -1
	for _, t := range n.waiting {
		if level := s.failing.get(t.from).level(now); !t.home && level > most {
			found, most = t, level
		}
	}
	return found, most
}

// answered ends an attempt that was looked at. Calling it again does nothing.
func (s *standing) answered(t *Attempt) {
	if t.of != nil {
		t.of.waiting = slices.DeleteFunc(t.of.waiting, func(other *Attempt) bool { return other == t })
		t.of = nil
	}
}
