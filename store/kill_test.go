package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/journal"
)

// victimPath names the variable that makes this program the child of TestKilledAtAnyTime: it holds the path of the database.
const victimPath = "PLANTOPS_STORE_VICTIM"

// victim is a broker of one session. Each of its batches has one number in the session's state, a queue, a retained message and,
// with the one before, a trim: so it can be seen whether a batch is there as a whole.
type victim struct {
	next  int64
	again *journal.Batch
	s     *Store
}

const victimQueue = 20 // batches

func bytesOf(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func (v *victim) Take() *journal.Batch {
	if v.again != nil {
		return v.again
	}
	n := v.next
	v.next++
	return &journal.Batch{
		Number: n, Messages: bytesOf(n),
		Sessions: []journal.Session{{ID: 1, Client: "a", State: bytesOf(n)}},
		Queues:   []journal.Queue{{Session: 1, First: uint64(n), Last: uint64(n), Messages: 1, Entries: bytesOf(n)}},
		Trims:    []journal.Trim{{Session: 1, Before: uint64(max(n-victimQueue, 0))}},
		Retained: []journal.Retained{{Topic: "t", Message: bytesOf(n)}},
	}
}

func (v *victim) Done(b *journal.Batch, err error) {
	if v.again = nil; err != nil {
		v.again = b
		return
	}
	fmt.Println("batch", b.Number)
	v.s.Announce()
}

func (v *victim) Rewrite() {}

// beVictim writes until it is killed, and says what is done.
func beVictim(path string) {
	s, err := Open(context.Background(), Options{Path: path})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	next, err := s.Load(context.Background(), newGathered())
	if err != nil {
		fmt.Println("error", err)
		return
	}
	s.Attach(&victim{s: s, next: next.Batch})
	for i := int64(1_700_000_000_000) + int64(next.Batch); ; i++ { // no number comes twice, as a clock's could
		if _, err := s.Append(context.Background(), []Message{telemetry("bed-1", i, Value{"ph", 6})}, nil); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("reading", i)
	}
}

func TestKilledAtAnyTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	lastBatch, readings := int64(0), int64(0)
	for range 12 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), victimPath+"="+path)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for kill := rand.IntN(200) + 1; lines.Scan(); {
			var number int64
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "batch"):
				_, err = fmt.Sscan(line[len("batch"):], &number)
				lastBatch = max(lastBatch, number)
			case strings.HasPrefix(line, "reading"):
				readings++
			default:
				require.Fail(t, line)
			}
			require.NoError(t, err)
			if kill--; kill == 0 {
				require.NoError(t, child.Process.Kill())
			}
		}
		require.Error(t, child.Wait())

		s := openTest(t, Options{Path: path})
		g, next := load(t, s)
		state := binary.BigEndian.Uint64(g.sessions[1].State)
		assert.GreaterOrEqual(t, state, uint64(lastBatch), "what was said to be done")
		assert.Equal(t, bytesOf(int64(state)), g.retained["t"].Message, "one batch, as a whole")
		assert.Equal(t, state, g.waiting[1].Last)
		assert.Greater(t, next.Batch, int64(state))
		list, err := s.Read(t.Context(), 1, 0, 1<<20, nil)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(list), victimQueue+1)
		for _, q := range list {
			assert.Equal(t, bytesOf(int64(q.Last)), q.Pack)
		}
		requireTidy(t, s)
		assert.GreaterOrEqual(t, countRows(t, s), readings)
		readings = countRows(t, s)
		require.NoError(t, s.Check(t.Context()))
		require.NoError(t, s.Close())
	}
	assert.NotZero(t, lastBatch)
}
