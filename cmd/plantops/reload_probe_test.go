//go:build linux

package main_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
)

// userTopics are what users among the guests may publish to, one of them each.
var userTopics = []string{"home/heating", "home/light"}

// deepTopic is what limits.max_topic_levels allows as long as a change of it waits for a restart.
var deepTopic = "/" + strings.Repeat("x/", 20) + "x"

// inquiry asks all the time who may do what, and notes each answer that is wrong.
type inquiry struct {
	u      *upheaval
	asked  atomic.Int64
	right  atomic.Int64 // to come in, when that was the only answer
	either atomic.Int64 // questions during a change: both answers are right
	sent   atomic.Int64 // readings of guests
	stored atomic.Int64 // of them, acknowledged

	resting sync.RWMutex // held for writing while nobody may ask
	mu      sync.Mutex
	wrong   []string
}

func (q *inquiry) fault(format string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wrong = append(q.wrong, fmt.Sprintf(format, args...))
}

func (q *inquiry) run(stop <-chan struct{}, r *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.Int64N(int64(10 * time.Millisecond)))):
		}
		q.resting.RLock()
		d := q.u.doors[r.IntN(len(q.u.doors))]
		if r.IntN(3) == 0 {
			q.askAboutResident(d, r)
		} else {
			q.askAboutGuest(d, r)
		}
		q.asked.Add(1)
		q.resting.RUnlock()
	}
}

// askAboutResident asks about accounts that nobody changes: there is one answer only.
func (q *inquiry) askAboutResident(d door, r *rand.Rand) {
	l := login{user: q.u.fleet.devices[0].id, client: fmt.Sprint("asks-", r.Uint32()), secret: "guessed"}
	switch r.IntN(4) {
	case 0:
		l.user = "nobody"
	case 1:
		l.user, l.secret = "", ""
	case 2:
		l.user, l.client = "plantops_backend", "plantops-ingest"
	default:
		l.secret = q.u.fleet.devices[0].secret
		q.ask(d, r, l, true, false, deviceTopics(l.user), func() bool { return false })
		return
	}
	q.ask(d, r, l, false, true, nil, func() bool { return false })
}

// askAboutGuest asks about an account that may be changed at this very moment.
func (q *inquiry) askAboutGuest(d door, r *rand.Rand) {
	g := q.u.guests[r.IntN(len(q.u.guests))]
	secret, asked := g.question(r)
	l := login{user: g.name, secret: secret, client: fmt.Sprint(g.name, "-asks-", r.Uint32())}
	unchanged := g.since(asked)[0]
	topics := deviceTopics(g.name)
	topics["devices/"+g.name+"/telemetry"] = true
	if g.user {
		topics = map[string]bool{"devices/" + g.name + "/notes": false}
		for _, topic := range userTopics {
			topics[topic] = topic == unchanged.topic
		}
	}
	in := unchanged.secret == secret
	changed := func() bool {
		return slices.ContainsFunc(g.since(asked), func(s standing) bool { return s != unchanged })
	}
	q.ask(d, r, l, in, !in, topics, changed)
}

func deviceTopics(id string) map[string]bool {
	return map[string]bool{"devices/" + id + "/notes": true, "devices/" + id + deepTopic: true, "devices/" + id + "x/notes": false, "home/light": false}
}

// ask logs in, publishes and subscribes. Where changed, the guest's account was another one for some of the time: what
// both allow and what both forbid is right.
func (q *inquiry) ask(d door, r *rand.Rand, l login, mayEnter, mustNot bool, topics map[string]bool, changed func() bool) {
	a, code, err := d.enterFrom(q.u.t, fmt.Sprintf("127.%d.%d.%d", 1+r.IntN(250), r.IntN(250), 1+r.IntN(250)), l)
	if a != nil {
		defer a.Close()
	}
	switch free := changed(); {
	case free:
		q.either.Add(1)
		if err != nil && !gone(err) || err == nil && code != 0 && code != badPassword {
			q.fault("%s over %s during a change: CONNACK %#x, %v", l.user, d.kind, code, err)
		}
	case err != nil:
		q.fault("%s over %s: no CONNACK but %v", l.user, d.kind, err)
	case code != 0 && code != badPassword:
		q.fault("%s over %s: CONNACK %#x", l.user, d.kind, code)
	case code == 0 && mustNot:
		q.fault("%s over %s came in with %q", l.user, d.kind, l.secret)
	case code != 0 && mayEnter:
		q.fault("%s over %s was refused with the right password", l.user, d.kind)
	}
	if err != nil || code != 0 {
		return
	}
	q.right.Add(1)
	for topic, allowed := range topics {
		text := "x"
		if strings.HasSuffix(topic, "/telemetry") {
			text = q.reading()
		}
		code, err := a.publish(topic, text)
		if text != "x" && err == nil && code < firstFailure {
			q.stored.Add(1)
		}
		q.judge(fmt.Sprintf("%s publishes to %.40s over %s", l.user, topic, d.kind), code, err, allowed, changed)
		if err != nil {
			return
		}
	}
	code, err = a.subscribe("devices/#")
	q.judge(l.user+" subscribes to devices/#", code, err, false, changed)
}

// reading is one that nobody has sent before, as the fleet's look.
func (q *inquiry) reading() string {
	d := &device{epoch: q.u.fleet.epoch}
	return string(d.payload(int(q.sent.Add(1))))
}

const (
	badPassword   = 0x86
	notAuthorized = 0x87
)

func (q *inquiry) judge(what string, code byte, err error, allowed bool, changed func() bool) {
	switch {
	case changed():
		if err != nil && !gone(err) || err == nil && code >= firstFailure && code != notAuthorized {
			q.fault("%s during a change: %#x, %v", what, code, err)
		}
	case err != nil:
		q.fault("%s: %v", what, err)
	case allowed != (code < firstFailure), !allowed && code != notAuthorized:
		q.fault("%s: answered with %#x", what, code)
	}
}

// gone says that the server has ended the connection: the session's right to be is no more.
func gone(err error) bool {
	var network *net.OpError
	return !isTimeout(err) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network))
}

// viewer subscribes to everything that devices send and counts what comes from the fleet.
type viewer struct {
	*intruder
	from string
	seen atomic.Int64
	lost atomic.Pointer[error]
}

// watch begins a viewer, whose connection must last.
func (u *upheaval) watch(d door) *viewer {
	u.t.Helper()
	v := &viewer{intruder: u.enter(d, login{user: "viewer", secret: viewerPassword, client: "viewer-" + d.kind}), from: d.kind}
	code, err := v.subscribe("devices/+/telemetry")
	require.NoError(u.t, err)
	require.Less(u.t, code, byte(firstFailure))
	require.NoError(u.t, v.SetDeadline(time.Time{}))
	u.viewing.Go(func() {
		for {
			kind, body, err := v.next()
			if err != nil {
				v.lost.Store(&err)
				return
			}
			if kind != publish {
				continue
			}
			topicEnds := 2 + int(body[0])<<8 + int(body[1])
			if strings.HasPrefix(string(body[2:topicEnds]), "devices/bed-") {
				v.seen.Add(1)
			}
			v.send(encode(puback<<4, body[topicEnds:topicEnds+2]))
		}
	})
	return v
}
