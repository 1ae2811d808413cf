//go:build linux

package main_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestV03FloodOfStrangersLeavesRoomForDevices opens silent sockets, oversize first packets and halves of TLS handshakes
// from several addresses while a known device works. PLANTOPS_FLOOD=1 is the long form.
func TestV03FloodOfStrangersLeavesRoomForDevices(t *testing.T) {
	silent, oversize, halves, timeout := 300, 20, 50, "10s"
	long := os.Getenv("PLANTOPS_FLOOD") != ""
	if long {
		silent, oversize, halves, timeout = 10_000, 100, 1000, "30s"
	}
	g := besiege(t, "PLANTOPS_LIMITS_CONNECT_TIMEOUT="+timeout)
	worker := g.enter(g.doors[0], g.as("bed-3"))
	var took []time.Duration
	work := func() {
		began := time.Now()
		require.NoError(t, worker.SetDeadline(began.Add(patience)))
		code, err := worker.publish("devices/bed-3/telemetry", fmt.Sprintf(`{"timestamp":%d,"temperature":20}`, began.UnixMilli()))
		require.NoError(t, err)
		require.Less(t, code, byte(firstFailure))
		took = append(took, time.Since(began))
	}
	before := g.in.memory("VmRSS")
	large := make([]byte, 200_000)
	var crowd []*intruder
	open := func(i int, address string, said []byte) {
		a, err := (door{kind: "tcp", address: address}).open(t, fmt.Sprintf("127.0.0.%d", 2+i%8))
		if err != nil {
			return // refused: there are too many
		}
		a.write(said)
		crowd = append(crowd, a)
	}
	for i := range silent {
		open(i, g.doors[i%3].address, nil)
		if i%10 == 0 {
			work()
		}
	}
	for i := range oversize {
		open(i, g.doors[0].address, append([]byte{1 << 4, 0xc0, 0x9a, 0x0c}, large...))
		work()
	}
	for i := range halves {
		open(i, g.doors[1].address, []byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3})
		work()
	}
	began := time.Now()
	g.servesAll() // logins of a device while all of them are there
	login := time.Since(began)
	for _, a := range crowd {
		a.Close()
	}
	g.servesAll()
	slices.Sort(took)
	p99, grown := took[len(took)*99/100], g.in.memory("VmHWM")-before
	t.Logf("%d silent, %d oversize, %d halves: %d acknowledgements, p99 %s, slowest %s; three logins in %s; memory grew by %.1f MiB",
		silent, oversize, halves, len(took), p99.Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond),
		login.Round(time.Millisecond), float64(grown)/mebibyte)
	assert.Less(t, grown, int64(64*mebibyte))
	if long {
		assert.Less(t, p99, 250*time.Millisecond)
	}
}
