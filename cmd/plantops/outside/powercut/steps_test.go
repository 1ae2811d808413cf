//go:build linux && amd64

package powercut_test

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// actVariable makes this program one of the acts below, in the data directory that directoryVariable names.
const (
	actVariable       = "PLANTOPS_STEPS_ACT"
	directoryVariable = "PLANTOPS_STEPS_DIRECTORY"
)

// trial is something that takes many steps, each of which may be the last: a step is whatever it does to a file. It is recorded once;
// then the process is killed, and the power is cut, after each of its steps.
type trial struct {
	begin func(t *testing.T, dir string)                             // makes what is there before
	act   string                                                     // of this program, or
	args  func(dir string) []string                                  // a command of the real one
	judge func(t *testing.T, in *program.Installation, heard string) // opens what is left; heard is what the process had said
	few   int                                                        // steps that are tried in the short form
	most  int                                                        // and in the long one; 0: all
}

// TestMain is also the process that is killed.
func TestMain(m *testing.M) {
	name := os.Getenv(actVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := acts[name](os.Getenv(directoryVariable)); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// run tries the steps: all with PLANTOPS_STEPS=all, else some, of which most change a name, end a sync or say something.
// PLANTOPS_STEPS_KEEP is a directory for what was left where something is wrong.
func (tr trial) run(t *testing.T) {
	random := setting.Random(t)
	in, record, begin := tr.record(t, 0)
	events := record.events[begin:]
	count := tr.few
	if long() {
		if count = tr.most; count == 0 {
			count = len(events) + 1
		}
	}
	points := chooseSteps(random, events, count)
	d, next, heard := newDisk(false), 0, ""
	for _, point := range points {
		for ; next < begin+point; next++ {
			d.advance(record.events[next])
			if e := record.events[next]; e.kind == said {
				heard += string(e.data)
			}
		}
		tr.inspect(t, in, "kill", point, heard, d.kill)
		tr.inspect(t, in, "power cut", point, heard, func(dir string) error { return d.cut(random, dir) })
	}
	// What the record says of a kill must be so.
	kills := max(len(points)/20, 2)
	for range kills {
		point := 1 + random.IntN(len(events))
		in, killed, begin := tr.record(t, point)
		heard := ""
		for _, e := range killed.events[begin:] {
			if e.kind == said {
				heard += string(e.data[:max(strings.LastIndexByte(string(e.data), '\n'), 0)])
			}
		}
		// What it was about to say when it was killed nobody heard.
		if last := killed.events[len(killed.events)-1]; last.kind == said {
			heard = ""
		}
		tr.inspect(t, in, "real kill", point, heard, nil)
	}
	t.Logf("%d of %d steps, each with a kill and a power cut, and %d real kills: %s", len(points), len(events), kills, record)
}

// record lets it happen under the recorder, until it has done so many steps; with 0 to its end. Before begin stands what was there.
func (tr trial) record(t *testing.T, steps int) (in *program.Installation, record *recorder, begin int) {
	t.Helper()
	in = program.Install(t, t.TempDir())
	tr.begin(t, in.Dir)
	r := newRecorder(in.Dir)
	r.wanted = func(path string) bool {
		name := filepath.Base(path)
		return filepath.Dir(path) == in.Dir && strings.HasPrefix(name, "plantops") && !strings.HasSuffix(name, "-shm")
	}
	r.adopt(t)
	begin = len(r.events)
	if r.words = true; steps > 0 {
		r.killAt = begin + steps
	}
	path, args, env := in.Program, []string{"plantops"}, in.Env
	if tr.act != "" {
		var err error
		path, err = os.Executable()
		require.NoError(t, err)
		env = append(slices.Clone(env), actVariable+"="+tr.act, directoryVariable+"="+in.Dir)
	} else {
		args = append(args, tr.args(in.Dir)...)
	}
	said, out, err := os.Pipe()
	require.NoError(t, err)
	var text []byte
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, _ = io.ReadAll(said) // it ends with the process
		_ = said.Close()
	}()
	code := r.run(path, args, filepath.Dir(in.Dir), env, out, func(_ int, startErr error) {
		_ = out.Close()
		err = startErr
	})
	<-done
	require.NoError(t, err)
	if steps == 0 {
		require.Zero(t, code, "%s", text)
		requireFaithful(t, r)
	}
	require.NoError(t, r.err)
	return in, r, begin
}

// adopt begins the record with the files that are there.
func (r *recorder) adopt(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	for _, entry := range entries {
		path := filepath.Join(r.dir, entry.Name())
		if !r.wanted(path) {
			continue
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		r.files++
		r.names[path] = r.files
		r.note(&event{kind: created, name: path, file: r.files})
		r.note(&event{kind: written, file: r.files, data: content, finished: len(r.events) + 1})
		r.note(&event{kind: synced, file: r.files, began: len(r.events)})
	}
	r.note(&event{kind: synced})
}

// long is whether all steps are tried.
func long() bool { return os.Getenv("PLANTOPS_STEPS") == "all" }

// chooseSteps returns how many steps are done each time, in order.
func chooseSteps(random *rand.Rand, events []*event, few int) []int {
	var all, edges []int
	for i, e := range events {
		all = append(all, i)
		switch e.kind {
		case created, removed, renamed, linked, synced, said, truncated:
			edges = append(edges, i, i+1)
		}
	}
	all = append(all, len(events))
	if few >= len(all) {
		return all
	}
	shuffle := func(list []int) {
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	shuffle(all)
	shuffle(edges)
	points := append([]int{len(events)}, edges[:min(few*2/3, len(edges))]...)
	points = append(points, all...)
	unique := make([]int, 0, few)
	for _, p := range points {
		if len(unique) < few && !slices.Contains(unique, p) {
			unique = append(unique, p)
		}
	}
	slices.Sort(unique)
	return unique
}

// inspect lets the judge look at what leave puts in the place of the installation's data; nil leaves them as they are.
func (tr trial) inspect(t *testing.T, in *program.Installation, how string, point int, heard string, leave func(dir string) error) {
	t.Helper()
	if leave != nil {
		require.NoError(t, os.RemoveAll(in.Dir))
		require.NoError(t, os.Mkdir(in.Dir, 0o755))
		require.NoError(t, leave(in.Dir))
	}
	image, keep := in.Dir+".image", os.Getenv("PLANTOPS_STEPS_KEEP")
	if keep != "" {
		require.NoError(t, os.RemoveAll(image))
		require.NoError(t, os.CopyFS(image, os.DirFS(in.Dir)))
	}
	defer func() {
		if t.Failed() {
			t.Logf("after a %s at step %d; it had said %q", how, point, heard)
			if keep != "" {
				assert.NoError(t, os.CopyFS(filepath.Join(keep, filepath.Base(t.Name())), os.DirFS(image)))
			}
		}
	}()
	tr.judge(t, in, heard)
	if t.Failed() {
		t.FailNow()
	}
}
