package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/plantops/plantops/store/history"
)

// Kind says what a message is.
type Kind uint8

const (
	Telemetry Kind = iota // Values become readings
	Heartbeat             // only proves that the device lives
	Bad                   // cannot be read: Payload goes to quarantine with Reason
	Probe                 // is no message of anybody: committed and not counted
	Farewell              // the device has gone: offline at once, and not heard of
	Nothing               // says nothing about anybody: counted as stored
	History               // Values become readings, of long ago: nobody was heard of, and what cannot be stored is not quarantined
)

// Behind says how a device is known that has no account, but stands behind a gateway, which speaks for it. The zero value is
// for a device that speaks for itself.
type Behind struct {
	Source  string // of the configuration
	Raw     string // the device's name there
	Account string // that published the message; empty: not known
}

// TimeSource says where a reading's time comes from.
type TimeSource = history.TimeSource

const (
	FromDevice            = history.FromDevice
	FromArrival           = history.FromArrival
	FromArrivalImpossible = history.FromArrivalImpossible
	FromAge               = history.FromAge
)

// Value is one metric of a message.
type Value struct {
	Metric string
	Value  float64
}

// Part is the readings of one time in a message.
type Part struct {
	Time       int64 // UTC ms; used when TimeSource is FromDevice or FromAge
	TimeSource TimeSource
	Given      string // the time that the device gave, when it was not used; empty: none
	Values     []Value
	Numbering  Numbering // how the device numbers its messages; zero: it does not
}

// Skipped is a field of a message that could not be read.
type Skipped struct {
	Field string // its path
	Text  string // what stood there, or the beginning of it
}

// Message is what ingest made of one MQTT message. The store keeps no reference to its slices. Most messages have one part,
// whose fields stand here; More are the further ones of a message that holds several.
type Message struct {
	Kind        Kind
	Device      string // from the topic; empty when the topic names none
	Topic       string
	Time        int64 // the first Part's, like the four fields below Received
	Received    int64 // UTC ms, time of arrival
	TimeSource  TimeSource
	Given       string
	Values      []Value
	Numbering   Numbering
	More        []Part
	Skipped     []Skipped // what could not be read
	Behind      Behind    // of a device behind a gateway
	Retained    bool      // a copy of an old message, which does not prove that the device lives
	ClockUnsure bool      // this machine's clock was not to be trusted at arrival
	ClockLine   int64     // the stretch of that clock, for Redate; used with ClockUnsure. Zero: not known
	Payload     []byte    // as it came, kept when the message goes to quarantine or a field was skipped
	Reason      string    // Bad only: why
}

// part returns the parts by number; the first is number 0.
func (m *Message) part(i int) Part {
	if i == 0 {
		return Part{Time: m.Time, TimeSource: m.TimeSource, Given: m.Given, Values: m.Values, Numbering: m.Numbering}
	}
	return m.More[i-1]
}

func (m *Message) parts() int { return 1 + len(m.More) }

// Outcome is what became of a message. Each message has exactly one.
type Outcome uint8

const (
	Stored      Outcome = iota // at least one metric was new, or the message was a heartbeat
	Duplicate                  // every metric was there already, with the same value
	Quarantined                // kept as bytes, with the reason
	Proved                     // of a probe only: the commit happened

	// Of a History only; who imports it tells the person. All but Partly are of messages of which nothing is stored, and which
	// are not counted.
	Partly      // stored but for a metric that is there with another value
	Conflicting // nothing is new, and a metric is there with another value
	NoRoom      // more devices, or more metrics of one, than the store takes
	Unfit       // no such device or metric can be, or the place where it belongs is damaged
)

// String returns the word that status and logs use.
func (o Outcome) String() string {
	switch o {
	case Stored:
		return "stored"
	case Duplicate:
		return "duplicate"
	case Proved:
		return "proved"
	case Partly:
		return "partly stored"
	case Conflicting:
		return "conflicting"
	case NoRoom:
		return "no room"
	case Unfit:
		return "unfit"
	default:
		return "quarantined"
	}
}

// ofHistory is what becomes of a History in place of what becomes of a message with that leftover.
func (o Outcome) ofHistory(leftover string) Outcome {
	switch {
	case leftover == "":
		return o
	case o == Stored:
		return Partly
	case leftover == reasonConflict:
		return Conflicting
	case leftover == reasonMetrics, leftover == reasonManyMetrics, leftover == reasonManyDevices:
		return NoRoom
	}
	return Unfit
}

// Counts are numbers of messages by outcome. What was received is their sum plus what is still pending in ingest.
type Counts struct {
	Stored, Duplicate, Quarantined, Refused int64
}

func (c *Counts) add(o Outcome, n int64) {
	switch o {
	case Stored, Partly:
		c.Stored += n
	case Duplicate:
		c.Duplicate += n
	case Quarantined:
		c.Quarantined += n
	}
}

func (c *Counts) plus(d Counts) {
	c.Stored += d.Stored
	c.Duplicate += d.Duplicate
	c.Quarantined += d.Quarantined
	c.Refused += d.Refused
}

// Bits of the flags column of reading and quarantine.
const (
	flagTimeSource  = history.FlagTimeSource
	flagClockUnsure = history.FlagClockUnsure
	flagUncounted   = 0b1000 // quarantine: a part of a message that counted as stored

	lineShift = 8 // above: the clock's line of an arrival that is not to be trusted, see Redate
)

func (m *Message) flags() int64 { return m.flagsOf(m.TimeSource) }

// flagsOf are the flags of a part with that source.
func (m *Message) flagsOf(source TimeSource) int64 {
	flags := int64(source) & flagTimeSource
	if m.ClockUnsure {
		flags |= flagClockUnsure | max(m.ClockLine, 0)<<lineShift
	}
	return flags
}

// Reasons for the quarantine of what a gateway says.
const (
	reasonOtherAccount = "device belongs to another account"
	reasonOtherName    = "another name has this device id"
	reasonAccountsID   = "device id is an account's"
	reasonManyBehind   = "too many devices of the account"
	reasonManyMetrics  = "too many metrics of the account"
)

// Bounds on what one account can make the store keep for ever by speaking for devices.
const (
	maxBehind        = 1000 // devices
	maxBehindMetrics = 4096 // names of metrics that they brought
	maxRawBytes      = 512  // of a device's name at its source
)

type gatewayStatements struct {
	insertGateway, updateGateway *statement
}

func (q *gatewayStatements) all() []compile {
	return []compile{
		{&q.insertGateway, `INSERT INTO gateway (device, source, raw, account) VALUES (?, ?, ?, ?)`},
		{&q.updateGateway, `UPDATE gateway SET account = ? WHERE device = ?`},
	}
}

// rebound is what a device was bound to before the running transaction.
type rebound struct {
	device *device
	before Behind
}

// behindOf finds or creates a device behind a gateway. A reason means that the message is not taken for it: it may be of
// somebody else, and changes nothing about the device. Device "" stands in.
func (s *Store) behindOf(m *Message) (d *device, reason string, err error) {
	from := m.Behind
	from.Raw = rawName(from.Raw)
	nobody := s.state.devices[""]
	accounts := *s.accounts.Load()
	if CheckID(m.Device) != nil {
		return nobody, reasonDeviceID, nil
	}
	if _, taken := accounts[m.Device]; taken {
		return nobody, reasonAccountsID, nil
	}
	d, known := s.state.devices[m.Device]
	if !known && (m.Kind == Nothing || m.Kind == Bad) {
		return nobody, "", nil
	}
	if !known {
		if reason := s.roomBehind(from.Account); reason != "" {
			return nobody, reason, nil
		}
		if d, err = s.createDevice(m.Device); err != nil {
			return nil, "", err
		}
		return d, "", s.bind(d, from)
	}
	_, there := accounts[d.behind.Account]
	switch {
	case d.behind == Behind{}: // what a damaged file has lost, or what an administrator sent for it
		return d, "", s.bind(d, from)
	case d.behind.Source != from.Source || d.behind.Raw != from.Raw:
		return nobody, reasonOtherName, nil
	case from.Account == "" || d.behind.Account == from.Account:
		return d, "", nil
	case d.behind.Account != "" && there:
		return nobody, reasonOtherAccount, nil
	}
	if reason := s.roomBehind(from.Account); reason != "" {
		return nobody, reason, nil
	}
	return d, "", s.bind(d, from)
}

// rawName is a name that the table can hold: names that differ stay different.
func rawName(raw string) string {
	if len(raw) <= maxRawBytes && utf8.ValidString(raw) && !strings.Contains(raw, "\x00") {
		return raw
	}
	digest := sha256.Sum256([]byte(raw))
	return "sha256 " + hex.EncodeToString(digest[:])
}

// roomBehind says why an account may not speak for one more device.
func (s *Store) roomBehind(account string) (reason string) {
	switch {
	case len(s.state.devices) > maxDevices:
		return reasonManyDevices
	case account != "" && len(s.state.behind[account]) >= maxBehind:
		return reasonManyBehind
	}
	return ""
}

// roomForMetrics says whether the account that speaks for a device may bring so many new names.
func (s *Store) roomForMetrics(d *device, fresh int) bool {
	if d.behind.Account == "" || fresh == 0 {
		return true
	}
	for other := range s.state.behind[d.behind.Account] {
		fresh += other.metrics
	}
	return fresh <= maxBehindMetrics
}

// bind says who speaks for a device, inside the running transaction.
func (s *Store) bind(d *device, to Behind) error {
	var err error
	if d.behind == (Behind{}) {
		err = s.w.insertGateway.run(d.id, to.Source, to.Raw, to.Account)
	} else {
		err = s.w.updateGateway.run(to.Account, d.id)
	}
	if err != nil {
		return fmt.Errorf("gateway of device %q: %w", d.name, err)
	}
	s.tx.bound = append(s.tx.bound, rebound{d, d.behind})
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.bind(d, to)
	return nil
}

// bind changes the memory; the caller holds the lock.
func (st *state) bind(d *device, to Behind) {
	delete(st.behind[d.behind.Account], d)
	d.behind = to
	if to == (Behind{}) {
		return
	}
	if st.behind == nil {
		st.behind = make(map[string]map[*device]struct{})
	}
	if st.behind[to.Account] == nil {
		st.behind[to.Account] = make(map[*device]struct{})
	}
	st.behind[to.Account][d] = struct{}{}
}

// unbind takes back what the transaction has bound; the caller holds the lock.
func (s *Store) unbind() {
	for i := len(s.tx.bound) - 1; i >= 0; i-- {
		s.state.bind(s.tx.bound[i].device, s.tx.bound[i].before)
	}
}

// loadGateways tells devices who speaks for them, and returns them by account.
func (s *Store) loadGateways(ctx context.Context, q querier, l *onDisk) error {
	var st state
	err := s.eachIn(ctx, q, func(scan func(...any) error) error {
		var id int64
		var of Behind
		err := scan(&id, &of.Source, &of.Raw, &of.Account)
		if d := l.byID[id]; err == nil && d != nil {
			st.bind(d, of)
		}
		return err
	}, `SELECT device, source, raw, account FROM gateway`)
	l.behind = st.behind
	return err
}

// notBehind refuses an account the id of a device behind a gateway.
func (s *Store) notBehind(id string) error {
	if d := s.state.devices[id]; d != nil && d.behind != (Behind{}) {
		return fmt.Errorf("%w device behind gateway %s, source %s", ErrOtherRole, cmp.Or(d.behind.Account, "(not known)"), d.behind.Source)
	}
	return nil
}
