package ingest

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
)

func TestQueueGivesBatchesInOrder(t *testing.T) {
	q, c := newQueue(10, 1000), &conn{}
	for id := range uint16(5) {
		require.Equal(t, 1, q.put(item{id: id, payload: []byte("xx"), from: c}))
	}
	var ids [][]uint16
	for range 3 {
		var batch []uint16
		for _, it := range q.take(nil, 2) {
			batch = append(batch, it.id)
		}
		ids = append(ids, batch)
	}
	assert.Equal(t, [][]uint16{{0, 1}, {2, 3}, {4}}, ids)
	assert.Zero(t, q.bytes)
	q.close()
	assert.Empty(t, q.take(nil, 2))
	assert.Zero(t, q.put(item{from: c}), "a closed queue takes nothing")
}

func TestABatchIsBoundedInBytes(t *testing.T) {
	q, c := newQueue(10, 1000), &conn{}
	for id := range uint16(4) {
		require.Equal(t, 1, q.put(item{id: id, payload: make([]byte, maxBatchBytes*2/3), from: c}))
	}
	require.Equal(t, 1, q.put(item{id: 4, payload: make([]byte, 2*maxBatchBytes), from: c}))
	assert.Len(t, q.take(nil, 10), 2)
	assert.Len(t, q.take(nil, 10), 2)
	assert.Len(t, q.take(nil, 10), 1, "a large one by itself")
	assert.Zero(t, q.bytes)
}

func TestAFullQueueHoldsTheReaderUp(t *testing.T) {
	for name, tt := range map[string]struct {
		full    item
		release func(*queue, *conn)
		taken   bool
	}{
		"until there is room":        {item{}, func(q *queue, _ *conn) { q.take(nil, 1) }, true},
		"until bytes are gone":       {item{payload: make([]byte, maxQueuedBytes)}, func(q *queue, _ *conn) { q.take(nil, 1) }, true},
		"until the connection ended": {item{id: 1}, func(q *queue, c *conn) { c.over.Store(true); q.release() }, false},
		"until the queue is closed":  {item{}, func(q *queue, _ *conn) { q.close() }, false},
		"with what the broker does not send again, even when the connection ended": {item{},
			func(q *queue, c *conn) { c.over.Store(true); q.release(); synctest.Wait(); q.take(nil, 1) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				capacity := 1
				if len(tt.full.payload) > 0 {
					capacity = 100
				}
				q, c := newQueue(capacity, 1000), &conn{}
				require.Equal(t, 1, q.put(tt.full))
				taken := make(chan bool, 1)
				go func() { taken <- q.put(item{id: tt.full.id, from: c}) == 1 }()
				synctest.Wait()
				require.Empty(t, taken, "put returned")
				tt.release(q, c)
				assert.Equal(t, tt.taken, <-taken)
			})
		})
	}
}

func TestAFaultIsLoggedWhenItBeginsOnceAMinuteAndWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, out := newGate(), &logs{}
		o := to("h", 1, "a")
		o.Log = slog.New(slog.NewTextHandler(out, nil))
		sub, err := New(o, g)
		require.NoError(t, err)
		go func() {
			for began := time.Now(); time.Since(began) < 150*time.Second; {
				<-g.offered
				g.answer <- errors.New("database is locked")
			}
			<-g.offered
			g.answer <- nil
		}()
		batch := make([]store.Message, 3)
		outcomes, err := sub.append(t.Context(), batch, nil)
		require.NoError(t, err)
		assert.Len(t, outcomes, 3)
		assert.Equal(t, 3, strings.Count(out.String(), "cannot store messages"), "%s", out)
		assert.Equal(t, 1, strings.Count(out.String(), "storing again"))
	})
}

func TestABatchIsGatheredUntilItIsFull(t *testing.T) {
	for name, c := range map[string]struct {
		put   func(q *queue)
		whole bool
	}{
		"one message":       {func(q *queue) { q.put(item{from: &conn{}}) }, false},
		"so many":           {func(q *queue) { q.put(item{from: &conn{}}); q.put(item{from: &conn{}}) }, true},
		"so large":          {func(q *queue) { q.put(item{from: &conn{}, payload: make([]byte, maxBatchBytes)}) }, true},
		"there are no more": {func(q *queue) { q.put(item{from: &conn{}}); q.close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range []bool{false, true} { // it came before who gathers, or while he does
				q := newQueue(10, 2)
				if before {
					c.put(q)
				} else {
					q.put(item{from: &conn{}})
					q.take(nil, 1)
					go c.put(q)
				}
				assert.True(t, q.await())
				if c.whole {
					<-q.whole
				} else {
					assert.Empty(t, q.whole)
				}
			}
		})
	}
	q := newQueue(10, 1)
	q.close()
	assert.False(t, q.await(), "closed and empty")
}

func TestAsMuchAsTheLastBatchesHadIsUsual(t *testing.T) {
	q := newQueue(100, 100)
	put := func(n int) {
		for range n {
			q.put(item{from: &conn{}})
		}
	}
	for _, n := range []int{5, 3, 3} {
		put(n)
		require.Len(t, q.take(nil, 100), n)
	}
	put(4)
	require.True(t, q.await())
	assert.True(t, q.waits())
	assert.Empty(t, q.usual)
	put(1)
	assert.Len(t, q.usual, 1, "as many as in the largest")
	q.take(nil, 1)
	require.True(t, q.await())
	assert.Empty(t, q.usual, "that was another batch")
}

// What was read together is committed together: who commits hears of it when there is nothing more to take apart.
func TestWhatIsReadTogetherComesTogether(t *testing.T) {
	s, err := New(to("h", 1, "a"), newGate())
	require.NoError(t, err)
	l := &link{Subscriber: s}
	c := &conn{}
	for id := range uint16(3) {
		l.hold(item{id: id + 1, from: c})
	}
	assert.False(t, s.queue.waits())
	assert.EqualValues(t, 3, s.Stats().Pending)
	l.handOver()
	assert.Len(t, s.queue.take(nil, 10), 3)

	s.queue.close()
	l.hold(item{id: 4, from: c})
	l.handOver()
	assert.EqualValues(t, 3, s.Stats().Received, "the broker keeps what is not taken")
	l.handOver()
	assert.EqualValues(t, 3, s.Stats().Received)
}

func TestAConnectionTellsBeforeItWaits(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	told := 0
	c := &conn{Conn: ours, socket: ours, in: bufio.NewReader(ours), frame: frame{limit: 100}, onEnd: func() {}, before: func() { told++ }}
	go func() {
		for range 2 {
			_, _ = theirs.Write([]byte{0xd0, 0, 0xd0, 0}) // PINGRESP
		}
		theirs.Close()
	}()
	var when []int
	for range 8 {
		_, err := c.Read(make([]byte, 1))
		require.NoError(t, err)
		when = append(when, told)
	}
	assert.Equal(t, []int{1, 1, 1, 1, 2, 2, 2, 2}, when)
}
