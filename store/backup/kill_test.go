package backup_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/backup"
)

// victimVariable makes this program the child of the tests below: "backup" or "restore", then the database and the backup,
// with a line end in between.
const victimVariable = "PLANTOPS_BACKUP_VICTIM"

// killsVariable says how often each is killed.
const killsVariable = "PLANTOPS_BACKUP_KILLS"

func TestMain(m *testing.M) {
	text := os.Getenv(victimVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	what := strings.Split(text, "\n")
	fmt.Println("begun")
	var err error
	if what[0] == "backup" {
		o := options(what[1], what[2])
		o.Force = true
		_, err = backup.Make(context.Background(), o)
	} else {
		_, err = backup.Restore(context.Background(), restoreOptions(what[2], what[1]))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// kill runs a child and kills it after a time; it reports how long the child ran, and whether it came to its end.
func kill(t *testing.T, what, database, file string, after time.Duration) (took time.Duration, ended bool) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), victimVariable+"="+what+"\n"+database+"\n"+file)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	began := time.Now()
	timer := time.AfterFunc(after, func() { _ = child.Process.Kill() }) // it may have ended
	for lines.Scan() {
		require.Fail(t, lines.Text())
	}
	err = child.Wait()
	timer.Stop()
	return time.Since(began), err == nil
}

func kills(t *testing.T) int {
	if text := os.Getenv(killsVariable); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return n
	}
	return 8
}

func TestABackupThatIsKilledIsThereWholeOrNot(t *testing.T) {
	s, database, file := made(t, 3000)
	whole, ended := kill(t, "backup", database, file, time.Minute)
	require.True(t, ended)
	before := int64(3000)
	finished := 0
	for i := range kills(t) {
		fill(t, s, 3000+i, 1)
		_, ended := kill(t, "backup", database, file, time.Duration(rand.Int64N(int64(whole)*5/4)))
		r, err := backup.Check(t.Context(), file, backup.CheckOptions{})
		require.NoError(t, err)
		require.Empty(t, r.Findings)
		assert.Contains(t, []int64{before, int64(3000 + i + 1)}, r.Messages, "the one before, or the new one")
		if ended {
			finished++
			assert.EqualValues(t, 3000+i+1, r.Messages)
		}
		before = r.Messages
	}
	t.Logf("%d of %d came to their end", finished, kills(t))
	_, ended = kill(t, "backup", database, file, time.Minute)
	require.True(t, ended, "what the others left is in nobody's way")
	assert.Equal(t, []string{filepath.Base(file)}, names(t, filepath.Dir(file)))
}

func TestARestoreThatIsKilledLeavesTheOldOrTheNewDatabase(t *testing.T) {
	s, database, file := made(t, 3000)
	fill(t, s, 3000, 50)
	live := filepath.Dir(database)
	finished, restored := 0, 0
	var whole time.Duration
	for i := range kills(t) + 1 {
		dir := t.TempDir()
		path := filepath.Join(dir, "plantops.db")
		for _, suffix := range []string{"", "-wal"} { // as a kill of the server leaves it
			require.NoError(t, copyFile(filepath.Join(live, "plantops.db")+suffix, path+suffix))
		}
		after := time.Minute
		if i > 0 {
			// Half of them at the end, where names change.
			if after = time.Duration(rand.Int64N(int64(whole) * 5 / 4)); i%2 == 0 {
				after = whole - time.Duration(rand.Int64N(int64(whole)/10))
			}
		}
		took, ended := kill(t, "restore", path, file, after)
		if i == 0 {
			require.True(t, ended)
			whole = took
		}
		again, err := store.Open(t.Context(), store.Options{Path: path})
		require.NoError(t, err)
		n := rows(t, again)
		require.NoError(t, again.Check(t.Context()))
		require.NoError(t, again.Close())
		assert.Contains(t, []int64{3000, 3050}, n)
		if ended {
			finished++
			assert.EqualValues(t, 3000, n)
		}
		for _, name := range names(t, dir) {
			assert.NotContains(t, name, ".restored-", "it is finished")
			if strings.Contains(name, ".before-restore-") && !strings.HasSuffix(name, "-wal") && n == 3000 {
				old, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, name)})
				require.NoError(t, err)
				assert.EqualValues(t, 3050, rows(t, old), "the old one is whole")
				require.NoError(t, old.Close())
				restored++
			}
		}
	}
	t.Logf("%d of %d came to their end, %d databases are the restored one", finished, kills(t)+1, restored)
	assert.GreaterOrEqual(t, restored, finished)
}
