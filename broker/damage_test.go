package broker_test

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker"
	"github.com/plantops/plantops/broker/brokertest"
	"github.com/plantops/plantops/store"
)

// A page of the database that is damaged while the broker runs costs no session and no retained message, of which the broker
// knows: what it had in the file is there at the next start.
func TestADamagedPageCostsARunningBrokerNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plantops.db")
	start := func() (*store.Store, *brokertest.Broker) {
		s, err := store.Open(t.Context(), store.Options{Path: path})
		require.NoError(t, err)
		b := brokertest.Listen(t, func(o *broker.Options) { o.Storage = s }, brokertest.Device("bed-1"))
		require.NoError(t, b.Start())
		b.AdmitDevices()
		return s, b
	}
	stop := func(s *store.Store, b *brokertest.Broker) {
		require.NoError(t, b.Close())
		require.NoError(t, s.Close())
	}
	login := lasting("bed-1", "esp", 5)
	s, b := start()
	c := brokertest.Dial(t, b, brokertest.TCP, login)
	require.Equal(t, byte(1), c.Subscribe("devices/bed-1/commands", 1))
	c.Disconnect()
	send(t, brokertest.Dial(t, b, brokertest.TCP, as("bed-1", 5)), retain("devices/bed-1/a", "x"))
	stop(s, b)
	var roots []int64
	for _, table := range []string{"broker_session", "broker_subscription", "broker_retained"} {
		db, err := sql.Open("sqlite", path)
		require.NoError(t, err)
		var root int64
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT rootpage FROM sqlite_schema WHERE name = ?`, table).Scan(&root))
		require.NoError(t, db.Close())
		roots = append(roots, root)
	}

	s, b = start()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = file.Close() }() // not before the store: that would end the locks of this process
	const pageBytes = 1024
	for _, root := range roots {
		_, err = file.WriteAt(bytes.Repeat([]byte{0xA5}, pageBytes), (root-1)*pageBytes)
		require.NoError(t, err)
	}
	require.ErrorIs(t, s.Check(t.Context()), store.ErrDamaged)
	require.Eventually(t, func() bool {
		list, err := s.Salvages(t.Context())
		return err == nil && len(list) == 1
	}, brokertest.Patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { return s.Check(t.Context()) == nil }, brokertest.Patience, 10*time.Millisecond)
	stop(s, b)

	s, b = start()
	assert.Equal(t, 1, b.RetainedCount())
	sender := brokertest.Dial(t, b, brokertest.TCP, b.AsBackend())
	require.Zero(t, sender.Publish("devices/bed-1/commands", "on", 1))
	c, present := brokertest.TryDial(t, b, brokertest.TCP, login)
	require.True(t, present.SessionPresent)
	assert.Equal(t, "on", string(c.Receive().Payload))
	stop(s, b)
}
