// Package qr draws QR codes where people look at them.
package qr

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the margin that readers need, in modules [ISO/IEC 18004, 9.1].
const quiet = 4

// Terminal draws text as a QR code of half blocks, two modules above each other in a character. Colours are set, since readers want dark on
// light and terminals are mostly the other way round.
func Terminal(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("draw a QR code of %d bytes: %w", len(text), err)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), nil
}
