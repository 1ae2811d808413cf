package source

import (
	"bytes"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/plantops/plantops/ingest/payload"
)

// Fact is what a message says about its device.
type Fact uint8

const (
	Empty   Fact = iota // nothing: a retained message is cleared, or it is of no interest
	Values              // Content has readings, or says why there are none
	Online              // the device lives
	Offline             // the device has gone
	Unknown             // it cannot be read; Content.Reason says why
)

// Message is what a message of a source says.
type Message struct {
	Fact    Fact
	Device  string // id of its device, see ID; empty: it has none, or it cannot be made out
	Raw     string // what tells the device apart from others of its source, as the source writes it
	Content payload.Content
}

// Read reads a message on the topic of the match. The result is valid until r.Reset.
func (m Match) Read(r *payload.Reader, content []byte, at payload.Arrival) Message {
	text := payload.Trim(content)
	if m.Kind != Reading && m.Kind != Availability || len(text) == 0 {
		return Message{Fact: Empty}
	}
	metric := m.Metric
	if isObject := text[0] == '{' || text[0] == '['; m.rule.attributes && !isObject {
		if name := strings.LastIndexByte(m.Device, '/'); name >= 0 {
			m.Device, metric = m.Device[:name], m.Device[name+1:]
		}
	}
	shown := m.Device
	if len(m.rule.device)+len(m.rule.shown) > 0 {
		m.Device, shown = m.namesIn(text)
	}
	out := Message{Device: ID(m.Source, shown), Raw: m.Device}
	if out.Device == "" {
		return Message{Fact: Unknown, Content: payload.Content{Reason: "no name of a device"}}
	}
	if m.Kind == Availability {
		return availability(out, text)
	}
	out.Fact, out.Content = Values, r.Foreign(m.rule.read, metric, content, at)
	if out.Content.Reason != "" {
		out.Fact = Unknown
	}
	return out
}

// namesIn reads the name of the device in a payload: what tells it apart, and what it is called.
func (m Match) namesIn(text []byte) (raw, shown string) {
	raw, shown = m.Device, m.Device
	v, err := fastjson.ParseBytes(text)
	if err != nil {
		return raw, shown
	}
	var parts []string
	for _, path := range m.rule.device {
		if part := string(scalar(v.Get(path...))); part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) > 0 {
		raw = strings.Join(parts, "/")
		shown = raw
	}
	for _, path := range m.rule.shown {
		if name := string(scalar(v.Get(path...))); name != "" {
			return raw, name
		}
	}
	return raw, shown
}

// scalar returns the text of a string or a number.
func scalar(v *fastjson.Value) []byte {
	if v == nil {
		return nil
	}
	switch v.Type() {
	case fastjson.TypeString:
		return v.GetStringBytes()
	case fastjson.TypeNumber:
		return v.MarshalTo(nil)
	}
	return nil
}

// availability reads what programs write when a device comes and goes, and for each other what Homie calls its states.
func availability(out Message, text []byte) Message {
	word := text
	if v, err := fastjson.ParseBytes(text); err == nil {
		if v.Type() == fastjson.TypeObject {
			v = v.Get("state")
		}
		if v != nil && (v.Type() == fastjson.TypeTrue || v.Type() == fastjson.TypeFalse) {
			word = v.MarshalTo(nil)
		} else if found := scalar(v); found != nil {
			word = found
		}
	}
	switch string(bytes.ToLower(word)) {
	case "online", "true", "1", "connected", "ready", "alert", "init":
		out.Fact = Online
	case "offline", "false", "0", "disconnected", "lost":
		out.Fact = Offline
	case "sleeping":
		out.Fact = Empty
	default:
		out.Fact, out.Content.Reason = Unknown, "neither online nor offline"
	}
	return out
}
