package payload

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTrim(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "\x00": "", "\ufeff{}": "{}", "{}\x00\x00": "{}", " \r\n{}\n\x00 \x00\n": "{}", "\ufeff \x00": "", "a\x00b": "a\x00b", "{}\ufeff": "{}\ufeff",
	} {
		assert.Equal(t, want, string(Trim([]byte(in))), "%q", in)
	}
}

func TestRepair(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":nan}`:                        `{"a":"nan"}`,
		`{"a": NaN , "b":1}`:               `{"a": "NaN" , "b":1}`,
		`{"a":-inf,"b":[+INF,Infinity,1]}`: `{"a":"-inf","b":["+INF","Infinity",1]}`,
		`{"a":-nan(ind),"b":1.#QNAN}`:      `{"a":"-nan(ind)","b":"1.#QNAN"}`,
		`{"a":ovf,"b":undefined,"c":None}`: `{"a":"ovf","b":"undefined","c":"None"}`,
		`{"a":"x\":nan","b":nan}`:          `{"a":"x\":nan","b":"nan"}`,
		"{\"a\":nan}\n{\"a\":2}":           "{\"a\":\"nan\"}\n{\"a\":2}",
		`[nan,nan]`:                        `["nan","nan"]`,
		`{"a":nan`:                         `{"a":"nan"`,
	} {
		got, changed := Repair([]byte(in))
		assert.True(t, changed, in)
		assert.Equal(t, want, string(got))
	}
	for _, in := range []string{
		``, `{}`, `{"a":1}`, `{"nan":1}`, `{"a":"nan"}`, `{"a":1,nan:2}`, `{"a":banana}`, `{"a":nano}`, `{"a":0x1p-2}`, `{"a":nan nan}`, `{"a":1nan}`,
		`{"a":--nan}`, `{"a":01}`, `{"a":":nan`, `{"a":true}`, `{"a":null}`,
	} {
		got, changed := Repair([]byte(in))
		assert.False(t, changed, in)
		assert.Equal(t, in, string(got))
	}
}

// FuzzRepair states: JSON is left alone, and a repair adds nothing but quotes.
func FuzzRepair(f *testing.F) {
	for _, seed := range []string{`{"a":nan}`, `{"a":"x\":nan","b":-inf}`, `[NaN,1]`, `{"a":"\`, `nan`, `{"a":1,nan:2}`, `[-1.#IND]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out, changed := Repair(in)
		require.Equal(t, before, in)
		require.False(t, changed && json.Valid(in))
		require.Equal(t, changed, !bytes.Equal(in, out))
		quotes := []byte(`"`)
		require.Equal(t, string(bytes.ReplaceAll(in, quotes, nil)), string(bytes.ReplaceAll(out, quotes, nil)))
	})
}

func TestWhatIsNoJSONIsSaidInWords(t *testing.T) {
	for text, want := range map[string]string{
		"hello":                  "not JSON: unexpected 'h'",
		"{'a':1}":                `not JSON: unexpected '\''`,
		`{"a":1,}`:               "not JSON: unexpected '}'",
		`{"a":21.5°}`:            "not JSON: unexpected '°'",
		"{\"a\":\"\x01\"}":       `not JSON: unexpected '\x01'`,
		`{"a":1`:                 "not JSON: it ends too early",
		strings.Repeat("[", 2e4): "not JSON: nested too deeply",
	} {
		assert.Equal(t, want, problem([]byte(text)), "%.20s", text)
	}
}
