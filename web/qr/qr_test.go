package qr

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"rsc.io/qr"
)

// The drawing has the modules of the code, dark where it is dark, and the quiet zone around.
func TestTheDrawingIsTheCode(t *testing.T) {
	const text = "https://192.168.1.10:8080/login/once?key=tb-Nkwx8a-chGSqtkehEmYW1H3hkOz1v8QStv-igiwU"
	drawn, err := Terminal(text)
	require.NoError(t, err)
	code, err := qr.Encode(text, qr.L)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
	require.Len(t, lines, (code.Size+2*quiet+1)/2)
	for i, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;107m"), "\x1b[0m")
		modules := []rune(line)
		require.Len(t, modules, code.Size+2*quiet)
		for j, r := range modules {
			x, y := j-quiet, 2*i-quiet
			assert.Equal(t, code.Black(x, y), r == '█' || r == '▀', "%d,%d", x, y)
			assert.Equal(t, code.Black(x, y+1), r == '█' || r == '▄', "%d,%d", x, y+1)
		}
	}
	assert.LessOrEqual(t, code.Size+2*quiet, 80, "it fits into a terminal")
	_, err = Terminal(strings.Repeat("x", 5000))
	require.Error(t, err)
}
