//go:build linux

package attack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// Class V06, over and over: an honest device, which has nothing to do with it, is measured with and without, in turns.

// How many times longer than without an attack half of the answers may take, on a machine that does other things too. Where
// others waited for the attacker it was 178 times for who subscribes, and thousands of times for who searches: those take all the
// processors that there are.
const slowedBySubscribing, slowedBySearches = 50, 250

// slows makes sure that an honest device waits less than so many times longer. The machine may have got something else to do just
// when the attack began, but not each time.
func slows(g *siege.Siege, honest *door.Intruder, most float64, again ...func() error) {
	g.T.Helper()
	longer := slowed(g, honest, again...)
	for range 4 {
		if longer < most {
			break
		}
		longer = min(longer, slowed(g, honest, again...))
	}
	assert.Less(g.T, longer, most)
}

// slowed lets attackers repeat what they do, in turns with silence, and returns how much longer an honest device's readings wait
// for their acknowledgement meanwhile.
func slowed(g *siege.Siege, honest *door.Intruder, again ...func() error) float64 {
	g.T.Helper()
	var quiet, attacked []time.Duration
	for range 3 {
		quiet = append(quiet, answers(g, honest)...)
		stop := make(chan struct{})
		var running sync.WaitGroup
		for _, act := range again {
			running.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if !assert.NoError(g.T, act()) {
						return
					}
				}
			})
		}
		attacked = append(attacked, answers(g, honest)...)
		close(stop)
		running.Wait()
	}
	slices.Sort(quiet)
	slices.Sort(attacked)
	half := len(quiet) / 2
	last := len(quiet) - 1
	g.T.Logf("half of the answers take less than %s, the slowest %s; during the attack %s and %s",
		quiet[half], quiet[last], attacked[half], attacked[last])
	return float64(attacked[half]) / float64(quiet[half])
}

// answers are how long some readings wait.
func answers(g *siege.Siege, honest *door.Intruder) (took []time.Duration) {
	g.T.Helper()
	for range 30 {
		sent := time.Now()
		require.NoError(g.T, honest.SetDeadline(sent.Add(setting.Patience)))
		code, err := honest.Publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, sent.UnixMilli()))
		require.NoError(g.T, err)
		require.Less(g.T, code, byte(rawmqtt.FirstFailure))
		took = append(took, time.Since(sent))
	}
	return took
}

// watch adds the user watcher, who may read what all devices send, and nothing else.
func watch(g *siege.Siege) {
	g.T.Helper()
	password := filepath.Join(g.T.TempDir(), "password")
	require.NoError(g.T, os.WriteFile(password, []byte(siege.ExactPassword), 0o600))
	g.In.Run("user", "add", "watcher", "--subscribe", "devices/#", "--password-file", password)
	g.Secrets["watcher"] = siege.ExactPassword
}

// asks sends a SUBSCRIBE or UNSUBSCRIBE and waits for the answer, whatever comes before it.
func asks(a *door.Intruder, packet []byte, answer byte) error {
	if err := a.SetDeadline(time.Now().Add(setting.Patience)); err != nil {
		return err
	}
	a.Send(packet)
	_, err := a.Await(answer)
	return err
}

// Searches among retained messages that match little, and one that gets them all again.
func TestV06SearchesWithoutEndKeepNobodyWaiting(t *testing.T) {
	g := siege.Begin(t)
	watch(g)
	d := g.Doors[0]
	w := &worst{g: g, size: 500}
	w.retain(g.Enter(d, g.As("bed-1")))
	nothing := rawmqtt.EncodeSubscribe(5, 1, 3, suffixed(numbered("devices/bed-1/+/+/+/", 100), "x")...)
	everything := rawmqtt.EncodeSubscribe(5, 1, 3, "devices/bed-1/#")
	var again []func() error
	for i, p := range [][]byte{nothing, nothing, everything} {
		l := g.As("watcher")
		l.ClientID = fmt.Sprint("watcher-", i)
		a := g.Enter(d, l)
		again = append(again, func() error { return asks(a, p, rawmqtt.Suback) })
	}
	slows(g, g.Enter(d, g.As("bed-3")), slowedBySearches, again...)
	g.ServesAll()
}

// A viewer has many filters and says one of them again and again: as it is, changed, and taken back in between.
func TestV06SubscribingWithoutEndKeepsNobodyWaiting(t *testing.T) {
	g := siege.Begin(t)
	watch(g)
	w := &worst{g: g, size: 1000}
	reader := w.enter("watcher", "")
	w.subscribe(reader, numbered("devices/bed-9/", 9000))
	same := rawmqtt.EncodeSubscribe(5, 1, 2, "devices/+/telemetry")
	other := rawmqtt.EncodeSubscribe(5, 0, 3, "devices/+/telemetry")
	again := func() error {
		for _, p := range [][]byte{same, same, other} {
			if err := asks(reader, p, rawmqtt.Suback); err != nil {
				return err
			}
		}
		const unsuback = 11
		return asks(reader, rawmqtt.EncodeUnsubscribe(5, 4, "devices/+/telemetry"), unsuback)
	}
	slows(g, g.Enter(g.Doors[0], g.As("bed-3")), slowedBySubscribing, again)
	g.ServesAll()
}
