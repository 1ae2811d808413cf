package session

// Kind says what an Effect asks of the router.
type Kind uint8

// The effects. The first six are for the session's own connection.
const (
	// Publish, Puback, Pubrec, Pubrel, Pubcomp: write AppendPacket's bytes.
	Publish Kind = iota + 1
	Puback
	Pubrec
	Pubrel
	Pubcomp
	// Close: write AppendPacket's bytes (a DISCONNECT for MQTT 5, nothing
	// before it), close the connection, then call Disconnect with Lost.
	Close
	// Delivered: the subscriber has taken over the message of Token, which is
	// nil where only the end of the entry Seq is to be told.
	Delivered
	// Dropped: the message of Token will not be delivered, because of Drop
	// (and Reason, when the subscriber refused it); Token may be nil, too. With
	// a PacketID its sending had begun, at this QoS.
	Dropped
	// WillDue: check the publisher's access, then route Message.
	WillDue
	// Ended: the session's state is gone. Take the filters in Subscriptions
	// out of the table; if the session is not connected, forget it. Entries
	// above Seq were in the tail.
	Ended
	// Enqueued: Entry returns what must be kept until it is Delivered or
	// Dropped (in a lasting session), or until it is given to Load.
	Enqueued
)

// Drop says why a message was not delivered.
type Drop uint8

// The reasons for Dropped.
const (
	DropExpired   Drop = iota // its lifetime ended before it was sent [MQTT-3.3.2-5]
	DropTooLarge              // above the client's Maximum Packet Size [MQTT-3.1.2-24, -25]
	DropQueueFull             // the session holds as much as it may
	DropOffline               // QoS 0 and the client is away
	DropRefused               // PUBACK or PUBREC of 0x80 and above
	DropEnded                 // the session ended first
	DropLost                  // what was kept of it could not be read
	numDrops
)

// Effect is one thing for the router to do. Only the fields that its Kind
// names are set.
type Effect struct {
	Kind       Kind
	QoS        byte
	DUP        bool
	Retain     bool
	Reason     Reason
	Drop       Drop
	TopicKnown bool // of a Publish: the client has the topic of its Alias, which is left out
	PacketID   uint16
	Alias      uint16 // of the topic of a Publish, for MQTT 5; 0: none
	Expiry     uint32 // seconds left, 0: no expiry
	Message    *Message
	// SubscriptionIDs of a Publish, for MQTT 5.
	SubscriptionIDs []uint32
	Token           any
	Subscriptions   map[string]Subscription
	Seq             uint64 // of the entry, in a lasting session; 0: none. See Ended
}

// Entry is what an Enqueued is about.
func (e *Effect) Entry() Entry {
	return Entry{Seq: e.Seq, Message: e.Message, QoS: e.QoS, Retain: e.Retain, SubscriptionIDs: e.SubscriptionIDs, Token: e.Token}
}

// IsPacket reports whether the effect is for the session's connection. Such
// effects must be handed to it in order, before the session's lock is released.
func (e *Effect) IsPacket() bool { return e.Kind <= Close }
