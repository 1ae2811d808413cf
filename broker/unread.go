package broker

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/plantops/plantops/broker/refusal"
	"github.com/plantops/plantops/broker/topic"
)

const (
	maxUnreadTopics   = 8    // of an account that have a line in the log
	maxUnreadAccounts = 4096 // that are counted each by itself
)

// UnreadTopics is what an account published among the topics of devices and nobody read: a topic that is not quite right.
type UnreadTopics struct {
	Count     int64 // messages, since the start
	LastTopic string
	Meant     string // the topic that it may have meant; empty: nothing comes near
	Last      time.Time
}

// unread counts what nobody reads by account.
type unread struct {
	first []string // levels that the topics for ingest begin with
	log   *slog.Logger

	mu        sync.Mutex
	byAccount map[string]*unreadAccount
}

type unreadAccount struct {
	UnreadTopics
	logged []string // topics
}

func newUnread(ingestTopics []string, log *slog.Logger) *unread {
	u := &unread{log: log, byAccount: map[string]*unreadAccount{}}
	for _, filter := range ingestTopics {
		if bare, err := topic.Unshare(filter); err == nil {
			if first, _, _ := strings.Cut(bare, "/"); first != "+" && first != "#" {
				u.first = append(u.first, first)
			}
		}
	}
	return u
}

// concerns tells whether a topic is one of devices: it begins as those do that ingest reads.
func (u *unread) concerns(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	for _, of := range u.first {
		if strings.EqualFold(of, first) {
			return true
		}
	}
	return false
}

// add counts a message. The log tells of each topic once, of the first few of an account.
func (u *unread) add(account string, to *subscribers, now time.Time) {
	u.mu.Lock()
	of := u.byAccount[account]
	if of == nil {
		if len(u.byAccount) >= maxUnreadAccounts {
			u.mu.Unlock()
			return
		}
		of = &unreadAccount{}
		u.byAccount[account] = of
	}
	of.Count++
	of.LastTopic, of.Meant, of.Last = to.topic, to.meant, now
	news := len(of.logged) < maxUnreadTopics
	for _, topic := range of.logged {
		news = news && topic != to.topic
	}
	if news {
		of.logged = append(of.logged, to.topic)
	}
	u.mu.Unlock()
	if !news {
		return
	}
	words := "nobody reads " + refusal.Clip(to.topic)
	if to.meant != "" {
		words += "; did it mean " + refusal.Clip(to.meant) + "?"
	}
	u.log.Warn(words, "user", account)
}

// Unread returns what each account published among the topics of devices and nobody read; accounts without any are left
// out. It may be called at any time.
func (b *Broker) Unread() map[string]UnreadTopics {
	u := b.hook.router.unread
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[string]UnreadTopics, len(u.byAccount))
	for name, of := range u.byAccount {
		all[name] = of.UnreadTopics
	}
	return all
}

// readBy tells whether a message of a publisher reaches anybody, in a queue included. The caller holds the lock of the shard.
func (to *subscribers) readBy(from *peer) bool {
	for i := range to.route.To {
		if t := &to.route.To[i]; t.Who.peer != from || t.WantsOwn() {
			return true
		}
	}
	return to.ingest
}

// nobodyReads counts a message of a client that reaches nobody: to is outcome.unread. A retained one may still be read by whoever
// comes; it counts when its topic looks like a slip.
func (r *router) nobodyReads(l *clientLink, to *subscribers, retained bool) bool {
	if to == nil || retained && to.meant == "" {
		return false
	}
	r.unread.add(l.account, to, l.now)
	return true
}
