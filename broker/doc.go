// Package broker is the MQTT broker: identity and access, sessions, routing and quotas around the embedded mochi server. mochi
// decodes packets; who gets a message and what becomes of it is decided here. What is in it is for others: the broker stores nothing
// but its own state, through journal.Storage. Sockets are in package network, the form of packets in validate, rules in
// access, the words of refusals in refusal, the table of subscriptions in route, one client's session in session, the syntax
// of topics in topic.
//
// # The way of a reading
//
// A PUBLISH of QoS 1 for a topic that must be stored, and its PUBACK; of a session, the files stand below session/:
//
//	network/conn.go      Read takes bytes from the socket, through TLS or websocket
//	link.go              Read has validate/screen.go judge their form, packet by packet
//	loop.go              take has mochi decode one packet after the other
//	dispatch.go          dispatch, takePublish: may this account publish to this topic? If not, answer.go
//	receive.go           receive: session/incoming.go gives it a place in the row of acknowledgements, the ticket
//	subscribers.go       who gets it, and that ingest must store it
//	receive.go           receiveForIngest makes a receipt, which remembers connection and ticket
//	intake.go            takes a credit for it; without one the sender's reader waits, and TCP slows the sender down
//	router.go            publish, deliverToIngest: session/outgoing.go queues it for ingest, with the receipt as token
//	work.go              apply puts the packet into the queue of ingest's connection, network/writer.go
//	loop.go              endRound, when everything that was read is dealt with: the queues are written
//	                     package ingest receives it, stores it, and sends a PUBACK, which comes in the same way
//	receive.go           acknowledged: session/acks.go says that the message of this token is delivered
//	work.go, router.go   settle, resolve: the credit goes back, and complete gives the sender's session the ticket
//	session/incoming.go  Complete: a PUBACK leaves when those before it have left
//	work.go              apply writes it into the queue of the sender's connection
//	loop.go              endRound, of ingest's reader, flushes that queue
//	network/writer.go    writeAll takes it from the queue, and writeBatch writes it to the socket
//
// Whatever else the acknowledgement promises is waited for in the same way: the receipt counts what must be on disk (owe in
// router.go), ledger.go hands it to the storage as a batch, and release in work.go goes on when that is committed. One
// publish step is in one batch, whole. What a client may see only then (QoS 2, SUBACK) waits in its outbox (work.go). Messages for
// which a session has no room in memory are its tail: restore.go loads them when the client can take them.
//
// When ingest does not acknowledge in time, the clock in attach.go has router.go's sweep end the sender's connection. A message that
// nobody must store is complete as soon as it is in the sessions of its subscribers.
//
// # The files
//
//	broker.go        Listen, Start, Close and what the program asks of a running broker
//	options.go       what it must be told; no limit has a default here
//	hook.go          connections as they begin and end; a panic; what mochi logs
//	auth.go          CONNECT: who a client is and whether it is let in
//	gate.go          keeps clients out until the program is ready
//	sessions.go      who has a client id: the same account takes over, another one is refused (claim); evicting. An id that
//	                 is the name of another account is refused in auth.go (mayUseClientID)
//	attach.go        a connection begins or ends to use its session; the will; what is due at a time
//	normalise.go     what mochi gets to see of a CONNECT, and what its packets say; bridges of Mosquitto, with what they send beside MQTT
//	link.go          one connection as the core sees it
//	loop.go          what is done between two reads
//	dispatch.go      every packet of a client, and what may be published
//	receive.go       messages and acknowledgements that come in, one by one or as a bundle
//	subscribe.go     SUBSCRIBE and UNSUBSCRIBE: where a session gets subscriptions and loses them
//	answer.go        what a client is told when it is refused
//	router.go        from publishers' sessions to subscribers', and acknowledgements back
//	subscribers.go   who gets the messages of a topic
//	unread.go        topics of devices that nobody reads
//	shares.go        share groups: each has a queue, from which its members take
//	giving.go        which member gets a message
//	retained.go      retained messages: kept, delivered, removed
//	work.go          does what session says
//	peer.go          one client id with its session
//	intake.go        credits and receipts for what must be stored; a message that tests the way into the store
//	ledger.go        what must be on disk and is not yet
//	restore.go       the state at a start, and the tails of queues, back from disk
//	backpressure.go  publishers wait for a subscriber
//	quota.go         what one account may have
//	stats.go         figures, in all and by device
//	system.go        the topics under $SYS
package broker
