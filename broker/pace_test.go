package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/session"
)

// track is a session of a client whose pace is the test's, and publishers that wait for it.
type track struct {
	*testing.T
	w *work
	p *peer

	publisher *peer
	sent      []uint16 // ids that the client has not acknowledged
	on        int      // publishers that went on
	coming    []*work  // of those whose messages have not come
	done      chan *work
}

func newTrack(t *testing.T) *track {
	u := newUsage("house")
	u.quotas.onDisk = true
	c := &track{T: t, w: &work{r: &router{}}, p: newPeer("panel", u, false), publisher: newPeer("pump", u, false), done: make(chan *work)}
	_, out := c.p.state.Connect(time.Now(), session.Connection{Version: 4, Clean: true}, nil)
	c.p.link = newLink(nil, nil)
	c.took(c.p.state.Resume(time.Now(), 1<<20, out))
	return c
}

func (c *track) took(out []session.Effect) {
	for i := range out {
		if out[i].Kind == session.Publish {
			c.sent = append(c.sent, out[i].PacketID)
		}
	}
}

// deliver brings messages into the session.
func (c *track) deliver(n int) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for range n {
		c.took(c.p.state.Deliver(time.Now(), &session.Message{Topic: "a", QoS: 1}, session.Offer{QoS: 1}, nil))
	}
	for ; n >= 10 && len(c.coming) > 0; n -= 10 {
		c.coming[0].arrived()
		c.coming = c.coming[1:]
	}
	c.w.checkPace(c.p)
}

// read has the client acknowledge messages.
func (c *track) read(n int) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	for range n {
		if len(c.sent) == 0 {
			break
		}
		id := c.sent[0]
		c.sent = c.sent[1:]
		c.took(c.p.state.Puback(time.Now(), id, session.Success, nil))
	}
	c.w.checkPace(c.p)
}

// publish has so many publishers come, each with ten messages, and returns how many of all that came have gone on.
func (c *track) publish(n int) int {
	for range n {
		go func() {
			w := new(work)
			w.keepPace(c.publisher, c.p, amount{10, 0})
			c.done <- w
		}()
		synctest.Wait() // they come one after the other
	}
	return c.gone()
}

func (c *track) gone() int {
	for {
		synctest.Wait()
		select {
		case w := <-c.done:
			c.on++
			c.coming = append(c.coming, w)
		default:
			return c.on
		}
	}
}

func TestPublishersKeepPaceWithASubscriberThatReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages)
		assert.Equal(t, 3, c.publish(3), "it is not behind")
		c.deliver(1)
		assert.Equal(t, 3, c.publish(100), "it is, by one")
		for range 50 { // seconds, in which it goes on reading
			c.read(2 * paceMessages)
			before := c.gone()
			c.deliver(10 * (before - 3))
			c.on = 3
			time.Sleep(paceLook)
			require.False(t, c.p.pace.Load().slow)
			messages, _ := c.p.state.Head()
			require.LessOrEqual(t, messages, behindMessages+1)
			require.True(t, c.p.state.TailEmpty())
			c.publish(before - 3)
		}
		assert.EqualValues(t, 1, c.w.r.waited.Load())
		c.read(2 * behindMessages)
		c.gone()
		assert.Zero(t, c.w.r.waited.Load(), "it has caught up, and nobody waits")
		assert.Equal(t, 103, c.on)
		c.p.mu.Lock()
		c.p.link = nil // so the clock that watches it stops
		c.p.mu.Unlock()
	})
}

func TestNobodyWaitsLongForASubscriberThatIsSlow(t *testing.T) {
	for name, is := range map[string]struct {
		quick bool
		takes int // in a paceLook
		looks int
	}{
		"it takes nothing and has never been fast": {looks: firstLooks},
		"it takes nothing and has been fast":       {quick: true, looks: paceLooks},
		"it takes a few and has never been fast":   {takes: fewMessages / 10, looks: firstLooks/fewLooks + 1},
		"it takes a few and has been fast":         {quick: true, takes: fewMessages / 10, looks: paceLooks/fewLooks + 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTrack(t)
				if is.quick {
					for range 4 {
						c.deliver(window)
						c.read(window)
					}
				}
				c.deliver(window + behindMessages + 1)
				began := time.Now()
				require.Zero(t, c.publish(5))
				for c.gone() == 0 {
					time.Sleep(paceLook)
					c.read(is.takes)
				}
				assert.Equal(t, 5, c.gone())
				assert.InDelta(t, float64(is.looks), float64(time.Since(began)/paceLook), 3)
				assert.Equal(t, 10, c.publish(5), "nor does anybody wait again")
				assert.Zero(t, c.w.r.waited.Load())
				c.deliver(8 * maxWaiting)
				assert.Equal(t, 15, c.publish(5), "its tail takes what comes")
				assert.False(t, c.p.state.TailEmpty())
			})
		})
	}
}

func TestASubscriberThatHasCaughtUpIsWaitedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages + 1)
		time.Sleep(paceLook)
		require.Zero(t, c.publish(1))
		time.Sleep(time.Second)
		require.Equal(t, 1, c.gone())
		require.True(t, c.p.pace.Load().slow)
		c.read(behindMessages)
		assert.False(t, c.p.pace.Load().slow)
		c.deliver(behindMessages)
		assert.Equal(t, 1, c.publish(1))
		c.p.mu.Lock()
		c.p.link = nil
		c.w.checkPace(c.p)
		c.p.mu.Unlock()
		assert.Equal(t, 2, c.gone(), "nor for one that has gone")
	})
}

func TestNobodyWaitsForItselfNorForWhomItKeepsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages + 1)
		require.True(t, c.p.isPaced())
		new(work).keepPace(c.p, c.p, amount{10, 0})
		began := time.Now()
		require.Zero(t, c.publish(2))
		other := newTrack(t)
		other.p.mu.Lock()
		other.p.pace.Store(&pace{})
		other.p.pace.Load().shut.Store(true) // somebody has begun to wait for the second one
		other.p.mu.Unlock()
		c.publisher = other.p
		assert.Equal(t, 1, c.publish(1), "who is waited for does not begin to wait")
		c.p.mu.Lock()
		c.p.pace.Load().waiting[1].by = other.p
		c.p.mu.Unlock()
		time.Sleep(paceLook)
		assert.Equal(t, 2, c.gone(), "nor goes on with it")
		assert.True(t, c.p.isPaced())
		time.Sleep(time.Second)
		assert.Equal(t, 3, c.gone())
		assert.Less(t, time.Since(began), 2*time.Second)
		c.read(window) // the rest of the queue
	})
}

// Publishers that were let go on take a while to come, on a machine where others want the processor. Without this as many again are
// let through as soon as the client has read what there was, and the session has no room for all of them.
func TestNoMoreGoOnThanTheSessionHasRoomForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages + 1)
		const brings = 10 << 10
		for range 2 * enoughBytes / brings {
			go func() {
				w := new(work)
				w.keepPace(c.publisher, c.p, amount{10, brings})
				c.done <- w
			}()
		}
		synctest.Wait()
		c.read(window + behindMessages)
		on := c.gone()
		assert.Positive(t, on)
		for range 3 {
			c.read(1)
			assert.LessOrEqual(t, c.gone()*brings, enoughBytes+brings)
		}
		for range 5 {
			for _, w := range c.coming {
				w.arrived()
			}
			c.coming = nil
			time.Sleep(paceLook)
			c.gone()
		}
		assert.Equal(t, 2*enoughBytes/brings, c.on)
		assert.Zero(t, c.w.r.waited.Load())
	})
}

// Without this each client that takes nothing any more would be looked at a hundred times a second.
func TestWhoTakesNothingIsNotWatchedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages + 1)
		require.EqualValues(t, 1, c.w.r.waited.Load())
		time.Sleep(2 * paceLooks * paceLook)
		synctest.Wait()
		assert.Zero(t, c.w.r.waited.Load())
		c.p.mu.Lock()
		assert.False(t, c.p.pace.Load().watched)
		c.p.mu.Unlock()
	})
}

// What was let through may come to nothing, and then nothing happens in the session by which the next would be let through.
func TestTheNextGoOnWhereNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrack(t)
		c.deliver(window + behindMessages + 1)
		require.Zero(t, c.publish(2*enoughMessages/10))
		c.read(2 * window)
		require.Less(t, c.gone(), 2*enoughMessages/10)
		for range 3 { // they are routed, and nobody gets them
			for _, w := range c.coming {
				w.arrived()
			}
			c.coming = nil
			time.Sleep(paceLook)
			c.gone()
		}
		assert.Equal(t, 2*enoughMessages/10, c.gone())
		assert.False(t, c.p.pace.Load().slow)
		time.Sleep(paceLook)
		assert.Zero(t, c.w.r.waited.Load())
	})
}

// A thousand publishers may have a bundle each when the session that all of them go to falls behind.
func TestBundlesOfQoS0HaveRoomInASessionThatFallsBehind(t *testing.T) {
	for _, payload := range []int{0, 64, 1 << 10, 16 << 10} {
		to := &subscribers{}
		b := bundle{to: to}
		for first := true; first || b.takes(to, 0, 0); first = false {
			b.messages, b.bytes = append(b.messages, bundled{}), b.bytes+payload
		}
		assert.LessOrEqual(t, behindMessages+1000*len(b.messages), maxHead, payload)
		assert.LessOrEqual(t, behindBytes+1000*(b.bytes-payload), maxWaitingBytes, "%d: but for the last of each, which would come alone", payload)
	}
}
