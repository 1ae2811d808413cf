package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/plantops/plantops/store/swap"
)

const (
	asideSuffix = ".aside"
	// maxAsideBytes bounds the side file. Beyond it nothing is acknowledged that the database refuses.
	maxAsideBytes = 64 << 20
)

// aside is a file beside the database for messages that the database refuses even for its quarantine. They are in it, and
// synced, before they are acknowledged; the next start takes them into the quarantine. The first line names the file.
type aside struct {
	path string

	mu       sync.Mutex
	size     int64
	named    bool             // the file has its name, in a line of its own
	byDevice map[string]int64 // messages that no counter has yet
}

// asideLine is one message, or the name of the file.
type asideLine struct {
	File     string `json:"file,omitempty"`
	Device   string `json:"device,omitempty"`
	Topic    string `json:"topic,omitempty"`
	Received int64  `json:"received,omitempty"` // UTC ms
	Unsure   bool   `json:"clock_unsure,omitempty"`
	Line     int64  `json:"clock_line,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Payload  []byte `json:"payload,omitempty"`
}

// add writes a message and returns when it is on disk.
func (a *aside) add(m *Message, reason string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var text []byte
	if a.size > 0 {
		text = append(text, '\n') // the last line may be torn, by a power cut or a full disk
	}
	if !a.named {
		text = appendLine(text, asideLine{File: hex.EncodeToString(random(16))})
	}
	text = appendLine(text, asideLine{Device: m.Device, Topic: m.Topic, Received: m.Received, Unsure: m.ClockUnsure, Line: m.ClockLine, Reason: reason, Payload: m.Payload})
	if a.size+int64(len(text)) > maxAsideBytes {
		return fmt.Errorf("%s has its %d MiB: stop the server and look at the disk", a.path, maxAsideBytes>>20)
	}
	file, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err = giveToOwnerOf(filepath.Dir(a.path), file); err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil && a.size == 0 {
		err = swap.SyncDir(a.path)
	}
	if err != nil {
		_ = os.Truncate(a.path, a.size) // or else a torn line stays, which read passes over
		return err
	}
	a.size, a.named = a.size+int64(len(text)), true
	a.byDevice[m.Device]++
	return nil
}

func appendLine(to []byte, line asideLine) []byte {
	text, _ := json.Marshal(line) // of texts, numbers and bytes: it cannot fail
	return append(append(to, text...), '\n')
}

// read returns what the file holds. A last line that is torn was never acknowledged.
func (a *aside) read() (name string, lines []asideLine, err error) {
	text, err := os.ReadFile(a.path)
	if err != nil {
		return "", nil, err
	}
	for text := range bytes.Lines(text) {
		var line asideLine
		if json.Unmarshal(text, &line) != nil {
			continue
		}
		if line.File != "" {
			name = line.File
			continue
		}
		lines = append(lines, line)
	}
	return name, lines, nil
}

// takeAside brings the messages of the side file into the quarantine, once, and removes it. Where the database refuses them
// still they stay, and count.
func (s *Store) takeAside(ctx context.Context) error {
	name, lines, err := s.aside.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("messages beside the database: %w", err)
	}
	known, err := int64(0), error(nil)
	if name != "" {
		known, err = s.w.countTaken.number(name)
	}
	if err == nil && known == 0 {
		err = s.transact(func() error {
			for _, l := range lines {
				m := Message{Kind: Bad, Device: l.Device, Topic: l.Topic, Received: l.Received, ClockUnsure: l.Unsure, ClockLine: l.Line,
					Payload: l.Payload, Reason: l.Reason}
				if _, err := s.appendMessage(&m); err != nil {
					return err
				}
			}
			if name == "" { // torn, and nothing behind it
				return nil
			}
			return s.w.noteTaken.run(name)
		})
	}
	if err != nil {
		s.log.Error("messages beside the database cannot be taken in", "file", s.aside.path, "count", len(lines), "err", err)
		return s.aside.keep(name, lines)
	}
	if known == 0 {
		s.log.Warn("messages that the database had refused are in its quarantine now", "count", len(lines))
	}
	return errors.Join(os.Remove(s.aside.path), swap.SyncDir(s.aside.path))
}

// keep counts what stays in the file.
func (a *aside) keep(name string, lines []asideLine) error {
	info, err := os.Stat(a.path)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.size, a.named = info.Size(), name != ""
	for _, l := range lines {
		a.byDevice[l.Device]++
	}
	return nil
}

// quarantined returns how many messages of a device are in the file, or of all with "*".
func (a *aside) quarantined(device string) (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if device != "*" {
		return a.byDevice[device]
	}
	for _, more := range a.byDevice {
		n += more
	}
	return n
}

// asideStatements say which side files were taken in.
type asideStatements struct {
	countTaken, noteTaken *statement
}

func (q *asideStatements) all() []compile {
	return []compile{
		{&q.countTaken, `SELECT count(*) FROM taken WHERE file = ?`},
		{&q.noteTaken, `INSERT INTO taken (file) VALUES (?)`},
	}
}

// SQLite's result codes of trouble that can pass: a batch is given again as it is.
func mayPass(code int) bool {
	switch code {
	case codeBusy, 6, 7, codeReadOnly, 9, codeIO, codeFull, codeCannotUse, 15: // LOCKED, NOMEM, INTERRUPT, PROTOCOL
		return true
	}
	return false
}

// isLasting reports whether the same statements would fail again: something in the file is damaged, or what is to be stored
// does not fit into it.
func isLasting(err error) bool {
	if isDamage(err) {
		return true
	}
	n := code(err)
	return n != 0 && !mayPass(n)
}

// isolate stores a batch of which something cannot be stored: it is halved until what fails is one message. That one goes
// where it can be kept (setAside), the others are stored. outcomes is appended to as by Append, after an error too: what is
// committed by then has its outcome.
func (s *Store) isolate(batch []Message, outcomes []Outcome, cause error) ([]Outcome, error) {
	if len(batch) == 1 {
		outcome, err := s.setAside(&batch[0], cause)
		if err != nil {
			return outcomes, err
		}
		return append(outcomes, outcome), nil
	}
	results := outcomes
	for _, half := range [][]Message{batch[:len(batch)/2], batch[len(batch)/2:]} {
		var err error
		before := results
		if results, err = s.appendAll(half, before); isLasting(err) {
			results, err = s.isolate(half, before, err)
		}
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// setAside keeps a message that cannot be stored: in the quarantine, there without its device when that is what is damaged,
// or in a file of its own.
func (s *Store) setAside(m *Message, cause error) (Outcome, error) {
	if m.Kind == Probe { // it proves that messages are kept
		return Proved, s.transact(func() error { return nil })
	}
	if m.Kind == History { // whoever gave it still has it
		return Unfit, nil
	}
	reason := fmt.Sprintf("cannot be stored: %.200s", cause)
	for _, anonymous := range []bool{false, true} {
		err := s.transact(func() error {
			d := s.state.devices[""]
			if !anonymous {
				var err error
				if d, _, err = s.deviceOf(m); err != nil {
					return err
				}
			}
			s.touch(d)
			d.next.counts.add(Quarantined, 1)
			return s.addEntry(d, m, reason, Quarantined)
		})
		if err == nil {
			s.log.Error("a message cannot be stored; it is in the quarantine", "device", m.Device, "topic", m.Topic, "err", cause)
			return Quarantined, nil
		}
		if !isLasting(err) {
			return 0, err
		}
	}
	if err := s.aside.add(m, reason); err != nil {
		return 0, fmt.Errorf("keep a message that the database refuses (%w): %w", cause, err)
	}
	s.log.Error("a message cannot be stored, nor quarantined; it is in a file beside the database until the next start",
		"device", m.Device, "topic", m.Topic, "file", s.aside.path, "err", cause)
	return Quarantined, nil
}

// mend makes the file anew when a write found it damaged, unless that was just done. The caller has the right to write.
func (s *Store) mend(ctx context.Context, cause error) error {
	if !s.mended.IsZero() && time.Since(s.mended) < rebuildEvery {
		return cause
	}
	s.mended = time.Now()
	err := s.rebuild(ctx, cause)
	if err != nil {
		s.log.Error("cannot make the database anew", "err", err)
		return s.reopen() // go on with the damaged file as well as it goes
	}
	select {
	case s.rebuilt <- struct{}{}:
	default:
	}
	return nil
}
