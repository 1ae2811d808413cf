package histories

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// found keeps what a Reader finds, as text.
type found struct {
	values, left, rejected []string
	last                   []Value
}

func (f *found) Value(v Value) {
	f.last = append(f.last, v)
	f.values = append(f.values, fmt.Sprintf("%d: %s %s %s = %v", v.Line, time.UnixMilli(v.Time).UTC().Format("2006-01-02T15:04:05.000"), v.Series.Device, v.Series.Metric, v.Value))
}

func (f *found) Leave(source, why string) { f.left = append(f.left, source+": "+why) }

func (f *found) Reject(line int64, _ []byte, why string) {
	f.rejected = append(f.rejected, fmt.Sprintf("%d: %s", line, why))
}

// readAll reads a Reader to its end.
func readAll(t testing.TB, r Reader) *found {
	t.Helper()
	f := &found{}
	for {
		err := r.Next(f)
		if errors.Is(err, io.EOF) {
			return f
		}
		require.NoError(t, err)
	}
}

func readText(t testing.TB, format Format, text string, o Options) *found {
	t.Helper()
	r, err := NewText(format, strings.NewReader(text), Place{}, o)
	require.NoError(t, err)
	return readAll(t, r)
}

func TestReadingGoesOnFromEveryPlace(t *testing.T) {
	for format, text := range map[Format]string{
		CSV: "\ufefftime;device;temp;ph\r\n2024-01-01T00:00:00Z;a;20,5;\r\n\r\nbad\r\n2024-01-01T00:05:00Z;b;21;7\r\n2024-01-01T00:10:00Z;b;22;7",
		JSON: "[\n {\"time\":\"2024-01-01T00:00:00.000Z\",\"device\":\"a\",\"metric\":\"ph\",\"value\":6.5},\n x,\n" +
			" {\"time\":\"2024-01-01T00:05:00.000Z\",\"device\":\"a\",\"metric\":\"ph\",\"value\":6.6}\n]\n",
		Influx: "# DDL\nCREATE DATABASE a\n# DML\n# CONTEXT-DATABASE:_internal\nruntime,host=a x=1 1704067200000000000\n# CONTEXT-DATABASE:home\n" +
			"air,device=a text=\"two\nlines\",t=20.5 1704067200000000000\nbad\nair,device=a t=21 1704067500000000000\n",
		ThingSpeak: "created_at,entry_id,field1,status\n2024-01-01 00:00:00 UTC,1,20.5,\n2024-01-01 00:05:00 UTC,2,21,ok\n",
	} {
		o := Options{}
		if format == ThingSpeak {
			o.Device = "=a"
		}
		whole := readText(t, format, text, o)
		require.GreaterOrEqual(t, len(whole.values), 2, format)
		r, err := NewText(format, strings.NewReader(text), Place{}, o)
		require.NoError(t, err)
		before := &found{}
		for r.Next(before) == nil {
			place := r.Place()
			again, err := NewText(format, strings.NewReader(text[place.Offset:]), place, o)
			require.NoError(t, err)
			rest := readAll(t, again)
			assert.Equal(t, whole.values, append(append([]string{}, before.values...), rest.values...), "%s from %+v", format, place)
			assert.Equal(t, whole.rejected, append(append([]string(nil), before.rejected...), rest.rejected...), "%s from %+v", format, place)
		}
	}
}

func TestFormatsAreRecognised(t *testing.T) {
	for text, want := range map[string]Format{
		"time,device,metric,value\n":                                     CSV,
		"Datum;Temperatur\n01.02.2024 00:00;5\n":                         CSV,
		"a,b,c\n1,2,3\n":                                                 "",
		"[\n {\"time\":1}\n]\n":                                          JSON,
		"{\"time\":1}\n":                                                 JSON,
		"# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262\n# DDL\n":        Influx,
		"air,device=a t=20.5 1704067200000000000\nair,device=a t=1 17\n": Influx,
		"air,device=a t=20.5 1704067200000000000\nbad\nbad\nx\n":         "",
		"created_at,entry_id,field1\n":                                   ThingSpeak,
	} {
		got, err := Detect([]byte(text), Options{})
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	got, err := Detect([]byte("a,b,c\n1,2,3\n"), Options{Time: "a"})
	require.NoError(t, err)
	assert.Equal(t, CSV, got)
	for text, want := range map[string]string{
		"": "empty", "PK\x03\x04": "archive", "\xff\xfea\x00": "UTF-16", "#group,false,false\n": "annotated",
	} {
		_, err := Detect([]byte(text), Options{})
		assert.ErrorContains(t, err, want)
		assert.ErrorIs(t, err, ErrOptions)
	}
}

func TestLinesOfAnyLengthAreReadInBoundedMemory(t *testing.T) {
	long := strings.Repeat("x", 3*maxLineBytes)
	f := readText(t, Influx, long+"\nair,device=a t=20.5 1704067200000000000\n"+strings.Repeat(" ", 100_000)+"air,device=a t=2 1704067200000", Options{})
	assert.Equal(t, []string{"1: " + whyLong}, f.rejected)
	assert.Len(t, f.values, 2)
	assert.Equal(t, int64(3), f.last[1].Line)
}
