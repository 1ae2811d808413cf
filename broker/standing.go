package broker

import (
	"math"
	"net/netip"
	"time"
)

// Logins that fail are remembered for their address and for the name that they were for. From that follow three things,
// and none of them keeps a right password out that comes from another address:
//
//   - Who is served next: addresses that somebody logged in from of late come before those of strangers, and those
//     before addresses from which logins have failed.
//   - How long the answer to a wrong password is delayed; that to a right one never is. The connection keeps its place
//     meanwhile, and an address with many failures has few places.
//   - Whether a password that a person chose is looked at. One that a person chose can be guessed, so while a name is
//     guessed at, at most guessesAtATime wrong ones for it wait for their answer; further ones are refused unseen, except
//     from addresses without failures and from those that this name logged in from of late. The secret of a device
//     cannot be guessed and is always looked at.
//
// What is remembered is bounded; what was touched longest ago is forgotten first. Whoever has so many addresses that his
// failures are forgotten before he comes back to the first one gains nothing by it: each of the others was as good as new.
const (
	rememberedAddresses = 4096
	rememberedNames     = 1024

	failureHalfLife = 30 * time.Second // one attempt a second makes 43 failures, one in ten seconds makes 4
	goodFor         = 24 * time.Hour   // after the last sign of a client that has logged in

	failingFrom      = 1.0 / 8 // one failure puts an address behind strangers for a minute and a half
	freeFailures     = 20      // for an address of strangers, and for a name: test suites, and devices with old passwords
	freeFailuresGood = 100     // for an address that somebody logged in from: a household with a few of those
	delayPerFailure  = 50 * time.Millisecond
	maxDelay         = 2 * time.Second

	guessesAtATime     = 5
	guessesAtATimeHome = 25 // from addresses that the name logged in from: a dashboard with an old password, ten times
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
	waiting int // guesses that were looked at and wait for their answer; names only
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
	rankFailing
	ranks
)

func fresh(at *time.Time, now time.Time) bool { return at != nil && now.Sub(*at) < goodFor }

func (s *standing) isGood(a netip.Prefix, now time.Time) bool { return fresh(s.good.get(a), now) }

func (s *standing) rank(a netip.Prefix, now time.Time) rank {
	switch {
	case s.isGood(a, now):
		return rankKnown
	case s.failing.get(a).level(now) >= failingFrom:
		return rankFailing
	}
	return rankStranger
}

// free is how many failures of an address have no consequences for it.
func (s *standing) free(a netip.Prefix, now time.Time) float64 {
	if s.isGood(a, now) {
		return freeFailuresGood
	}
	return freeFailures
}

// crowded says that an address has had its share of failures and now gets few places only.
func (s *standing) crowded(a netip.Prefix, now time.Time) bool {
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
	return ofAddress, ofName, min(time.Duration(max(ofAddress, ofName)*float64(delayPerFailure)), maxDelay)
}

// guess says whether a password for a name that can be guessed is looked at. If so, done is called when the answer to it
// has been given.
func (s *standing) guess(a netip.Prefix, name string, now time.Time) (done func(), ok bool) {
	n := s.names.touch(name)
	limit := guessesAtATime
	if fresh(s.homes.get(home{name, a}), now) {
		limit = guessesAtATimeHome
	}
	if n.waiting >= limit && n.level(now) > freeFailures && s.failing.get(a).level(now) >= 1 {
		return nil, false
	}
	n.waiting++
	return func() { n.waiting-- }, true
}
