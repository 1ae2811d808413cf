package broker

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// refusal is why a client may not do something: the words that are counted and logged, and what it is told.
type refusal struct {
	reason string
	v5     packets.Code // CONNACK, PUBACK, PUBREC, SUBACK or DISCONNECT
	v3     byte         // CONNACK return code of MQTT 3.1.1
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
	refuseAnonymous   = refusal{"anonymous", packets.ErrBadUsernameOrPassword, v3NotAuthorized}
	refuseNoPassword  = refusal{"no password", packets.ErrBadUsernameOrPassword, v3NotAuthorized}
	refuseUnknownUser = refusal{"unknown user", packets.ErrBadUsernameOrPassword, v3NotAuthorized}
	refusePassword    = refusal{"wrong password", packets.ErrBadUsernameOrPassword, v3NotAuthorized}
	refuseUserName    = refusal{"invalid user name", packets.ErrBadUsernameOrPassword, v3BadUserOrPassword}
	refuseAuthMethod  = refusal{"unknown authentication method", packets.ErrBadAuthenticationMethod, v3NotAuthorized}
	refuseCertificate = refusal{"certificate names another account", packets.ErrNotAuthorized, v3NotAuthorized}
	refuseClientID    = refusal{"invalid client id", packets.ErrClientIdentifierNotValid, v3IdentifierRejected}
	refuseForeignID   = refusal{"client id belongs to another account", packets.ErrClientIdentifierNotValid, v3IdentifierRejected}
	refuseForeignSess = refusal{"session belongs to another account", packets.ErrClientIdentifierNotValid, v3IdentifierRejected}
	refuseWillTopic   = refusal{"invalid will topic", packets.ErrTopicNameInvalid, v3NotAuthorized}
	refuseWill        = refusal{"will not allowed", packets.ErrNotAuthorized, v3NotAuthorized}
	refuseNotReady    = refusal{"not ready", packets.ErrServerUnavailable, v3ServerUnavailable}
	refuseStopping    = refusal{"stopping", packets.ErrServerShuttingDown, v3ServerUnavailable}
	refuseStuckOld    = refusal{"previous connection did not end", packets.ErrServerBusy, v3ServerUnavailable}
	refusePublish     = refusal{reason: "publish not allowed", v5: packets.ErrNotAuthorized}
	refuseReserved    = refusal{reason: errTopicReserved.Error(), v5: packets.ErrNotAuthorized}
	refuseSubscribe   = refusal{reason: "subscribe not allowed", v5: packets.ErrNotAuthorized}
)

// protocolError is the refusal of a packet after which the connection ends.
func protocolError(reason string, code packets.Code) refusal {
	return refusal{reason: reason, v5: code}
}

// refusals counts what was refused, by reason, and logs the first of a kind and then one line a minute.
type refusals struct {
	log  *slog.Logger
	now  func() time.Time
	slow limiter

	mu       sync.Mutex
	byReason map[string]int64
}

func newRefusals(log *slog.Logger, now func() time.Time) *refusals {
	return &refusals{log: log, now: now, byReason: map[string]int64{}}
}

func (r *refusals) count(reason string) {
	r.mu.Lock()
	r.byReason[reason]++
	r.mu.Unlock()
}

// add counts one refusal and logs it if it is time to. who is the account, or the address of a stranger: names that
// were not proved are the stranger's choice, and a flood of them must not silence the others.
func (r *refusals) add(reason, who string, attrs ...slog.Attr) {
	r.count(reason)
	more, due := r.slow.allow(reason+"\x00"+who, r.now())
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

// clip keeps what a stranger sent short enough for a log line; the log's handler quotes it.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "..."
}
