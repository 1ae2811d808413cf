package ingest

import (
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A broker that stops reading must not hold its device up for ever: not while it sends, and not while it says goodbye.
func TestPublishingToABrokerThatReadsNothingEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
		if _, err := packets.ReadPacket(c); err == nil {
			(&packets.Connack{Properties: &packets.Properties{}}).WriteTo(c)
		}
	}()
	p, err := Connect(t.Context(), PublisherOptions{Address: listener.Addr().String(), Username: "bed-1", Timeout: 200 * time.Millisecond})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = p.Publish(t.Context(), telemetryTopic, make([]byte, 1<<20), 0)
		}
		_ = p.Close() // it was over already
		ended <- err
	}()
	select {
	case err := <-ended:
		assert.ErrorContains(t, err, "i/o timeout")
	case <-time.After(patience):
		t.Fatal("still publishing")
	}
}

// paho makes room for as many packets as it announces, 512 kB for each of a thousand simulated devices.
func TestPublisherAnnouncesThatItReceivesNothing(t *testing.T) {
	s := serve(t, nil)
	p, err := Connect(t.Context(), PublisherOptions{Address: s.listener.Addr().String(), Username: "bed-1", Password: "x"})
	require.NoError(t, err)
	defer p.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotNil(t, s.connect.Properties.ReceiveMaximum)
	assert.Equal(t, uint16(1), *s.connect.Properties.ReceiveMaximum)
}
