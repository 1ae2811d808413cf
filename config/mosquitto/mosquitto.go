// Package mosquitto reads the configuration of a Mosquitto broker (mosquitto.conf with what it includes, password
// files and ACL files) and says what of it PlantOps takes over: settings, accounts, and a verdict on every line.
//
// Every line that is no comment gets exactly one verdict, so that nothing is dropped silently. Where the two programs
// differ, the translation errs on the side of less access: a rule that cannot be expressed is left out, and said to be.
//
// The package reads the files as Mosquitto 2.0 and 2.1 do; it writes nothing, and leaves creating accounts and
// checking settings to its caller. No secret is in a Line: passwords and hashes are replaced, and of options that are
// not known only the name is repeated.
package mosquitto

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"
)

// Kind is the verdict on a line.
type Kind uint8

const (
	TakenOver    Kind = iota + 1 // it means the same here
	Differently                  // it means something similar; the note says what
	NoEquivalent                 // it means nothing here; the note says what to do instead
)

// String returns the verdict as a report has it.
func (k Kind) String() string {
	switch k {
	case TakenOver:
		return "taken over"
	case Differently:
		return "taken over differently"
	}
	return "no equivalent"
}

// Line is a line of one of the files and what became of it.
type Line struct {
	File   string
	Number int    // from 1; 0 for what follows from a line that is not there
	Text   string // printable and without secrets
	Kind   Kind
	Note   string // "" where there is nothing to say
}

// Position returns "file:line".
func (l Line) Position() string {
	if l.Number == 0 {
		return l.File
	}
	return fmt.Sprintf("%s:%d", l.File, l.Number)
}

// settle gives the verdict; a later one replaces it.
func (l *Line) settle(kind Kind, format string, args ...any) {
	l.Kind, l.Note = kind, printable(fmt.Sprintf(format, args...))
}

// escalate gives the verdict unless there is a worse one, and keeps every note of the worst.
func (l *Line) escalate(kind Kind, format string, args ...any) {
	note := printable(fmt.Sprintf(format, args...))
	switch {
	case kind > l.Kind:
		l.Kind, l.Note = kind, note
	case kind == l.Kind && note != "" && !strings.Contains(l.Note, note):
		l.Note = strings.TrimPrefix(l.Note+"; "+note, "; ")
	}
}

// Account is a user of a password file with the rules of the ACL file that goes with it.
type Account struct {
	Name               string
	Hash               string   // as in the file: $6$…, $7$… or $argon2id$…
	Publish, Subscribe []string // topic filters in the order of the file; %u is the user name, %c the client id
	Line               *Line    // of the password file; the caller may settle it otherwise
}

// Setting is one key of plantops.yaml.
type Setting struct {
	Key   string // "listeners.tcp.address"
	Value any    // string, int, bool, []string or []Bridge
	From  string // the line it comes from; "" when from none
}

// Result is what a configuration means here.
type Result struct {
	Lines     []*Line // of all files, each file's in order
	Accounts  []Account
	Settings  []Setting // those of one section stand together
	PlainText []*Line   // lines of password files whose password is not hashed: no account may be made of such a file
}

// Of returns the lines with that verdict.
func (r Result) Of(kind Kind) []*Line {
	var lines []*Line
	for _, l := range r.Lines {
		if l.Kind == kind {
			lines = append(lines, l)
		}
	}
	return lines
}

// Options say what to read. Files and Path are needed.
type Options struct {
	Files       fs.FS              // of the whole machine: the absolute path /etc/x is the file etc/x
	Path        string             // mosquitto.conf, absolute
	CheckName   func(string) error // says why a user name cannot be an account's; nil accepts every name
	CheckFilter func(string) error // says why a topic filter cannot be a rule's; nil accepts what Mosquitto does
	MaxLevels   int                // limits.max_topic_levels; deeper rules are noted
}

// Translate reads the configuration. It fails when a file cannot be read, as Mosquitto does; whatever else is odd is
// said in the lines. Relative paths in the configuration are taken from its folder.
func Translate(o Options) (Result, error) {
	if o.CheckName == nil {
		o.CheckName = func(string) error { return nil }
	}
	if o.CheckFilter == nil {
		o.CheckFilter = func(string) error { return nil }
	}
	t := newTranslator(o)
	if err := t.readConf(o.Path, true); err != nil {
		return Result{}, err
	}
	t.completeListeners()
	t.settleListeners()
	if err := t.readSecurity(); err != nil {
		return Result{}, err
	}
	t.settleBroker()
	t.settleBridges()
	for _, l := range t.lines {
		if l.Kind == 0 {
			l.settle(NoEquivalent, "unknown to this program: look it up in mosquitto.conf(5)")
		}
	}
	return Result{Lines: t.lines, Accounts: t.accounts, Settings: t.sortedSettings(), PlainText: t.plainText}, nil
}

// translator holds what is known so far.
type translator struct {
	options Options

	lines     []*Line
	confs     []string // configuration files that were read
	accounts  []Account
	plainText []*Line
	passwords map[string]*directive // password files that were read: by whom
	acls      map[string]*acl       // ACL files that were read
	known     []*Account            // of all password files

	perListener bool
	global      *security
	plugin      *security // that the plugin_opt_… lines belong to
	first       *listener // what stands before the first listener line
	current     *listener
	listeners   []*listener

	bridge  *bridge // begun last; nil: a listener was begun since, or none is
	bridges []*bridge

	logTypes       []*directive
	maxConnections *directive // of the whole broker
	maxPacket      *directive
	maxMessage     *directive

	taken    takenListeners
	settings map[string]Setting // by key
}

func newTranslator(o Options) *translator {
	t := &translator{options: o, global: &security{}, passwords: map[string]*directive{}, acls: map[string]*acl{},
		settings: map[string]Setting{}}
	t.first = &listener{given: map[string]*directive{}, security: t.global}
	t.current = t.first
	return t
}

// read returns the lines of a file, without line ends.
func (t *translator) read(file string) ([]string, error) {
	data, err := fs.ReadFile(t.options.Files, strings.TrimPrefix(file, "/"))
	if err != nil {
		return nil, rooted(err)
	}
	return split(string(data)), nil
}

// rooted gives the path in an error the slash that it has not in a file system.
func rooted(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && !strings.HasPrefix(p.Path, "/") {
		return &fs.PathError{Op: p.Op, Path: "/" + p.Path, Err: p.Err}
	}
	return err
}

// split returns the lines of a text without their ends; Mosquitto ends at a zero byte too, but that hides the rest.
func split(text string) []string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, "\r")
	}
	return lines
}

// blank reports whether a line says nothing: Mosquitto knows comments in the first column only.
func blank(line string) bool {
	return strings.HasPrefix(line, "#") || strings.TrimSpace(line) == ""
}

// absolute returns the path of a file that the configuration names.
func (t *translator) absolute(file string) string {
	if path.IsAbs(file) {
		return path.Clean(file)
	}
	return path.Join(path.Dir(t.options.Path), file)
}

// add notes a line; its verdict comes later.
func (t *translator) add(file string, number int, text string) *Line {
	l := &Line{File: file, Number: number, Text: printable(text)}
	t.lines = append(t.lines, l)
	return l
}

// imply notes what follows from a line that is not there.
func (t *translator) imply(text string, kind Kind, format string, args ...any) {
	t.add(t.options.Path, 0, text).settle(kind, format, args...)
}

// printable makes text fit for one line of a report.
func printable(text string) string {
	const most = 2000
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
