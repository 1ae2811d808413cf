// Package session is the MQTT session as a state machine: what a broker must
// remember for one client id, and what follows from each event. It knows no
// sockets, clocks, locks or goroutines. Events and the time go in, effects come
// out; the router around it owns the rest: reading and writing packets, access
// rules, the table of subscriptions, receipts.
//
// # How to use it
//
// Keep one [Session] per client id, and one lock for each; every method is
// called with that lock held. Methods append to the []Effect that they are
// given and return it. A caller keeps one slice, passes it as out[:0], and
// clears it when done, so that nothing is allocated and no message is kept:
//
//	s.mu.Lock()
//	out := s.state.Puback(now, id, reason, s.out[:0])
//	for i := range out {
//		if out[i].IsPacket() {
//			buf = out[i].AppendPacket(buf, s.state.Version())
//		}
//	}
//	conn.Write(buf) // never waits, so it may be called under the lock
//	s.mu.Unlock()
//	// then Delivered, Dropped, WillDue and Ended
//
// Packet effects ([Publish] to [Close]) go to the session's own connection, in
// order, before the lock is released. The others lead into other sessions,
// so they are done after it is released: never hold two session locks.
// After a [Close] the connection is finished: no packet of it goes in any more.
//
// A message for many sessions is one shared, immutable [Message]. One that is
// sent to several QoS 0 subscribers has the same bytes for all that agree in
// version, Retain, Expiry, SubscriptionIDs, Alias and TopicKnown. To a client that takes topic aliases, each packet follows
// from those before it: none may be left out while the connection goes on.
//
// # A connection's life
//
// [Session.Connect] says whether a session is present and may return effects
// of the previous life (a will, Ended, Dropped), no packets. The session is
// then paused. The router writes CONNACK and calls [Session.Resume]: nothing
// precedes CONNACK. With Clean, the subscriptions in Ended must leave the table
// before the lock is let go.
//
// [Session.Pause] when the connection's queue is above its mark, Resume with
// the free room when it has drained and [Session.Paused] says so. Meanwhile QoS 0
// messages wait too, within the bounds; acknowledgements go out at any time.
//
// [Session.Disconnect] comes exactly once for each Connect, before the next
// one: at a takeover the router writes DISCONNECT 0x8E, ends the old
// connection, waits until its reader has returned, disconnects, then connects.
// A Session Expiry Interval in DISCONNECT goes to [Session.SetExpiry] first.
// After that [Session.Deadline] says when to call [Session.Tick]: for a
// delayed will, and for the session's end.
//
// # To the client
//
// [Session.Deliver] with an [Offer]. QoS is the lower of publication and
// subscription. QoS 1 and 2 share one queue and keep their order; QoS 0 may
// overtake them, not each other. At most the window is unacknowledged: the
// client's Receive Maximum and Options.Window, the smaller. On the next
// connection what was sent is sent again in order, within the new window:
// PUBREL for what is past PUBREC, PUBLISH with DUP for the rest; what was never
// sent goes without DUP. Expired messages are dropped before their first
// sending, never after. QoS 0 goes to nobody who is away, which MQTT leaves to
// the server.
//
// The queue has a head, which is bounded and in memory, and a tail, which is
// with the router: it gets each entry in an [Enqueued], and gives them back, in
// order, with [Session.Load] when [Session.WantsLoad] asks for them. Of QoS 0 the
// newest is dropped where there is no room. Of a session that lasts (Options.Kept)
// the router gets every entry, and keeps it until Delivered or Dropped names its
// number: while the client is away the session holds none.
//
// # Over a restart
//
// [Session.AppendState] writes what must outlive the broker beside the entries
// and subscriptions, and [Session.Restore] makes a new session of it, which then
// loads its entries as any other. What it says must be on disk before the client
// sees a PUBLISH of QoS 2, a PUBREL or PUBCOMP that follows from it. Codec has
// the encodings of all that is kept.
//
// A Token of the offer comes back exactly once, to Load if the message was in the tail. [Delivered]: PUBACK for QoS 1,
// PUBREC for QoS 2 (from there on the client owns the message), the hand-over
// to the connection for QoS 0. [Dropped]: everything else, with the reason.
// It may come back from within Deliver. Drops without a token are counted in [Stats].
//
// # From the client
//
// [Session.Receive] for each valid PUBLISH gives a [Verdict], and for QoS 1 and
// 2 a [Ticket]. On Route, the router routes and, when everything that the
// acknowledgement promises has happened, calls [Session.Complete] from
// wherever that is, in any order. PUBACKs leave in the order of their messages, and so
// do PUBRECs; a refusal is a Complete with its reason. QoS 2 ids are held until
// PUBREL, over connections: a repetition is a Duplicate, and its PUBREC
// leaves when the first one's work is complete. A PUBLISH that
// is sent again while its acknowledgement is still to come is the same message
// when it says the same, and another one when not: ask [Session.Repeated] first.
// With DUP or without: libraries differ. Say [Session.Routed] in the same batch in
// which the subscribers have it. A ticket of an older
// connection never causes a PUBACK on a newer one. When storage stalls, the
// router disconnects and lets the ticket complete late. When the message
// is lost on our side, [Session.Abandon] sees to it that the client repeats it.
//
// # Beside the session
//
// [ShareQueue] holds what no member of a share group has; [Session.Takes] tells
// whether a member could be sent a message at once. [Retained] stores retained
// messages and is walked with a [Cursor], a bounded part at a time; offer no
// more than [Session.Room] of them to keep to the connection's pace, with
// Offer.Retained. Because the walk reads the store as it goes, store a retained
// message before routing it, and nobody gets an old value after a newer one.
//
// # The files
//
//	session.go       a connection begins and ends, and so does a session
//	effect.go        what the router is asked to do
//	incoming.go      messages from the client: tickets, the row of acknowledgements
//	repeat.go        messages that are sent again before their acknowledgement
//	outgoing.go      messages to the client: queues, the window, what is sent again
//	acks.go          what the client acknowledges
//	alias.go         topics that the client knows by number
//	ids.go           packet ids in use
//	tail.go          the part of the queue that is with the router
//	state.go         a session over a restart
//	codec.go         messages, entries, subscriptions as they are kept
//	ring.go          the queues
//	message.go       what is published
//	will.go          the will
//	instant.go       times, as a session keeps them
//	subscription.go  subscriptions, and how they merge for one message
//	shared.go        the queue of a share group
//	retained.go      the store of retained messages
//	cursor.go        a way through that store in bounded parts
//	wire.go          packets as bytes
package session
