package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (e Event) String() string {
	s := fmt.Sprintf("%.3f %s %s", e.At.Seconds(), e.Client, e.Kind)
	switch e.Kind {
	case Connecting:
		s += fmt.Sprintf(" resume=%t", e.Resume)
		if e.Will != nil {
			s += fmt.Sprintf(" will=%s after %s", e.Will.Topic, e.Will.Delay)
		}
	case Connected:
		s += fmt.Sprintf(" present=%t", e.Present)
	case Subscribing, Subscribed, Unsubscribing:
		s += fmt.Sprintf(" %s QoS %d", e.Filter, e.QoS)
	case Sending, Got, Kept:
		s += fmt.Sprintf(" %s on %s QoS %d id=%d again=%t retain=%t held=%t", e.Message, e.Topic, e.QoS, e.ID, e.Again, e.Retain, e.Held)
		if e.Empty {
			s += " empty=true"
		}
	case Taken, Completed, Refused, Answered:
		s += fmt.Sprintf(" %s id=%d", e.Message, e.ID)
	}
	return s
}

// Write writes a history into a file, an event a line with its number. Times lose what is below a millisecond.
func Write(path string, events []Event) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	for i, e := range events {
		fmt.Fprintln(b, i, e) // Flush says what went wrong
	}
	return errors.Join(b.Flush(), f.Close())
}

// Read reads the history that Write wrote. An error says where the file is none.
func Read(path string) ([]Event, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	p := &parser{names: map[string]string{}}
	var all []Event
	for in := bufio.NewReader(f); ; {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s, event %d: %w", path, len(all), err)
		}
		e, err := p.event(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s, event %d: %w", path, len(all), err)
		}
		all = append(all, e)
	}
}

// parser takes lines apart. It keeps one string of each name: there are few names in millions of events.
type parser struct {
	names map[string]string
	rest  []string
	err   error
}

func (p *parser) event(line string) (e Event, err error) {
	p.rest, p.err = strings.Split(line, " "), nil
	p.next() // its number
	at, err := strconv.ParseFloat(p.next(), 64)
	p.fail(err)
	e.At = time.Duration(at*1000+0.5) * time.Millisecond
	e.Client = p.name()
	kind := slices.Index(kindNames[:], p.next())
	if kind < 0 {
		return e, fmt.Errorf("%.100q is no event of a history", line)
	}
	switch e.Kind = Kind(kind); e.Kind {
	case Connecting:
		e.Resume = p.value("resume=") == "true"
		if len(p.rest) > 0 {
			e.Will = &Will{Topic: p.intern(p.value("will="))}
			p.value("after")
			e.Will.Delay, err = time.ParseDuration(p.next())
			p.fail(err)
		}
	case Connected:
		e.Present = p.value("present=") == "true"
	case Subscribing, Subscribed, Unsubscribing:
		e.Filter = p.name()
		p.value("QoS")
		e.QoS = byte(p.number(p.next()))
	case Sending, Got, Kept:
		e.Message = p.message()
		p.value("on")
		e.Topic = p.name()
		p.value("QoS")
		e.QoS = byte(p.number(p.next()))
		e.ID = uint16(p.number(p.value("id=")))
		e.Again, e.Retain, e.Held = p.value("again=") == "true", p.value("retain=") == "true", p.value("held=") == "true"
		e.Empty = len(p.rest) > 0 && p.value("empty=") == "true"
	case Taken, Completed, Refused, Answered:
		e.Message = p.message()
		e.ID = uint16(p.number(p.value("id=")))
	}
	if p.err != nil {
		return e, fmt.Errorf("%.200q: %w", line, p.err)
	}
	return e, nil
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *parser) next() string {
	if len(p.rest) == 0 {
		p.fail(io.ErrUnexpectedEOF)
		return ""
	}
	word := p.rest[0]
	p.rest = p.rest[1:]
	return word
}

// value is what stands behind a prefix in the next word.
func (p *parser) value(prefix string) string {
	word := p.next()
	value, ok := strings.CutPrefix(word, prefix)
	if !ok {
		p.fail(fmt.Errorf("%q in the place of %q", word, prefix))
	}
	return value
}

func (p *parser) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 16)
	p.fail(err)
	return n
}

func (p *parser) message() Message {
	m, ok := ParseMessage([]byte(p.next() + " "))
	if !ok {
		p.fail(errors.New("no name of a message"))
	}
	m.From = p.intern(m.From)
	return m
}

func (p *parser) name() string { return p.intern(p.next()) }

func (p *parser) intern(name string) string {
	known, ok := p.names[name]
	if !ok {
		known = strings.Clone(name) // name is part of a whole line
		p.names[known] = known
	}
	return known
}
