package payload

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNumber(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "-0": 0, "3.91": 3.91, " 21.5": 21.5, "+50.0 ": 50, ".5": 0.5, "5.": 5, "-.5": -0.5, "1e3": 1000, "1E-2": 0.01, "+1.5e+2": 150,
		"07.5": 7.5, "0.10": 0.1, "100.00": 100, "\t7\r\n": 7, "9007199254740992": 1 << 53, "-9007199254740994": -(1<<53 + 2),
		"0.12345678901234567890": 0.12345678901234567890, "1e22": 1e22, "10000000000000000000000": 1e22, "9007199254740994.0": 1<<53 + 2,
		"0e999": 0, "0.000": 0,
	} {
		got, ok := Number([]byte(text))
		assert.True(t, ok, "%q", text)
		assert.InDelta(t, want, got, 0, "%q", text)
	}
	for text, why := range map[string]string{
		"": notANumber, " ": notANumber, "21,5": notANumber, "1,234": notANumber, "1 234": notANumber, "21.5C": notANumber, "22.5 C": notANumber,
		"nan": notANumber, "inf": notANumber, "-Infinity": notANumber, "0x1A": notANumber, "0x1p-2": notANumber, "1_000": notANumber, "1e": notANumber,
		"1e+": notANumber, ".": notANumber, "+": notANumber, "-": notANumber, "1.2.3": notANumber, "--1": notANumber, "007": notANumber, "00": notANumber,
		"٣": notANumber, "−5": notANumber, "1f": notANumber, "5%": notANumber, "ON": notANumber,
		"1e999": tooLarge, "-1e400": tooLarge, strings.Repeat("9", 400): tooLarge,
		"9007199254740993": tooManyBits, "-9007199254740993": tooManyBits, "18446744073709551615": tooManyBits, "9007199254740993.0": tooManyBits,
		"9007199254740992.5": tooManyBits, "1e-400": tooManyBits,
	} {
		_, got := number([]byte(text))
		assert.Equal(t, why, got, "%q", text)
	}
}

// FuzzNumber states: what is read is finite and is what strconv reads; a number in JSON is refused only when a float64 does
// not hold it.
func FuzzNumber(f *testing.F) {
	for _, seed := range []string{"1", "-0.5e+3", " .5", "5.", "1e999", "9007199254740993", "1e-400", "0x1", "1_0", "nan", "007", "21,5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, why := number([]byte(text))
		want, err := strconv.ParseFloat(strings.Trim(text, " \t\r\n"), 64)
		if why == "" {
			require.NoError(t, err)
			require.Equal(t, math.Float64bits(want), math.Float64bits(got))
			require.False(t, math.IsInf(got, 0) || math.IsNaN(got))
			return
		}
		if inJSON := json.Valid([]byte(text)) && strings.ContainsAny(text[:1], "-0123456789 \t\r\n") && err == nil; inJSON {
			require.True(t, why == tooManyBits && (math.Abs(want) >= 1<<53 || want == 0), why)
		}
	})
}
