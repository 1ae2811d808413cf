package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/network"
	"github.com/plantops/plantops/config"
)

// complete adds what has no default: limits and patience as the configuration has them.
func complete(o Options) Options {
	o.Limits, o.StallTimeout = Limits(config.Default().Limits), config.Default().Ingest.StallTimeout
	return o
}

func TestMissingLimitsAreRefusedByName(t *testing.T) {
	for name, o := range map[string]Options{"MaxConnections": {}, "MaxQueuedBytes": complete(Options{}), "StallTimeout": complete(Options{})} {
		switch name {
		case "MaxQueuedBytes":
			o.Limits.MaxQueuedBytes = 0
		case "StallTimeout":
			o.StallTimeout = 0
		}
		_, err := Listen(o)
		assert.ErrorContains(t, err, name)
	}
}

func TestAListenerThatEndsByItselfIsReported(t *testing.T) {
	b, err := Listen(complete(Options{TCP: "127.0.0.1:0"}))
	require.NoError(t, err)
	require.NoError(t, b.Start())
	require.NoError(t, b.listeners[network.TCP].Listener.Close()) // behind our back
	select {
	case err := <-b.Died():
		assert.ErrorContains(t, err, "tcp listener")
	case <-time.After(30 * time.Second):
		assert.Fail(t, "nobody was told")
	}
	require.NoError(t, b.Close())
}
