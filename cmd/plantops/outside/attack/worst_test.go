//go:build linux

package attack_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// worst looks for the most expensive that one packet inside the limits can ask for. Its attackers are the device bed-1 and
// the user watcher, who may read what all devices send.
type worst struct {
	g         *siege.Siege
	size      int // of the preparations: as much as the quotas allow, or a tenth
	connected []*door.Intruder
}

// effort is one search: it prepares, and returns an attack that is measured, of so many packets.
type effort func(w *worst, a *door.Intruder) (attack func(), packets int)

var efforts = map[string]effort{
	"SUBSCRIBE, many filters of 32 levels": func(w *worst, a *door.Intruder) (func(), int) {
		p := rawmqtt.EncodeSubscribe(5, 1, 1, patterns(w.size/160, 13, 30)...) // each counts for sixteen
		return func() { a.Send(p) }, 1
	},
	"SUBSCRIBE, many short filters": func(w *worst, a *door.Intruder) (func(), int) {
		p := rawmqtt.EncodeSubscribe(5, 1, 1, numbered("devices/bed-1/", w.size/10)...)
		return func() { a.Send(p) }, 1
	},
	"SUBSCRIBE again to all": func(w *worst, a *door.Intruder) (func(), int) {
		w.subscribe(a, numbered("devices/bed-1/", w.size))
		p := rawmqtt.EncodeSubscribe(5, 1, 2, numbered("devices/bed-1/", w.size/10)...)
		return func() { a.Send(p) }, 1
	},
	"SUBSCRIBE to a/+/# many times": func(w *worst, a *door.Intruder) (func(), int) {
		p := rawmqtt.EncodeSubscribe(5, 1, 1, suffixed(numbered("devices/bed-1/", w.size/10), "/+/#")...)
		return func() { a.Send(p) }, 1
	},
	"UNSUBSCRIBE from a tenth of all": func(w *worst, a *door.Intruder) (func(), int) {
		filters := suffixed(numbered("devices/bed-1/", w.size), "/+/#")
		w.subscribe(a, filters)
		p := rawmqtt.EncodeUnsubscribe(5, 9, filters[:w.size/10]...)
		return func() { a.Send(p) }, 1
	},
	"PUBLISH into a thicket of + and a": func(w *worst, a *door.Intruder) (func(), int) {
		w.subscribe(a, patterns(w.size, 13, 30))
		p := message(0, "devices/bed-1"+strings.Repeat("/a", 30), "")
		return func() { a.Send(p) }, 1
	},
	"PUBLISH into a thicket on top": func(w *worst, a *door.Intruder) (func(), int) {
		w.subscribe(a, patterns(w.size, 13, 13))
		p := message(0, "devices/bed-1"+strings.Repeat("/a", 13), "")
		return func() { a.Send(p) }, 1
	},
	"a device's PUBLISH after a SUBSCRIBE of who has many": func(w *worst, _ *door.Intruder) (func(), int) {
		reader := w.enter("watcher", "")
		filters := numbered("devices/bed-9/", w.size-1)
		w.subscribe(reader, append(filters, "devices/+/notes"))
		device := w.enter("bed-2", "")
		p := message(0, "devices/bed-2/notes", "")
		return func() { device.Send(p); assert.NoError(w.g.T, w.ping(device)) }, 1
	},
	"PUBLISH to a crowd": func(w *worst, a *door.Intruder) (func(), int) {
		for i := range w.size / 50 {
			w.subscribe(w.enter("watcher", fmt.Sprint("reader-", i)), overlapping())
		}
		p := message(0, "devices/bed-1/a/a/a/a", "")
		return func() { a.Send(p) }, 1
	},
	"PUBLISH to share groups": func(w *worst, a *door.Intruder) (func(), int) {
		for i := range 20 {
			w.subscribe(w.enter("watcher", fmt.Sprint("member-", i)), shared(w.size/20))
		}
		p := message(0, "devices/bed-1/a", "")
		return func() { a.Send(p) }, 1
	},
	"PUBLISH with as many user properties as it may have": func(w *worst, a *door.Intruder) (func(), int) {
		for i := range 20 {
			w.subscribe(w.enter("watcher", fmt.Sprint("reader-", i)), []string{"devices/bed-1/a"})
		}
		properties := strings.Repeat("\x26\x00\x01a\x00\xf0"+strings.Repeat("b", 240), w.size/10)
		p := message(0, "devices/bed-1/a", properties)
		return func() { a.Send(p) }, 1
	},
	"SUBSCRIBE that passes over all retained messages": func(w *worst, a *door.Intruder) (func(), int) {
		w.retain(a)
		p := rawmqtt.EncodeSubscribe(5, 1, 3, "devices/bed-1/+/+/+/nothing")
		return func() { a.Send(p) }, 1
	},
	"SUBSCRIBE that passes over them many times": func(w *worst, a *door.Intruder) (func(), int) {
		w.retain(a)
		p := rawmqtt.EncodeSubscribe(5, 1, 3, suffixed(numbered("devices/bed-1/+/+/+/", 100), "x")...)
		return func() { a.Send(p) }, 1
	},
	"CONNECT that ends a session with many subscriptions": func(w *worst, a *door.Intruder) (func(), int) {
		w.subscribe(a, patterns(w.size, 13, 30))
		return func() { w.enter("bed-1", "attacker").Close() }, 1
	},
	"CONNECT that takes over a session with a long queue": func(w *worst, _ *door.Intruder) (func(), int) {
		l := w.g.As("watcher")
		l.ClientID, l.Resume = "sleeper", true
		sleeper := w.g.Enter(w.g.Doors[0], l)
		w.subscribe(sleeper, []string{"devices/bed-1/a"})
		sleeper.Close()
		sender := w.enter("bed-1", "sender")
		for range w.size / 10 {
			sender.Send(rawmqtt.Message{Topic: "devices/bed-1/a", ID: 1, Payload: []byte("x")}.Encode())
			_, err := sender.Await(rawmqtt.Puback)
			require.NoError(w.g.T, err)
		}
		return func() { w.g.Enter(w.g.Doors[0], l).Close() }, 1
	},
	"the end of many connections with wills": func(w *worst, a *door.Intruder) (func(), int) {
		w.subscribe(a, []string{"devices/bed-1/#"})
		var dying []*door.Intruder
		for i := range w.size / 50 {
			l := w.g.As("bed-1")
			l.ClientID, l.WillTopic, l.WillText = fmt.Sprint("mortal-", i), "devices/bed-1/will", "x"
			dying = append(dying, w.g.Enter(w.g.Doors[0], l))
		}
		return func() {
			for _, d := range dying {
				d.Close()
			}
		}, len(dying)
	},
}

// numbered are n different filters.
func numbered(prefix string, n int) (filters []string) {
	for i := range n {
		filters = append(filters, fmt.Sprint(prefix, i))
	}
	return filters
}

func suffixed(filters []string, suffix string) []string {
	for i := range filters {
		filters[i] += suffix
	}
	return filters
}

// patterns are n filters of + and a that all match devices/bed-1/a/a/a..., different in the first levels.
func patterns(n, different, levels int) (filters []string) {
	for i := range n {
		filter := "devices/bed-1"
		for level := range levels {
			if level < different && i>>level&1 == 1 {
				filter += "/+"
			} else {
				filter += "/a"
			}
		}
		if i >= 1<<different {
			filter = filter[:len(filter)-2] + "/#"
		}
		filters = append(filters, filter)
	}
	return filters
}

// overlapping are the filters that match devices/bed-1/a/a/a/a.
func overlapping() (filters []string) {
	for _, f := range patterns(16, 4, 4) {
		filters = append(filters, f, strings.Replace(f, "devices", "+", 1), f+"/#")
	}
	return filters
}

func shared(n int) []string {
	return suffixed(numbered("$share/", n), "/devices/bed-1/a")
}

// message is a PUBLISH with QoS 0; retain is 0 or 1.
func message(retain byte, topic, properties string) []byte {
	body := append(rawmqtt.AppendString(nil, topic), binary.AppendUvarint(nil, uint64(len(properties)))...)
	return rawmqtt.Encode(rawmqtt.Publish<<4|retain, append(append(body, properties...), 'x'))
}

func (w *worst) enter(user, client string) *door.Intruder {
	l := w.g.As(user)
	if client != "" {
		l.ClientID = client
	}
	a := w.g.Enter(w.g.Doors[0], l)
	w.connected = append(w.connected, a)
	return a
}

// subscribe takes a packet for every few hundred filters.
func (w *worst) subscribe(a *door.Intruder, filters []string) {
	for some := range slices.Chunk(filters, 62) { // a packet takes no more of the deepest
		a.Send(rawmqtt.EncodeSubscribe(5, 1, 1, some...))
		_, err := a.Await(rawmqtt.Suback)
		require.NoError(w.g.T, err)
	}
}

// retain fills the store with topics below bed-1.
func (w *worst) retain(a *door.Intruder) {
	for i := range 10 * w.size {
		a.Send(message(1, fmt.Sprintf("devices/bed-1/%d/%d/%d", i%10, i/10%100, i), ""))
	}
	require.NoError(w.g.T, w.ping(a))
}

// ping waits until everything that was sent before has been dealt with.
func (w *worst) ping(a *door.Intruder) error {
	a.Send(rawmqtt.Encode(rawmqtt.Pingreq<<4, nil))
	_, err := a.Await(rawmqtt.Pingresp)
	return err
}

// cpu is the time that the server has spent on processors, in all its threads.
func (w *worst) cpu() (spent time.Duration) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", w.g.PID))
	require.NoError(w.g.T, err)
	for _, task := range tasks {
		var ns int64
		if b, err := os.ReadFile(task); err == nil {
			_, _ = fmt.Sscan(string(b), &ns)
		}
		spent += time.Duration(ns)
	}
	return spent
}

// cost is what an attack costs: the server, per packet, and a device that has nothing to do with it, as its slowest answer.
type cost struct {
	name         string
	cpu, blocked time.Duration
	memory       int64 // of the server, in bytes, with what was prepared and after the attack
}

func (w *worst) measure(name string, e effort, witness *door.Intruder) cost {
	before := w.g.In.Memory("VmRSS")
	attacker := w.enter("bed-1", "attacker")
	attack, packets := e(w, attacker)
	require.NoError(w.g.T, w.ping(attacker), name)
	slowest, spent, rounds := w.witness(witness, func() {
		attack()
		if err := w.ping(attacker); !strings.HasPrefix(name, "CONNECT") {
			assert.NoError(w.g.T, err, name)
		}
	})
	memory := w.g.In.Memory("VmRSS") - before
	own := w.idle(witness) * time.Duration(rounds)
	for _, a := range w.connected {
		a.Close()
	}
	w.connected = nil
	return cost{name, max(0, spent-own) / time.Duration(packets), slowest, memory}
}

// witness publishes all the time that what takes, and returns its slowest answer and what the server has spent meanwhile.
func (w *worst) witness(witness *door.Intruder, what func()) (slowest, spent time.Duration, rounds int) {
	began := w.cpu()
	done := make(chan struct{})
	go func() {
		defer close(done)
		what()
	}()
	for over := false; !over || rounds < 100; rounds++ {
		select {
		case <-done:
			over = true
		default:
		}
		sent := time.Now()
		require.NoError(w.g.T, witness.SetDeadline(sent.Add(setting.Patience)))
		_, err := witness.Publish("devices/bed-3/notes", "x")
		require.NoError(w.g.T, err)
		slowest = max(slowest, time.Since(sent))
	}
	return slowest, w.cpu() - began, rounds
}

// idle is what the witness itself costs the server for each of its messages, after an attack: the least of a few looks.
func (w *worst) idle(witness *door.Intruder) time.Duration {
	least := time.Hour
	for range 5 {
		_, spent, rounds := w.witness(witness, func() {})
		least = min(least, spent/time.Duration(rounds))
	}
	return least
}

// TestV06TheMostExpensivePacketsCostLittle searches among what a device and a reader may ask for inside the limits. Its
// bounds are for a machine that does other things too: CPU time is the server's alone, and who has nothing to do with it
// waits for a moment at most. PLANTOPS_WORST=1 is the long form, which asks for ten times as much and has a bound of its
// own, for a machine that does nothing else; any other value is the long form of those that have it in their name.
func TestV06TheMostExpensivePacketsCostLittle(t *testing.T) {
	w, cpu, blocked := &worst{size: 1000}, 100*time.Millisecond, time.Second
	long := os.Getenv("PLANTOPS_WORST")
	if long != "" {
		w.size, cpu, blocked = 10_000, setting.Patience, 250*time.Millisecond
	}
	_, g := siege.Prepare(t)
	w.g = g
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte(siege.ExactPassword), 0o600))
	g.In.Run("user", "add", "watcher", "--subscribe", "devices/#", "--password-file", password)
	g.Secrets["watcher"] = siege.ExactPassword
	g.In.Start()
	g.In.AwaitReady()
	g.Meet()
	witness := g.Enter(g.Doors[0], g.As("bed-3"))
	var costs []cost
	for name, e := range efforts {
		if long != "" && long != "1" && !strings.Contains(name, long) {
			continue
		}
		c := w.measure(name, e, witness)
		for range 4 { // the least counts: a busy machine holds up anything now and then
			if c.cpu < cpu && c.blocked < blocked {
				break
			}
			again := w.measure(name, e, witness)
			c.cpu, c.blocked = min(c.cpu, again.cpu), min(c.blocked, again.blocked)
		}
		costs = append(costs, c)
	}
	g.ServesAll()
	slices.SortFunc(costs, func(a, b cost) int { return cmp.Compare(b.cpu, a.cpu) })
	for _, c := range costs {
		t.Logf("%10s of CPU %10s blocked %6.1f MiB  %s", c.cpu.Round(10*time.Microsecond), c.blocked.Round(10*time.Microsecond),
			float64(c.memory)/siege.Mebibyte, c.name)
		assert.Less(t, c.cpu, cpu, "CPU time of the server: %s", c.name)
		assert.Less(t, c.blocked, blocked, "somebody else waits: %s", c.name)
	}
}
