package mosquitto

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// directive is a line of mosquitto.conf.
type directive struct {
	*Line
	option, value string
}

// word is the first word of the value: what follows is not read where a word, a number or a truth value is wanted.
func (d *directive) word() string {
	word, _, _ := strings.Cut(d.value, " ")
	return word
}

// number reads the value as C does: 0x10 is 16, 010 is 8.
func (d *directive) number() (int, bool) {
	n, err := strconv.ParseInt(d.word(), 0, 32)
	if err != nil {
		d.settle(NoEquivalent, "it needs a number; Mosquitto refuses it too")
	}
	return int(n), err == nil
}

func (d *directive) yes() (yes, ok bool) {
	switch d.word() {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	d.settle(NoEquivalent, "it needs true or false; Mosquitto refuses it too")
	return false, false
}

// readConf reads a configuration file. Only the outermost may include a folder; each starts before any listener.
func (t *translator) readConf(file string, outermost bool) error {
	lines, err := t.read(file)
	if err != nil {
		return fmt.Errorf("read Mosquitto configuration: %w", err)
	}
	t.confs = append(t.confs, file)
	before := t.current
	t.current = t.first
	for i, text := range lines {
		if blank(text) {
			continue
		}
		option, value, _ := strings.Cut(strings.TrimLeft(text, " "), " ")
		d := &directive{option: option, value: strings.TrimSpace(value)}
		d.Line = t.add(file, i+1, d.shown())
		if err := t.take(d, outermost); err != nil {
			return err
		}
	}
	t.current = before
	return nil
}

// shown is the line as a report may repeat it.
func (d *directive) shown() string {
	o, known := options[d.option]
	switch {
	case d.value == "":
		return d.option
	case o.secret || !known:
		return d.option + " (not shown)" // what is not known may be a secret
	}
	return d.option + " " + d.value
}

// take gives a line its verdict, or notes it for later where that depends on others.
func (t *translator) take(d *directive, outermost bool) error {
	o, known := options[d.option]
	switch {
	case d.option == "include_dir":
		return t.include(d, outermost)
	case !known && (strings.HasPrefix(d.option, "plugin_opt_") || strings.HasPrefix(d.option, "auth_opt_")):
		d.settle(NoEquivalent, "it is an option of a plugin, see there")
	case !known:
	case d.value == "":
		d.settle(NoEquivalent, "it has no value; Mosquitto refuses it too")
	case o.take != nil:
		o.take(t, d)
	case o.listener:
		t.current.set(d)
	default:
		d.settle(o.kind, "%s", o.note)
	}
	return nil
}

// include reads the files of a folder that end in .conf, in Mosquitto's order.
func (t *translator) include(d *directive, outermost bool) error {
	switch {
	case d.value == "":
		d.settle(NoEquivalent, "it has no value; Mosquitto refuses it too")
		return nil
	case !outermost:
		d.settle(NoEquivalent, "Mosquitto includes a folder from its main file only")
		return nil
	}
	dir := t.absolute(d.value)
	entries, err := fs.ReadDir(t.options.Files, cmp.Or(strings.TrimPrefix(dir, "/"), "."))
	if err != nil {
		return fmt.Errorf("read include_dir (%s): %w", d.Position(), rooted(err))
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".conf") && e.Name() != ".conf" {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, byLetter)
	var again []string
	for _, name := range names {
		file := strings.TrimSuffix(dir, "/") + "/" + name
		if slices.Contains(t.confs, file) {
			again = append(again, name)
		} else if err := t.readConf(file, false); err != nil {
			return err
		}
	}
	d.settle(TakenOver, "files read: %d", len(names)-len(again))
	if len(again) > 0 {
		d.settle(Differently, "files read: %d; Mosquitto reads once more what was read before: %s", len(names)-len(again), strings.Join(again, ", "))
	}
	return nil
}

// byLetter orders names as Mosquitto does: letters whatever their case, capitals first where only that differs.
func byLetter(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		return cmp.Or(cmp.Compare(unicode.ToUpper(rune(a[i])), unicode.ToUpper(rune(b[i]))), cmp.Compare(a[i], b[i]))
	}
	return cmp.Compare(len(a), len(b))
}

// listener is a listener line with the options that follow it.
type listener struct {
	opened   *directive            // nil for what stands before the first listener line
	given    map[string]*directive // by option
	security *security
}

// security is who may connect and do what, of all listeners or of one.
type security struct {
	anonymous, passwordFile, aclFile *directive
}

// set notes an option of this listener; the last of several counts.
func (l *listener) set(d *directive) { l.given[d.option] = latest(l.given[d.option], d) }

func latest(before, d *directive) *directive {
	if before != nil {
		before.settle(NoEquivalent, "line %d sets it again", d.Number)
	}
	return d
}

func (l *listener) value(option string) string {
	if d := l.given[option]; d != nil {
		return d.value
	}
	return ""
}

func (l *listener) settle(option string, kind Kind, format string, args ...any) {
	if d := l.given[option]; d != nil && d.Kind == 0 {
		d.settle(kind, format, args...)
	}
}

// settleAll gives every option that has no verdict yet the same one.
func (l *listener) settleAll(kind Kind, note string) {
	for option := range l.given {
		l.settle(option, kind, "%s", note)
	}
}

// openListener begins a listener: listener PORT [ADDRESS].
func (t *translator) openListener(d *directive) {
	t.current = &listener{opened: d, given: map[string]*directive{}, security: t.global}
	if t.perListener {
		t.current.security = &security{}
	}
	t.listeners = append(t.listeners, t.current)
	t.bridge = nil
}

// secured is where the options about accounts go at this place of the file.
func (t *translator) secured() *security { return t.current.security }

func (t *translator) setPerListener(d *directive) {
	yes, ok := d.yes()
	switch {
	case !ok:
	case !yes:
		d.settle(TakenOver, "")
	default:
		t.perListener = true
		t.first.security = &security{}
		d.settle(Differently, "accounts and their rules hold on every listener here; a user who is in the files of several listeners has what the first of them says")
	}
}
