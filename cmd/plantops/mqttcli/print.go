package mqttcli

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Printer prints messages. For programs a payload is written as it is; a terminal gets nothing that it would obey.
type Printer struct {
	W        io.Writer
	Format   string // as of mosquitto_sub -F; "": the payload, with Topics its topic before it
	Topics   bool
	NoEOL    bool
	Terminal bool // W is one
	Colours  bool
	Now      func() time.Time
}

// CheckFormat returns what is wrong with a format.
func CheckFormat(format string) error {
	for rest := format; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return nil
		}
		letter, size := utf8.DecodeRuneInString(after)
		if size == 0 || !strings.ContainsRune(formatLetters, letter) {
			return fmt.Errorf("%q: after %% comes one of %s", format, formatLetters)
		}
		rest = after[size:]
	}
}

// formatLetters are those of mosquitto_sub, but for a topic alias, which there is none of here.
const formatLetters = "%CDEFIJPRSUXdjlmpqrtx"

// Print prints one message.
func (p *Printer) Print(m Message) error {
	line := p.line(m)
	if !p.NoEOL {
		line += "\n"
	}
	_, err := io.WriteString(p.W, line)
	return err
}

const (
	colourTopic  = "\x1b[36m"
	colourMark   = "\x1b[33m"
	colourNormal = "\x1b[0m"
)

func (p *Printer) line(m Message) string {
	if p.Format != "" {
		return p.formatted(m)
	}
	if !p.Topics {
		return p.shown(m.Payload)
	}
	name, mark := p.name(m.Topic), ""
	if m.Retain && p.Terminal {
		mark = "(retained) "
	}
	if p.Colours {
		name = colourTopic + name + colourNormal
		if mark != "" {
			mark = colourMark + mark + colourNormal
		}
	}
	return name + " " + mark + p.shown(m.Payload)
}

// name is a topic, which can hold anything but U+0000 too.
func (p *Printer) name(topic string) string {
	if !p.Terminal {
		return topic
	}
	return Visible(topic)
}

// binaryShown is how many bytes of a payload that is no text a person gets to see.
const binaryShown = 32

// shown is a payload for W.
func (p *Printer) shown(payload []byte) string {
	switch {
	case !p.Terminal:
		return string(payload)
	case !utf8.Valid(payload) || strings.ContainsRune(string(payload), 0):
		text := hex.EncodeToString(payload[:min(len(payload), binaryShown)])
		if len(payload) > binaryShown {
			text += "…"
		}
		return fmt.Sprintf("<%d bytes: %s>", len(payload), text)
	}
	return Visible(string(payload))
}

// Visible puts a mark in place of what a terminal obeys rather than shows. Line breaks and tabs stay.
func Visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (p *Printer) formatted(m Message) string {
	var out strings.Builder
	for i := 0; i < len(p.Format); i++ {
		switch c := p.Format[i]; {
		case c == '%' && i+1 < len(p.Format):
			i++
			out.WriteString(p.field(p.Format[i], m))
		case c == '\\' && i+1 < len(p.Format):
			i++
			out.WriteString(escaped(p.Format[i]))
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

func escaped(letter byte) string {
	if text, known := map[byte]string{'0': "\x00", 'a': "\a", 'e': "\x1b", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\\': "\\"}[letter]; known {
		return text
	}
	return "\\" + string(letter)
}

func (p *Printer) field(letter byte, m Message) string {
	switch letter {
	case 'C':
		return p.name(m.ContentType)
	case 'D':
		return p.shown(m.CorrelationData)
	case 'E':
		return number(m.Expiry)
	case 'F':
		return strings.TrimLeft(bit(m.Text), "0") // not given
	case 'I':
		return p.Now().Format("2006-01-02T15:04:05-0700")
	case 'J', 'j':
		return p.json(m, letter == 'J')
	case 'P':
		var all []string
		for _, u := range m.User {
			all = append(all, p.name(u.Key)+":"+p.name(u.Value))
		}
		return strings.Join(all, " ")
	case 'R':
		return p.name(m.ResponseTopic)
	case 'S':
		return strings.Trim(fmt.Sprint(m.SubscriptionIDs), "[]")
	case 'U':
		now := p.Now()
		return fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond())
	case 'X', 'x':
		text := hex.EncodeToString(m.Payload)
		if letter == 'X' {
			text = strings.ToUpper(text)
		}
		return text
	case 'd':
		return bit(m.Dup)
	case 'l':
		return strconv.Itoa(len(m.Payload))
	case 'm':
		return strconv.Itoa(int(m.ID))
	case 'p':
		return p.shown(m.Payload)
	case 'q':
		return strconv.Itoa(int(m.QoS))
	case 'r':
		return bit(m.Retain)
	case 't':
		return p.name(m.Topic)
	}
	return "%"
}

func number(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// described is a message for programs, as mosquitto_sub names its parts.
type described struct {
	Time          string          `json:"tst"`
	Topic         string          `json:"topic"`
	QoS           byte            `json:"qos"`
	Retain        int             `json:"retain"`
	PayloadLength int             `json:"payloadlen"`
	ID            uint16          `json:"mid,omitempty"`
	Properties    *properties     `json:"properties,omitempty"`
	Payload       json.RawMessage `json:"payload"`
	Base64        bool            `json:"base64,omitempty"` // the payload is no text
}

// properties are those of MQTT 5 in it.
type properties struct {
	Expiry          uint32            `json:"message-expiry-interval,omitempty"`
	Text            int               `json:"payload-format-indicator,omitempty"`
	ContentType     string            `json:"content-type,omitempty"`
	ResponseTopic   string            `json:"response-topic,omitempty"`
	CorrelationData string            `json:"correlation-data,omitempty"`
	SubscriptionIDs []int             `json:"subscription-identifier,omitempty"`
	User            map[string]string `json:"user-properties,omitempty"` // the last of a name
}

func propertiesOf(m Message) *properties {
	p := properties{Expiry: m.Expiry, ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: string(m.CorrelationData),
		SubscriptionIDs: m.SubscriptionIDs}
	if m.Text {
		p.Text = 1
	}
	for _, u := range m.User {
		if p.User == nil {
			p.User = map[string]string{}
		}
		p.User[u.Key] = u.Value
	}
	if reflect.ValueOf(p).IsZero() {
		return nil
	}
	return &p
}

// json is a message as one line. whole takes a payload that is JSON as such; otherwise it is a string.
func (p *Printer) json(m Message, whole bool) string {
	d := described{Time: p.Now().Format("2006-01-02T15:04:05.000000Z0700"), Topic: m.Topic, QoS: m.QoS, PayloadLength: len(m.Payload), ID: m.ID,
		Properties: propertiesOf(m)}
	if m.Retain {
		d.Retain = 1
	}
	switch {
	case len(m.Payload) == 0:
		d.Payload = []byte("null")
	case whole && json.Valid(m.Payload):
		d.Payload = m.Payload
	case utf8.Valid(m.Payload):
		d.Payload, _ = json.Marshal(string(m.Payload)) // a string can always be written
	default:
		d.Payload, _ = json.Marshal(base64.StdEncoding.EncodeToString(m.Payload))
		d.Base64 = true
	}
	text, _ := json.Marshal(d) // everything in it can be written
	if p.Terminal {
		return Visible(string(text))
	}
	return string(text)
}
