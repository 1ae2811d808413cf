//go:build linux

package attack_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// TestV17GuessingPasswordsIsThrottledAndLocksNobodyOut guesses the passwords of a device and of a user from many
// addresses while both log in from others, and while many devices behind one address come back at once.
// Everybody who is honest gets in: the very first login of the user, in the first second of the attack, within the
// patience of the tests, all others at once. PLANTOPS_GUESS=1 is the long form, with narrower bounds.
func TestV17GuessingPasswordsIsThrottledAndLocksNobodyOut(t *testing.T) {
	scenes := map[string]func(i int) (from string){
		"from everywhere":                    func(i int) string { return fmt.Sprintf("127.7.%d.%d", i/250, 1+i%250) },
		"from behind the address of devices": func(int) string { return "127.0.0.1" },
	}
	for name, from := range scenes {
		t.Run(name, func(t *testing.T) { attackPasswords(t, from, os.Getenv("PLANTOPS_GUESS") != "") })
	}
}

func attackPasswords(t *testing.T, from func(i int) string, long bool) {
	rate, length, devices, bound := 200, 4*time.Second, 100, 5*time.Second
	if long {
		rate, length, devices, bound = 1000, 30*time.Second, 1000, time.Second
	}
	in, g := siege.Prepare(t)
	ids := make([]string, devices)
	for i := range ids {
		ids[i] = fmt.Sprintf("storm-%d", i)
	}
	secrets := in.Register(ids...)
	g.AddExact()
	in.Start()
	in.AwaitReady()
	g.Meet()

	d := g.Doors[0]
	honest := map[string][]time.Duration{}
	again := 0
	enter := func(what, from, user string) { // as a client does: what fails is tried again
		began := time.Now()
		for {
			code, err := knock(t.Context(), d.Address, from, g.As(user))
			if err == nil && code == 0 {
				break
			}
			require.Less(t, time.Since(began), setting.Patience, "%s: %v, CONNACK %#x", what, err, code)
			again++
			<-time.After(20 * time.Millisecond)
		}
		honest[what] = append(honest[what], time.Since(began))
	}
	const firstOfUser = "first login of a user"
	enter("first login of a device", "127.0.0.1", "bed-2")
	before, busy := in.Memory("VmRSS"), program.CPUTime(t, g.PID)
	a := startGuessing(t, d.Address, rate, from, "bed-2", "exact")
	start := time.Now()
	enter(firstOfUser, "127.9.255.1", "exact")
	began, looks := time.Now(), time.NewTicker(100*time.Millisecond)
	defer looks.Stop()
	for n := 0; time.Since(began) < length; n++ {
		<-looks.C
		enter("device, known address", "127.0.0.1", "bed-2")
		enter("device, new address", fmt.Sprintf("127.8.%d.%d", n/250, 1+n%250), "bed-2")
		enter("user, new address", fmt.Sprintf("127.9.%d.%d", n/250, 1+n%250), "exact")
	}
	took := time.Since(start)
	answered, offered := a.answered.Load(), a.offered.Load()
	busy = program.CPUTime(t, g.PID) - busy
	storm := comeBack(t, d.Address, secrets)
	a.stop()

	assert.Zero(t, a.right.Load(), "guesses that were let in")
	t.Logf("%d guesses in %s, %.0f a second answered, %.0f refused unseen; server CPU %.0f %%, memory grew by %.1f MiB; %d devices came back in %s",
		offered, took.Round(time.Second), float64(answered)/took.Seconds(), float64(a.unseen.Load())/took.Seconds(),
		100*busy.Seconds()/took.Seconds(), float64(in.Memory("VmHWM")-before)/siege.Mebibyte, devices, storm.Round(time.Millisecond))
	t.Logf("honest clients tried again %d times", again)
	for what, all := range honest {
		slices.Sort(all)
		t.Logf("%s: %d logins, half within %s, slowest %s", what, len(all), all[len(all)/2].Round(100*time.Microsecond), all[len(all)-1].Round(time.Millisecond))
		if what == firstOfUser {
			continue
		}
		if long { // on a machine that does nothing else
			assert.Less(t, all[len(all)*99/100], bound, what)
		} else {
			assert.Less(t, all[len(all)/2], bound, what)
		}
	}
	assert.Less(t, storm, 2*siege.Promptness, "devices that come back at once")
	assert.Contains(t, in.Output.String(), "logins are throttled")
	for _, line := range strings.Split(in.Output.String(), "\n") {
		assert.NotContains(t, line, "guess-", "a password in the log")
	}
	g.ServesAll()
}

// knock logs in from an address of the loopback, says goodbye, and returns the reason code of the CONNACK.
func knock(ctx context.Context, address, from string, l rawmqtt.Login) (code byte, err error) {
	conn, err := dialFrom(ctx, address, from)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return greet(conn, l)
}

func dialFrom(ctx context.Context, address, from string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: setting.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(setting.Patience))
}

func greet(conn net.Conn, l rawmqtt.Login) (code byte, err error) {
	if _, err := conn.Write(l.Encode()); err != nil {
		return 0, err
	}
	answer, err := rawmqtt.Read(bufio.NewReader(conn))
	if err == nil && answer.Kind != rawmqtt.Connack {
		err = fmt.Errorf("instead of a CONNACK packet type %d", answer.Kind)
	}
	return answer.Reason, err
}

// guessing is an attack that goes on until stop.
type guessing struct {
	offered, answered, unseen, right atomic.Int64
	stop                             func()
}

// startGuessing makes rate guesses a second; attacker i comes from from(i). Nobody waits for an answer to the guess before.
func startGuessing(t *testing.T, address string, rate int, from func(i int) string, users ...string) *guessing {
	const atATime = 4 // guesses of one attacker that wait for an answer
	a := &guessing{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	a.stop = func() { cancel(); running.Wait() }
	t.Cleanup(a.stop)
	for i := range rate * atATime {
		running.Go(func() {
			pace := time.NewTicker(atATime * time.Second)
			defer pace.Stop()
			start := time.NewTimer(time.Duration(i) * time.Second / time.Duration(rate))
			defer start.Stop()
			select {
			case <-start.C:
			case <-ctx.Done():
			}
			for n := 0; ctx.Err() == nil; n++ {
				a.guess(ctx, address, from(i%rate), rawmqtt.Login{User: users[(i+n)%len(users)], Secret: fmt.Sprintf("guess-%d-%d", i, n), Version: 4 + byte(i%2)})
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return a
}

func (a *guessing) guess(ctx context.Context, address, from string, l rawmqtt.Login) {
	a.offered.Add(1)
	conn, err := dialFrom(ctx, address, from)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	code, err := greet(conn, l)
	const unavailable, busy = 3, 0x89
	switch {
	case err != nil: // no answer
	case code == 0:
		a.right.Add(1)
	case code == unavailable || code == busy:
		a.unseen.Add(1)
	default:
		a.answered.Add(1)
	}
}

// comeBack lets devices behind one address log in together and returns when the last one is in.
func comeBack(t *testing.T, address string, secrets map[string]string) time.Duration {
	t.Helper()
	began := time.Now()
	var all sync.WaitGroup
	for user, secret := range secrets {
		all.Go(func() {
			conn, err := dialFrom(t.Context(), address, "127.0.0.1")
			if !assert.NoError(t, err) {
				return
			}
			t.Cleanup(func() { conn.Close() })
			code, err := greet(conn, rawmqtt.Login{User: user, Secret: secret, ClientID: user})
			assert.NoError(t, err, user)
			assert.Zero(t, code, user)
		})
	}
	all.Wait()
	return time.Since(began)
}
