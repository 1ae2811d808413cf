package export

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/cmd/plantops/intake"
	"github.com/plantops/plantops/cmd/plantops/listing"
	"github.com/plantops/plantops/control"
	"github.com/plantops/plantops/store"
	"github.com/plantops/plantops/store/history"
	"github.com/plantops/plantops/store/storetest"
)

const noon = int64(1_767_787_200_000) // 2026-01-07T12:00:00Z

// filled is a store with names and values that are hard to write.
func filled(t *testing.T) *store.Store {
	t.Helper()
	// Compressed readings have how long they were on their way to a tenth of a second, and when they are compressed nobody knows.
	s := storetest.Open(t)
	var batch []store.Message
	for i := range int64(1200) {
		batch = append(batch, store.Message{Device: "bed-1", Topic: "t", Time: noon + i*1001, Received: noon + i*1001 + 100,
			Values: []store.Value{{Metric: "ph", Value: float64(i) / 100}}})
	}
	batch = append(batch,
		store.Message{Device: `the "big", bed=2`, Topic: "t", Time: noon - 1, Received: noon, Values: []store.Value{{Metric: `a "b", c=d\e`, Value: -0.1}, {Metric: "value", Value: 1e-7}, {Metric: "z", Value: math.MaxFloat64}}},
		store.Message{Device: "bed-1", Topic: "t", Time: noon, Received: noon + 100, Values: []store.Value{{Metric: "ec", Value: 5}}},
		store.Message{Device: `C:\beet`, Topic: "t", Time: noon, Received: noon, Values: []store.Value{{Metric: "smallest", Value: math.SmallestNonzeroFloat64}}},
		store.Message{Device: "late", Topic: "t", TimeSource: store.FromArrivalImpossible, Given: "yester\"day", Received: noon + 100, Values: []store.Value{{Metric: "ph", Value: 7}}})
	_, err := s.Append(t.Context(), batch, nil)
	require.NoError(t, err)
	return s
}

func stock(t *testing.T, s *store.Store) (list []store.Reading) {
	t.Helper()
	for r, err := range s.Readings(t.Context(), store.Query{}) {
		require.NoError(t, err)
		list = append(list, r)
	}
	return list
}

func devices(t *testing.T, s *store.Store) (names []string) {
	t.Helper()
	all, err := s.Devices(t.Context())
	require.NoError(t, err)
	for _, d := range all {
		names = append(names, d.ID)
	}
	return names
}

// What is exported in any format and imported again is what it was, to the last bit.
func TestEachFormatComesBackAsItWas(t *testing.T) {
	from := filled(t)
	want := stock(t, from)
	for format, received := range map[Format]bool{CSV: false, JSON: true, Influx: false, Parquet: true, SQLite: true} {
		path := filepath.Join(t.TempDir(), "export")
		part, file, err := Begin(path, false, format)
		require.NoError(t, err)
		o := Options{From: history.Fresh(from.View), Query: history.Query{Devices: devices(t, from)}, Format: format, Path: part.Path}
		if file != nil {
			o.To = file
		}
		result, err := Run(t.Context(), o)
		require.NoError(t, err, format)
		assert.Equal(t, Result{Readings: int64(len(want)), Devices: 4}, result, format)
		require.NoError(t, part.Finish())
		part.Drop()

		to := storetest.Open(t)
		report, err := intake.Run(t.Context(), intake.Options{Path: path, Target: control.New(control.Options{Store: to}), Now: time.UnixMilli(noon).AddDate(1, 0, 0)})
		require.NoError(t, err, format)
		assert.Zero(t, report.Rejected, "%s %v", format, report.Shown)
		assert.Equal(t, int64(len(want)), report.Stored, format)
		got := stock(t, to)
		require.Len(t, got, len(want), format)
		for i, r := range got {
			w := want[i]
			w.TimeSource, w.Given = store.FromDevice, "" // it is a time that was given now
			if !received {
				w.Received, r.Received = 0, 0
			}
			require.Equal(t, w, r, format)
		}
	}
}

func TestTextIsThatOfReadings(t *testing.T) {
	from := filled(t)
	query := history.Query{Devices: []string{"late", `the "big", bed=2`}}
	for format, listed := range map[Format]string{CSV: "csv", JSON: "json"} {
		var got, want strings.Builder
		_, err := Run(t.Context(), Options{From: history.Fresh(from.View), Query: query, Format: format, To: &got})
		require.NoError(t, err)
		w := listing.NewWriter(listing.Options{Format: listed, Endless: format == JSON}, &want)
		require.NoError(t, w.Begin())
		for _, device := range query.Devices {
			for r, err := range from.Readings(t.Context(), store.Query{Devices: []string{device}}) {
				require.NoError(t, err)
				require.NoError(t, w.Write(r))
			}
		}
		require.NoError(t, w.End())
		if format == CSV {
			assert.Equal(t, want.String(), got.String())
			continue
		}
		wantLines := strings.Split(want.String(), "\n")
		for i, line := range strings.Split(got.String(), "\n") {
			if line != "" {
				var a, b map[string]any
				require.NoError(t, json.Unmarshal([]byte(line), &a))
				require.NoError(t, json.Unmarshal([]byte(wantLines[i]), &b))
				assert.Equal(t, b, a)
			}
		}
	}
}

func TestOnlyWhatIsAskedForIsWritten(t *testing.T) {
	from := filled(t)
	var out strings.Builder
	result, err := Run(t.Context(), Options{From: history.Fresh(from.View), Format: Influx, To: &out,
		Query: history.Query{Devices: []string{"bed-1", "late"}, Metrics: []string{"ph"}, From: noon + 1001, To: noon + 2003}})
	require.NoError(t, err)
	assert.Equal(t, "plantops,device=bed-1 ph=0.01 1767787201001000000\nplantops,device=bed-1 ph=0.02 1767787202002000000\n", out.String())
	assert.Equal(t, Result{Readings: 2, Devices: 1}, result)
	_, err = Run(t.Context(), Options{From: history.Fresh(from.View), Format: CSV, To: &out, Query: history.Query{Devices: []string{"nobody"}}})
	assert.ErrorIs(t, err, history.ErrNotFound)
}

func TestNamesThatAFormatCannotWriteAreTold(t *testing.T) {
	from := storetest.Open(t)
	_, err := from.Append(t.Context(), []store.Message{{Device: `end\`, Topic: "t", Time: noon, Received: noon, Values: []store.Value{{Metric: "ph", Value: 1}}},
		{Device: "a", Topic: "t", Time: noon, Received: noon, Values: []store.Value{{Metric: "two\nlines", Value: 1}, {Metric: "ph", Value: 2}}}}, nil)
	require.NoError(t, err)
	for format, want := range map[Format][]string{Influx: {"two\nlines", `end\`}, CSV: {"two\nlines"}, JSON: nil} {
		var out strings.Builder
		result, err := Run(t.Context(), Options{From: history.Fresh(from.View), Format: format, To: &out, Query: history.Query{Devices: []string{"a", `end\`}}})
		require.NoError(t, err)
		assert.Equal(t, want, result.Unnamed, format)
		assert.Equal(t, int64(3-len(want)), result.Readings)
	}
}

func TestFileHasItsNameOnlyWhenItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.csv")
	require.NoError(t, os.WriteFile(path+partSuffix, []byte("left by a kill"), 0o600))
	part, file, err := Begin(path, false, CSV)
	require.NoError(t, err)
	_, err = fmt.Fprint(file, "whole")
	require.NoError(t, err)
	assert.NoFileExists(t, path)
	require.NoError(t, part.Finish())
	part.Drop()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "whole", string(text))

	_, _, err = Begin(path, false, CSV)
	assert.ErrorIs(t, err, fs.ErrExist)
	part, _, err = Begin(path, true, CSV)
	require.NoError(t, err)
	part.Drop()
	assert.NoFileExists(t, path+partSuffix)
	assert.FileExists(t, path)
}

func TestTimesAreThoseOfMoment(t *testing.T) {
	var c clock
	for _, ms := range []int64{0, -1, noon, noon + 1, noon + dayMillis - 1, 253402300799999, -62135596800000, 1709164799999, 1709251200000} {
		assert.Equal(t, control.Moment(ms).String(), string(c.append(nil, ms)), ms)
	}
}

func BenchmarkText(b *testing.B) {
	build := &history.Builder{}
	build.Begin("bed-1")
	for i := range int64(4096) {
		build.Row(noon+i*300_000, noon+i*300_000+50, 0, "")
		for m, name := range []string{"humidity", "ph", "soil_moisture", "temperature"} {
			build.Value(name, float64(2000+int(i)%700+m)/100)
		}
	}
	c := build.Chunk()
	for _, format := range []Format{CSV, JSON, Influx} {
		b.Run(string(format), func(b *testing.B) {
			out, err := newText(format, discard{}, &Result{})
			require.NoError(b, err)
			var n int64
			for b.Loop() {
				wrote, err := out.chunk(c)
				require.NoError(b, err)
				n += wrote
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/reading")
		})
	}
}

// BenchmarkRun exports a week of a hundred devices as CSV, from the store to a file, and reports lines a second.
func BenchmarkRun(b *testing.B) {
	const size, messages = 100, 100 * 7 * 288
	from := time.UnixMilli(noon)
	fleet := storetest.NewFleet(size, from, 5*time.Minute)
	s := storetest.OpenWith(b, fleet.Options(""))
	require.NoError(b, fleet.Fill(b.Context(), s, messages, 1000))
	require.NoError(b, s.Flush(b.Context()))
	names := make([]string, size)
	for i := range names {
		names[i] = storetest.DeviceName(i)
	}
	lines := int64(0)
	for b.Loop() {
		file, err := os.Create(filepath.Join(b.TempDir(), "export.csv"))
		require.NoError(b, err)
		r, err := Run(b.Context(), Options{From: history.Fresh(s.View), Query: history.Query{Devices: names}, Format: CSV, Path: file.Name(), To: file})
		require.NoError(b, err)
		require.NoError(b, file.Close())
		lines += r.Readings
	}
	b.ReportMetric(float64(lines)/b.Elapsed().Seconds(), "lines/s")
}

// discard takes bytes and does nothing.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
