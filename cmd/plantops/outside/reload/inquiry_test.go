//go:build linux

package reload_test

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

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
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
		d := q.u.Doors[r.IntN(len(q.u.Doors))]
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
func (q *inquiry) askAboutResident(d door.Door, r *rand.Rand) {
	l := rawmqtt.Login{User: q.u.fleet.Devices[0].ID, ClientID: fmt.Sprint("asks-", r.Uint32()), Secret: "guessed"}
	switch r.IntN(4) {
	case 0:
		l.User = "nobody"
	case 1:
		l.User, l.Secret = "", ""
	case 2:
		l.User, l.ClientID = "plantops_backend", "plantops-ingest"
	default:
		l.Secret = q.u.fleet.Devices[0].Secret
		q.ask(d, r, question{login: l, enters: true, topics: deviceTopics(l.User)})
		return
	}
	q.ask(d, r, question{login: l})
}

// askAboutGuest asks about an account that may be changed at this very moment.
func (q *inquiry) askAboutGuest(d door.Door, r *rand.Rand) {
	g := q.u.guests[r.IntN(len(q.u.guests))]
	secret, asked := g.question(r)
	l := rawmqtt.Login{User: g.name, Secret: secret, ClientID: fmt.Sprint(g.name, "-asks-", r.Uint32())}
	unchanged := g.since(asked)[0]
	topics := deviceTopics(g.name)
	topics["devices/"+g.name+"/telemetry"] = true
	if g.user {
		topics = map[string]bool{"devices/" + g.name + "/notes": false}
		for _, topic := range userTopics {
			topics[topic] = topic == unchanged.topic
		}
	}
	changed := func() bool {
		return slices.ContainsFunc(g.since(asked), func(s standing) bool { return s != unchanged })
	}
	q.ask(d, r, question{l, unchanged.secret == secret, topics, changed})
}

func deviceTopics(id string) map[string]bool {
	return map[string]bool{"devices/" + id + "/notes": true, "devices/" + id + deepTopic: true, "devices/" + id + "x/notes": false, "home/light": false}
}

// question is a login with what it may do.
type question struct {
	login   rawmqtt.Login
	enters  bool            // is let in
	topics  map[string]bool // may be published to, or may not
	changed func() bool     // the account was another one for some of the time; nil: nobody changes it
}

// ask logs in, publishes and subscribes. Where the account was changed, what both allow and what both forbid is right.
func (q *inquiry) ask(d door.Door, r *rand.Rand, about question) {
	l, changed := about.login, about.changed
	if changed == nil {
		changed = func() bool { return false }
	}
	a, code, err := d.EnterFrom(q.u.T, fmt.Sprintf("127.%d.%d.%d", 1+r.IntN(250), r.IntN(250), 1+r.IntN(250)), l)
	if a != nil {
		defer a.Close()
	}
	switch free := changed(); {
	case free:
		q.either.Add(1)
		if err != nil && !gone(err) || err == nil && code != 0 && code != badPassword {
			q.fault("%s over %s during a change: CONNACK %#x, %v", l.User, d.Kind, code, err)
		}
	case err != nil:
		q.fault("%s over %s: no CONNACK but %v", l.User, d.Kind, err)
	case code != 0 && code != badPassword:
		q.fault("%s over %s: CONNACK %#x", l.User, d.Kind, code)
	case code == 0 && !about.enters:
		q.fault("%s over %s came in with %q", l.User, d.Kind, l.Secret)
	case code != 0 && about.enters:
		q.fault("%s over %s was refused with the right password", l.User, d.Kind)
	}
	if err != nil || code != 0 {
		return
	}
	q.right.Add(1)
	for topic, allowed := range about.topics {
		text := "x"
		if strings.HasSuffix(topic, "/telemetry") {
			text = q.reading()
		}
		code, err := a.Publish(topic, text)
		if text != "x" && err == nil && code < rawmqtt.FirstFailure {
			q.stored.Add(1)
		}
		q.judge(fmt.Sprintf("%s publishes to %.40s over %s", l.User, topic, d.Kind), code, err, allowed, changed)
		if err != nil {
			return
		}
	}
	code, err = a.Subscribe("devices/#")
	q.judge(l.User+" subscribes to devices/#", code, err, false, changed)
}

// reading is one that nobody has sent before, as the fleet's look.
func (q *inquiry) reading() string {
	d := &fleet.Device{Epoch: q.u.fleet.Epoch}
	return string(d.Payload(int(q.sent.Add(1))))
}

const (
	badPassword   = 0x86
	notAuthorized = 0x87
)

func (q *inquiry) judge(what string, code byte, err error, allowed bool, changed func() bool) {
	switch {
	case changed():
		if err != nil && !gone(err) || err == nil && code >= rawmqtt.FirstFailure && code != notAuthorized {
			q.fault("%s during a change: %#x, %v", what, code, err)
		}
	case err != nil:
		q.fault("%s: %v", what, err)
	case allowed != (code < rawmqtt.FirstFailure), !allowed && code != notAuthorized:
		q.fault("%s: answered with %#x", what, code)
	}
}

// gone says that the server has ended the connection: the session's right to be is no more.
func gone(err error) bool {
	var network *net.OpError
	return !door.IsTimeout(err) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network))
}

// viewer subscribes to everything that devices send and counts what comes from the fleet.
type viewer struct {
	*door.Intruder
	from string
	seen atomic.Int64
	lost atomic.Pointer[error]
}

// watch begins a viewer, whose connection must last.
func (u *upheaval) watch(d door.Door) *viewer {
	u.T.Helper()
	v := &viewer{Intruder: u.Enter(d, rawmqtt.Login{User: "viewer", Secret: viewerPassword, ClientID: "viewer-" + d.Kind}), from: d.Kind}
	code, err := v.Subscribe("devices/+/telemetry")
	require.NoError(u.T, err)
	require.Less(u.T, code, byte(rawmqtt.FirstFailure))
	require.NoError(u.T, v.SetDeadline(time.Time{}))
	u.viewing.Go(func() {
		for {
			p, err := v.Next()
			if err != nil {
				v.lost.Store(&err)
				return
			}
			if p.Kind != rawmqtt.Publish {
				continue
			}
			if strings.HasPrefix(string(p.Body[2:]), "devices/bed-") {
				v.seen.Add(1)
			}
			v.Send(rawmqtt.EncodeAck(rawmqtt.Puback, p.ID))
		}
	})
	return v
}
