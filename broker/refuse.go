package broker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/topic"
)

// refusal is why a client may not do something: the words that are counted and logged, and what it is told.
type refusal struct {
	reason string
	v5     packets.Code // CONNACK, PUBACK, PUBREC, SUBACK or DISCONNECT
	v3     byte         // CONNACK return code of MQTT 3.1.1
	rule   string       // what was exceeded, for the log; may be empty
}

func (r refusal) Error() string { return r.reason }

// CONNACK return codes of MQTT 3.1.1.
const (
	v3UnacceptableVersion byte = 1
	v3IdentifierRejected  byte = 2
	v3ServerUnavailable   byte = 3
	v3BadUserOrPassword   byte = 4
	v3NotAuthorized       byte = 5
)

var (
	refuseAnonymous   = refusal{reason: "anonymous", v5: packets.ErrBadUsernameOrPassword, v3: v3NotAuthorized}
	refuseNoPassword  = refusal{reason: "no password", v5: packets.ErrBadUsernameOrPassword, v3: v3NotAuthorized}
	refuseUnknownUser = refusal{reason: "unknown user", v5: packets.ErrBadUsernameOrPassword, v3: v3NotAuthorized}
	refusePassword    = refusal{reason: "wrong password", v5: packets.ErrBadUsernameOrPassword, v3: v3NotAuthorized}
	refuseThrottled   = refusal{reason: "too many failed logins", v5: packets.ErrServerBusy, v3: v3ServerUnavailable}
	refuseUserName    = refusal{reason: "invalid user name", v5: packets.ErrBadUsernameOrPassword, v3: v3BadUserOrPassword}
	refuseAuthMethod  = refusal{reason: "unknown authentication method", v5: packets.ErrBadAuthenticationMethod, v3: v3NotAuthorized}
	refuseCertificate = refusal{reason: "certificate names another account", v5: packets.ErrNotAuthorized, v3: v3NotAuthorized}
	refuseRevoked     = refusal{reason: reasonRevoked, v5: packets.ErrNotAuthorized, v3: v3NotAuthorized}
	refuseClientID    = refusal{reason: "invalid client id", v5: packets.ErrClientIdentifierNotValid, v3: v3IdentifierRejected}
	refuseForeignID   = refusal{reason: "client id belongs to another account", v5: packets.ErrClientIdentifierNotValid, v3: v3IdentifierRejected}
	refuseForeignSess = refusal{reason: "session belongs to another account", v5: packets.ErrClientIdentifierNotValid, v3: v3IdentifierRejected}
	refuseWillTopic   = refusal{reason: "invalid will topic", v5: packets.ErrTopicNameInvalid, v3: v3NotAuthorized}
	refuseWill        = refusal{reason: "will not allowed", v5: packets.ErrNotAuthorized, v3: v3NotAuthorized}
	refuseNotReady    = refusal{reason: "not ready", v5: packets.ErrServerUnavailable, v3: v3ServerUnavailable}
	refuseStopping    = refusal{reason: "stopping", v5: packets.ErrServerShuttingDown, v3: v3ServerUnavailable}
	refuseStuckOld    = refusal{reason: "previous connection did not end", v5: packets.ErrServerBusy, v3: v3ServerUnavailable}
	refusePublish     = refusal{reason: "publish not allowed", v5: packets.ErrNotAuthorized}
	refuseReserved    = refusal{reason: topic.ErrReserved.Error(), v5: packets.ErrNotAuthorized}
	refuseSubscribe   = refusal{reason: "subscribe not allowed", v5: packets.ErrNotAuthorized}
	refuseMalformed   = refusal{reason: "malformed packet", v5: packets.ErrMalformedPacket}
	refuseViolation   = refusal{reason: "protocol violation", v5: packets.ErrProtocolViolation}
	refuseTooLarge    = refusal{reason: "packet too large", v5: packets.ErrPacketTooLarge}
	refuseFormat      = refusal{reason: "invalid payload format", v5: packets.ErrMalformedPacket}
	refuseResponse    = refusal{reason: "invalid response topic", v5: packets.ErrProtocolViolation}
	refuseTopic       = refusal{reason: topic.ErrInvalid.Error(), v5: packets.ErrTopicNameInvalid}
	refuseDeepTopic   = refusal{reason: topic.ErrTooDeep.Error(), v5: packets.ErrTopicNameInvalid}
	refuseFilter      = refusal{reason: topic.ErrFilterInvalid.Error(), v5: packets.ErrTopicFilterInvalid}
	refuseDeepFilter  = refusal{reason: topic.ErrFilterTooDeep.Error(), v5: packets.ErrTopicFilterInvalid}
	refuseHandling    = refusal{reason: "invalid retain handling", v5: packets.ErrProtocolViolation}
	refuseExpiry      = refusal{reason: "session expiry raised from zero", v5: packets.ErrProtocolViolationZeroNonZeroExpiry}
	refuseAuth        = refusal{reason: "authentication without a method", v5: packets.ErrProtocolViolation}
	refuseUnfinished  = refusal{reason: "packet not finished in time", v5: packets.ErrKeepAliveTimeout}
	refuseServerOnly  = refusal{reason: "packet that only a server sends", v5: packets.ErrProtocolViolation}
	refuseFirst       = refusal{reason: "first packet is not CONNECT", v5: packets.ErrProtocolViolation}
	refuseSecond      = refusal{reason: "second CONNECT", v5: packets.ErrProtocolViolation}
	refuseVersion     = refusal{reason: "unsupported protocol version", v5: packets.ErrUnsupportedProtocolVersion, v3: v3UnacceptableVersion}
	refuseNoFilter    = refusal{reason: "no topic filter", v5: packets.ErrProtocolViolation}
	refuseUsers       = refusal{reason: "too many user properties", v5: packets.ErrQuotaExceeded}
	refuseFilters     = refusal{reason: "too many filters in one packet", v5: packets.ErrQuotaExceeded}
	refuseNoID        = refusal{reason: "packet id 0", v5: packets.ErrProtocolViolation}
	refuseReasonCode  = refusal{reason: "unknown reason code", v5: packets.ErrProtocolViolation}
	refuseTwice       = refusal{reason: "property given twice", v5: packets.ErrProtocolViolation}
	refuseValue       = refusal{reason: "forbidden value of a property", v5: packets.ErrProtocolViolation}
	refuseAuthData    = refusal{reason: "authentication data without a method", v5: packets.ErrProtocolViolation}
	refuseFlood       = refusal{reason: "more unacknowledged messages than announced", v5: packets.ErrReceiveMaximum}
	refuseStalled     = refusal{reason: "not stored in time", v5: packets.ErrQuotaExceeded}
	refuseOverflow    = refusal{reason: "too slow for what it subscribed to"} // a message to the account was dropped
)

// brokenPacket is the refusal of a packet that mochi could not read or would not take, when that is why it ended a connection.
func brokenPacket(err error) (refusal, bool) {
	switch code, _ := errors.AsType[packets.Code](err); {
	case err == nil, errors.Is(err, errQueueFull), errors.Is(err, net.ErrClosed), code == packets.ErrRejectPacket: // our own
		return refusal{}, false
	case code == packets.ErrPacketTooLarge:
		return refuseTooLarge, true
	case code.Code == packets.ErrProtocolViolation.Code:
		return refuseViolation, true
	}
	return refuseMalformed, true
}

// AccountRefusal says what an account was refused for one reason since the start.
type AccountRefusal struct {
	Reason string
	Count  int64
	Last   time.Time
	Remote string // the address that the last one came from; "" when nobody was connected
}

// refusals counts what was refused, by reason and by account, and logs the first of a kind and then one line a minute.
type refusals struct {
	log    *slog.Logger
	now    func() time.Time
	exists func(account string) bool // nil: none does
	slow   limiter

	mu        sync.Mutex
	byReason  map[string]int64
	byAccount map[string]map[string]*AccountRefusal // of accounts that exist, by reason: strangers' words are in neither key
}

// source is where something refused came from.
type source struct {
	account string   // that it is put down to, if it exists
	proved  bool     // account has shown its password: otherwise the name is the stranger's choice
	remote  net.Addr // nil: nobody was connected
}

func newRefusals(log *slog.Logger, now func() time.Time) *refusals {
	return &refusals{log: log, now: now, byReason: map[string]int64{}, byAccount: map[string]map[string]*AccountRefusal{}}
}

// count counts refusals by reason, and for their account. It returns the time.
func (r *refusals) count(reason string, n int64, from source) time.Time {
	now, remote := r.now(), hostOf(from.remote)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byReason[reason] += n
	mine := r.byAccount[from.account]
	if mine == nil {
		if from.account == "" || r.exists == nil || !r.exists(from.account) {
			return now
		}
		mine = map[string]*AccountRefusal{}
		r.byAccount[from.account] = mine
	}
	one := mine[reason]
	if one == nil {
		one = &AccountRefusal{Reason: reason}
		mine[reason] = one
	}
	one.Count += n
	one.Last, one.Remote = now, remote
	return now
}

// add counts one refusal and logs it if it is time to. The log has its minute for each account, and for each address of
// strangers: a flood of names must not silence the others.
func (r *refusals) add(reason string, from source, attrs ...slog.Attr) {
	now := r.count(reason, 1, from)
	who := from.account
	if !from.proved {
		who = addressKey(from.remote).String()
	}
	more, due := r.slow.allow(reason+"\x00"+who, now)
	if !due {
		return
	}
	all := append([]slog.Attr{slog.String("reason", reason)}, attrs...)
	if more > 0 {
		all = append(all, slog.Int("more", more))
	}
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "refused", all...)
}

func (r *refusals) counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.byReason)
}

// accounts returns what each account was refused, the latest first.
func (r *refusals) accounts() map[string][]AccountRefusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string][]AccountRefusal, len(r.byAccount))
	for name, mine := range r.byAccount {
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

// forget drops the figures of an account that is no more.
func (r *refusals) forget(account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exists == nil || !r.exists(account) {
		delete(r.byAccount, account)
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

// clip keeps what a stranger sent short enough for a log line; the log's handler quotes it.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
