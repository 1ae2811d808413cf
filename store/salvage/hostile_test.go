package salvage_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/store/salvage"
)

// largeFile is a file of 3 GB without content, except for page 2, which has one row that says it has size bytes and goes on
// at page 3, which goes on at itself.
func largeFile(t *testing.T, size uint64) *salvage.File {
	path := filepath.Join(t.TempDir(), "large.db")
	page := make([]byte, 2*pageBytes)
	page[0] = 13 // a leaf of a table
	binary.BigEndian.PutUint16(page[3:], 1)
	binary.BigEndian.PutUint16(page[8:], 10)
	at := 10
	for shift := 28; shift > 0; shift -= 7 { // a varint of five bytes
		page[at] = byte(size>>shift) | 0x80
		at++
	}
	page[at] = byte(size) & 0x7f
	for at := 16; at+4 <= pageBytes; at++ {
		binary.BigEndian.PutUint32(page[at:], 0) // where the pointer stands depends on the size
	}
	usable, local := pageBytes, 0
	least := (usable-12)*32/255 - 23
	if local = least + int((size-uint64(least))%uint64(usable-4)); local > usable-35 {
		local = least
	}
	binary.BigEndian.PutUint32(page[16+local:], 3) // after the size and a rowid of one byte
	binary.BigEndian.PutUint32(page[pageBytes:], 3)
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = file.WriteAt(page, pageBytes)
	require.NoError(t, err)
	require.NoError(t, file.Truncate(3<<30))
	require.NoError(t, file.Close())
	f, err := salvage.Open(path, pageBytes)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.Close()) })
	return f
}

func TestARowThatSaysItIsHugeCostsNothing(t *testing.T) {
	for _, size := range []uint64{900_000_000, 1<<31 + 100, 1<<31 + 1<<30} { // the larger ones are no int of a 32-bit Pi
		f := largeFile(t, size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		lost, err := f.Walk().Tree(2, func(salvage.Row) error { return nil })
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		assert.Equal(t, []uint32{2}, lost.Pages)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "the pages that are seen take 3 MB")
	}
}

func TestADamagedListOfFreePagesIsTold(t *testing.T) {
	path := makeFile(t, false)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := func() bool {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		f, err := salvage.Open(path, pageBytes)
		require.NoError(t, err)
		defer func() { assert.NoError(t, f.Close()) }()
		return f.FreeListDamaged()
	}
	trunk := binary.BigEndian.Uint32(content[32:])
	require.NotZero(t, trunk, "rows were deleted")
	assert.False(t, damaged())
	binary.BigEndian.PutUint32(content[(trunk-1)*pageBytes+4:], 0)
	assert.True(t, damaged(), "fewer than the header says")
	clear(content[(trunk-1)*pageBytes : trunk*pageBytes])
	content[(trunk-1)*pageBytes+7] = 255
	assert.True(t, damaged())
	clear(content[:100])
	assert.True(t, damaged(), "no header")
}
