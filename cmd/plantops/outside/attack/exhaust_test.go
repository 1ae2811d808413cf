//go:build linux

package attack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/door"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
	"github.com/plantops/plantops/cmd/plantops/outside/siege"
)

// Classes V04 and V18: one account makes the server keep state, in memory and on disk.

// fewQueuedBytes is a small quota, so that an attack soon comes to it.
const fewQueuedBytes = "PLANTOPS_LIMITS_MAX_QUEUED_BYTES_PER_ACCOUNT=4000000"

// swells runs an attack and returns how much memory it has cost, where that is much: some of it has only not been collected yet.
func swells(g *siege.Siege, what string, attack func()) (hole string) {
	before := program.MemoryOf(g.T, g.PID, "VmRSS")
	attack()
	grown := program.MemoryOf(g.T, g.PID, "VmRSS") - before
	g.T.Logf("%s: %d MiB", what, grown/siege.Mebibyte)
	if grown > 2*siege.FewMiB {
		return fmt.Sprintf("%d MiB for %s", grown/siege.Mebibyte, what)
	}
	return ""
}

// attackHeldIDs leaves many exchanges of QoS 2 unfinished in each of many sessions, and goes away.
func attackHeldIDs(g *siege.Siege, d door.Door) (hole string) {
	const sessions, each = 24, 4000
	return swells(g, fmt.Sprintf("%d unfinished exchanges of one account", sessions*each), func() {
		for i := range sessions {
			a, err := enterOld(g, d, fmt.Sprint("holder-", i))
			if err != nil {
				return
			}
			var all []byte
			for id := uint16(1); id <= each; id++ {
				all = append(all, rawmqtt.Message{QoS: 2, V4: true, Topic: "devices/bed-1/held", ID: id}.Encode()...)
			}
			go a.Send(all)
			for range each {
				if _, err := a.Await(rawmqtt.Pubrec); err != nil {
					break // sent away
				}
			}
			a.Close()
		}
	})
}

// enterOld takes up a session of bed-1 with MQTT 3.1.1, which has no Receive Maximum of the server.
func enterOld(g *siege.Siege, d door.Door, client string) (*door.Intruder, error) {
	l := g.As("bed-1")
	l.ClientID, l.Version, l.Resume = client, 4, true
	a, code, err := d.Enter(g.T, l)
	if err == nil && code != 0 {
		err = errors.New("refused")
	}
	return a, err
}

func TestV04HeldIDsOfManySessionsAreBounded(t *testing.T) {
	g := siege.Begin(t, "GOGC=100", fewQueuedBytes)
	before := databaseBytes(t, g.In)
	require.Empty(t, attackHeldIDs(g, g.Doors[0]))
	assert.Positive(t, refused(g, "too much waits for the account"))
	assert.Less(t, databaseBytes(t, g.In)-before, int64(siege.FewMiB))
	g.ServesAll()
}

// Subscribers never send PUBCOMP, and stay away in the end.
func TestV04DeliveriesThatAreNeverCompletedAreBounded(t *testing.T) {
	g := siege.Begin(t, "GOGC=100", fewQueuedBytes)
	d := g.Doors[0]
	const sessions, each = 20, 2000
	hole := swells(g, fmt.Sprintf("%d deliveries without PUBCOMP", sessions*each), func() {
		var readers []*door.Intruder
		for i := range sessions {
			a, err := enterOld(g, d, fmt.Sprint("reader-", i))
			require.NoError(t, err)
			a.Send(rawmqtt.EncodeSubscribe(4, 2, 1, "devices/bed-1/exact"))
			_, err = a.Await(rawmqtt.Suback)
			require.NoError(t, err)
			readers = append(readers, a)
			go func() {
				for p, err := a.Next(); err == nil; p, err = a.Next() {
					if p.Kind == rawmqtt.Publish {
						a.Send(rawmqtt.EncodeAck(rawmqtt.Pubrec, p.ID))
					}
				}
			}()
		}
		sender := g.Enter(d, g.As("bed-1"))
		for range each {
			sender.Send(append(rawmqtt.Message{QoS: 2, Topic: "devices/bed-1/exact", ID: 1}.Encode(), rawmqtt.EncodePubrel(1)...))
			_, err := sender.Await(rawmqtt.Pubcomp)
			require.NoError(t, err)
		}
		for _, a := range append(readers, sender) {
			a.Close()
		}
	})
	assert.Empty(t, hole)
	g.ServesAll()
}

// attackAliases gives a number to the longest topics on many connections.
func attackAliases(g *siege.Siege, d door.Door) (hole string) {
	const connections, topics = 100, 16
	long := strings.Repeat("a", 60_000)
	return swells(g, fmt.Sprintf("%d topics with numbers", connections*topics), func() {
		var all []*door.Intruder
		for i := range connections {
			l := g.As("bed-1")
			l.ClientID = fmt.Sprint("alias-", i)
			a, code, err := d.Enter(g.T, l)
			if err != nil || code != 0 {
				break
			}
			for n := range byte(topics) {
				topic := fmt.Sprintf("devices/bed-1/%d-%d-%s", i, n, long)
				a.Send(rawmqtt.Encode(rawmqtt.Publish<<4, append(rawmqtt.AppendString(nil, topic), 3, 0x23, 0, n+1)))
			}
			a.Send(rawmqtt.Encode(rawmqtt.Pingreq<<4, nil))
			_, _ = a.Await(rawmqtt.Pingresp) // or it was sent away
			all = append(all, a)
		}
		for _, a := range all {
			defer a.Close() // after they have been weighed
		}
	})
}

func TestV18TopicsWithNumbersCountForTheAccount(t *testing.T) {
	g := siege.Begin(t, "GOGC=100", fewQueuedBytes)
	require.Empty(t, attackAliases(g, g.Doors[0]))
	assert.Positive(t, refused(g, "too much waits for the account"))
	g.ServesAll()
}

// attackWills leaves sessions behind whose wills are as large as a CONNECT may be.
func attackWills(g *siege.Siege, d door.Door) (hole string) {
	const many = 1500
	l := g.As("bed-1")
	l.Resume, l.WillTopic, l.WillText, l.WillDelay = true, "devices/bed-1/will", strings.Repeat("w", 60_000), 3600
	return swells(g, fmt.Sprintf("%d wills", many), func() {
		for i := range many {
			l.ClientID = fmt.Sprint("mortal-", i)
			a, _, err := d.Enter(g.T, l)
			if err != nil {
				return
			}
			a.Close()
		}
	})
}

func TestV18WillsOfAbsentClientsAreBounded(t *testing.T) {
	g := siege.Begin(t, "GOGC=100", fewQueuedBytes)
	before := databaseBytes(t, g.In)
	require.Empty(t, attackWills(g, g.Doors[0]))
	assert.Less(t, databaseBytes(t, g.In)-before, int64(siege.FewMiB))
	first := refused(g, "too much waits for the account")
	assert.Positive(t, first)
	g.ServesAll()

	g.In.Kill() // what is on disk of them counts as before
	g.In.Start()
	g.In.AwaitReady()
	g.Meet()
	require.Empty(t, attackWills(g, g.Doors[0]))
	assert.GreaterOrEqual(t, refused(g, "too much waits for the account"), first)
	g.ServesAll()
}

// Who is away with wide filters is on the way of every topic. Each topic is used once.
func TestV18ManyTopicsBesideManySessionsAreBounded(t *testing.T) {
	g := siege.Begin(t, "GOGC=100")
	d := g.Doors[0]
	const sessions, topics, acknowledged = 200, 16_380, 300
	hole := swells(g, fmt.Sprintf("%d topics for %d sessions", topics, sessions), func() {
		l := g.As("bed-1")
		l.Resume = true
		for i := range sessions {
			l.ClientID = fmt.Sprint("wide-", i)
			a := g.Enter(d, l)
			_, err := a.Subscribe("devices/bed-1/#")
			require.NoError(t, err)
			a.Close()
		}
		sender := g.Enter(d, g.As("bed-1"))
		for i := range topics {
			sender.Send(message(0, fmt.Sprint("devices/bed-1/once/", i), ""))
		}
		for i := range acknowledged {
			_, err := sender.Publish(fmt.Sprint("devices/bed-1/kept/", i), "")
			require.NoError(t, err)
		}
		sender.Close()
	})
	assert.Empty(t, hole)
	g.ServesAll()
}

// Of the sessions of an account whose share of the disk is full, the one that has filled it is ended, and no other one.
func TestV18AFullTailEndsItsOwnSessionOnly(t *testing.T) {
	g := siege.Begin(t, "PLANTOPS_LIMITS_MAX_DISK_BYTES_PER_ACCOUNT=2000000")
	fillTail(g, 2000)
	assert.Less(t, databaseBytes(t, g.In), int64(siege.FewMiB), "what has been ended makes room")
}

// The share of all accounts is half of what is free, however much one account may have.
func TestV18TailsLeaveTheDiskItsFreeHalf(t *testing.T) {
	in, g := siege.Prepare(t)
	const size = 64 * siege.Mebibyte
	small := t.TempDir()
	mount := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "none", small)
	if out, err := mount.CombinedOutput(); err != nil {
		t.Skipf("no small file system: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", small).Run() })
	require.NoError(t, os.CopyFS(filepath.Join(small, "data"), os.DirFS(in.Dir)))
	for i, e := range in.Env {
		in.Env[i] = strings.Replace(e, in.Dir, filepath.Join(small, "data"), 1)
	}
	in.Dir = filepath.Join(small, "data")
	require.NoError(t, filepath.WalkDir(in.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	}))
	in.Start()
	in.AwaitReady()
	g.Meet()
	fillTail(g, 2000)
	assert.Less(t, databaseBytes(t, in), int64(size)*3/4)
}

// fillTail has bed-1 send so many messages of 20 kB to a session that is away, and makes sure that this one is ended for it,
// while another one of the account and one of another account keep what they have, and everybody is served.
func fillTail(g *siege.Siege, messages int) {
	g.T.Helper()
	d := g.Doors[0]
	sleeper := func(user, client, filter string) rawmqtt.Login {
		l := g.As(user)
		l.ClientID, l.Resume = client, true
		a := g.Enter(d, l)
		code, err := a.Subscribe(filter)
		require.NoError(g.T, err)
		require.Less(g.T, code, byte(rawmqtt.FirstFailure))
		a.Close()
		return l
	}
	hoarder := sleeper("bed-1", "hoarder", "devices/bed-1/backlog")
	modest := sleeper("bed-1", "modest", "devices/bed-1/little")
	other := sleeper("bed-2", "other", "devices/bed-2/little")
	victim, sender := g.Enter(d, g.As("bed-2")), g.Enter(d, g.As("bed-1"))
	topics := map[*door.Intruder]string{victim: "devices/bed-2/little", sender: "devices/bed-1/little"}
	for a := range topics {
		code, err := a.Publish(topics[a], "kept")
		require.NoError(g.T, err)
		require.Zero(g.T, code)
	}
	payload := string(bytes.Repeat([]byte("x"), 20_000))
	for i := range messages {
		require.NoError(g.T, sender.SetDeadline(time.Now().Add(setting.Patience)))
		_, err := sender.Publish("devices/bed-1/backlog", payload)
		require.NoError(g.T, err, "message %d", i)
		if i%(messages/20) == 0 {
			require.NoError(g.T, g.Serves(d), "after %d messages", i)
		}
	}
	assert.Equal(g.T, byte(0), present(g, d, hoarder), "what is too much ends its session")
	for _, l := range []rawmqtt.Login{modest, other} {
		a, err := d.Open(g.T, "")
		require.NoError(g.T, err)
		a.Send(l.Encode())
		connack, err := a.Await(rawmqtt.Connack)
		require.NoError(g.T, err)
		assert.Equal(g.T, byte(1), connack[0], "the session of %s", l.ClientID)
		assert.True(g.T, a.Comes("kept", setting.Patience), l.ClientID)
		a.Close()
	}
	g.ServesAll()
}

// present logs in and returns what CONNACK says about the session.
func present(g *siege.Siege, d door.Door, l rawmqtt.Login) byte {
	g.T.Helper()
	a, err := d.Open(g.T, "")
	require.NoError(g.T, err)
	defer a.Close()
	a.Send(l.Encode())
	connack, err := a.Await(rawmqtt.Connack)
	require.NoError(g.T, err)
	return connack[0]
}

// refused is how often the server has refused something for a reason.
func refused(g *siege.Siege, reason string) int64 {
	g.T.Helper()
	var s struct {
		Connections struct {
			Refused map[string]int64 `json:"refused"`
		} `json:"connections"`
	}
	require.NoError(g.T, json.Unmarshal(g.In.Run("status", "--json"), &s))
	return s.Connections.Refused[reason]
}

// databaseBytes is how large the database is, with its log.
func databaseBytes(t *testing.T, in *program.Installation) (n int64) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(in.Database() + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		n += info.Size()
	}
	return n
}
