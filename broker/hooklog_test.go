package broker

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/assert"
)

func TestMochiLogsNoPackets(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(mochiLog{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})})
	secret := packets.Packet{Payload: []byte("secret"), Connect: packets.ConnectParams{Password: []byte("secret")}}
	log.With("packet", secret).WithGroup("g").Warn("", "pk", secret, "will", &secret, "client", "bed-1", "error", errors.New("broken"))
	log.Error("real trouble")
	assert.NotContains(t, out.String(), "secret")
	assert.NotContains(t, out.String(), "115 101 99", "nor as numbers")
	assert.Contains(t, out.String(), "level=DEBUG")
	assert.Contains(t, out.String(), "client=bed-1")
	assert.Contains(t, out.String(), "broken")
	assert.Contains(t, out.String(), "level=ERROR")
}
