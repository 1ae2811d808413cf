package intake

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/plantops/plantops/cmd/plantops/histories"
	"github.com/plantops/plantops/control"
)

const (
	// shown is how many lines of each list people see.
	shown = 20
	// maxLeft bounds what is told apart of what is left out, and of reasons.
	maxLeft = 10_000
)

// Report is what was read and what became of it.
type Report struct {
	File      string         `json:"file"`
	Format    string         `json:"format"`
	Continued int64          `json:"continued_after_line"` // of an import that was not finished; 0: it is the first
	Lines     int64          `json:"lines"`                // or rows, from the beginning of the file
	Readings  int64          `json:"readings"`             // that are to be stored
	Devices   int            `json:"devices"`
	New       []string       `json:"new_devices"` // that there are not yet
	From      control.Moment `json:"from"`        // the oldest reading
	To        control.Moment `json:"to"`          // the newest

	TakenOver   []*SeriesReport `json:"taken_over"`
	Differently []*SeriesReport `json:"taken_over_differently"`
	LeftOut     []Left          `json:"no_equivalent"`
	Rejected    int64           `json:"rejected"`
	Reasons     []Reason        `json:"rejected_for"`
	Shown       []RejectedLine  `json:"rejected_lines"` // the first of them

	Applied bool  `json:"applied"` // not a dry run
	Stored  int64 `json:"stored"`  // readings that were not there
	Known   int64 `json:"known"`   // that were

	all     []*SeriesReport
	left    map[Left]int64
	reasons map[string]int64
}

// SeriesReport is one series of the file and where it goes.
type SeriesReport struct {
	Source   string         `json:"source"`
	Device   string         `json:"device"`
	Metric   string         `json:"metric"`
	Note     string         `json:"note,omitempty"`
	Readings int64          `json:"readings"`
	From     control.Moment `json:"from"`
	To       control.Moment `json:"to"`
	of       *histories.Series
}

// Left is what is no reading and will not be.
type Left struct {
	Source string `json:"source"`
	Reason string `json:"reason"`
	Values int64  `json:"values"`
}

// Reason is why lines were rejected.
type Reason struct {
	Reason string `json:"reason"`
	Lines  int64  `json:"lines"`
}

// RejectedLine is one of them. Of a database it is a row.
type RejectedLine struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

func newReport(o Options, format histories.Format) *Report {
	return &Report{File: o.Path, Format: format.String(), Applied: o.Target != nil, left: map[Left]int64{}, reasons: map[string]int64{},
		New: []string{}, TakenOver: []*SeriesReport{}, Differently: []*SeriesReport{}, LeftOut: []Left{}, Reasons: []Reason{}, Shown: []RejectedLine{}}
}

func (r *Report) series(of *histories.Series) *SeriesReport {
	s := &SeriesReport{Source: of.Source, Device: of.Device, Metric: of.Metric, of: of}
	r.all = append(r.all, s)
	return s
}

func (s *SeriesReport) add(at int64) {
	if s.Readings == 0 {
		s.From, s.To = control.Moment(at), control.Moment(at)
	}
	s.Readings++
	s.From, s.To = min(s.From, control.Moment(at)), max(s.To, control.Moment(at))
}

func (r *Report) leave(source, why string) {
	key := Left{Source: source, Reason: why}
	if _, known := r.left[key]; !known && len(r.left) >= maxLeft {
		key = Left{Source: "others", Reason: "of many kinds"}
	}
	r.left[key]++
}

func (r *Report) reject(line RejectedLine) {
	r.Rejected++
	reason, _, _ := strings.Cut(line.Reason, ": \"") // what stood there is another one each time
	if _, known := r.reasons[reason]; !known && len(r.reasons) >= maxLeft {
		reason = "others"
	}
	r.reasons[reason]++
	if len(r.Shown) < shown {
		r.Shown = append(r.Shown, line)
	}
}

// add adds what the store has said.
func (r *Report) add(s stored) {
	r.Stored, r.Known = s.fresh, s.known
	if s.more > 0 {
		r.Rejected += s.more
		r.reasons["another value is there, or no room"] += s.more
	}
}

// finish puts the lists in order.
func (r *Report) finish(known map[string]struct{}) {
	devices := map[string]struct{}{}
	fed := map[[2]string]int{} // series for each device and metric
	for _, s := range r.all {
		if s.Readings == 0 {
			continue
		}
		devices[s.Device] = struct{}{}
		fed[[2]string{s.Device, s.Metric}]++
		if r.From == 0 || s.From < r.From {
			r.From = s.From
		}
		r.To = max(r.To, s.To)
	}
	for _, s := range r.all {
		if s.Readings == 0 {
			continue
		}
		s.Note = s.of.Note
		if n := fed[[2]string{s.Device, s.Metric}]; n > 1 {
			s.Note = strings.TrimPrefix(s.Note+fmt.Sprintf("; %d series become this one: tell them apart with --device, --metric or --map", n), "; ")
		}
		if s.Note == "" {
			r.TakenOver = append(r.TakenOver, s)
		} else {
			r.Differently = append(r.Differently, s)
		}
	}
	for device := range devices {
		if _, there := known[device]; !there {
			r.New = append(r.New, device)
		}
	}
	slices.Sort(r.New)
	r.Devices = len(devices)
	for key, n := range r.left {
		r.LeftOut = append(r.LeftOut, Left{key.Source, key.Reason, n})
	}
	slices.SortFunc(r.LeftOut, func(a, b Left) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Reason, b.Reason)) })
	for _, reason := range slices.Sorted(maps.Keys(r.reasons)) {
		r.Reasons = append(r.Reasons, Reason{reason, r.reasons[reason]})
	}
	slices.SortStableFunc(r.Reasons, func(a, b Reason) int { return cmp.Compare(b.Lines, a.Lines) })
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	p := &printer{w: w}
	p.line("Read %s (%s): %s", r.File, r.Format, plural(r.Lines, "line"))
	if r.Continued > 0 {
		p.line("  from behind line %d, where an import of it had stopped", r.Continued)
	}
	if r.Readings > 0 {
		p.line("  %s of %s, from %s to %s", plural(r.Readings, "reading"), plural(int64(r.Devices), "device"), when(r.From), when(r.To))
	} else {
		p.line("  no readings")
	}
	p.series("Taken over", r.TakenOver)
	p.series("Taken over differently", r.Differently)
	p.line("No equivalent (%d)", len(r.LeftOut))
	for i, l := range r.LeftOut {
		if p.enough(i, len(r.LeftOut)) {
			break
		}
		p.line("  %s: %s", clean(l.Source), plural(l.Values, "value"))
		p.line("      %s", clean(l.Reason))
	}
	p.line("Rejected (%d)", r.Rejected)
	for _, reason := range r.Reasons {
		p.line("  %d: %s", reason.Lines, clean(reason.Reason))
	}
	for _, l := range r.Shown {
		p.line("  %s:%d: %s", r.File, l.Line, clip(l.Text))
		p.line("      %s", clean(l.Reason))
	}
	if more := r.Rejected - int64(len(r.Shown)); more > 0 {
		p.line("  … and %d more: --rejects FILE writes all of them", more)
	}
	p.line("New devices (%d)", len(r.New))
	for i, name := range r.New {
		if p.enough(i, len(r.New)) {
			break
		}
		p.line("  %s", name)
	}
	return p.err
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// enough says at the end of what is shown how much more there is.
func (p *printer) enough(i, of int) bool {
	if i == shown {
		p.line("  … and %d more: --json shows all of them", of-shown)
	}
	return i >= shown
}

func (p *printer) series(title string, list []*SeriesReport) {
	p.line("%s (%d)", title, len(list))
	for i, s := range list {
		if p.enough(i, len(list)) {
			return
		}
		p.line("  %s -> %s %s: %s, from %s to %s", clean(s.Source), s.Device, clean(s.Metric), plural(s.Readings, "reading"), when(s.From), when(s.To))
		if s.Note != "" {
			p.line("      %s", clean(s.Note))
		}
	}
}

func when(m control.Moment) string { return m.Time().Format("2006-01-02 15:04") }

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.FormatInt(n, 10) + " " + one + "s"
}

// clean puts a mark in place of what a terminal obeys rather than shows.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// clip shortens a line of the file.
func clip(text string) string {
	const most = 120
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// rejects writes every line that was rejected.
type rejects struct{ w *csv.Writer }

func newRejects(w io.Writer) *rejects {
	if w == nil {
		return nil
	}
	r := &rejects{csv.NewWriter(w)}
	_ = r.w.Write([]string{"line", "reason", "text"}) // flush tells
	return r
}

func (r *rejects) write(l RejectedLine) {
	if r != nil {
		_ = r.w.Write([]string{strconv.FormatInt(l.Line, 10), l.Reason, l.Text}) // flush tells
	}
}

func (r *rejects) flush() error {
	if r == nil {
		return nil
	}
	r.w.Flush()
	return r.w.Error()
}
