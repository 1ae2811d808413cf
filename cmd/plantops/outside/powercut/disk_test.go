//go:build linux && amd64

package powercut_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/outside/setting"
)

// sectorBytes is what a disk writes as a whole.
const sectorBytes = 512

// disk is what a record of file operations says about the disk: what is certainly on it, and what is on its way.
type disk struct {
	files   map[int]*diskFile
	names   map[string]int // path to file
	pending []*event       // created and removed names, not synced

	forgetful bool // a disk that takes no sync of the write-ahead log: the harness must find this one out
}

type diskFile struct {
	durable []byte
	pending []*event
	log     bool // the write-ahead log
}

func newDisk(forgetful bool) *disk {
	return &disk{files: make(map[int]*diskFile), names: make(map[string]int), forgetful: forgetful}
}

// advance takes the next event of the record.
func (d *disk) advance(e *event) {
	switch e.kind {
	case written, truncated:
		f := d.files[e.file]
		f.pending = append(f.pending, e)
	case created:
		d.files[e.file] = &diskFile{log: strings.HasSuffix(e.name, "-wal")}
		d.pending = append(d.pending, e)
	case removed, renamed, linked:
		d.pending = append(d.pending, e)
	case synced:
		if e.file == 0 {
			d.syncNames()
		} else if f := d.files[e.file]; !d.forgetful || !f.log {
			f.sync(e.began)
		}
	}
}

// sync makes durable what had returned when the sync was called.
func (f *diskFile) sync(began int) {
	n := 0
	for n < len(f.pending) && f.pending[n].finished != 0 && f.pending[n].finished <= began {
		f.durable = f.pending[n].apply(f.durable)
		n++
	}
	f.pending = slices.Delete(f.pending, 0, n)
}

func (d *disk) syncNames() {
	applyNames(d.names, d.pending)
	d.pending = nil
}

func applyNames(names map[string]int, changes []*event) {
	for _, e := range changes {
		switch e.kind {
		case created:
			names[e.name] = e.file
		case renamed, linked:
			names[e.other] = names[e.name]
		}
		if e.kind == removed || e.kind == renamed {
			delete(names, e.name)
		}
	}
}

// apply does to content what the call did.
func (e *event) apply(content []byte) []byte {
	if e.kind == truncated {
		return resize(content, int(e.offset))
	}
	if end := int(e.offset) + len(e.data); end > len(content) && len(e.data) > 0 {
		content = resize(content, end)
	}
	copy(content[min(int(e.offset), len(content)):], e.data)
	return content
}

func resize(content []byte, size int) []byte {
	if size <= len(content) {
		return content[:size]
	}
	return append(content, make([]byte, size-len(content))...)
}

// cut writes the files as a power cut could leave them now into dir.
func (d *disk) cut(random *rand.Rand, dir string) error {
	names := maps.Clone(d.names)
	// A file system with a journal keeps the order in which names come and go.
	applyNames(names, d.pending[:random.IntN(len(d.pending)+1)])
	return d.write(dir, names, func(f *diskFile) []byte { return f.survivor(random) })
}

// write makes files in dir; a file of several names is one.
func (d *disk) write(dir string, names map[string]int, content func(*diskFile) []byte) error {
	first := make(map[int]string)
	for name, file := range names {
		path := filepath.Join(dir, filepath.Base(name))
		var err error
		if other, there := first[file]; there {
			err = os.Link(other, path)
		} else {
			first[file] = path
			err = os.WriteFile(path, content(d.files[file]), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// kill writes the files as they are when the process is killed now: everything that it did arrives.
func (d *disk) kill(dir string) error {
	names := maps.Clone(d.names)
	applyNames(names, d.pending)
	return d.write(dir, names, (*diskFile).arrived)
}

// arrived is the content when every write arrives.
func (f *diskFile) arrived() []byte {
	content := slices.Clone(f.durable)
	for _, e := range f.pending {
		content = e.apply(content)
	}
	return content
}

// settled writes the files as they are when everything arrives.
func (d *disk) settled() map[string][]byte {
	names := maps.Clone(d.names)
	applyNames(names, d.pending)
	files := make(map[string][]byte)
	for name, file := range names {
		files[name] = d.files[file].arrived()
	}
	return files
}

// survivor is the content that a power cut leaves: what was synced, and of each pending write all, nothing, or some
// sectors. When a sector gets to the disk, it holds what every write up to then made of it. A file that was extended
// by a write that did not get there may have its new size all the same, with zeros.
func (f *diskFile) survivor(random *rand.Rand) []byte {
	arrives := []float64{0, 0.1, 0.5, 0.9, 1}[random.IntN(5)]
	tears := random.IntN(2) == 0
	image, cache := slices.Clone(f.durable), slices.Clone(f.durable)
	for _, e := range f.pending {
		cache = e.apply(cache)
		whole := random.Float64() < arrives
		switch {
		case e.kind == truncated && whole:
			image = resize(image, len(cache))
		case e.kind == written:
			end := int(e.offset) + len(e.data)
			for from := int(e.offset) / sectorBytes * sectorBytes; from < end; from += sectorBytes {
				if tears && random.Float64() < arrives || !tears && whole {
					to := min(from+sectorBytes, len(cache))
					image = resize(image, max(len(image), to))
					copy(image[from:to], cache[from:to])
				}
			}
			if end > len(image) && random.IntN(2) == 0 {
				image = resize(image, end)
			}
		}
	}
	return image
}

// TestPowerCutLeavesSyncedSectors checks the model: what was synced survives, and each sector that does not hold it holds
// what later writes made of it, or zeros where the file was extended.
func TestPowerCutLeavesSyncedSectors(t *testing.T) {
	random := setting.Random(t)
	fill := func(value byte, size int) []byte { return bytes.Repeat([]byte{value}, size) }
	events := []*event{
		{kind: created, name: "/db-wal", file: 1},
		{kind: synced, began: 1},
		{kind: written, file: 1, data: fill(1, 4*sectorBytes), finished: 3},
		{kind: synced, file: 1, began: 3},
		{kind: written, file: 1, offset: sectorBytes, data: fill(2, sectorBytes), finished: 5},
		{kind: written, file: 1, offset: 3*sectorBytes - 100, data: fill(3, 2*sectorBytes), finished: 6},
	}
	d := newDisk(false)
	for _, e := range events {
		d.advance(e)
	}
	old, seen := fill(1, sectorBytes), make(map[byte]int)
	for range 500 {
		image := d.files[1].survivor(random)
		require.GreaterOrEqual(t, len(image), 4*sectorBytes)
		require.Equal(t, old, image[:sectorBytes], "nothing was written there after the sync")
		seen[image[sectorBytes]]++
		torn := image[2*sectorBytes : 3*sectorBytes]
		require.Contains(t, [][]byte{old, append(fill(1, sectorBytes-100), fill(3, 100)...)}, torn)
		if len(image) > 4*sectorBytes {
			require.Contains(t, []byte{0, 3}, image[4*sectorBytes])
			seen[image[4*sectorBytes]]++
		}
	}
	assert.Len(t, seen, 4, "some ways to lose a write never happen: %v", seen)
}
