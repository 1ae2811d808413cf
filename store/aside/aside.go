// Package aside keeps messages that a damaged database refuses in a file beside it.
package aside

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/plantops/plantops/store/swap"
)

const (
	// Suffix is what the file is called after the database.
	Suffix = ".aside"
	// maxBytes bounds the file. Beyond it nothing is acknowledged that the database refuses.
	maxBytes = 64 << 20
)

// File is a file beside the database for messages that the database refuses even for its quarantine. They are in it, and
// synced, before they are acknowledged; the next start takes them into the quarantine. The first line names the file.
type File struct {
	path string

	mu       sync.Mutex
	size     int64
	named    bool             // the file has its name, in a line of its own
	byDevice map[string]int64 // messages that no counter has yet
}

// Line is one message, or the name of the file.
type Line struct {
	File     string `json:"file,omitempty"`
	Device   string `json:"device,omitempty"`
	Topic    string `json:"topic,omitempty"`
	Received int64  `json:"received,omitempty"` // UTC ms
	Unsure   bool   `json:"clock_unsure,omitempty"`
	Line     int64  `json:"clock_line,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Payload  []byte `json:"payload,omitempty"`
}

// New returns the file of the database at a path.
func New(database string) *File {
	return &File{path: database + Suffix, byDevice: map[string]int64{}}
}

// Path is where it is.
func (a *File) Path() string { return a.path }

// Remove removes it.
func (a *File) Remove() error { return errors.Join(os.Remove(a.path), swap.SyncDir(a.path)) }

// Add writes a message and returns when it is on disk.
func (a *File) Add(line Line) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var text []byte
	if a.size > 0 {
		text = append(text, '\n') // the last line may be torn, by a power cut or a full disk
	}
	if !a.named {
		name := make([]byte, 16)
		_, _ = rand.Read(name) // never fails, see its documentation
		text = appendLine(text, Line{File: hex.EncodeToString(name)})
	}
	text = appendLine(text, line)
	if a.size+int64(len(text)) > maxBytes {
		return fmt.Errorf("%s has its %d MiB: stop the server and look at the disk", a.path, maxBytes>>20)
	}
	file, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err = swap.GiveToOwnerOf(filepath.Dir(a.path), file.Chown); err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil && a.size == 0 {
		err = swap.SyncDir(a.path)
	}
	if err != nil {
		_ = os.Truncate(a.path, a.size) // or else a torn line stays, which Read passes over
		return err
	}
	a.size, a.named = a.size+int64(len(text)), true
	a.byDevice[line.Device]++
	return nil
}

func appendLine(to []byte, line Line) []byte {
	text, _ := json.Marshal(line) // of texts, numbers and bytes: it cannot fail
	return append(append(to, text...), '\n')
}

// Read returns what the file holds. A last line that is torn was never acknowledged.
func (a *File) Read() (name string, lines []Line, err error) {
	text, err := os.ReadFile(a.path)
	if err != nil {
		return "", nil, err
	}
	for text := range bytes.Lines(text) {
		var line Line
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

// Keep counts what stays in the file.
func (a *File) Keep(name string, lines []Line) error {
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

// Count returns how many messages of a device are in the file, or of all with "*".
func (a *File) Count(device string) (n int64) {
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
