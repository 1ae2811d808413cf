package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/config"
)

// README's table of settings is the one of package config.
func TestReadmeListsEverySetting(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "| Key | Default | Environment | Meaning |\n|---|---|---|---|\n")
	require.True(t, found, "README has the head of the table")
	table, _, found := strings.Cut(rest, "\n\n")
	require.True(t, found)

	var want []string
	for _, key := range config.Keys() {
		def := ""
		if key.Default != "" {
			def = "`" + key.Default + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | `%s` | %s |", key.Path, def, strings.Join(key.Env, "` `"), key.Meaning))
	}
	require.Equal(t, strings.Join(want, "\n"), table)
}
