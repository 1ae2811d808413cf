//go:build linux && amd64

package powercut_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/broker/brokertest/rawmqtt"
	"github.com/plantops/plantops/cmd/plantops/outside/fleet"
	"github.com/plantops/plantops/cmd/plantops/outside/program"
	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// TestPowerCutKeepsWhatWasAcknowledged records everything that a server does to its files and says to its devices under
// load: its first start, a kill, a start after that, and an orderly stop. Then it cuts the power at many points of the
// record, builds the files as a disk could hold them, opens them, and looks for every reading whose acknowledgement had
// left the server by then.
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	cuts := setting.Int(t, "PLANTOPS_POWERCUTS", 60)
	random := setting.Random(t)
	record, devices := recordLoad(t, setting.Duration(t, "PLANTOPS_POWERCUT_LOAD", 700*time.Millisecond))

	points := chooseCuts(random, record.events, cuts)
	out := outage{record.events, devices, random}
	found := out.replay(t, points, newDisk(false))
	t.Logf("%d power cuts in a record of %d events: %d acknowledged readings looked for, %d lost; %d databases not intact",
		cuts, len(record.events), found.acknowledged, found.lost, len(found.broken))
	assert.NotZero(t, found.acknowledged)
	assert.Zero(t, found.lost, "acknowledged readings lost: %q", found.examples)
	assert.Empty(t, found.broken)

	// The control: were the write-ahead log never synced, the same cuts would have to lose readings.
	var some []int
	for i := 0; i < len(points); i += max(len(points)/10, 1) {
		some = append(some, points[i])
	}
	control := out.replay(t, some, newDisk(true))
	t.Logf("control, a disk that ignores syncs of the log: %d acknowledged readings looked for, %d lost; %d databases not intact",
		control.acknowledged, control.lost, len(control.broken))
	assert.NotZero(t, control.lost+len(control.broken), "the harness does not notice that nothing is synced")
}

// recordLoad runs a server under the recorder while devices publish.
func recordLoad(t *testing.T, load time.Duration) (*recorder, *fleet.Fleet) {
	t.Helper()
	in := program.Install(t, t.TempDir())
	record := newRecorder(in.Dir)
	record.serve(in)
	in.AwaitReady()
	devices := fleet.New(in, 8, 1000, in.Add)
	for i, d := range devices.Devices {
		d.Source = deviceAddress(i)
	}
	devices.Start()
	program.Pause(in, load)
	in.Kill()
	requireFaithful(t, record)
	record.serve(in)
	in.AwaitReady()
	program.Pause(in, load)
	devices.Drain(setting.Patience)
	in.Stop()
	requireFaithful(t, record)
	s := devices.Snapshot()
	require.Empty(t, s.Faults)
	t.Logf("recorded %d readings from %d devices: %s", s.Acknowledged, len(devices.Devices), record)
	return record, devices
}

// requireFaithful checks the record against the files: replayed to its end it must make the same ones.
func requireFaithful(t *testing.T, record *recorder) {
	t.Helper()
	require.NoError(t, record.err)
	d := newDisk(false)
	for _, e := range record.events {
		d.advance(e)
	}
	files := d.settled()
	paths, err := filepath.Glob(filepath.Join(record.dir, "*"))
	require.NoError(t, err)
	paths = slices.DeleteFunc(paths, func(path string) bool { return !record.wanted(path) })
	require.Len(t, files, len(paths), "files in the record, %q in the directory", paths)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, files[path]), "%s differs from its record", path)
	}
}

// chooseCuts returns positions in the record, in order: a third of them anywhere, a third right after something was
// said to a device, where a broken promise would be found, a third right before a sync has taken effect, when most is
// on its way.
func chooseCuts(random *rand.Rand, events []*event, count int) []int {
	var afterWords, beforeSyncs []int
	for i, e := range events {
		switch e.kind {
		case said:
			afterWords = append(afterWords, i+1)
		case synced:
			beforeSyncs = append(beforeSyncs, i)
		}
	}
	points := make([]int, count)
	for i := range points {
		switch i % 3 {
		case 0:
			points[i] = random.IntN(len(events) + 1)
		case 1:
			points[i] = afterWords[random.IntN(len(afterWords))]
		case 2:
			points[i] = beforeSyncs[random.IntN(len(beforeSyncs))]
		}
	}
	slices.Sort(points)
	return points
}

// findings are what power cuts showed.
type findings struct {
	acknowledged, lost int
	examples           []string // of lost readings
	broken             []string // databases that did not open or were not intact
}

// outage is a record in which the power can be cut.
type outage struct {
	events  []*event
	devices *fleet.Fleet
	random  *rand.Rand // chooses what a cut leaves of what was not synced
}

// replay cuts the power at each of the points, which are in order. d is an empty disk.
func (o outage) replay(t *testing.T, points []int, d *disk) findings {
	t.Helper()
	heard, next := newListener(o.devices), 0
	var f findings
	for _, point := range points {
		for ; next < point; next++ {
			d.advance(o.events[next])
			require.NoError(t, heard.listen(o.events[next]))
		}
		dir := t.TempDir()
		require.NoError(t, d.cut(o.random, dir))
		f.inspect(t.Context(), fmt.Sprintf("cut at event %d of %d", point, len(o.events)), dir, heard, o.devices)
		require.NoError(t, os.RemoveAll(dir))
	}
	return f
}

// inspect opens what a power cut left and looks for what the devices had heard.
func (f *findings) inspect(ctx context.Context, name, dir string, heard *listener, devices *fleet.Fleet) {
	found, err := fleet.ReadStore(ctx, filepath.Join(dir, "plantops.db"), devices)
	if err == nil && len(found.Strange) > 0 {
		err = fmt.Errorf("readings that nobody sent: %q", found.Strange[0])
	}
	if err != nil {
		f.broken = append(f.broken, fmt.Sprintf("%s: %v", name, err))
		return
	}
	for i, numbers := range heard.acknowledged {
		device := devices.Devices[i]
		f.acknowledged += len(numbers)
		for number := range numbers {
			if count := found.Times[device.ID][device.Time(number)]; count != 1 {
				f.lost++
				if len(f.examples) < 5 {
					f.examples = append(f.examples, fmt.Sprintf("%s: %s, reading %d", name, device.ID, number))
				}
			}
		}
	}
}

// listener understands what the server says to devices.
type listener struct {
	devices      *fleet.Fleet
	voices       map[int]*bytes.Buffer // by connection: what is no whole packet yet
	acknowledged []map[int]bool        // by device: numbers of readings
}

func newListener(devices *fleet.Fleet) *listener {
	l := &listener{devices: devices, voices: make(map[int]*bytes.Buffer)}
	for range devices.Devices {
		l.acknowledged = append(l.acknowledged, make(map[int]bool))
	}
	return l
}

// listen takes the next event of the record. In a record a packet id is the number of the reading.
func (l *listener) listen(e *event) error {
	if e.kind != said {
		return nil
	}
	voice := l.voices[e.file]
	if voice == nil {
		voice = &bytes.Buffer{}
		l.voices[e.file] = voice
	}
	voice.Write(e.data)
	for {
		r := bytes.NewReader(voice.Bytes())
		p, err := rawmqtt.Read(r)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
		voice.Next(voice.Len() - r.Len())
		for i, d := range l.devices.Devices {
			if d.Source.Equal(e.device) && fleet.Acknowledges(p, d.QoS) {
				l.acknowledged[i][int(p.ID)] = true
			}
		}
	}
}
