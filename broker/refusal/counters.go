package refusal

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// AccountRefusal says what an account was refused for one reason since the start.
type AccountRefusal struct {
	Reason string
	Count  int64
	Last   time.Time
	Remote string // the address that the last one came from; "" when nobody was connected
}

// Counters counts what was refused, by reason and by account, and logs the first of a kind and then one line a minute. It
// is safe for concurrent use.
type Counters struct {
	// Exists reports whether there is an account of that name; strangers' names are not kept. nil: there is none. It is set
	// before the first refusal.
	Exists func(account string) bool

	log  *slog.Logger
	now  func() time.Time
	slow Limiter

	mu        sync.Mutex
	byReason  map[string]int64
	byAccount map[string]map[string]*AccountRefusal // of accounts that exist, by reason: strangers' words are in neither key
}

// Source is where something refused came from.
type Source struct {
	Account string   // that it is put down to, if it exists
	Proved  bool     // Account has shown its password: otherwise the name is the stranger's choice
	Remote  net.Addr // nil: nobody was connected
}

// NewCounters returns counters that stand at nothing.
func NewCounters(log *slog.Logger, now func() time.Time) *Counters {
	return &Counters{log: log, now: now, byReason: map[string]int64{}, byAccount: map[string]map[string]*AccountRefusal{}}
}

// Count counts n refusals by reason, and for their account. It returns the time.
func (c *Counters) Count(why Refusal, n int64, from Source) time.Time {
	now, remote := c.now(), hostOf(from.Remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byReason[why.Reason] += n
	mine := c.byAccount[from.Account]
	if mine == nil {
		if from.Account == "" || c.Exists == nil || !c.Exists(from.Account) {
			return now
		}
		mine = map[string]*AccountRefusal{}
		c.byAccount[from.Account] = mine
	}
	one := mine[why.Reason]
	if one == nil {
		one = &AccountRefusal{Reason: why.Reason}
		mine[why.Reason] = one
	}
	one.Count += n
	one.Last, one.Remote = now, remote
	return now
}

// Add counts one refusal and logs it if it is time to. The log has its minute for each account, and for each address of
// strangers: a flood of names must not silence the others.
func (c *Counters) Add(why Refusal, from Source, attrs ...slog.Attr) {
	now := c.Count(why, 1, from)
	who := from.Account
	if !from.Proved {
		who = AddressKey(from.Remote).String()
	}
	more, due := c.slow.Allow(why.Reason+"\x00"+who, now)
	if !due {
		return
	}
	all := append([]slog.Attr{slog.String("reason", why.Reason)}, attrs...)
	if more > 0 {
		all = append(all, slog.Int("more", more))
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "refused", all...)
}

// Counts returns how often each reason was given.
func (c *Counters) Counts() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.byReason)
}

// Accounts returns what each account was refused, the latest first.
func (c *Counters) Accounts() map[string][]AccountRefusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string][]AccountRefusal, len(c.byAccount))
	for name, mine := range c.byAccount {
		list := make([]AccountRefusal, 0, len(mine))
		for _, one := range mine {
			list = append(list, *one)
		}
		slices.SortFunc(list, func(a, b AccountRefusal) int {
			return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Reason, b.Reason))
		})
		all[name] = list
	}
	return all
}

// Forget drops the figures of an account that is no more.
func (c *Counters) Forget(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Exists == nil || !c.Exists(account) {
		delete(c.byAccount, account)
	}
}

// hostOf is an address without its port, which says nothing to a person.
func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// Clip keeps what a stranger sent short enough for a log line; the log's handler quotes it.
func Clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}

// AddressKey is the unit in which limits per address count: an IPv4 address or an IPv6 /64, which is what one
// household or one rented server has.
func AddressKey(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	key, _ := ip.Prefix(bits) // bits always fits
	return key
}
