// Package garden is the place's side of history: plants and zones, which device serves which plant with which metrics and from when to
// when, thresholds, notes and events. A history belongs to the plant, and goes on when its sensor is replaced.
//
// The rules are pure: a Plan is what stands where at one moment, and says which plant has a reading; History is the readings of a
// plant, made of a view of the store. Keeper keeps all of it in a database that the store lends it.
package garden

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/plantops/plantops/store/history"
)

// What callers tell apart. An error that something is not as it may be is an *InvalidError.
var (
	ErrNotFound = history.ErrNotFound
	ErrMany     = errors.New("too many")
)

// Bounds on what can be kept.
const (
	maxNameBytes   = 200
	maxTextBytes   = 10_000
	maxAuthorBytes = 64
	maxMetricBytes = 128
	maxThresholds  = 64 // of a plant

	maxPlants      = 10_000 // deleted ones too
	maxZones       = 1_000
	maxAssignments = 100_000
	maxNotes       = 100_000
)

// InvalidError says which field of what is not as it may be, and why.
type InvalidError struct {
	What, Field, Why string
}

// Error is for people.
func (e *InvalidError) Error() string { return fmt.Sprintf("%s: %s: %s", e.What, e.Field, e.Why) }

// Kind is what a zone is.
type Kind string

// The kinds of zones.
const (
	Room  Kind = "room"
	Bench Kind = "bench"
	Bed   Kind = "bed"
	Tank  Kind = "tank"
	Other Kind = "other"
)

// Kinds are all of them.
var Kinds = []Kind{Room, Bench, Bed, Tank, Other}

// Zone groups plants.
type Zone struct {
	ID      string // given by the keeper
	Kind    Kind
	Name    string
	Created int64 // UTC ms
}

// Check returns an *InvalidError if the zone is not as it may be.
func (z *Zone) Check() error {
	if !slices.Contains(Kinds, z.Kind) {
		return &InvalidError{"zone", "kind", fmt.Sprintf("%.40q is none of room, bench, bed, tank, other", z.Kind)}
	}
	return checkName("zone", "name", z.Name)
}

// Plant is a plant, or several that are looked after as one.
type Plant struct {
	ID         string // given by the keeper
	Name       string
	Species    string      // "": not told
	Zone       string      // id; "": in none
	Position   *Position   // nil: none
	Thresholds []Threshold // in order of metric, each once
	Created    int64       // UTC ms
	Deleted    int64       // UTC ms; 0: it is there. Its readings stay its
}

// Position is where a plant stands on a plan, in whatever unit that is drawn.
type Position struct{ X, Y float64 }

// Threshold is the band in which a metric of a plant should be. Both bounds are in it.
type Threshold struct {
	Metric   string
	Min, Max *float64 // nil: none
}

// Check returns an *InvalidError if the plant is not as it may be. It puts the thresholds in order. That its zone is there is not
// known here.
func (p *Plant) Check() error {
	if err := checkName("plant", "name", p.Name); err != nil {
		return err
	}
	if p.Species != "" {
		if err := checkName("plant", "species", p.Species); err != nil {
			return err
		}
	}
	if at := p.Position; at != nil && !(isFinite(at.X) && isFinite(at.Y)) {
		return &InvalidError{"plant", "position", "x and y must be finite numbers"}
	}
	if len(p.Thresholds) > maxThresholds {
		return &InvalidError{"plant", "thresholds", fmt.Sprintf("there are %d, at most %d are allowed", len(p.Thresholds), maxThresholds)}
	}
	slices.SortStableFunc(p.Thresholds, func(a, b Threshold) int { return cmp.Compare(a.Metric, b.Metric) })
	for i := range p.Thresholds {
		if err := p.Thresholds[i].Check(); err != nil {
			return err
		}
		if i > 0 && p.Thresholds[i-1].Metric == p.Thresholds[i].Metric {
			return &InvalidError{"plant", "thresholds", fmt.Sprintf("metric %q is there twice", p.Thresholds[i].Metric)}
		}
	}
	return nil
}

// Threshold is that of a metric; without any both bounds are nil.
func (p *Plant) Threshold(metric string) Threshold {
	for _, t := range p.Thresholds {
		if t.Metric == metric {
			return t
		}
	}
	return Threshold{Metric: metric}
}

// clone shares nothing.
func (p *Plant) clone() Plant {
	c := *p
	if p.Position != nil {
		at := *p.Position
		c.Position = &at
	}
	c.Thresholds = slices.Clone(p.Thresholds) // whose bounds nobody changes
	return c
}

// Check returns an *InvalidError if the threshold is not as it may be.
func (t *Threshold) Check() error {
	if err := checkMetric("threshold", t.Metric); err != nil {
		return err
	}
	if t.Metric == "" {
		return &InvalidError{"threshold", "metric", "there must be one"}
	}
	for name, bound := range map[string]*float64{"min": t.Min, "max": t.Max} {
		if bound != nil && !isFinite(*bound) {
			return &InvalidError{"threshold of " + t.Metric, name, "it must be a finite number"}
		}
	}
	if t.Min != nil && t.Max != nil && *t.Min > *t.Max {
		return &InvalidError{"threshold of " + t.Metric, "min", fmt.Sprintf("%v is above max, which is %v", *t.Min, *t.Max)}
	}
	return nil
}

// Assignment says that a device serves a plant.
type Assignment struct {
	ID     string // given by the keeper
	Device string
	Plant  string // id
	Metric string // "": every one that no other assignment of that device and time names
	Since  int64  // UTC ms, included
	Until  int64  // UTC ms, not included; 0: still
}

// Check returns an *InvalidError if the assignment is not as it may be. That its device and plant are there is not known here.
func (a *Assignment) Check() error {
	switch {
	case a.Device == "":
		return &InvalidError{"assignment", "device", "there must be one"}
	case a.Plant == "":
		return &InvalidError{"assignment", "plant", "there must be one"}
	case a.Since <= 0 || a.Since >= forever:
		return &InvalidError{"assignment", "since", "there must be a time from which on it holds"}
	case a.Until != 0 && a.Until <= a.Since:
		return &InvalidError{"assignment", "until", "it ends before it begins"}
	}
	return checkMetric("assignment", a.Metric)
}

// end is Until, or what is later than every time.
func (a *Assignment) end() int64 {
	if a.Until == 0 {
		return forever
	}
	return a.Until
}

// Covers reports whether a time, UTC ms, is in the assignment.
func (a *Assignment) Covers(t int64) bool { return a.Since <= t && t < a.end() }

// forever is later than every time.
const forever = math.MaxInt64

// NoteKind is what a note is about.
type NoteKind string

// The kinds of notes. All but NotePlain and NoteOther are events that stand in charts by a sign of their own.
const (
	NotePlain NoteKind = "note"
	Watered   NoteKind = "watered"
	Fed       NoteKind = "fed"
	Repotted  NoteKind = "repotted"
	NoteOther NoteKind = "other"
)

// NoteKinds are all of them.
var NoteKinds = []NoteKind{NotePlain, Watered, Fed, Repotted, NoteOther}

// Note is what was written down about a plant or a zone, or what was done to it.
type Note struct {
	ID          string // given by the keeper
	Plant, Zone string // one of the two, an id
	Time        int64  // UTC ms, of what it is about
	Kind        NoteKind
	Text        string // may be empty, but for NotePlain and NoteOther
	Author      string // name of an account or a token; "": the program
	Created     int64  // UTC ms
}

// Check returns an *InvalidError if the note is not as it may be. That its plant or zone is there is not known here.
func (n *Note) Check() error {
	switch {
	case (n.Plant == "") == (n.Zone == ""):
		return &InvalidError{"note", "plant", "it is about a plant or a zone, one of the two"}
	case !slices.Contains(NoteKinds, n.Kind):
		return &InvalidError{"note", "kind", fmt.Sprintf("%.40q is none of note, watered, fed, repotted, other", n.Kind)}
	case n.Time <= 0 || n.Time >= forever:
		return &InvalidError{"note", "time", "there must be one"}
	case len(n.Text) > maxTextBytes || !utf8.ValidString(n.Text):
		return &InvalidError{"note", "text", fmt.Sprintf("it must be UTF-8 of at most %d bytes", maxTextBytes)}
	case strings.ContainsFunc(n.Text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }):
		return &InvalidError{"note", "text", "control characters are not allowed"}
	case (n.Kind == NotePlain || n.Kind == NoteOther) && strings.TrimSpace(n.Text) == "":
		return &InvalidError{"note", "text", "there must be some"}
	case len(n.Author) > maxAuthorBytes || !utf8.ValidString(n.Author):
		return &InvalidError{"note", "author", fmt.Sprintf("it must be UTF-8 of at most %d bytes", maxAuthorBytes)}
	}
	return nil
}

func checkName(what, field, name string) error {
	why := ""
	switch {
	case name == "" || len(name) > maxNameBytes:
		why = fmt.Sprintf("it has %d bytes, 1 to %d are allowed", len(name), maxNameBytes)
	case !utf8.ValidString(name):
		why = "it is not valid UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		why = "control characters are not allowed"
	case strings.TrimSpace(name) != name:
		why = "spaces at the ends are not allowed"
	default:
		return nil
	}
	return &InvalidError{what, field, why}
}

func checkMetric(what, metric string) error {
	if len(metric) > maxMetricBytes || !utf8.ValidString(metric) || strings.ContainsFunc(metric, unicode.IsControl) {
		return &InvalidError{what, "metric", fmt.Sprintf("its name must be UTF-8 without control characters, of at most %d bytes", maxMetricBytes)}
	}
	return nil
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
