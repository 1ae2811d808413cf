package network

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWordsAreWithoutWhatALibraryQuotes(t *testing.T) {
	const canary = "hunter2"
	for text, want := range map[string]string{
		fmt.Sprintf("malformed %q here", canary):                                    "malformed … here",
		fmt.Sprintf("malformed %q here", "a\""+canary+"\"b"):                        "malformed … here",
		fmt.Sprintf("malformed %q here", "a\\"):                                     "malformed … here",
		fmt.Sprintf("because of %q for %q", fmt.Sprintf("%q", canary), canary+"\""): "because of … for …",
		"malformed `" + canary + "\\` here":                                         "malformed … here",
		fmt.Sprintf("malformed %.12q", "abcdefghijk\""+canary) + "\x00\n":           "malformed …",
		"tls: client offered only unsupported versions: [301]":                      "tls: client offered only unsupported versions: [301]",
		"cut off in \"" + canary:                                                    "cut off in ",
	} {
		got := words(errors.New(text))
		assert.Equal(t, want, got)
		assert.NotContains(t, got, canary)
	}
}
