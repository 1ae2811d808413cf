package network

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/access"
	"github.com/plantops/plantops/broker/brokertest/logtest"
	"github.com/plantops/plantops/broker/refusal"
)

// from is a connection from an address of the attackers, without sockets.
type from struct {
	net.Conn
	remote net.TCPAddr
}

func (f from) RemoteAddr() net.Addr { return &f.remote }

// knock lets a connection from ip in; establish is what it does when it is served. hang up ends it.
func (n *Network) knock(ip string, port int, establish func(c *Conn)) (c *Conn, hangUp func()) {
	ours, theirs := net.Pipe()
	l := &Listener{kind: TCP, n: n, establish: func(c *Conn) error {
		establish(c)
		return nil
	}}
	c = newConn(l, from{ours, net.TCPAddr{IP: net.ParseIP(ip), Port: port}})
	go io.Copy(io.Discard, theirs)
	n.enter(c)
	return c, func() { theirs.Close(); c.abort(refusal.Refusal{Reason: "test"}, nil) }
}

// guesser shows one password and says how long it took to be told.
func (n *Network) guesser(account access.Account, right bool, told chan<- time.Duration) func(c *Conn) {
	return func(c *Conn) {
		began := time.Now()
		t, _, ok := c.Attempt(account)
		if ok && right {
			t.Right()
			c.Admitted("")
		} else {
			t.Wrong(!ok)
		}
		told <- time.Since(began)
	}
}

var device, person = access.Account{Name: "bed-1"}, access.Account{Name: "anna", Guessable: true}

func TestOnlyWrongPasswordsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		told := make(chan time.Duration, 1)
		for i := range freeFailures {
			n.knock("10.0.0.1", 1+i, n.guesser(device, false, told))
			require.Zero(t, <-told, "guess %d", i)
		}
		n.knock("10.0.0.1", 1000, n.guesser(device, false, told))
		assert.InDelta(t, delayPerFailure, <-told, float64(time.Millisecond))
		for range 100 {
			n.failed(v4(1), "", time.Now())
		}
		n.knock("10.0.0.1", 1001, n.guesser(device, false, told))
		assert.Equal(t, maxDelay, <-told)
		n.knock("10.0.0.2", 1002, n.guesser(device, false, told))
		assert.Positive(t, <-told, "the name is guessed at, wherever from")
		n.knock("10.0.0.1", 1003, n.guesser(device, true, told))
		assert.Zero(t, <-told, "a right one never waits")
		synctest.Wait()
		require.NoError(t, n.Close(t.Context()))
		require.Zero(t, n.serving)
	})
}

func TestAWaitingAnswerEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		for range 1000 {
			n.failed(v4(1), "", time.Now())
		}
		told := make(chan time.Duration, 1)
		_, hangUp := n.knock("10.0.0.1", 1, n.guesser(person, false, told))
		synctest.Wait()
		require.Equal(t, 1, n.serving, "it keeps its place")
		require.Len(t, n.names.get("anna").waiting, 1)
		hangUp()
		assert.Zero(t, <-told)
		synctest.Wait()
		assert.Zero(t, n.serving)
		assert.Empty(t, n.names.get("anna").waiting)
		require.NoError(t, n.Close(t.Context()))
	})
}

// stays is a client that logs in and then stays connected.
func (n *Network) stays(account access.Account) func(c *Conn) {
	return func(c *Conn) {
		t, _, _ := c.Attempt(account)
		t.Right()
		c.Admitted("")
		<-c.Done()
	}
}

func TestAnAddressIsKnownWhileItsClientsStayConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		_, first := n.knock("192.0.2.7", 1, n.stays(device))
		_, second := n.knock("192.0.2.7", 2, n.stays(person))
		synctest.Wait()
		time.Sleep(2 * goodFor)
		for i := range 2 * freeFailures { // a health check that asks for nothing
			_, hangUp := n.knock("192.0.2.7", 10+i, silent)
			synctest.Wait()
			hangUp()
		}
		synctest.Wait()
		require.Greater(t, n.failing.get(family).level(time.Now()), float64(freeFailures))
		assert.Equal(t, rankKnown, n.addresses[family].rank)
		assert.Equal(t, 100, n.addresses[family].places)
		first()
		second()
		synctest.Wait()
		require.Empty(t, n.addresses)
		assert.Equal(t, rankKnown, n.rank(family, time.Now()))
		assert.True(t, fresh(n.homes.get(home{person.Name, family}), time.Now()), "she was here a moment ago")
		assert.False(t, fresh(n.homes.get(home{device.Name, family}), time.Now()))
		time.Sleep(goodFor)
		assert.NotEqual(t, rankKnown, n.rank(family, time.Now()))
		require.NoError(t, n.Close(t.Context()))
	})
}

func TestFailuresOfAnAddressAreForgottenWhileItIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		n.Expect(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1})
		n.knock("10.0.0.1", 1, n.stays(device)) // the program itself, which makes its address no better
		synctest.Wait()
		for range 2 * freeFailures {
			n.failed(v4(1), "", time.Now())
		}
		n.assess(n.addresses[v4(1)], time.Now())
		require.Equal(t, rankFailing, n.addresses[v4(1)].rank)
		time.Sleep(time.Hour)
		n.knock("10.0.0.1", 2, silent)
		synctest.Wait()
		assert.Equal(t, rankStranger, n.addresses[v4(1)].rank)
		assert.Equal(t, 100, n.addresses[v4(1)].places)
		require.NoError(t, n.Close(t.Context()))
	})
}

// The race detector looks at it.
func TestTheProgramMayBeExpectedWhileItLogsIn(t *testing.T) {
	n := quietNetwork(Limits{})
	told := make(chan time.Duration, 1)
	c, _ := n.knock("127.0.0.1", 7, n.guesser(person, true, told))
	n.Expect(c.RemoteAddr())
	<-told
	require.NoError(t, n.Close(t.Context()))
}

// silent is a client that says nothing.
func silent(c *Conn) { <-c.Done() }

func TestKnownAddressesAndTheProgramItselfFindAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{MaxUnauthenticated: 20, MaxUnauthenticatedPerAddress: 10})
		told := make(chan time.Duration, 1)
		n.knock("192.0.2.7", 1, n.guesser(device, true, told))
		<-told
		synctest.Wait()
		for i := range 200 {
			n.knock(v4(i).Addr().String(), 1, silent)
		}
		synctest.Wait()
		require.Equal(t, 18, n.serving, "a tenth is kept")
		began := time.Now()
		n.knock("192.0.2.7", 2, n.guesser(device, true, told))
		<-told
		for i := range 2 {
			n.knock("192.0.2.7", 10+i, silent)
		}
		own, _ := n.knock("10.0.0.7", 7, n.guesser(device, true, told)) // behind an address of the attackers
		synctest.Wait()
		require.Empty(t, told)
		n.Expect(own.RemoteAddr())
		<-told
		n.Expect(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 8), Port: 8})
		n.knock("10.0.0.8", 8, n.guesser(device, true, told))
		<-told
		assert.Zero(t, time.Since(began))
		synctest.Wait()
		require.Equal(t, rankStranger, n.rank(v4(7), time.Now()), "its logins say nothing of its address")
		require.NoError(t, n.Close(t.Context()))
	})
}

func TestStrangersComeBeforeThoseWhoFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{MaxUnauthenticated: 20, MaxUnauthenticatedPerAddress: 10, ConnectTimeout: 30 * time.Second})
		for round := range 3 {
			for i := range 100 {
				n.knock(v4(i).Addr().String(), 1+round, silent)
			}
		}
		time.Sleep(75 * time.Second) // in the bubble; each of them has been sent away once
		synctest.Wait()
		require.Equal(t, 15, n.serving, "a quarter is kept")
		require.Positive(t, n.waiting)
		told := make(chan time.Duration, 1)
		began := time.Now()
		n.knock("192.0.2.7", 1, n.guesser(device, true, told))
		<-told
		assert.Zero(t, time.Since(began))
		require.NoError(t, n.Close(t.Context()))
	})
}

func TestAnAddressWithManyFailuresHasFewPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		for range 2 * freeFailures {
			n.failed(v4(1), "", time.Now())
		}
		for i := range 50 {
			n.knock("10.0.0.1", 1+i, silent)
			n.knock("10.0.0.2", 1+i, silent)
		}
		synctest.Wait()
		assert.Equal(t, 10, n.addresses[v4(1)].serving)
		assert.Equal(t, 50, n.addresses[v4(2)].serving)
		require.NoError(t, n.Close(t.Context()))
	})
}

// Behind one address guesses go on at full speed while 200 honest devices come back.
func TestGuessesDoNotSlowTheDevicesBehindTheSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := quietNetwork(Limits{})
		told := make(chan time.Duration, 2000)
		n.knock("192.0.2.7", 1, n.guesser(device, true, told))
		<-told
		for range 1000 {
			n.failed(family, "anna", time.Now())
		}
		began := time.Now()
		wrong := make(chan time.Duration, 2000)
		for i := range 200 {
			for k := range 5 {
				n.knock("192.0.2.7", 10+10*i+k, n.guesser(person, false, wrong))
			}
			n.knock("192.0.2.7", 19+10*i, n.guesser(device, true, told))
		}
		for range 200 {
			<-told
		}
		assert.Zero(t, time.Since(began))
		synctest.Wait()
		assert.Equal(t, 25, n.addresses[family].delayed, "the others are refused at once, most of them unseen")
		assert.LessOrEqual(t, len(n.names.get("anna").waiting), guessesAtATime)
		require.NoError(t, n.Close(t.Context()))
	})
}

func TestThrottlingIsToldWhenItBeginsAndWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logtest.Log
		e := episodes{log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 1000 {
			for i := range 2 * toldAtATime {
				e.tell("address", v4(i).String(), failures{count: 100, at: time.Now()}, time.Now())
			}
		}
		assert.Equal(t, toldAtATime, strings.Count(log.String(), `msg="logins are throttled"`))
		assert.Contains(t, log.String(), "address=10.0.0.3/32 failures=100")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		assert.Equal(t, toldAtATime, strings.Count(log.String(), `msg="logins are no longer throttled"`))
		assert.Contains(t, log.String(), "refused=1000 lasted=2m0s")
		assert.Equal(t, 1, strings.Count(log.String(), "throttled too"))
		assert.Contains(t, log.String(), "refused=10000\n")
		e.end()
	})
}
