// Package refusal is every way in which the broker says no: its words, which are counted and logged as they are, and the
// codes that a client is told (refusals.go). counters.go counts refusals by reason and by account and logs them, at the
// rate that ratelimit.go allows. What is refused is judged elsewhere; the answers are sent by answer.go of package broker.
//
// A new refusal is a variable here, the place that returns it, and a row in refusals_test.go of package broker; the test in its
// refusals_table_test.go fails until there is one.
package refusal

import (
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/plantops/plantops/broker/topic"
)

// Refusal is why a client may not do something: the words that are counted and logged, and what it is told. As an error
// it stands for itself and is compared with ==.
type Refusal struct {
	Reason string       // the words; a log line and a counter have them as they are
	V5     packets.Code // of CONNACK, PUBACK, PUBREC, SUBACK or DISCONNECT
	V3     byte         // CONNACK return code of MQTT 3.1.1; other packets have none there
	Rule   string       // what was exceeded, for the log; may be empty
}

// Error is the reason.
func (r Refusal) Error() string { return r.Reason }

// With returns the refusal with the rule that it comes from, for the log.
func (r Refusal) With(rule string) Refusal {
	r.Rule = rule
	return r
}

// By returns the refusal with the limit of the configuration that it comes from, for the log.
func (r Refusal) By(key string, limit int) Refusal {
	return r.With(fmt.Sprintf("limits.%s: %d", key, limit))
}

// Told returns the refusal with another code of MQTT 5: that of CONNACK is none of DISCONNECT's.
func (r Refusal) Told(code packets.Code) Refusal {
	r.V5 = code
	return r
}

// CONNACK return codes of MQTT 3.1.1 [MQTT 3.1.1, table 3.1].
const (
	V3UnacceptableVersion byte = 1
	V3IdentifierRejected  byte = 2
	v3ServerUnavailable   byte = 3
	v3BadUserOrPassword   byte = 4
	v3NotAuthorized       byte = 5
)

// Refusals of what a client sends: its CONNECT, its messages and subscriptions, and the form of its packets.
var (
	Anonymous              = Refusal{Reason: "anonymous", V5: packets.ErrBadUsernameOrPassword, V3: v3NotAuthorized}
	NoPassword             = Refusal{Reason: "no password", V5: packets.ErrBadUsernameOrPassword, V3: v3NotAuthorized}
	UnknownUser            = Refusal{Reason: "unknown user", V5: packets.ErrBadUsernameOrPassword, V3: v3NotAuthorized}
	WrongPassword          = Refusal{Reason: "wrong password", V5: packets.ErrBadUsernameOrPassword, V3: v3NotAuthorized}
	TooManyFailedLogins    = Refusal{Reason: "too many failed logins", V5: packets.ErrServerBusy, V3: v3ServerUnavailable}
	InvalidUserName        = Refusal{Reason: "invalid user name", V5: packets.ErrBadUsernameOrPassword, V3: v3BadUserOrPassword}
	UnknownAuthMethod      = Refusal{Reason: "unknown authentication method", V5: packets.ErrBadAuthenticationMethod, V3: v3NotAuthorized}
	ForeignCertificate     = Refusal{Reason: "certificate names another account", V5: packets.ErrNotAuthorized, V3: v3NotAuthorized}
	CertificateRevoked     = Refusal{Reason: "certificate revoked", V5: packets.ErrNotAuthorized, V3: v3NotAuthorized}
	InvalidClientID        = Refusal{Reason: "invalid client id", V5: packets.ErrClientIdentifierNotValid, V3: V3IdentifierRejected}
	ForeignClientID        = Refusal{Reason: "client id belongs to another account", V5: packets.ErrClientIdentifierNotValid, V3: V3IdentifierRejected}
	ForeignSession         = Refusal{Reason: "session belongs to another account", V5: packets.ErrClientIdentifierNotValid, V3: V3IdentifierRejected}
	InvalidWillTopic       = Refusal{Reason: "invalid will topic", V5: packets.ErrTopicNameInvalid, V3: v3NotAuthorized}
	WillNotAllowed         = Refusal{Reason: "will not allowed", V5: packets.ErrNotAuthorized, V3: v3NotAuthorized}
	NotReady               = Refusal{Reason: "not ready", V5: packets.ErrServerUnavailable, V3: v3ServerUnavailable}
	Stopping               = Refusal{Reason: "stopping", V5: packets.ErrServerShuttingDown, V3: v3ServerUnavailable}
	PreviousNotEnded       = Refusal{Reason: "previous connection did not end", V5: packets.ErrServerBusy, V3: v3ServerUnavailable}
	PublishNotAllowed      = Refusal{Reason: "publish not allowed", V5: packets.ErrNotAuthorized}
	ReservedTopic          = Refusal{Reason: topic.ErrReserved.Error(), V5: packets.ErrNotAuthorized}
	SubscribeNotAllowed    = Refusal{Reason: "subscribe not allowed", V5: packets.ErrNotAuthorized}
	MalformedPacket        = Refusal{Reason: "malformed packet", V5: packets.ErrMalformedPacket}
	ProtocolViolation      = Refusal{Reason: "protocol violation", V5: packets.ErrProtocolViolation}
	PacketTooLarge         = Refusal{Reason: "packet too large", V5: packets.ErrPacketTooLarge}
	InvalidPayloadFormat   = Refusal{Reason: "invalid payload format", V5: packets.ErrMalformedPacket}
	InvalidResponseTopic   = Refusal{Reason: "invalid response topic", V5: packets.ErrProtocolViolation}
	InvalidTopic           = Refusal{Reason: topic.ErrInvalid.Error(), V5: packets.ErrTopicNameInvalid}
	TopicAlias             = Refusal{Reason: "topic alias invalid", V5: packets.ErrTopicAliasInvalid}                             // [MQTT-3.2.2-17, MQTT-3.3.2-8]
	MessageWithoutID       = Refusal{Reason: "protocol violation: missing packet id", V5: packets.ErrProtocolViolationNoPacketID} // [MQTT-2.2.1-3]; of other packets: NoPacketID
	NoTopic                = Refusal{Reason: "protocol violation: no topic or alias", V5: packets.ErrProtocolViolationNoTopic}
	WildcardInTopic        = Refusal{Reason: "protocol violation: topic contains wildcards", V5: packets.ErrProtocolViolationSurplusWildcard}       // [MQTT-3.3.2-2]
	SubscriptionIDSent     = Refusal{Reason: "protocol violation: contained subscription identifier", V5: packets.ErrProtocolViolationSurplusSubID} // [MQTT-3.3.4-6]
	TooManyTopicLevels     = Refusal{Reason: topic.ErrTooDeep.Error(), V5: packets.ErrTopicNameInvalid}
	InvalidFilter          = Refusal{Reason: topic.ErrFilterInvalid.Error(), V5: packets.ErrTopicFilterInvalid}
	TooManyFilterLevels    = Refusal{Reason: topic.ErrFilterTooDeep.Error(), V5: packets.ErrTopicFilterInvalid}
	InvalidRetainHandling  = Refusal{Reason: "invalid retain handling", V5: packets.ErrProtocolViolation}
	ExpiryRaisedFromZero   = Refusal{Reason: "session expiry raised from zero", V5: packets.ErrProtocolViolationZeroNonZeroExpiry}
	AuthWithoutMethod      = Refusal{Reason: "authentication without a method", V5: packets.ErrProtocolViolation}
	PacketUnfinished       = Refusal{Reason: "packet not finished in time", V5: packets.ErrKeepAliveTimeout}
	ServerOnlyPacket       = Refusal{Reason: "packet that only a server sends", V5: packets.ErrProtocolViolation}
	FirstNotConnect        = Refusal{Reason: "first packet is not CONNECT", V5: packets.ErrProtocolViolation}
	SecondConnect          = Refusal{Reason: "second CONNECT", V5: packets.ErrProtocolViolation}
	UnsupportedVersion     = Refusal{Reason: "unsupported protocol version", V5: packets.ErrUnsupportedProtocolVersion, V3: V3UnacceptableVersion}
	NoFilter               = Refusal{Reason: "no topic filter", V5: packets.ErrProtocolViolation}
	TooManyUserProperties  = Refusal{Reason: "too many user properties", V5: packets.ErrQuotaExceeded}
	TooManyFilters         = Refusal{Reason: "too many filters in one packet", V5: packets.ErrQuotaExceeded}
	NoPacketID             = Refusal{Reason: "packet id 0", V5: packets.ErrProtocolViolation}
	UnknownReasonCode      = Refusal{Reason: "unknown reason code", V5: packets.ErrProtocolViolation}
	PropertyTwice          = Refusal{Reason: "property given twice", V5: packets.ErrProtocolViolation}
	ForbiddenValue         = Refusal{Reason: "forbidden value of a property", V5: packets.ErrProtocolViolation}
	AuthDataWithoutMethod  = Refusal{Reason: "authentication data without a method", V5: packets.ErrProtocolViolation}
	ReceiveMaximumExceeded = Refusal{Reason: "more unacknowledged messages than announced", V5: packets.ErrReceiveMaximum}
	WrongAcknowledgement   = Refusal{Reason: "acknowledgement of the wrong kind", V5: packets.ErrProtocolViolation}
	NotStoredInTime        = Refusal{Reason: "not stored in time", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable}
	SubscriberTooSlow      = Refusal{Reason: "too slow for what it subscribed to"} // a message to the account was dropped
)

// Refusals by a quota. MQTT 3.1.1 has no word for it. "Server unavailable" makes people look at the server, not for a
// wrong password, and libraries try again.
var (
	TooManyAccountConnections = Refusal{Reason: "too many connections of the account", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable}
	TooManyConnections        = Refusal{Reason: "too many connections", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable} // the network tells nothing
	TooManyAccountSessions    = Refusal{Reason: "too many sessions of the account", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable}
	TooManySessions           = Refusal{Reason: "too many sessions", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable}
	TooManySubscriptions      = Refusal{Reason: "too many subscriptions of the account", V5: packets.ErrQuotaExceeded}
	TooManyAccountRetained    = Refusal{Reason: "too many retained messages of the account", V5: packets.ErrQuotaExceeded}
	TooManyRetained           = Refusal{Reason: "too many retained messages", V5: packets.ErrQuotaExceeded}
	TooMuchWaits              = Refusal{Reason: "too much waits for the account", V5: packets.ErrQuotaExceeded, V3: v3ServerUnavailable} // or a message to it was dropped
	AccountRemoved            = Refusal{Reason: "account removed", V5: packets.ErrNotAuthorized}
)

// Refusals of a connection by the network: the client is told nothing.
var (
	TooManyFromAddress  = Refusal{Reason: "too many connections from one address"}
	NoConnectInTime     = Refusal{Reason: "no CONNECT in time"}
	HandshakeFailed     = Refusal{Reason: "TLS handshake failed"}
	UpgradeFailed       = Refusal{Reason: "websocket upgrade failed"}
	FirstPacketTooLarge = Refusal{Reason: "first packet too large"}
	TLSOnPlainPort      = Refusal{Reason: "TLS on a port without TLS"}
	FrameNotAllowed     = Refusal{Reason: "websocket frame not allowed"}
	SlowConsumer        = Refusal{Reason: "slow consumer"}
	WriteTimeout        = Refusal{Reason: "write timeout"}
	Panic               = Refusal{Reason: "panic"}
)

// What is counted beside the refusals.
var (
	AnswerDelayed = Refusal{Reason: "answer to a failed login delayed"} // beside the reason that it was refused for
)
