package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// What is kept on disk are blobs: a byte for the format, what is said, and a checksum of both.
const (
	format        = 1
	checksumBytes = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is what reading a blob fails with that is not as it was written.
var ErrDamaged = errors.New("damaged")

// Moment relates the time by which a broker measures to the time of day, by which it goes on after a restart.
type Moment struct {
	Now    time.Time // by the monotonic clock
	Wall   time.Time // of the day
	Unsure bool      // whether Wall may be wrong
}

// since returns how much time has passed since the clock of the day showed wall (in milliseconds); nothing while one of the
// two is not to be trusted.
func (t Moment) since(wall int64, sure bool) time.Duration {
	if t.Unsure || !sure {
		return 0
	}
	return max(0, time.Duration(t.Wall.UnixMilli()-wall)*time.Millisecond)
}

// seal ends the blob that begins at start.
func seal(dst []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// reader reads a blob. What is read after its end is zero, and err says so.
type reader struct {
	b    []byte
	what string
	bad  bool
}

func open(what string, blob []byte) (*reader, error) {
	n := len(blob) - checksumBytes
	if n < 1 || crc32.Checksum(blob[:n], castagnoli) != binary.LittleEndian.Uint32(blob[n:]) {
		return nil, fmt.Errorf("%s: %w", what, ErrDamaged)
	}
	if blob[0] != format {
		return nil, fmt.Errorf("%s: written in format %d, this program reads %d", what, blob[0], format)
	}
	return &reader{b: blob[1:n], what: what}, nil
}

func (r *reader) err() error {
	if r.bad {
		return fmt.Errorf("%s: %w", r.what, ErrDamaged)
	}
	return nil
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// bytes returns a part of the blob.
func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// span reads what appendSpan wrote.
func (r *reader) span() time.Duration {
	n := r.number()
	if n > uint64(Forever/time.Millisecond) {
		return Forever
	}
	return time.Duration(n) * time.Millisecond
}

// appendSpan writes a time that is left, in milliseconds, rounded up.
func appendSpan(dst []byte, d time.Duration) []byte {
	if d == Forever {
		return binary.AppendUvarint(dst, uint64(Forever))
	}
	return binary.AppendUvarint(dst, uint64((max(d, 0)+time.Millisecond-1)/time.Millisecond))
}

func appendBytes[T []byte | string](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Flags in a blob.
const (
	flagRetain = 4 << iota // the two bits below are the QoS
	flagSure
	flagExpires
	flagIDs
	flagGroup
)

func flag(set bool, f byte) byte {
	if set {
		return f
	}
	return 0
}

// AppendMessage appends a message as a blob.
func AppendMessage(dst []byte, m *Message, t Moment) []byte {
	start := len(dst)
	flags := m.QoS | flag(m.Retain, flagRetain) | flag(!t.Unsure, flagSure) | flag(!m.Expires.IsZero(), flagExpires)
	dst = append(dst, format, flags)
	dst = appendBytes(dst, m.Topic)
	dst = appendBytes(dst, m.Payload)
	dst = appendBytes(dst, m.Properties)
	dst = appendBytes(dst, m.Publisher)
	dst = binary.AppendVarint(dst, t.Wall.Add(-t.Now.Sub(m.Created)).UnixMilli())
	if !m.Expires.IsZero() {
		dst = appendSpan(dst, m.Expires.Sub(m.Created))
	}
	return seal(dst, start)
}

// ReadMessage reads what AppendMessage wrote. The message shares no memory with the blob. Of its lifetime that is gone which
// the clock of the day is sure of.
func ReadMessage(blob []byte, t Moment) (*Message, error) {
	r, err := open("message", blob)
	if err != nil {
		return nil, err
	}
	m := r.message(t)
	return m, r.err()
}

func (r *reader) message(t Moment) *Message {
	flags := r.byte()
	m := &Message{Topic: string(r.bytes()), Payload: slices.Clone(r.bytes()), Properties: slices.Clone(r.bytes()), Publisher: string(r.bytes())}
	m.QoS, m.Retain = flags&3, flags&flagRetain > 0
	age := t.since(r.signed(), flags&flagSure > 0)
	m.Created = t.Now.Add(-age)
	if flags&flagExpires > 0 {
		m.Expires = m.Created.Add(r.span())
	}
	return m
}

// Entry is a message in the queue of one session.
type Entry struct {
	Seq             uint64 // ascending in a session, from 1
	Message         *Message
	QoS             byte // 1 or 2
	Retain          bool
	SubscriptionIDs []uint32
	Group           string // the filter of the share group that it came through; "" for none
	Token           any    // see Offer; not written
}

// Cost is what an entry is charged with.
func (e *Entry) Cost() int { return costBytes(e.Message, e.SubscriptionIDs) }

// Pack is a row of messages, each once, to which entries refer by where it begins.
type Pack struct {
	Bytes  []byte
	places map[*Message]uint64 // nil: no message comes twice
	moment Moment
}

// messageBytes is at most what a blob of a message, and its length in a pack, have beside its texts.
const messageBytes = 64

// NewPack returns an empty one that has room for the messages of entries. Shared says that others will refer to them too.
func NewPack(t Moment, entries []Entry, shared bool) *Pack {
	p := &Pack{moment: t}
	if shared {
		p.places = make(map[*Message]uint64, len(entries))
	}
	size := 0
	for i := range entries {
		m := entries[i].Message
		size += len(m.Topic) + len(m.Payload) + len(m.Properties) + len(m.Publisher) + messageBytes
	}
	p.Bytes = make([]byte, 0, size)
	return p
}

// place returns where m is, and puts it in if it is not there.
func (p *Pack) place(m *Message) uint64 {
	at, there := p.places[m]
	if there {
		return at
	}
	at = uint64(len(p.Bytes))
	if p.places != nil {
		p.places[m] = at
	}
	p.Bytes = append(p.Bytes, 0, 0, 0, 0)
	p.Bytes = AppendMessage(p.Bytes, m, p.moment)
	binary.LittleEndian.PutUint32(p.Bytes[at:], uint32(uint64(len(p.Bytes))-at-4))
	return at
}

// packed is the message at a place of a pack.
func packed(pack []byte, at uint64, t Moment) (*Message, error) {
	if at+4 < at || at+4 > uint64(len(pack)) {
		return nil, fmt.Errorf("place of a message: %w", ErrDamaged)
	}
	n := uint64(binary.LittleEndian.Uint32(pack[at:]))
	if n > uint64(len(pack))-at-4 {
		return nil, fmt.Errorf("length of a message: %w", ErrDamaged)
	}
	return ReadMessage(pack[at+4:at+4+n], t)
}

// AppendEntries appends entries, in order, as a blob, and puts their messages into p. There is at least one.
func AppendEntries(dst []byte, entries []Entry, p *Pack) []byte {
	start := len(dst)
	dst = append(slices.Grow(dst, 16+8*len(entries)), format)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	last := uint64(0)
	for i := range entries {
		e := &entries[i]
		dst = binary.AppendUvarint(dst, e.Seq-last)
		last = e.Seq
		dst = append(dst, e.QoS|flag(e.Retain, flagRetain)|flag(len(e.SubscriptionIDs) > 0, flagIDs)|flag(e.Group != "", flagGroup))
		dst = binary.AppendUvarint(dst, p.place(e.Message))
		if len(e.SubscriptionIDs) > 0 {
			dst = binary.AppendUvarint(dst, uint64(len(e.SubscriptionIDs)))
			for _, id := range e.SubscriptionIDs {
				dst = binary.AppendUvarint(dst, uint64(id))
			}
		}
		if e.Group != "" {
			dst = appendBytes(dst, e.Group)
		}
	}
	return seal(dst, start)
}

// ReadEntries appends the entries of a blob above after to dst. A message that is damaged is left out and told of; so is all
// of a blob that is damaged.
func ReadEntries(dst []Entry, blob, pack []byte, after uint64, t Moment) ([]Entry, error) {
	r, err := open("queue", blob)
	if err != nil {
		return dst, err
	}
	var damaged error
	seq := uint64(0)
	var last *Message // an entry after another may be of the same: it came through a share group, too
	lastAt := uint64(0)
	for n := r.number(); n > 0 && !r.bad; n-- {
		seq += r.number()
		e := Entry{Seq: seq}
		flags := r.byte()
		e.QoS, e.Retain = flags&3, flags&flagRetain > 0
		at := r.number()
		if flags&flagIDs > 0 {
			for ids := r.number(); ids > 0 && !r.bad; ids-- {
				e.SubscriptionIDs = append(e.SubscriptionIDs, uint32(r.number()))
			}
		}
		if flags&flagGroup > 0 {
			e.Group = string(r.bytes())
		}
		if seq <= after || r.bad {
			continue
		}
		if last == nil || at != lastAt {
			m, err := packed(pack, at, t)
			if err != nil {
				damaged = err
				continue
			}
			last, lastAt = m, at
		}
		e.Message = last
		dst = append(dst, e)
	}
	return dst, errors.Join(damaged, r.err())
}

// AppendSubscription appends what a subscription says beside its filter.
func AppendSubscription(dst []byte, s Subscription) []byte {
	start := len(dst)
	dst = append(dst, format, s.QoS, flag(s.NoLocal, 1)|flag(s.RetainAsPublished, 2), s.RetainHandling)
	return seal(binary.AppendUvarint(dst, uint64(s.ID)), start)
}

// ReadSubscription reads it.
func ReadSubscription(filter string, blob []byte) (Subscription, error) {
	r, err := open("subscription", blob)
	if err != nil {
		return Subscription{}, err
	}
	s := Subscription{Filter: filter, QoS: r.byte()}
	flags := r.byte()
	s.NoLocal, s.RetainAsPublished, s.RetainHandling, s.ID = flags&1 > 0, flags&2 > 0, r.byte(), uint32(r.number())
	if s.QoS > 2 {
		r.bad = true
	}
	return s, r.err()
}
