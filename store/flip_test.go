package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// flipsVariable says how many bits TestAFlippedBit flips in each page; without it a few pages are tried.
const flipsVariable = "PLANTOPS_BIT_FLIPS"

type stamp struct {
	device, metric string
	time           int64
}

const flipDevices, flipReadings = 5, 1300

// flipFile is a closed database whose readings are in blocks and in the journal, and what is in it.
func flipFile(t *testing.T) (path string, want map[stamp]float64) {
	want = map[stamp]float64{}
	s := openTest(t, Options{})
	for d := range flipDevices {
		name := fmt.Sprintf("bed-%d", d)
		_, err := s.AddDevice(t.Context(), name)
		require.NoError(t, err)
		var batch []Message
		for i := range int64(flipReadings) {
			at := noon + i*60_000 + int64(d)
			values := []Value{{"temperature", 20 + float64(i%97)/10}, {"humidity", float64(50 + i%13)}, {"ph", 6 + float64(i*7919%1000)/1000/3}}
			batch = append(batch, telemetry(name, at, values...))
			for _, v := range values {
				want[stamp{name, v.Metric, at}] = v.Value
			}
		}
		for len(batch) > 0 {
			n := min(len(batch), 100)
			mustAppend(t, s, batch[:n]...)
			batch = batch[n:]
		}
	}
	require.Eventually(t, func() bool {
		blocks, err := int64(0), s.acquire(t.Context())
		if err == nil {
			blocks, err = s.w.number(`SELECT sum(n) FROM block`)
			s.release()
		}
		return err == nil && blocks >= flipDevices*flipReadings/2
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, s.Close())
	return s.path, want
}

// flipped is what became of one flip.
type flipped struct {
	wrong   []string // readings that are not what was stored
	missing int
	named   []string // losses that somebody is told of
	opened  error
	stored  error
}

// tryFlip opens a copy of a database with one bit changed, reads all of it, lets a device send, and reads again.
func tryFlip(t *testing.T, content []byte, bit int, want map[stamp]float64) (f flipped) {
	path := filepath.Join(t.TempDir(), "plantops.db")
	content[bit/8] ^= 1 << (bit % 8)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	content[bit/8] ^= 1 << (bit % 8)
	s, err := Open(context.Background(), Options{Path: path, Now: func() time.Time { return time.UnixMilli(noon) }})
	if f.opened = err; err != nil {
		return f
	}
	defer func() { assert.NoError(t, s.Close()) }()
	name := func(format string, values ...any) { f.named = append(f.named, fmt.Sprintf(format, values...)) }
	read := func() {
		f.wrong, f.missing = nil, len(want)
		for r, err := range s.Readings(t.Context(), Query{}) {
			if err != nil {
				name("reading: %v", err)
				continue
			}
			value, there := want[stamp{r.Device, r.Metric, r.Time}]
			switch {
			case r.Device == "new", r.Metric == "new":
			case there && value == r.Value:
				f.missing--
			case len(f.wrong) < 10:
				f.wrong = append(f.wrong, fmt.Sprintf("%s %s %d %v, was %v", r.Device, r.Metric, r.Time, r.Value, value))
			}
		}
	}
	read()
	first := f.wrong
	for i := range int64(3) {
		var outcomes []Outcome
		outcomes, f.stored = s.Append(t.Context(), []Message{telemetry("new", noon+i, Value{"temperature", 1}), telemetry("bed-1", noon-1-i, Value{"new", 1})}, nil)
		if f.stored == nil && (len(outcomes) != 2 || outcomes[0] == Quarantined) {
			f.stored = fmt.Errorf("outcomes %v", outcomes)
		}
	}
	if err := s.Check(t.Context()); err != nil {
		name("check: %v", err)
	}
	s.whenIdle() // makes a file anew that a reader has found damaged
	if err := s.regainAll(t.Context()); err != nil {
		name("regain: %v", err)
	}
	read()
	f.wrong = append(f.wrong, first...)
	salvages, err := s.Salvages(t.Context())
	if err != nil {
		name("salvages: %v", err)
	}
	for _, one := range salvages {
		name("made anew: %s; lost %s; missing %v", one.Cause, one.Lost, one.Missing)
	}
	return f
}

// identity are the bytes of the header that say whose file it is and which schema it has. A file that is of another program, or of
// a newer version, is refused with a remedy, not taken over.
func identity(at int) bool { return at >= 60 && at < 64 || at >= 68 && at < 72 }

// A bit that a card has lost is never taken for a reading, never keeps the server from storing what comes, and what is lost is
// named.
func TestAFlippedBit(t *testing.T) {
	path, want := flipFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	each, step := 1, max(len(content)/pageBytes/12, 1)
	if text := os.Getenv(flipsVariable); text != "" {
		each, err = strconv.Atoi(text)
		require.NoError(t, err)
		step = 1
	}
	random := rand.New(rand.NewPCG(1, uint64(each)))
	flips, lossless, whole, lost := 0, 0, 0, 0
	for page := 0; page < len(content)/pageBytes; page += step {
		for range each {
			bit := (page*pageBytes + random.IntN(pageBytes)) * 8
			if identity(bit / 8) {
				continue
			}
			bit += random.IntN(8)
			f := tryFlip(t, content, bit, want)
			at := fmt.Sprintf("bit %d of byte %d of page %d", bit%8, bit/8%pageBytes, page+1)
			flips++
			if !assert.NoError(t, f.opened, at) {
				continue
			}
			assert.NoError(t, f.stored, at)
			assert.Empty(t, f.wrong, "%s: %v", at, f.named)
			if f.missing > 0 {
				assert.NotEmpty(t, f.named, "%s: %d values are missing, and nobody says so", at, f.missing)
				lost = max(lost, f.missing)
				whole++
			} else {
				lossless++
			}
		}
	}
	t.Logf("%d flips in %d pages of %d: %d cost nothing, %d cost readings, at most %d of %d values", flips, len(content)/pageBytes, pageBytes, lossless, whole, lost, len(want))
}

// Of a file that has lost a page, everything comes back but what stood on it: over all pages at least 99.9 % of the readings whose
// blob is whole.
func TestAPageThatIsLost(t *testing.T) {
	path, want := flipFile(t)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	pages := len(content) / pageBytes
	step, all := max(pages/8, 1), os.Getenv(flipsVariable) != ""
	if all {
		step = 1
	}
	due, most := pagesOfReadings(t, path)
	lost, tried := 0, 0
	for page := 1; page < pages; page += step { // without the first the file is nobody's, see identity
		kept := append([]byte(nil), content[page*pageBytes:][:pageBytes]...)
		for i := range kept {
			content[page*pageBytes+i] = 0xa5
		}
		f := tryFlip(t, content, page*pageBytes*8, want)
		copy(content[page*pageBytes:], kept)
		at := fmt.Sprintf("page %d", page+1)
		tried++
		if !assert.NoError(t, f.opened, at) {
			continue
		}
		assert.NoError(t, f.stored, at)
		assert.Empty(t, f.wrong, "%s: %v", at, f.named)
		assert.LessOrEqual(t, f.missing, most, at)
		if f.missing > 0 {
			assert.NotEmpty(t, f.named, at)
		}
		lost += f.missing
	}
	t.Logf("%d pages of %d lost one after the other: %d values of %d each did not come back in all, %d stood on them", tried, pages, lost, len(want), due)
	if all {
		assert.LessOrEqual(t, lost-due, len(want)*tried/1000, "99.9 %% of what was whole")
	}
}

// pagesOfReadings returns how many values stand on all pages together, each counted on every page that its blob has, and a bound
// for one page.
func pagesOfReadings(t *testing.T, path string) (all, most int) {
	s := openTest(t, Options{Path: path, ReadOnly: true})
	perBlob := 0
	for _, query := range []string{`SELECT n, length(summary) + length(body) + 20 FROM block`, `SELECT 100, length(body) FROM journal`} {
		err := s.each(t.Context(), func(scan func(...any) error) error {
			var n, bytes int
			err := scan(&n, &bytes)
			pages := 1
			if bytes > pageBytes-35 {
				pages += (bytes - 103 + pageBytes - 5) / (pageBytes - 4)
			}
			all += 3 * n * pages
			perBlob = max(perBlob, 3*n)
			return err
		}, query)
		require.NoError(t, err)
	}
	return all, 10 * perBlob // so many blobs begin on one page at most
}
