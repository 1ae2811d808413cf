package broker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/broker/journal"
	"github.com/plantops/plantops/broker/journal/journaltest"
)

// statement is one message to be retained; "" removes what is there. sent and done are places in the order of all that
// happens; done 0: it was not acknowledged.
type statement struct {
	text       string
	by         int
	sent, done int64
}

// Whatever publishers do to one topic at once, with a disk that refuses some batches: after a crash the retained message is none
// that was replaced before an acknowledged one was sent.
func TestNoRetainedMessageIsAcknowledgedBeforeItIsOnDisk(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		s := journaltest.New()
		b := keeping(t, s, nil)
		refusing := rand.New(rand.NewPCG(random.Uint64(), 0))
		s.Before(func(*journal.Batch) error {
			if refusing.IntN(30) == 0 {
				return errors.New("not now")
			}
			return nil
		})
		var order, acknowledged atomic.Int64
		all := make([][]statement, 3)
		var publishing sync.WaitGroup
		for by := range all {
			login := as("bed-1", 5)
			if login.ClientID = fmt.Sprint("writer-", by); by == 0 {
				login = lasting("bed-1", login.ClientID, 5)
			}
			c := brokertest.Dial(t, b, brokertest.TCP, login)
			random := rand.New(rand.NewPCG(random.Uint64(), 0))
			publishing.Go(func() {
				for n := 1; ; n++ {
					one := statement{by: by, text: fmt.Sprintf("%d of %d", n, by)}
					if random.IntN(5) == 0 {
						one.text = ""
					}
					qos := byte(random.IntN(3))
					pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: true}, PacketID: uint16(n),
						TopicName: "devices/bed-1/state", Payload: []byte(one.text)}
					one.sent = order.Add(1)
					ended := c.Ended()
					if c.Send(pk); qos > 0 {
						_, ended = c.AwaitAckOrEnd([]byte{0, packets.Puback, packets.Pubrec}[qos])
					}
					if qos > 0 && !ended {
						one.done = order.Add(1)
						acknowledged.Add(1)
					}
					if all[by] = append(all[by], one); ended {
						return
					}
					if qos == 2 {
						c.Send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: uint16(n)})
						if _, ended := c.AwaitAckOrEnd(packets.Pubcomp); ended {
							return
						}
					}
				}
			})
		}
		enough := int64(1 + random.IntN(40))
		require.Eventually(t, func() bool { return acknowledged.Load() >= enough }, brokertest.Patience, 100*time.Microsecond)
		b, _ = crash(t, b, s, nil)
		publishing.Wait()
		c := brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5))
		require.Equal(t, byte(0), c.Subscribe("devices/bed-1/state", 0))
		kept := ""
		if b.RetainedCount() > 0 {
			kept = string(c.Receive().Payload)
		}
		assert.Empty(t, olderThan(all, kept), "%q is retained", kept)
		c.Close()
	}
}

// olderThan returns an acknowledged statement that must have replaced what is kept.
func olderThan(all [][]statement, kept string) (newer string) {
	fits := func(v, w statement) bool { // v may have come after w
		if v.by == w.by {
			return v.sent >= w.sent
		}
		return v.done == 0 || v.done > w.sent
	}
	for _, some := range all {
		for _, w := range some {
			if w.done == 0 {
				continue
			}
			found := false
			for _, others := range all {
				for _, v := range others {
					found = found || v.text == kept && fits(v, w)
				}
			}
			if !found {
				return fmt.Sprintf("%q of %d, acknowledged as %d", w.text, w.by, w.done)
			}
		}
	}
	return ""
}
