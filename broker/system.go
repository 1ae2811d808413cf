package broker

import (
	"runtime/debug"
	"strconv"
	"time"

	"github.com/plantops/plantops/broker/session"
)

// systemValues are the topics under $SYS, by the names that Mosquitto gives them.
var systemValues = []struct {
	topic string
	value func(r *router) string
}{
	{"$SYS/broker/version", func(*router) string { return "plantops " + buildVersion() }},
	{"$SYS/broker/uptime", func(r *router) string {
		return strconv.Itoa(int(r.now().Sub(r.started).Seconds())) + " seconds"
	}},
	{"$SYS/broker/clients/connected", func(r *router) string { return strconv.Itoa(len(r.sessions.live())) }},
	{"$SYS/broker/clients/total", func(r *router) string { return strconv.Itoa(r.sessions.count()) }},
	{"$SYS/broker/publish/messages/received", func(r *router) string { return strconv.FormatInt(r.received.Load(), 10) }},
	{"$SYS/broker/publish/messages/sent", func(r *router) string { return strconv.FormatInt(r.sent.Load(), 10) }},
	{"$SYS/broker/publish/messages/dropped", func(r *router) string { return strconv.FormatInt(r.dropped.Load(), 10) }},
	{"$SYS/broker/retained messages/count", func(r *router) string { return strconv.Itoa(r.retained.len()) }},
}

func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return info.Main.Version
}

// system returns the message of one value as it is now.
func (r *router) system(i int, now time.Time) *session.Message {
	v := &systemValues[i]
	return &session.Message{Topic: v.topic, Payload: []byte(v.value(r)), Retain: true, Created: now}
}

// renewSystem renews the retained values, for somebody who subscribes to them.
func (r *router) renewSystem() {
	for i := range systemValues {
		r.retained.set(r.system(i, r.now()), nil)
	}
}

// publishSystem publishes the values, if anybody subscribes to one: an idle box does not count for nobody.
func (r *router) publishSystem(now time.Time) {
	if !r.systemWanted() {
		return
	}
	w := r.begin()
	for i := range systemValues {
		m := r.system(i, now)
		r.publish(w, publication{to: r.subscribersOf(m.Topic), message: m, now: now})
	}
	w.finish()
}

func (r *router) systemWanted() bool {
	for _, v := range systemValues {
		if r.wanted(v.topic) {
			return true
		}
	}
	return false
}
