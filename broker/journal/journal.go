// Package journal is the contract between the broker, whose state must outlive it, and who keeps that state on disk: changes
// as batches, and the state as it is read at a start. What stands in the blobs is the broker's business and is encoded here
// too; who keeps them need not read them.
package journal

import "context"

// SessionID names one session. It is never used twice, so that what is left of one that has ended is nobody's.
type SessionID int64

// Storage keeps the state of one broker.
type Storage interface {
	// Load reads the state, before Attach and in any order.
	Load(ctx context.Context, l Loader) (Next, error)
	// Attach makes s the source of changes: from then on, in each transaction, s.Take is asked. Detach ends that, after a
	// last Take.
	Attach(s Source)
	Detach(ctx context.Context) error
	// Announce says that the source has something to commit soon: the next transaction begins at once when none runs. It
	// never waits.
	Announce()
	// Read appends the queues of a session that have entries above after, in order, to dst, until they and their messages
	// have limit bytes; at least one if there is one. It sees what was committed before the call.
	Read(ctx context.Context, id SessionID, after uint64, limit int, dst []Stored) ([]Stored, error)
}

// Next are numbers that were never used.
type Next struct {
	Session SessionID
	Batch   int64
}

// Loader takes the state at a start.
type Loader interface {
	Session(s Session) error
	Subscription(s Subscription) error
	// Waiting is a sum over the queues of one session.
	Waiting(w Waiting) error
	Retained(r Retained) error
}

// Source is the broker as the committer sees it. Its methods are called one at a time, by the committer's goroutine, and
// never wait for it or for a client.
type Source interface {
	// Take returns all that has changed since the last Take, as it is at one instant; nil if that is nothing.
	Take() *Batch
	// Done says what became of the batch that Take returned last: nil says that it is on disk, an error that nothing of it
	// is, and the source returns the same batch, and what has come since, from the next Take. It is called once for each
	// batch. A batch of which it is not known whether it is on disk is not done yet: whoever commits finds that out first.
	Done(b *Batch, err error)
	// Rewrite says that some of what is kept may be lost: the file was damaged and made anew from what could be read. The
	// source gives all of its sessions, subscriptions and retained messages again with the batches that follow. It may be
	// called between Take and Done.
	Rewrite()
}

// Batch is a set of changes that is committed as a whole. Within it there is no order, except that Ended comes last.
type Batch struct {
	Number        int64 // ascending, never used twice
	Messages      []byte
	Sessions      []Session
	Subscriptions []Subscription
	Queues        []Queue // their entries refer to Messages
	Trims         []Trim
	Retained      []Retained
	Ended         []SessionID // all that there is of them goes: sessions, subscriptions, queues
}

// Empty reports whether nothing is to be written. Such a batch says only that somebody waits for all that came before it.
func (b *Batch) Empty() bool {
	return len(b.Sessions)+len(b.Subscriptions)+len(b.Queues)+len(b.Trims)+len(b.Retained)+len(b.Ended) == 0
}

// Session is what must be known of a session besides its subscriptions and messages. One that replaces another with
// the same ID is its newer state.
type Session struct {
	ID              SessionID
	Client, Account string
	State           []byte
}

// Subscription is one filter of a session; Options nil removes it.
type Subscription struct {
	Session SessionID
	Filter  string
	Options []byte
}

// Queue is what was added to the queue of a session by one batch. There is at most one for each session and batch; the
// session need not be among those that were given as a Session: one that ends with its connection has only queues,
// and they are nobody's after a restart.
type Queue struct {
	Session     SessionID
	First, Last uint64 // numbers of the first and last entry
	Messages    int
	Bytes       int64 // what its messages are charged with
	Entries     []byte
}

// Trim says that no entry below Before is needed any more: queues that have only such ones go, and so do the messages of
// batches to which no queue refers.
type Trim struct {
	Session SessionID
	Before  uint64
}

// Retained is the retained message of a topic; Message nil removes it.
type Retained struct {
	Topic, Account string // Account is "" for what no account owns
	Message        []byte
}

// Waiting is what waits for a session on disk.
type Waiting struct {
	Session     SessionID
	First, Last uint64
	Messages    int64
	Bytes       int64
}

// Stored is a queue with the messages of its batch.
type Stored struct {
	Queue
	Pack []byte // Messages of its batch
}
