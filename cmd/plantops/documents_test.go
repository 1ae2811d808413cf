package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/plantops/plantops/config"
)

const (
	repository  = "../.."
	readmeWords = 2000
)

// document returns a document of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	require.NoError(t, err)
	return string(text)
}

// documents are all that people write and read, by their path in the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(filepath.Join(repository, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			name, err := filepath.Rel(repository, path)
			require.NoError(t, err)
			all[filepath.ToSlash(name)] = document(t, name)
		}
	}
	return all
}

var (
	fenced     = regexp.MustCompile("(?ms)^(`{3,})[^`\n]*\n.*?^`{3,}$")
	inlineCode = regexp.MustCompile("`[^`\n]+`")
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	// filePath is what names a file of the repository in inline code: with a folder and an extension.
	filePath   = regexp.MustCompile("`((?:\\.ci|broker|certs|cmd|config|control|deploy|docs|ingest|store)/[\\w./-]+\\.(?:go|md|sh|yaml|yml|service|sql|txtar|dockerignore))`")
	makeTarget = regexp.MustCompile("`make(?: ([a-z0-9-]+))?`")
)

// README is for a grower. What is longer belongs into docs/.
func TestReadmeIsShort(t *testing.T) {
	assert.LessOrEqual(t, len(strings.Fields(document(t, "README.md"))), readmeWords, "words in README.md")
}

func TestLinksInDocumentsResolve(t *testing.T) {
	all := documents(t)
	for name, text := range all {
		for _, match := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(fenced.ReplaceAllString(text, ""), ""), -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := name
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
				assert.FileExists(t, filepath.Join(repository, to), "%s links to %s", name, match[1])
			}
			if anchor != "" {
				assert.Contains(t, anchors(all[to]), anchor, "%s links to %s", name, match[1])
			}
		}
	}
}

// anchors are those of a document's headings, as the forge makes them.
func anchors(text string) []string {
	var found []string
	for _, match := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		found = append(found, strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-"))
	}
	return found
}

// A document that README does not lead to is not found by anybody.
func TestReadmeLeadsToEveryDocument(t *testing.T) {
	readme := document(t, "README.md")
	for name := range documents(t) {
		if name != "README.md" {
			assert.True(t, strings.Contains(readme, "]("+name+")"), "README.md links to %s", name)
		}
	}
}

func TestFilesThatDocumentsNameAreThere(t *testing.T) {
	for name, text := range documents(t) {
		if name == "CHANGELOG.md" || name == "THIRD_PARTY_NOTICES.md" { // what was, and what others wrote
			continue
		}
		for _, match := range filePath.FindAllStringSubmatch(text, -1) {
			assert.FileExists(t, filepath.Join(repository, match[1]), "%s names it", name)
		}
	}
}

// README names every target of the Makefile with a word on what it does, and no other; so does `make help`.
func TestReadmeNamesEveryMakeTarget(t *testing.T) {
	makefile := document(t, "Makefile")
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(makefile)
	require.NotNil(t, phony)
	targets := strings.Fields(phony[1])
	for _, target := range targets {
		assert.True(t, regexp.MustCompile(`(?m)^`+target+`:.*## \S`).MatchString(makefile), "`make help` has a line for %s", target)
	}
	_, rest, found := strings.Cut(document(t, "README.md"), "\n## The make commands\n")
	require.True(t, found)
	section, _, _ := strings.Cut(rest, "\n## ")
	named := []string{}
	for _, match := range makeTarget.FindAllStringSubmatch(section, -1) {
		if match[1] != "" {
			named = append(named, match[1])
		}
	}
	assert.ElementsMatch(t, targets, named)
	for name, text := range documents(t) {
		for _, match := range makeTarget.FindAllStringSubmatch(text, -1) {
			if match[1] != "" && name != "THIRD_PARTY_NOTICES.md" {
				assert.Contains(t, targets, match[1], "%s names `make %s`", name, match[1])
			}
		}
	}
}

// The table of settings is the one of package config.
func TestEverySettingIsDocumented(t *testing.T) {
	_, rest, found := strings.Cut(document(t, "docs/settings.md"), "| Key | Unit | Default | Environment | Meaning |\n|---|---|---|---|---|\n")
	require.True(t, found, "docs/settings.md has the head of the table")
	table, _, found := strings.Cut(rest, "\n\n")
	require.True(t, found)

	var want []string
	for _, key := range config.Keys() {
		def := ""
		if key.Default != "" {
			def = "`" + key.Default + "`"
		}
		env := ""
		if len(key.Env) > 0 {
			env = "`" + strings.Join(key.Env, "` `") + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s | %s |", key.Path, key.Unit, def, env, key.Meaning))
	}
	require.Equal(t, strings.Join(want, "\n"), table)
}

// docs/commands.md has a row for every command, with every flag that the command has beside those of all.
func TestEveryCommandIsDocumented(t *testing.T) {
	rows := map[string]string{} // by the words of the command
	row := regexp.MustCompile("(?m)^\\| `(plantops [a-z]+(?: [a-z]+)?)[^`]*` \\|([^|]*)\\|")
	for _, match := range row.FindAllStringSubmatch(document(t, "docs/commands.md"), -1) {
		rows[match[1]] = match[2]
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() && cmd.Name() != "completion" {
			for _, child := range cmd.Commands() {
				if child.Name() != "help" {
					walk(child)
				}
			}
			return
		}
		flags, found := rows[cmd.CommandPath()]
		if !assert.True(t, found, "%s has a row", cmd.CommandPath()) {
			return
		}
		delete(rows, cmd.CommandPath())
		var want []string
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				want = append(want, "`--"+f.Name+"`")
			}
		})
		assert.ElementsMatch(t, want, strings.Fields(flags), cmd.CommandPath())
	}
	walk(newRoot(&app{now: time.Now}))
	assert.Empty(t, rows, "commands that there are not")
}

// docs/architecture.md has a row for every package of the program, with those that arrows lets it know.
func TestEveryPackageIsDocumented(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", ".").Output()
	require.NoError(t, err)
	packages := slices.DeleteFunc(strings.Split(string(out), "\n"), func(path string) bool { return path == "" })
	require.NotEmpty(t, packages)
	architecture := document(t, "docs/architecture.md")
	for _, path := range packages {
		name := strings.TrimPrefix(path, module+"/")
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(name) + "` \\|.*\\| ([^|]*) \\|$").FindStringSubmatch(architecture)
		if !assert.NotNil(t, row, "docs/architecture.md has a row for %s", name) {
			continue
		}
		known := []string{}
		for _, other := range inlineCode.FindAllString(row[1], -1) {
			known = append(known, strings.Trim(other, "`"))
		}
		assert.ElementsMatch(t, arrows[name], known, "docs/architecture.md says whom %s knows", name)
		assert.Equal(t, len(known) == 0, row[1] == "none", "docs/architecture.md says whom %s knows: %s", name, row[1])
	}
}

// What "My device cannot connect" in README tells about are refusals that there are, in the words that people see.
func TestReadmeUsesTheWordsOfRefusals(t *testing.T) {
	var source strings.Builder
	require.NoError(t, filepath.WalkDir(filepath.Join(repository, "broker"), func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		source.Write(text)
		return err
	}))
	_, rest, found := strings.Cut(document(t, "README.md"), "\n| Refused for | Do |\n|---|---|\n")
	require.True(t, found)
	table, _, _ := strings.Cut(rest, "\n\n")
	words := 0
	for row := range strings.Lines(table) {
		for _, word := range inlineCode.FindAllString(strings.Split(row, " | ")[0], -1) {
			assert.True(t, strings.Contains(source.String(), `"`+strings.Trim(word, "`")+`"`), "%s is in package broker or below", word)
			words++
		}
	}
	assert.Greater(t, words, 10)
}
