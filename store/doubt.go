package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/plantops/plantops/store/block"
)

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
		err = s.w.commit.run()
	}
	if err != nil {
		_ = s.w.rollback.run() // the first error is the one that matters
		return false, err
	}
	if stored { // also where a later sync does not write again what an earlier one could not
		err = s.w.run(context.Background(), `PRAGMA wal_checkpoint(PASSIVE)`)
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
