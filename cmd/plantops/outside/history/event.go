package history

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is what has happened.
type Kind uint8

// The kinds. What a client sends is noted before it is written, what it gets after it is read: so the order of the log is one
// in which it can have happened.
const (
	Connecting    Kind = iota // sends CONNECT: Resume, Will
	Connected                 // has its CONNACK: Present
	Parted                    // has sent DISCONNECT, and everything before it
	Dropped                   // has no connection any more, without a DISCONNECT
	Replaced                  // gives up its connection for another one, which it opens while this one is there
	Subscribing               // sends SUBSCRIBE: Filter, QoS
	Subscribed                // has its SUBACK: Filter, QoS as granted
	Unsubscribing             // sends UNSUBSCRIBE: Filter
	Sending                   // sends PUBLISH: Message, Topic, QoS, Retain, Again, Empty
	Taken                     // has its PUBACK, or PUBREC at QoS 2: Message
	Completed                 // has its PUBCOMP: Message
	Refused                   // was told that the message is not taken: Message
	Got                       // was sent a PUBLISH: Message, Topic, QoS, Retain, Again, ID, Held
	Answered                  // sends PUBACK, or PUBCOMP at QoS 2: Message
	Kept                      // was shown, in the end, that this is the retained message: Topic, Message
	Killed                    // the broker is about to be killed, or its power cut; and once more when it is gone
	Ended                     // all is done that was to be waited for, and all that is retained was shown
)

var kindNames = [...]string{"Connecting", "Connected", "Parted", "Dropped", "Replaced", "Subscribing", "Subscribed", "Unsubscribing", "Sending", "Taken",
	"Completed", "Refused", "Got", "Answered", "Kept", "Killed", "Ended"}

func (k Kind) String() string { return kindNames[k] }

// Message names one message for good: who published it, and the how-manieth of his it was. A will is published by
// WillOf its client and has the number of the connection.
type Message struct {
	From   string
	Number int
}

// WillOf is the publisher of a client's wills.
func WillOf(client string) string { return client + "!" }

func (m Message) String() string { return fmt.Sprintf("%s:%d", m.From, m.Number) }

// Payload is a message as it is sent, with as many bytes if that is possible.
func (m Message) Payload(size int) []byte {
	p := append([]byte(m.String()), ' ')
	return append(p, bytes.Repeat([]byte{'.'}, max(0, size-len(p)))...)
}

// ParseMessage reads a payload; false says that it is none of ours.
func ParseMessage(payload []byte) (m Message, ok bool) {
	name, _, ok := bytes.Cut(payload, []byte{' '})
	at := strings.LastIndexByte(string(name), ':')
	if !ok || at < 0 {
		return Message{}, false
	}
	number, err := strconv.Atoi(string(name[at+1:]))
	return Message{string(name[:at]), number}, err == nil
}

// Will is what a client leaves behind.
type Will struct {
	Topic string
	Delay time.Duration
}

// Event is one line of a history. Which fields count is said at its Kind.
type Event struct {
	At      time.Duration // since the log began
	Kind    Kind
	Client  string
	Message Message
	Topic   string
	Filter  string
	QoS     byte
	ID      uint16 // of the packet

	Again   bool // with DUP
	Retain  bool
	Empty   bool // it removes the retained message, and cannot be recognised by who gets it
	Held    bool // QoS 2: its id was known already, so it is no delivery
	Resume  bool // the session is to be kept and taken up
	Present bool // it was there
	Will    *Will
}

// Log is a history that is being made. It is safe for concurrent use.
type Log struct {
	began time.Time
	mu    sync.Mutex
	all   []Event
}

// NewLog begins a history with what is there already: that of a time before a power cut.
func NewLog(before []Event) *Log {
	l := &Log{began: time.Now(), all: before}
	if n := len(before); n > 0 {
		l.began = l.began.Add(-before[n-1].At)
	}
	return l
}

// Add notes an event and the time.
func (l *Log) Add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.At = time.Since(l.began)
	l.all = append(l.all, e)
}

// Len is how many events there are.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// Events are all up to now. The caller must not change them.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[:len(l.all):len(l.all)]
}

// Count says in one line how much happened.
func Count(events []Event) string {
	var n [len(kindNames)]int
	for _, e := range events {
		n[e.Kind]++
	}
	return fmt.Sprintf("%d connections, %d messages sent, %d taken, %d got, %d events", n[Connected], n[Sending], n[Taken], n[Got], len(events))
}

// Cut is what clients knew after so many events, when the broker's power was cut: nobody has a connection any more.
func Cut(events []Event, n int) []Event {
	all := append([]Event{}, events[:n]...)
	var at time.Duration
	connected, order := map[string]bool{}, []string{}
	for _, e := range all {
		at = e.At
		switch e.Kind {
		case Connecting:
			if !connected[e.Client] {
				order = append(order, e.Client)
			}
			connected[e.Client] = true
		case Parted, Dropped, Replaced:
			connected[e.Client] = false
		}
	}
	all = append(all, Event{At: at, Kind: Killed})
	for _, client := range order {
		if connected[client] {
			all = append(all, Event{At: at, Kind: Dropped, Client: client})
			connected[client] = false
		}
	}
	return all
}
