package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/plantops/plantops/store/block"
	"github.com/plantops/plantops/store/hourly"
)

// transaction is what the running write transaction has changed so far of what is kept in memory. It is applied when the
// transaction is committed and forgotten when it is rolled back.
type transaction struct {
	touched    []*device // next differs from the facts
	devices    []*device // created
	metrics    []newMetric
	bound      []rebound
	seen       map[boot]*numberedBoot // of the starts whose numbered messages came
	boots      []boot                 // the keys of seen, in order of use
	skipped    map[skippedKey]*skippedRow
	newSkipped map[int64]int64 // rows of skipped that the table does not have, by device

	version    int64 // PRAGMA data_version when the state was last known to be right
	quarantine quarantineSize
	aged       quarantineAge
	originals  originalsSize

	// What goes into the journal's record; seq is 0 before it is written.
	seq     int64
	entries []block.Entry
	index   map[placed]int // of the first indexed entries
	indexed int

	lazy bool // nobody waits for it: it may be on disk with the next one

	flushed []flushed               // devices whose readings went into blocks
	counted []*device               // devices whose counters are in their table now
	late    map[*device]hourly.Span // as in table sql_due now
	tables  *keptTables             // as in table sql_state now; nil: as before

	outlived map[*device]hoursKept // as in table sql_kept now

	cut int64 // the first record of the journal that is left; 0: nothing was cut off

	payloads int // bytes of messages that are kept as they came

	// Kept between messages only to save allocations.
	pairs, old, values []block.Value
	body, record       []byte
	changes            []block.Change
	numbers            []int64
}

// unknownVersion is no data_version: the next transaction loads the state.
const unknownVersion = -1

type newMetric struct {
	name string
	by   *device
}

type transactionStatements struct {
	begin, commit, rollback, version, updateCounter, addRefusal *statement
}

func (q *transactionStatements) all() []compile {
	return []compile{
		{&q.begin, `BEGIN IMMEDIATE`},
		{&q.commit, `COMMIT`},
		{&q.rollback, `ROLLBACK`},
		{&q.version, `PRAGMA data_version`},
		{&q.updateCounter, `UPDATE counter SET stored = ?, duplicate = ?, quarantined = ?, refused = ?, rows = ?, last_seen = ?,
			last_reading = ?, dropped = ?, skipped = ?, left_at = ?, unsure_seen = ?, unsure_line = ? WHERE device = ?`},
		{&q.addRefusal, `INSERT INTO refusal (reason, count) VALUES (?, ?)
			ON CONFLICT (reason) DO UPDATE SET count = count + excluded.count`},
	}
}

// transact runs change in a write transaction together with what waits, the refused counts and what the broker has changed,
// and has it on disk when it returns nil. After an error nothing of change is stored, in the file or in memory; only when it
// wraps ErrInDoubt, that is not known yet. The caller holds the right to write.
//
// change may be nil, and may run twice: where the broker's part was at fault it runs again without it.
func (s *Store) transact(change func() error) error {
	s.answerBroker() // before it is asked again
	if err := s.settlePending(); err != nil {
		return err
	}
	s.answerBroker()
	err := s.commit(change, s.brokerDue())
	if err != nil && s.broker.taken != nil && s.doubt == nil && change != nil {
		s.answerBroker()
		err = s.commit(change, false)
	}
	if err != nil {
		return s.suspect(s.explainWrite(err))
	}
	return nil
}

// commit is one attempt of transact.
func (s *Store) commit(change func() error, withBroker bool) error {
	if err := s.beginTransaction(); err != nil {
		return err
	}
	refused, err := s.fill(change, withBroker)
	if err == nil {
		commit := s.w.commitSynced
		if s.tx.lazy && len(refused) == 0 && s.broker.taken == nil {
			commit = func() error { return s.w.commit.run() }
		}
		if err = commit(); err != nil && isDoubtful(err) && s.tx.seq > 0 {
			return s.inDoubt(err, refused)
		}
	}
	if err != nil {
		s.undo()
		s.broker.fault = cmp.Or(s.broker.fault, err)
		return err
	}
	s.w.copier.committed(s.weight())
	s.apply(refused)
	return nil
}

// weight is about how many bytes of the log the running transaction takes.
func (s *Store) weight() int {
	n := len(s.tx.record) + s.tx.payloads + pageBytes*(4+8*len(s.tx.flushed))
	if b := s.broker.taken; b != nil {
		n += len(b.Messages) + pageBytes*len(b.Queues)
	}
	return n
}

// fill puts everything into the running transaction and returns which refused counts it took.
func (s *Store) fill(change func() error, withBroker bool) (refused map[refusal]int64, err error) {
	if change != nil {
		err = change()
	}
	if err == nil {
		refused, err = s.writeRefused()
	}
	if err == nil {
		err = s.writeSeen()
	}
	if err == nil {
		err = s.writeSkipped()
	}
	if err == nil && withBroker {
		err = s.takeFromBroker()
	}
	b := &s.broker
	if written := b.taken != nil && b.fault == nil && !b.taken.Empty(); err == nil && len(s.tx.touched) == 0 && (written || change != nil) {
		s.touch(s.state.devices[""]) // for the stamp
	}
	if err == nil {
		err = s.writeRecord()
	}
	return refused, err
}

// beginTransaction takes the write lock of the file and looks whether another process has written since.
func (s *Store) beginTransaction() error {
	err := s.w.begin.run()
	if err != nil && code(err) != codeBusy {
		// Perhaps an error that left the last transaction open even after its rollback.
		_ = s.w.rollback.run()
		err = s.w.begin.run()
	}
	if err != nil {
		return err
	}
	version, err := s.w.version.number()
	if err == nil && version != s.tx.version {
		err = s.reload()
	}
	if err != nil {
		_ = s.w.rollback.run() // the first error is the one that matters
		return err
	}
	s.tx.version = version
	return nil
}

// touch marks a device as changed by this transaction; changes go to d.next.
func (s *Store) touch(d *device) {
	if !d.touched {
		d.touched = true
		d.next, d.pending = d.facts, 0
		s.tx.touched = append(s.tx.touched, d)
	}
}

// writeCounters writes the counters of devices into their table. They may have been chosen before the transaction began, and read anew
// since.
func (s *Store) writeCounters(devices []*device) error {
	for _, d := range devices {
		if d = s.state.byID[d.id]; d == nil {
			continue // it was removed
		}
		n := &d.facts
		if d.touched {
			n = &d.next
		}
		err := s.w.updateCounter.run(n.counts.Stored, n.counts.Duplicate, n.counts.Quarantined, n.counts.Refused,
			n.rows, n.lastSeen, n.lastReading, n.dropped, n.skipped, n.leftAt, n.unsureSeen, n.unsureLine, d.id)
		if err != nil {
			return fmt.Errorf("write counters of device %q: %w", d.name, err)
		}
		s.tx.counted = append(s.tx.counted, d)
	}
	return nil
}

// writeRefused takes the refused counts that wait into the transaction and returns what it took.
func (s *Store) writeRefused() (map[refusal]int64, error) {
	s.state.mu.RLock()
	refused := maps.Clone(s.state.refused)
	s.state.mu.RUnlock()
	for r, n := range refused {
		d, known := s.state.devices[r.device]
		if !known { // its creation was rolled back
			d = s.state.devices[""]
		}
		s.touch(d)
		d.next.counts.Refused += n
		if err := s.w.addRefusal.run(r.reason, n); err != nil {
			return nil, fmt.Errorf("count refused messages: %w", err)
		}
	}
	return refused, nil
}

// apply makes the committed transaction visible to readers of the state.
func (s *Store) apply(refused map[refusal]int64) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	for _, d := range s.tx.touched {
		d.facts, d.touched = d.next, false
	}
	for r, n := range refused {
		s.state.refusals[r.reason] += n
		if s.state.refused[r] -= n; s.state.refused[r] == 0 {
			delete(s.state.refused, r)
		}
	}
	s.applyRecord()
	s.applyTables()
	s.tx.forget()
	q := &s.tx.quarantine
	if q.committed, q.entries = q.next, q.nextEntries; q.known {
		s.entries.Store(q.entries + 1)
	} else {
		s.entries.Store(0) // to be counted anew
	}
	s.tx.originals.committed = s.tx.originals.next
}

// undo rolls the transaction back, in the file and in memory.
func (s *Store) undo() {
	if err := s.w.rollback.run(); err != nil {
		// SQLite rolls back by itself after some errors; the next transaction tries again otherwise.
		s.log.Debug("roll back", "err", err)
	}
	clear(s.lookups) // they may have seen blocks that are no more
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	for _, d := range s.tx.touched {
		d.touched = false
	}
	s.unbind()
	for _, d := range s.tx.devices {
		delete(s.state.devices, d.name)
		delete(s.state.byID, d.id)
	}
	for _, m := range s.tx.metrics {
		m.by.metrics--
		delete(s.state.names, s.state.metrics[m.name])
		delete(s.state.metrics, m.name)
	}
	s.tx.forget()
	s.tx.quarantine.next, s.tx.quarantine.nextEntries = s.tx.quarantine.committed, s.tx.quarantine.entries
	s.tx.originals.next = s.tx.originals.committed
}

func (t *transaction) forget() {
	clear(t.touched) // so that they can be collected after a reload
	clear(t.seen)
	clear(t.skipped)
	clear(t.newSkipped)
	clear(t.index)
	clear(t.entries) // of their texts
	clear(t.flushed)
	clear(t.counted)
	clear(t.late)
	clear(t.outlived)
	t.tables = nil
	t.boots = t.boots[:0]
	t.seq, t.indexed, t.cut, t.lazy, t.payloads = 0, 0, 0, false, 0
	t.entries, t.values, t.flushed, t.counted = t.entries[:0], t.values[:0], t.flushed[:0], t.counted[:0]
	t.touched, t.devices, t.metrics, t.bound = t.touched[:0], t.devices[:0], t.metrics[:0], t.bound[:0]
}

// A COMMIT that fails may have put its transaction into the write-ahead log: what could not be synced, or was not said to be,
// may be there after a power cut all the same. So each transaction has a stamp in its record of the journal, and after
// such an error another transaction looks for the stamp and is committed itself. Then it is certain: the log before it is
// synced, or it stands where the other one stood.

const (
	// settlePatience is how long whoever commits waits for certainty. Then it is left to the next one.
	settlePatience  = 2 * time.Second
	firstSettleWait = 10 * time.Millisecond
	settleReopen    = 3 // attempts with one connection
)

// doubt is a transaction of which it is not known whether it is in the file.
type doubt struct {
	cause   error
	seq     int64 // its record of the journal
	stamp   int64 // which says that it is there
	refused map[refusal]int64
	answers []answer // of Append
}

// answer are the outcomes of a batch whose caller was told that it is not known what became of it.
type answer struct {
	batch    [sha256.Size]byte
	outcomes []Outcome
}

// isDoubtful reports whether an error of COMMIT leaves it open what is in the file.
func isDoubtful(err error) bool {
	n := code(err)
	return n == codeIO || n == 0
}

// inDoubt finds out what became of the running transaction after an error of COMMIT. With nil it is stored, as it was meant.
func (s *Store) inDoubt(cause error, refused map[refusal]int64) error {
	s.doubt = &doubt{cause: cause, seq: s.tx.seq, stamp: s.stamp, refused: refused}
	s.undo()
	return s.settle()
}

// settle ends a doubt. nil: its transaction is stored, and the memory knows it. An error that wraps ErrInDoubt: it is still
// not known. Any other one: nothing of it is stored.
func (s *Store) settle() error {
	d, began, wait := s.doubt, time.Now(), firstSettleWait
	stored, err := s.settleOnce()
	for attempt := 1; err != nil && !s.isFull(err) && time.Since(began) < settlePatience; attempt++ {
		time.Sleep(wait)
		wait *= 2
		if attempt%settleReopen == 0 && s.w != nil {
			_ = s.w.close() // it fails already
			s.w = nil
		}
		stored, err = s.settleOnce()
	}
	if err != nil {
		return fmt.Errorf("%w: %w (first: %w)", ErrInDoubt, err, d.cause)
	}
	s.log.Warn("a commit had failed; what became of it is known now", "stored", stored, "err", d.cause)
	s.doubt, s.tx.version = nil, unknownVersion // what is in memory is from before
	if !stored {
		s.broker.fault = cmp.Or(s.broker.fault, d.cause)
		return d.cause
	}
	s.state.forgetRefused(d.refused)
	s.answers = d.answers
	if err := s.reload(); err != nil {
		s.log.Warn("read what was committed", "err", err) // the next transaction reads it again
	}
	return nil
}

// settlePending is settle for who finds a doubt. What became of that transaction is nothing to him.
func (s *Store) settlePending() error {
	if s.doubt == nil {
		return nil
	}
	if err := s.settle(); err != nil && s.doubt != nil {
		return s.suspect(s.explainWrite(err))
	}
	return nil
}

// settleOnce looks for the stamp in a transaction, and commits it with another one.
func (s *Store) settleOnce() (stored bool, err error) {
	if err := s.reopen(); err != nil {
		return false, err
	}
	_ = s.w.rollback.run() // there may be none
	if err := s.w.begin.run(); err != nil {
		return false, err
	}
	d := s.doubt
	stored, err = s.hasStamp(d.seq, d.stamp)
	if err == nil {
		err = s.writeStamp()
	}
	if err == nil {
		err = s.w.commitSynced()
	}
	if err != nil {
		_ = s.w.rollback.run() // the first error is the one that matters
		return false, err
	}
	if stored { // also where a later sync does not write again what an earlier one could not
		err = s.w.checkpointAll()
	}
	return stored, err
}

// writeStamp writes a record of the journal with nothing but a stamp.
func (s *Store) writeStamp() error {
	last, err := s.w.lastRecord.number()
	if err != nil {
		return err
	}
	s.stamp++
	seq := max(last, s.journal.seq) + 1
	return s.w.insertRecord.run(seq, block.AppendCommit(nil, seq, &block.Commit{Stamp: s.stamp}))
}

// reload reads what is kept in memory anew.
func (s *Store) reload() error {
	if err := s.load(context.Background()); err != nil {
		return err
	}
	s.tx.quarantine, s.tx.originals = quarantineSize{}, originalsSize{}
	s.entries.Store(0) // to be counted anew
	return s.loadAccounts(context.Background())
}

// keepAnswer remembers the outcomes of a batch that is in doubt.
func (s *Store) keepAnswer(batch []Message, outcomes []Outcome) {
	if s.doubt != nil {
		s.doubt.answers = append(s.doubt.answers, answer{digest(batch), slices.Clone(outcomes)})
	}
}

// recall returns the outcomes of a batch that was in doubt and is stored, once. A batch that is another one ends that: who
// does not give the same again does not wait for an answer.
func (s *Store) recall(batch []Message) []Outcome {
	if len(s.answers) == 0 {
		return nil
	}
	key := digest(batch)
	i := slices.IndexFunc(s.answers, func(a answer) bool { return a.batch == key })
	if i < 0 {
		s.answers = nil
		return nil
	}
	outcomes := s.answers[i].outcomes
	s.answers = slices.Delete(s.answers, i, i+1)
	return outcomes
}

// digest tells a batch again. It is slow, and needed after a fault of the disk only.
func digest(batch []Message) [sha256.Size]byte { return sha256.Sum256(fmt.Appendf(nil, "%v", batch)) }
