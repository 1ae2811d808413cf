package session

import "time"

// Will is a client's will with its MQTT 5 delay and lifetime.
type Will struct {
	// Message is published when the will is due; its Created and Expires are
	// set then.
	Message Message
	Delay   time.Duration // Will Delay Interval
	Expiry  time.Duration // Message Expiry Interval, counted from publication; 0: none
}

// WillBytes returns what the will is charged with while it waits for the end of its client; 0: there is none.
func (s *Session) WillBytes() int {
	if s.will == nil {
		return 0
	}
	return s.will.Message.costBytes()
}

// leaveWill decides about the will when a connection ends.
func (s *Session) leaveWill(now time.Time, cause Cause, out []Effect) []Effect {
	switch {
	case s.will == nil:
	case cause == Goodbye || cause == Stopping: // [MQTT-3.14.4-3]; an orderly stop publishes none
		s.will = nil
	case s.will.Delay == 0: // [MQTT-3.1.2-8]
		return s.publishWill(now, out)
	default:
		s.willDue = instantOf(now.Add(s.will.Delay))
	}
	return out
}

func (s *Session) publishWill(now time.Time, out []Effect) []Effect {
	if s.will == nil {
		return out
	}
	m := s.will.Message
	m.Created = now
	if s.will.Expiry > 0 {
		m.Expires = now.Add(s.will.Expiry)
	}
	s.leaving, s.will, s.willDue = s.will, nil, 0 // [MQTT-3.1.2-10]: once
	return append(out, Effect{Kind: WillDue, Message: &m})
}

// WillRouted says that the message of a WillDue is with its subscribers, or refused: it need not be kept any more.
func (s *Session) WillRouted() { s.leaving = nil }
