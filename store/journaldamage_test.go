package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
)

func TestADamagedBlobCostsItsOwnRowsOnly(t *testing.T) {
	logs := &bytes.Buffer{}
	fill := func(o Options) *Store {
		s, f := attached(t, o)
		for id := range journal.SessionID(3) {
			mustKeep(t, s, f, &journal.Batch{
				Number: int64(id + 1), Messages: []byte("messages"),
				Sessions:      []journal.Session{{ID: id + 1, Client: fmt.Sprint(id), State: []byte("state")}},
				Subscriptions: []journal.Subscription{{Session: id + 1, Filter: "a", Options: []byte{1}}, {Session: id + 1, Filter: "b", Options: []byte{1}}},
				Queues:        []journal.Queue{queue(id+1, 1, 1)},
				Retained:      []journal.Retained{{Topic: fmt.Sprint("t", id), Message: []byte("message")}},
			})
		}
		require.NoError(t, s.Detach(t.Context()))
		return s
	}
	for name, c := range map[string]struct {
		damage                                          string
		sessions, subscriptions, waiting, readable, ret int
	}{
		"session":      {`UPDATE broker_session SET state = x'02' WHERE id = 2`, 2, 4, 2, 2, 3},
		"subscription": {`UPDATE broker_subscription SET options = x'02' WHERE session = 2 AND filter = 'a'`, 3, 5, 3, 3, 3},
		"messages":     {`UPDATE broker_pack SET messages = x'02' WHERE batch = 2`, 3, 6, 3, 2, 3},
		"entries":      {`UPDATE broker_queue SET entries = x'02' WHERE batch = 2`, 3, 6, 3, 2, 3},
		"no messages":  {`DELETE FROM broker_pack WHERE batch = 2`, 3, 6, 3, 2, 3},
		"retained":     {`UPDATE broker_retained SET message = x'02' WHERE topic = 't1'`, 3, 6, 3, 3, 2},
	} {
		t.Run(name, func(t *testing.T) {
			logs.Reset()
			s := fill(Options{Log: slog.New(slog.NewTextHandler(logs, nil))})
			execute(t, s, c.damage)
			if name != "no messages" {
				require.ErrorIs(t, s.Check(t.Context()), ErrDamaged)
			}
			for start := range 2 {
				require.NoError(t, s.Close())
				s = openTest(t, s.options)
				g, _ := load(t, s)
				assert.Len(t, g.sessions, c.sessions)
				assert.Len(t, g.subscriptions, c.subscriptions)
				assert.Len(t, g.waiting, c.waiting)
				assert.Len(t, g.retained, c.ret)
				readable := 0
				for id := range g.sessions {
					list, err := s.Read(t.Context(), id, 0, 1000, nil)
					require.NoError(t, err)
					readable += len(list)
				}
				assert.Equal(t, c.readable, readable)
				if start == 0 {
					assert.Contains(t, logs.String(), "damaged and lost")
				}
			}
		})
	}
}

func TestADamagedPageOfTheBrokersTablesIsSurvived(t *testing.T) {
	s, f := attached(t, Options{})
	const sessions, topics = 20, 30
	var retain []journal.Retained
	for i := range topics {
		retain = append(retain, journal.Retained{Topic: fmt.Sprint("topic/", i), Message: bytes.Repeat([]byte("r"), 100)})
	}
	for i := range journal.SessionID(sessions) {
		b := &journal.Batch{Number: int64(i + 1), Messages: bytes.Repeat([]byte("m"), 400), Retained: retain}
		b.Sessions = []journal.Session{{ID: i + 1, Client: fmt.Sprint("client ", i), Account: "anna", State: bytes.Repeat([]byte("s"), 90)}}
		for n := range 3 {
			b.Subscriptions = append(b.Subscriptions, journal.Subscription{Session: i + 1, Filter: fmt.Sprint("house/", n), Options: []byte{1}})
		}
		for id := range i + 1 {
			b.Queues = append(b.Queues, queue(id+1, uint64(i+1)*10, uint64(i+1)*10+2))
		}
		mustKeep(t, s, f, b)
	}
	mustAppend(t, s, telemetry("bed-1", noon, Value{"temperature", 1}))
	require.NoError(t, s.Detach(t.Context()))
	require.NoError(t, s.Close())
	good, err := os.ReadFile(s.path)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 1))
	for page := 1; page <= len(good)/pageBytes; page += pageStep() {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			path, logs := filepath.Join(t.TempDir(), "plantops.db"), &bytes.Buffer{}
			damage(t, path, good, page, func(int) byte { return byte(random.Uint32()) })
			s, err := Open(t.Context(), Options{Path: path, Log: slog.New(slog.NewTextHandler(logs, nil))})
			require.NoError(t, err)
			defer func() { assert.NoError(t, s.Close()) }()
			g, next := load(t, s)
			assert.Greater(t, next.Session, journal.SessionID(sessions))
			assert.Greater(t, next.Batch, int64(sessions))
			f := newFakeBroker()
			s.Attach(f)
			b := oneRetained(next.Batch, "after")
			b.Messages, b.Queues = []byte("m"), []journal.Queue{queue(next.Session, 1, 1)}
			f.put(b)
			s.Announce()
			require.Equal(t, []Outcome{Stored}, mustAppend(t, s, telemetry("bed-1", noon+1, Value{"temperature", 1})))
			for try := 0; answered(t, f) != nil; try++ { // an index that nobody had read before
				require.Less(t, try, 5)
				mustAppend(t, s, telemetry("bed-1", noon+2, Value{"temperature", 1}))
			}
			require.NoError(t, s.Detach(t.Context()))
			missing := int64(0)
			for id := range g.sessions {
				missing += 3*int64(sessions+1-id) - g.waiting[id].Messages
			}
			lost := sessions - len(g.sessions) + sessions*3 - len(g.subscriptions) + topics - len(g.retained)
			assert.GreaterOrEqual(t, len(g.sessions), sessions-8)
			assert.GreaterOrEqual(t, len(g.retained), topics-8)
			assert.GreaterOrEqual(t, len(g.subscriptions), (sessions-8)*3-30)
			if lost > 0 {
				assert.Contains(t, logs.String(), "lost")
			}
			assert.LessOrEqual(t, missing, int64(2*3*sessions), "those of two batches, or on a page of queues")
		})
	}
}
