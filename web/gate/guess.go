package gate

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often passwords may be tried. An account has more, since many share the guilt; an address from which somebody logged in is not held
// up by strangers who guess for the same account.
const (
	addressBurst, addressEvery = 10, 10 * time.Second
	accountBurst, accountEvery = 20, 30 * time.Second

	maxGuessers    = 4096 // addresses, and accounts, that are remembered
	maxKnownPlaces = 8    // of one account
)

// guesses count attempts to log in. The zero value is ready.
type guesses struct {
	mu        sync.Mutex
	byAddress map[netip.Prefix]*rate.Limiter
	byAccount map[string]*rate.Limiter
	known     map[string][]netip.Prefix // from where an account logged in, since the start
}

// take counts an attempt before it is judged, so that many at a time are no way around it. It returns how long to wait; 0: go on.
func (g *guesses) take(now time.Time, from netip.Addr, account string) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	place := network(from)
	if wait := reserve(&g.byAddress, place, now, addressEvery, addressBurst); wait > 0 {
		return wait
	}
	if slices.Contains(g.known[account], place) {
		return 0
	}
	return reserve(&g.byAccount, account, now, accountEvery, accountBurst)
}

// right notes from where an account logged in.
func (g *guesses) right(from netip.Addr, account string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[string][]netip.Prefix{}
	}
	place := network(from)
	places := slices.DeleteFunc(g.known[account], func(p netip.Prefix) bool { return p == place })
	if len(places) == maxKnownPlaces {
		places = places[1:]
	}
	g.known[account] = append(places, place)
}

func reserve[K comparable](all *map[K]*rate.Limiter, key K, now time.Time, every time.Duration, burst int) (wait time.Duration) {
	if *all == nil {
		*all = map[K]*rate.Limiter{}
	}
	l := (*all)[key]
	if l == nil {
		if len(*all) >= maxGuessers {
			forget(*all, now, burst)
		}
		l = rate.NewLimiter(rate.Every(every), burst)
		(*all)[key] = l
	}
	r := l.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// forget makes room: who has all attempts left again is as good as new. Where all are guessing, some begin anew: so many that this is not done
// at each attempt.
func forget[K comparable](all map[K]*rate.Limiter, now time.Time, burst int) {
	for key, l := range all {
		if l.TokensAt(now) >= float64(burst) {
			delete(all, key)
		}
	}
	for key := range all {
		if len(all) <= maxGuessers/2 {
			return
		}
		delete(all, key)
	}
}

// network is what one person has at least: an address of IPv4, a /64 of IPv6.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // of no address: none, which is one place too
	return p
}
