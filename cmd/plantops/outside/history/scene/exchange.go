package scene

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/history"
)

// This file is what a client says to the broker, and what it makes of what it hears.

// subscribe asks for what does not stand in the session yet.
func (c *client) subscribe(asked map[string]bool) (p []byte) {
	for filter, qos := range c.filters {
		if c.confirmed[filter] || asked[filter] {
			continue
		}
		asked[filter] = true
		c.note(history.Event{Kind: history.Subscribing, Filter: filter, QoS: qos})
		p = append(p, rawmqtt.EncodeSubscribe(c.version, qos, c.subscriptionID(filter), c.prefix+filter)...)
	}
	return p
}

// subscriptionID is a packet id that is the filter's own, and none of a message's.
func (c *client) subscriptionID(filter string) uint16 {
	i, _ := slices.BinarySearch(c.sortedFilters(), filter)
	return uint16(60_000 + i)
}

func (c *client) sortedFilters() []string {
	var all []string
	for filter := range c.filters {
		all = append(all, filter)
	}
	slices.Sort(all)
	return all
}

// publish returns what is due, as far as the window goes.
func (c *client) publish() (p []byte) {
	now := time.Now()
	if c.caller {
		if called := c.number > 0; called || !c.scene.calling.Load() {
			return nil
		}
		c.habits.rate, c.due = 1, now.Add(-time.Nanosecond)
	} else if c.plan == nil || c.scene.draining.Load() {
		return nil
	}
	for now.After(c.due) && len(c.flights) < c.habits.window {
		c.due = c.due.Add(time.Duration(float64(time.Second) / c.habits.rate))
		o := c.plan(c.random)
		o.message = history.Message{From: c.id, Number: c.number + 1}
		f := flight{outgoing: o}
		if o.qos > 0 {
			f.id = uint16(o.message.Number%50_000) + 1
		}
		c.note(history.Event{Kind: history.Sending, Message: o.message, Topic: o.topic, QoS: o.qos, ID: f.id, Retain: o.retain, Empty: o.empty})
		p = append(p, f.encode(c.version, false)...)
	}
	if c.due.Before(now.Add(-time.Second)) {
		c.due = now // who waited does not catch up
	}
	return p
}

// receive takes a packet and returns the answer.
func (c *client) receive(p rawmqtt.Packet) []byte {
	switch p.Kind {
	case rawmqtt.Publish:
		return c.receiveMessage(p)
	case rawmqtt.Pubrel:
		c.note(history.Event{Kind: history.Answered, Message: c.held[p.ID], QoS: 2, ID: p.ID})
		return rawmqtt.EncodeAck(rawmqtt.Pubcomp, p.ID)
	case rawmqtt.Suback:
		for i, filter := range c.sortedFilters() {
			if len(p.Body) > 2 && int(p.Body[0])<<8|int(p.Body[1]) == 60_000+i {
				if p.Body[len(p.Body)-1] > 2 {
					c.scene.complain("%s: the subscription to %s is refused: %#x", c.id, filter, p.Body[len(p.Body)-1])
				}
				c.note(history.Event{Kind: history.Subscribed, Filter: filter, QoS: p.Body[len(p.Body)-1]})
			}
		}
	case rawmqtt.Puback, rawmqtt.Pubrec, rawmqtt.Pubcomp:
		return c.receiveAck(p)
	case rawmqtt.Disconnect:
		if p.Reason != sessionTakenOver {
			c.scene.complain("%s: DISCONNECT %#x", c.id, p.Reason)
		}
	}
	return nil
}

const sessionTakenOver = 0x8e

func (c *client) receiveMessage(p rawmqtt.Packet) []byte {
	topic, payload, err := takeApart(c.version, p)
	if err != nil {
		c.scene.complain("%s: %v", c.id, err)
		return nil
	}
	e := history.Event{Kind: history.Got, Topic: strings.TrimPrefix(topic, c.prefix), QoS: p.QoS(), ID: p.ID, Again: p.Flags&8 != 0, Retain: p.Flags&1 != 0}
	known := len(payload) > 0 // else something retained was removed
	if known {
		var ours bool
		if e.Message, ours = history.ParseMessage(payload); !ours {
			return nil
		}
	}
	if e.QoS == 2 {
		_, e.Held = c.held[p.ID]
	}
	if known {
		c.note(e)
	} else if e.QoS == 2 {
		c.held[p.ID] = history.Message{}
	}
	switch e.QoS {
	case 1:
		if known {
			c.note(history.Event{Kind: history.Answered, Message: e.Message, QoS: 1, ID: p.ID})
		}
		return rawmqtt.EncodeAck(rawmqtt.Puback, p.ID)
	case 2:
		return rawmqtt.EncodeAck(rawmqtt.Pubrec, p.ID)
	}
	return nil
}

func (c *client) receiveAck(p rawmqtt.Packet) []byte {
	i := slices.IndexFunc(c.flights, func(f flight) bool { return f.id == p.ID })
	if i < 0 {
		if p.Kind == rawmqtt.Pubrec {
			return rawmqtt.EncodePubrel(p.ID)
		}
		return nil // once more for one of the connection before
	}
	f := c.flights[i]
	e := history.Event{Kind: history.Taken, Message: f.message, ID: p.ID, QoS: f.qos}
	switch {
	case p.Reason >= rawmqtt.FirstFailure && p.Kind != rawmqtt.Pubcomp:
		e.Kind = history.Refused
		c.scene.complain("%s: %s is refused with %#x", c.id, f.message, p.Reason)
	case p.Kind == rawmqtt.Pubcomp:
		if !f.recorded {
			return nil
		}
		e.Kind = history.Completed
	case p.Kind == rawmqtt.Pubrec && f.qos != 2, p.Kind == rawmqtt.Puback && f.qos != 1:
		c.scene.complain("%s: %s of QoS %d is answered with packet type %d", c.id, f.message, f.qos, p.Kind)
		return nil
	}
	c.note(e)
	if p.Kind == rawmqtt.Pubrec && e.Kind == history.Taken {
		return rawmqtt.EncodePubrel(p.ID)
	}
	return nil
}

// complain notes what a broker should not do and the history does not judge.
func (s *Scene) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complaints[fmt.Sprintf(format, args...)]++
}
